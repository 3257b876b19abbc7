"""Latency, key generation and key sizes of the two engines, for the same programs.

    python benchmarks/engines.py --concrete-numpy PYTHON --output benchmarks/results

Networks of several widths are trained on the breast-cancer data, and each is saved once, as a
program. Then each engine loads the file, in a process and an environment of its own: this one must
have concrete-python, and the flag names the Python of one that has Concrete-Numpy. All test rows
are predicted in the clear and the first of them encrypted, and any difference ends the run.
Writes ``engines.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from report import header, machine, row
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier, save_program

WORKER = Path(__file__).with_name("engines_worker.py")


def narrow(n_bits: int) -> dict:
    """Name settings for sums of at most so many bits, in the hidden layer and the outputs."""
    return {
        "module__n_hidden_neurons": 8,
        "module__n_hidden_accum_bits": n_bits,
        "module__n_output_accum_bits": n_bits,
    }


# Settings and error probability. Keys of 7 bits at 2**-40 take Concrete-Numpy too long.
CASES = {
    "8 neurons, 4 bits": (narrow(4), 2.0**-40),
    "8 neurons, 5 bits": (narrow(5), 2.0**-40),
    "8 neurons, 5 bits, looser": (narrow(5), 2.0**-17),
    "the demo's, 7-bit outputs, looser": ({"module__n_output_accum_bits": 7}, 2.0**-17),
}
COLUMNS = (
    "network",
    "engine",
    "bits of the sums",
    "error probability",
    "clear accuracy, %",
    "encrypted = clear",
    "bootstraps",
    "s a row",
    "compile, s",
    "key generation, s",
    "keys, MB",
    "ciphertexts, kB",
)


def measure(python: str, path: Path, p_error: float, n_rows: int, X) -> dict:
    process = subprocess.run(
        [python, str(WORKER), str(path), str(p_error), str(n_rows)],
        input=json.dumps(X.tolist()),
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(f"{python} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concrete-numpy", required=True, help="Python that has Concrete-Numpy")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rows", type=int, default=10, help="encrypted rows per network")
    arguments = parser.parse_args()

    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    scaler = StandardScaler().fit(X_train)
    X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
    torch.set_num_threads(1)  # more only slow so small a network down
    lines = header(COLUMNS)
    versions = {}
    for name, (settings, p_error) in CASES.items():
        model = NeuralNetClassifier(random_state=0, **settings).fit(X_train, y_train)
        accuracy, program = model.score(X_test, y_test), model.program_
        bits = ", ".join(str(layer.n_accum_bits) for layer in program.layers)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.zip"
            save_program(program, path)
            records = [
                measure(python, path, p_error, arguments.rows, X_test)
                for python in (sys.executable, arguments.concrete_numpy)
            ]
        for record in records:
            np.testing.assert_array_equal(record["clear"], records[0]["clear"])
            np.testing.assert_array_equal(record["encrypted"], record["clear"][: arguments.rows])
            versions[record["engine"]] = record["versions"]
            cells = (
                name,
                record["engine"],
                bits,
                f"{record['p_error']:.1e}",
                f"{100 * accuracy:.1f}",
                f"{len(record['encrypted'])} of {arguments.rows}",
                str(record["bootstraps"]),
                f"{record['seconds']:.3f}",
                f"{record['compile_seconds']:.1f}",
                f"{record['keygen_seconds']:.1f}",
                f"{record['key_bytes'] / 1e6:.0f}",
                f"{record['ciphertext_bytes'] / 1e3:.1f}",
            )
            lines.append(row(cells))
            print(lines[-1], flush=True)
    environments = "; ".join(
        f"{engine} with " + ", ".join(f"{name} {number}" for name, number in numbers.items())
        for engine, numbers in versions.items()
    )
    head = (
        f"{machine()}. {environments}. Breast cancer, the "
        f"same programs on both engines. The accumulators of all {len(X_test)} test rows in the "
        "clear, and of the encrypted ones, are equal on both. Seconds a row are "
        "medians of the server's computation."
    )
    (arguments.output / "engines.md").write_text("\n".join([head, "", *lines, ""]))


if __name__ == "__main__":
    main()
