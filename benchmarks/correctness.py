"""Thousands of encrypted rows, and of fuzzed requests to a service: whether anything goes wrong.

    python benchmarks/correctness.py --output benchmarks/results [--rows 10000] [--requests 2000]

Needs ``cipherlearn[client,server]`` and pytest. Random codes are evaluated by networks of 4-bit
sums, with new keys now and then, and every decrypted sum is compared. Then a service gets the
requests of ``tests/deployment/test_service_fuzzing.py``, and is asked whether it still predicts. A
wrong row, crash or restart ends the run. Writes ``correctness.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from report import NETWORKS, encrypted_environment, header, row
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import FHEClient, export

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "deployment")]
from serving import Service, post, put_keys  # noqa: E402
from test_service_fuzzing import send_fuzzed  # noqa: E402

DATASETS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
SETTINGS = NETWORKS["8 neurons, 4 bits"]
ROWS_PER_KEY = 500


def encrypted_rows(load, n_rows: int) -> list[str]:
    clf = NeuralNetClassifier(random_state=0, **SETTINGS).fit(*load(return_X_y=True))
    circuit, program = clf.compile(), clf.program_
    rng, start = np.random.default_rng(0), time.perf_counter()
    for first in range(0, n_rows, ROWS_PER_KEY):
        codes = program.quantizer.random_codes(min(ROWS_PER_KEY, n_rows - first), rng)
        circuit.keygen(force=True)
        np.testing.assert_array_equal(circuit.execute(codes), program.run(codes))
        print(f"{first + len(codes)} rows", flush=True)
    seconds = time.perf_counter() - start
    return [str(n_rows), circuit.runtime, str(program.n_bootstraps), "0", f"{seconds:.0f}"]


def fuzzed_requests(n_requests: int) -> str:
    X, y = load_iris(return_X_y=True)
    clf = NeuralNetClassifier(random_state=0, **SETTINGS).fit(X, y)
    clf.compile()
    with tempfile.TemporaryDirectory() as folder:
        client_zip, server_zip = export(clf, folder)
        client = FHEClient(client_zip)
        client.generate_keys()
        (ciphertext,) = client.encrypt(X[:1])
        with Service(server_zip, Path(folder) / "keys") as service:
            assert put_keys(service, client).status_code == 201
            workers = service.worker_ids()
            statuses = send_fuzzed(service, client, ciphertext, n_requests)
            (label,) = client.decode(client.decrypt([post(service, ciphertext).content], 1))
            assert label == clf.predict(X[:1])[0]
            assert service.worker_ids() == workers
            assert not [status for status in statuses if status >= 500], statuses
    counts = ", ".join(f"{n} of status {status}" for status, n in sorted(statuses.items()))
    return f"{n_requests} fuzzed requests, no crash and no restart. Answers: {counts}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rows", type=int, default=10_000, help="of all data sets together")
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args()
    lines = [encrypted_environment(), ""]
    lines += header(["data set", "encrypted rows", "runtime", "bootstraps", "wrong rows", "s"])
    for name, load in DATASETS.items():
        lines.append(row([name, *encrypted_rows(load, arguments.rows // len(DATASETS))]))
        print(lines[-1], flush=True)
    lines += ["", fuzzed_requests(arguments.requests), ""]
    print(lines[-2])
    (arguments.output / "correctness.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
