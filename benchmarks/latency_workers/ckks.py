"""Measure a network of square activations in TenSEAL (CKKS). ``latency.py`` runs it."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time

import numpy as np
import tenseal


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def make_context():
    # Three products in a row: two layers, and the square between them. 128 bits of security.
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [40, 26, 26, 26, 40])
    context.global_scale = 2**26
    context.generate_galois_keys()
    return context


def main() -> None:
    task = json.load(sys.stdin)
    data = np.load(task["data"])
    X, y = data["X_test"], data["y_test"]
    W1, b1, W2, b2 = (np.array(values).tolist() for values in task["weights"])
    context, keygen_seconds = timed(make_context)

    def evaluate(encrypted):
        hidden = encrypted.mm(W1) + b1
        return hidden.square().mm(W2) + b2

    seconds, labels = [], []
    for row in X[: task["rows"]]:
        encrypted = tenseal.ckks_vector(context, row.tolist())
        result, elapsed = timed(evaluate, encrypted)
        seconds.append(elapsed)
        labels.append(int(np.argmax(result.decrypt())))
    clear = np.argmax((X @ W1 + b1) ** 2 @ np.array(W2) + b2, axis=1)
    n_rows = len(labels)
    print(
        json.dumps(
            {
                "clear_accuracy": float((clear == y).mean()),
                "encrypted_accuracy": float((np.array(labels) == y[:n_rows]).mean()),
                "encrypted_equals_clear": float((np.array(labels) == clear[:n_rows]).mean()),
                "rows": n_rows,
                "seconds": statistics.median(seconds),
                "keygen_seconds": keygen_seconds,
                "key_bytes": len(context.serialize(save_secret_key=False)),
                "ciphertext_bytes": len(encrypted.serialize()) + len(result.serialize()),
                "bootstraps": 0,
                "peak_memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            }
        )
    )


if __name__ == "__main__":
    main()
