"""Measure one of Concrete-ML's networks. ``latency.py`` runs it in Concrete-ML's environment."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
import warnings

import numpy as np
import torch
from concrete.ml.sklearn import NeuralNetClassifier


def timed(function, *arguments, **keywords):
    start = time.perf_counter()
    result = function(*arguments, **keywords)
    return result, time.perf_counter() - start


def main() -> None:
    task = json.load(sys.stdin)
    data = dict(np.load(task["data"]))
    X_train, X_test = (data[name].astype(np.float32) for name in ("X_train", "X_test"))
    settings = dict(task["settings"])
    n_neurons = settings.pop("n_neurons", None)
    if n_neurons is not None:
        # The width is a multiple of the number of features there.
        settings["module__n_hidden_neurons_multiplier"] = n_neurons / X_train.shape[1]
    torch.manual_seed(0)
    model = NeuralNetClassifier(verbose=False, **settings)
    model.fit(X_train, data["y_train"])
    n_rows = task["rows"]
    rows, labels = X_test[:n_rows], data["y_test"][:n_rows]

    circuit, compile_seconds = timed(model.compile, X_train)
    _, keygen_seconds = timed(circuit.keygen, force=True)
    quantized = model.quantize_input(rows)
    circuit.run(circuit.encrypt(quantized[:1]))  # the first call unpacks the keys
    seconds, outputs = [], []
    for i in range(n_rows):
        ciphertext = circuit.encrypt(quantized[i : i + 1])
        result, elapsed = timed(circuit.run, ciphertext)
        seconds.append(elapsed)
        outputs.append(circuit.decrypt(result))
    scores = model.post_processing(model.dequantize_output(np.concatenate(outputs)))
    encrypted = model.classes_[np.argmax(scores, axis=1)]
    clear = model.predict(X_test)
    print(
        json.dumps(
            {
                "clear_accuracy": float((clear == data["y_test"]).mean()),
                "encrypted_accuracy": float((encrypted == labels).mean()),
                "encrypted_equals_clear": float((encrypted == clear[:n_rows]).mean()),
                "rows": n_rows,
                "seconds": statistics.median(seconds),
                "compile_seconds": compile_seconds,
                "keygen_seconds": keygen_seconds,
                "key_bytes": len(circuit.client.evaluation_keys.serialize()),
                "ciphertext_bytes": len(ciphertext.serialize()) + len(result.serialize()),
                "bootstraps": int(circuit.programmable_bootstrap_count),
                "peak_memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            }
        )
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
