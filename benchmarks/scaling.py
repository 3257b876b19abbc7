"""How the time of encrypted prediction grows with neurons, layers and rows of a batch.

    python benchmarks/scaling.py --output benchmarks/results

Circuits of 4-bit sums and 6-bit outputs, whose weights mean nothing, are compiled and timed. Writes
``scaling.md``, with the straight line that fits best through each series, and ``scaling.png``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import matplotlib
import numpy as np
from report import encrypted_environment, header

from cipherlearn import Circuit
from cipherlearn.circuit._cost import Precision, bare_program

HIDDEN = Precision(n_bits=4, lsbs_to_remove=0, norm2=8, largest=3)
OUTPUT = Precision(n_bits=6, lsbs_to_remove=0, norm2=32, largest=0)
N_CODES, N_OUTPUTS, WIDTH = 60, 2, 8
SERIES = {
    "neurons": [8, 16, 32, 64, 128, 256],
    "hidden layers": [0, 1, 2, 3],
    "rows of a batch": [1, 2, 4, 8, 16, 32, 64],
}


def seconds_per_call(counts: list[int], batch_size: int, repeats: int) -> float:
    precisions = (*[HIDDEN] * len(counts), OUTPUT)
    program = bare_program(precisions, counts, N_CODES, N_OUTPUTS)
    circuit = Circuit(program, [8] * len(precisions), batch_size=batch_size)
    codes = program.quantizer.random_codes(batch_size, np.random.default_rng(0))
    circuit.execute(codes)  # the first call unpacks the keys
    seconds = []
    for _ in range(repeats):
        ciphertext = circuit.encrypt(codes)
        start = time.perf_counter()
        result = circuit.run(ciphertext)
        seconds.append(time.perf_counter() - start)
        np.testing.assert_array_equal(circuit.decrypt(result), program.run(codes))
    return statistics.median(seconds)


def measure(name: str, x: int, repeats: int) -> float:
    if name == "neurons":
        return seconds_per_call([x], 1, repeats)
    if name == "hidden layers":
        return seconds_per_call([WIDTH] * x, 1, repeats)
    return seconds_per_call([WIDTH], x, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SERIES), figsize=(11, 3.4), layout="constrained")
    lines = [encrypted_environment(), ""]
    for ax, (name, values) in zip(axes, SERIES.items(), strict=True):
        seconds = [measure(name, value, arguments.repeats) for value in values]
        slope, fixed = np.polyfit(values, seconds, 1, w=1 / np.array(seconds))
        fit = f"{fixed:.3f} s + {slope:.4f} s each"
        lines += [
            *header([name, "seconds a call", "seconds a row"]),
            *(
                f"| {x} | {s:.3f} | {s / x if 'rows' in name else s:.4f} |"
                for x, s in zip(values, seconds, strict=True)
            ),
            "",
            f"Line: {fit}.",
            "",
        ]
        ax.plot(values, seconds, "o")
        ax.plot(values, fixed + slope * np.array(values), label=fit)
        ax.set(xlabel=name, ylabel="seconds a call")
        ax.legend()
        print("\n".join(lines[-len(values) - 5 :]), flush=True)
    (arguments.output / "scaling.md").write_text("\n".join(lines))
    figure.savefig(arguments.output / "scaling.png", dpi=150)


if __name__ == "__main__":
    main()
