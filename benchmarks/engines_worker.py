"""Measure one program on the engine of this environment. ``engines.py`` runs it."""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np

from cipherlearn import Circuit, load_program
from cipherlearn.engines import engine_name


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def main() -> None:
    path, p_error, n_rows = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    X = np.array(json.load(sys.stdin))
    program = load_program(path)
    codes = program.quantize(X)
    bits = [layer.n_accum_bits for layer in program.layers]
    circuit, compile_seconds = timed(lambda: Circuit(program, bits, p_error=p_error))
    _, keygen_seconds = timed(circuit.keygen)
    circuit.run(circuit.encrypt(codes[:1]))  # the first call unpacks the keys
    sums, seconds = [], []
    for code in codes[:n_rows]:
        ciphertext = circuit.encrypt(code[None, :])
        result, elapsed = timed(circuit.run, ciphertext)
        sums.append(circuit.decrypt(result))
        seconds.append(elapsed)
    record = {
        "engine": f"{engine_name()} {version(engine_name())}",
        "versions": {name: version(name) for name in ("numpy", "torch")},
        "clear": program.run(codes).tolist(),
        "encrypted": np.concatenate(sums).tolist(),
        "bootstraps": circuit.n_bootstraps,
        "p_error": circuit.p_error,
        "compile_seconds": compile_seconds,
        "keygen_seconds": keygen_seconds,
        "seconds": statistics.median(seconds),
        "key_bytes": len(circuit.evaluation_keys()),
        "ciphertext_bytes": sum(circuit.ciphertext_sizes()),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
