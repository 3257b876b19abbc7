"""How the time of encrypted prediction grows, on both runtimes, beside its floor and its estimate.

    python benchmarks/scaling.py --output benchmarks/results

Networks whose weights mean nothing are evaluated by the kernels and by the compiled circuit, which
take turns, in one thread and in one for each core. Sums have 4 bits unless they are what grows. The
floor is the time of the bootstraps and keyswitches alone, divided by the threads. Writes
``scaling.md``, with the straight line that fits best through each series of the kernels, and
``scaling.png``.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib
import numpy as np
from report import call_seconds, encrypted_environment, header, row

from cipherlearn import IntegerProgram
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._nodes import Lookup, Sum

N_CODES, WIDTH, LARGEST = 60, 8, 3

# Values of each series, and what network they stand for: neurons of each hidden layer, bits of
# their sums, rows of a batch.
SERIES = {
    "neurons": ([8, 16, 32, 64, 128, 256], lambda x: ([x], 4, 1)),
    "hidden layers": ([0, 1, 2, 3], lambda x: ([WIDTH] * x, 4, 1)),
    "rows of a batch": ([1, 2, 4, 8, 16, 32, 64], lambda x: ([WIDTH], 4, x)),
    "bits of the sums": ([2, 3, 4, 5, 6], lambda x: ([WIDTH], x, 1)),
}
COLUMNS = (
    "kernels, s",
    "compiled, s",
    "times as fast",
    "to the floor",
    "estimated to measured",
    "bootstraps, %",
    "keyswitches, %",
    "masks, %",
    "the rest, %",
)


def network(counts: list[int], n_bits: int) -> IntegerProgram:
    """Make a chain of layers, whose sums take as many 2-bit codes as their bits hold."""
    rng = np.random.default_rng(0)
    nodes: list[Sum | Lookup] = []
    n_inputs = N_CODES
    for n_neurons in counts:
        fan_in = min(n_inputs, (2**n_bits - 1) // LARGEST)
        # Codes that nothing reads would not be computed.
        reads = np.arange(n_neurons * fan_in).reshape(n_neurons, fan_in) % n_inputs
        weights = np.zeros((n_neurons, n_inputs), dtype=int)
        np.put_along_axis(weights, reads, 1, axis=1)
        tables = rng.integers(0, LARGEST + 1, (n_neurons, LARGEST * fan_in + 1))
        nodes.append(Sum((len(nodes),), weights))
        nodes.append(Lookup(len(nodes), tables, np.zeros(n_neurons, dtype=int)))
        n_inputs = n_neurons
    # An output of 6 bits takes 21 codes.
    weights = np.kron(np.eye(-(-n_inputs // 21), dtype=int), np.ones((1, 21), dtype=int))
    nodes.append(Sum((len(nodes),), weights[:, :n_inputs]))
    quantizer = InputQuantizer(N_CODES, np.arange(N_CODES), [[1.0, 2.0, 3.0]] * N_CODES)
    scaler = OutputScaler([1.0] * len(weights), [0.0] * len(weights))
    return IntegerProgram(quantizer, (range(N_CODES),), tuple(nodes), (len(nodes),), scaler)


def measure(name: str, x: int, repeats: int) -> dict[str, float]:
    counts, n_bits, batch_size = SERIES[name][1](x)
    program = network(counts, n_bits)
    codes = program.quantizer.random_codes(batch_size, np.random.default_rng(0))
    return call_seconds(program, codes, repeats)


def cells(result: dict[str, float]) -> list[str]:
    kernels = result["kernels"]
    shares = [result[stage] / kernels for stage in ("bootstraps", "keyswitches", "masks")]
    return [
        f"{kernels:.4f}",
        f"{result['compiled']:.4f}",
        f"{result['compiled'] / kernels:.2f}",
        f"{kernels / result['floor']:.2f}" if result["floor"] else "",
        f"{result['estimated'] / kernels:.2f}",
        *(f"{100 * share:.1f}" for share in (*shares, 1 - sum(shares))),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--values", type=int, default=9, help="of each series, the first ones")
    arguments = parser.parse_args()
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SERIES), figsize=(14, 3.4), layout="constrained")
    lines = [encrypted_environment()]
    for n_threads in sorted({1, os.cpu_count() or 1}):
        # Processes read it when they start.
        os.environ["OMP_NUM_THREADS"] = str(n_threads)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            for ax, (name, (values, _)) in zip(axes, SERIES.items(), strict=True):
                lines += ["", *header([f"{name}, threads: {n_threads}", *COLUMNS])]
                print(*lines[-3:], sep="\n")
                seconds = []
                for x in values[: arguments.values]:
                    result = pool.submit(measure, name, x, arguments.repeats).result()
                    seconds.append(result["kernels"])
                    lines.append(row([str(x), *cells(result)]))
                    print(lines[-1], flush=True)
                x = np.array(values[: arguments.values])
                slope, fixed = np.polyfit(x, seconds, 1, w=1 / np.array(seconds))
                fit = f"{fixed:.3f} s + {slope:.4f} s each"
                lines += ["", f"Line: {fit}."]
                ax.plot(x, seconds, "o")
                ax.plot(x, fixed + slope * x, label=f"{n_threads} threads: {fit}")
                ax.set(xlabel=name, ylabel="seconds a call")
                ax.legend()
    (arguments.output / "scaling.md").write_text("\n".join([*lines, ""]))
    figure.savefig(arguments.output / "scaling.png", dpi=150)


if __name__ == "__main__":
    main()
