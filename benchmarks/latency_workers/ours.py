"""Measure one of our networks. ``latency.py`` runs it, in a process of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings

import numpy as np
import torch
from report import call_seconds

from cipherlearn import NeuralNetClassifier


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def main() -> None:
    task = json.load(sys.stdin)
    data = dict(np.load(task["data"]))
    X_test, y_test, rounding = data["X_test"], data["y_test"], task["rounding"]
    model = NeuralNetClassifier(random_state=0, **task["settings"])
    torch.set_num_threads(1)  # more only slow so small a network down
    model.fit(data["X_train"], data["y_train"])
    circuit, compile_seconds = timed(lambda: model.compile(rounding=rounding))
    _, keygen_seconds = timed(circuit.keygen)
    rows, labels = X_test[: task["rows"]], y_test[: task["rows"]]
    encrypted = model.predict(rows, execute_in_fhe=True)
    peak_memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = np.random.default_rng(0).integers(0, len(X_test), 1000)
    simulated = model.predict(X_test[many], execute_in_fhe="simulate")
    codes = model.program_.quantize(X_test)
    result = call_seconds(model.program_, codes[:1], task["repeats"], rounding)
    batch = call_seconds(model.program_, codes[: task["batch"]], 3, rounding)
    seconds, floor = result.pop("kernels"), result.pop("floor")
    stages = ("bootstraps", "keyswitches", "masks")
    result |= {f"{stage}_share": result.pop(stage) / seconds for stage in stages}
    result |= {
        "seconds": seconds,
        "floor_ratio": seconds / floor if floor else None,
        "batch_seconds": batch["kernels"] / task["batch"],
        "clear_accuracy": model.score(X_test, y_test),
        "encrypted_accuracy": float((encrypted == labels).mean()),
        "encrypted_equals_clear": float((encrypted == model.predict(rows)).mean()),
        "simulated_minus_clear": float((simulated == y_test[many]).mean())
        - model.score(X_test[many], y_test[many]),
        "rows": len(rows),
        "compile_seconds": compile_seconds,
        "keygen_seconds": keygen_seconds,
        "key_bytes": len(circuit.evaluation_keys()),
        "ready_key_bytes": circuit._compiled().server.key_bytes,
        "ciphertext_bytes": sum(circuit.ciphertext_sizes()),
        "bootstraps": circuit.n_bootstraps,
        "peak_memory": peak_memory,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
