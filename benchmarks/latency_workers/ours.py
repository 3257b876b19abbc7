"""Measure one of our networks. ``latency.py`` runs it, in a process of its own."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
import warnings

import numpy as np
import torch
from concrete import fhe

from cipherlearn import NeuralNetClassifier

P_ERROR = 2**-40


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def floor_seconds(n_bootstraps: int, n_bits: int, repeats: int) -> float:
    """Time a bare circuit that looks as many encrypted numbers up, and does nothing else."""
    table = fhe.LookupTable([i % 4 for i in range(2**n_bits)])
    compiler = fhe.Compiler(lambda x: table[x], {"x": "encrypted"})
    inputset = [np.full(n_bootstraps, value) for value in (0, 2**n_bits - 1)]
    configuration = fhe.Configuration(
        p_error=P_ERROR, compress_evaluation_keys=True, compress_input_ciphertexts=True
    )
    circuit = compiler.compile(inputset, configuration)
    circuit.keygen()
    seconds = []
    for _ in range(repeats + 1):
        ciphertext = circuit.encrypt(np.zeros(n_bootstraps, dtype=np.int64))
        seconds.append(timed(circuit.run, ciphertext)[1])
    return statistics.median(seconds[1:])


def run_batches(circuit, codes) -> tuple[list[np.ndarray], list[float]]:
    """Decrypted sums of each batch, and the seconds of the server's part."""
    sums, seconds = [], []
    for start in range(0, len(codes), circuit.batch_size):
        ciphertext = circuit.encrypt(codes[start : start + circuit.batch_size])
        result, elapsed = timed(circuit.run, ciphertext)
        sums.append(circuit.decrypt(result))
        seconds.append(elapsed)
    return sums, seconds


def main() -> None:
    task = json.load(sys.stdin)
    data = {name: np.array(values) for name, values in task["data"].items()}
    model = NeuralNetClassifier(random_state=0, **task["settings"])
    torch.set_num_threads(1)  # more only slow so small a network down
    model.fit(data["X_train"], data["y_train"])
    program, cost = model.program_, model.estimate(rounding=task["rounding"])
    n_rows = task["rows"]
    rows, labels = data["X_test"][:n_rows], data["y_test"][:n_rows]
    codes = program.quantize(rows)

    circuit, compile_seconds = timed(lambda: model.compile(rounding=task["rounding"]))
    _, keygen_seconds = timed(circuit.keygen)
    circuit.execute(codes[:1])  # the first call unpacks the keys
    # The bare circuit in between, since other work on the machine comes and goes.
    first, first_seconds = run_batches(circuit, codes[: n_rows // 2])
    floor = None
    if program.n_bootstraps:
        floor = floor_seconds(program.n_bootstraps, program.layers[0].n_table_bits, 9)
    second, second_seconds = run_batches(circuit, codes[n_rows // 2 :])
    sums = np.concatenate(first + second)
    encrypted = model.classes_[program.dequantize(sums).argmax(axis=1)]
    input_bytes, output_bytes = circuit.ciphertext_sizes()
    key_bytes, flip_rate = len(circuit.evaluation_keys()), circuit.flip_rate

    batch = model.compile(rounding=task["rounding"], batch_size=task["batch"])
    batch.execute(codes[: task["batch"]])
    _, batch_seconds = run_batches(batch, codes[: 3 * task["batch"]])
    many = np.random.default_rng(0).integers(0, len(data["X_test"]), 1000)
    X_many, y_many = data["X_test"][many], data["y_test"][many]
    simulated = model.predict(X_many, execute_in_fhe="simulate")
    result = {
        "clear_accuracy": model.score(data["X_test"], data["y_test"]),
        "encrypted_accuracy": float((encrypted == labels).mean()),
        "encrypted_equals_clear": float((encrypted == model.predict(rows)).mean()),
        "simulated_minus_clear": float((simulated == y_many).mean()) - model.score(X_many, y_many),
        "flip_rate": flip_rate,
        "rows": n_rows,
        "seconds": statistics.median(first_seconds + second_seconds),
        "batch_seconds": statistics.median(batch_seconds) / task["batch"],
        "estimated_seconds": cost.seconds,
        "floor_seconds": floor,
        "compile_seconds": compile_seconds,
        "keygen_seconds": keygen_seconds,
        "key_bytes": key_bytes,
        "ciphertext_bytes": input_bytes + output_bytes,
        "bootstraps": circuit.n_bootstraps,
        "peak_memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
