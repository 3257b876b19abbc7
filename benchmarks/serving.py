"""What a service adds to an encrypted prediction, and what it gives to several clients at once.

    python benchmarks/serving.py --output benchmarks/results

Needs ``cipherlearn[client,server]``. Breast cancer, on both runtimes. Calls of a server in this
process and requests to a service on the loopback take turns, so that both meet the same machine.
Then clients, each with keys of its own, send ciphertexts that are ready beforehand and wait for
each answer. Every result is decrypted and compared. Writes ``serving.md``.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import requests
from report import NETWORKS, RUNTIMES, encrypted_environment, header, row
from sklearn.datasets import load_breast_cancer

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import FHEClient, FHEServer, export

LOADED = "8 neurons, 4 bits"
N_CLIENTS, N_ROWS = (1, 2, 4, 8), (1, 8)


@contextmanager
def service(runtime: str, server_zip: Path) -> Iterator[tuple[str, int]]:
    """Run ``cipherlearn serve``, and give its address and process."""
    command = [sys.executable, "-m", "cipherlearn", "serve", str(server_zip), "--port", "0"]
    command += ["--runtime", runtime]
    with tempfile.TemporaryDirectory() as keys:
        process = subprocess.Popen(
            [*command, "--data-dir", keys], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        lines = (re.search(r"running on (http://[\d.:]+)", line) for line in process.stderr)
        found = next(filter(None, lines))
        with ThreadPoolExecutor(1) as drain:
            drain.submit(process.stderr.read)
            try:
                yield found[1], process.pid
            finally:
                process.terminate()
                process.wait()


def megabytes(pid: int) -> float:
    """Memory of a process and of its children, such as workers."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in tasks for child in path.read_text().split()]
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(map(megabytes, children))


class Caller:
    """A client with keys of its own, and encrypted rows."""

    def __init__(self, url: str, client_zip: Path, X: np.ndarray, expected: np.ndarray) -> None:
        self.client = FHEClient(client_zip)
        self.client.generate_keys()
        self.ciphertexts = list(self.client.encrypt(X))
        self.keys = self.client.evaluation_keys()
        self.expected = expected
        self.session = requests.Session()
        self.url = f"{url}/v1/predict"
        address = f"{url}/v1/keys/{self.client.key_id}"
        self.session.put(address, data=self.keys, timeout=300).raise_for_status()
        self.ask(1)  # makes the keys ready

    def ask(self, n_rows: int) -> float:
        """Seconds of a request."""
        body = b"".join(self.ciphertexts[:n_rows])
        start = time.perf_counter()
        response = self.session.post(self.url, data=body, timeout=300)
        results = response.content
        seconds = time.perf_counter() - start
        response.raise_for_status()
        self.check(results, n_rows)
        return seconds

    def check(self, results: bytes, n_rows: int) -> None:
        """Compare with the clear predictions."""
        size = len(results) // n_rows
        each = [results[i : i + size] for i in range(0, len(results), size)]
        labels = self.client.decode(self.client.decrypt(each, n_rows))
        np.testing.assert_array_equal(labels, self.expected[:n_rows])


def in_turns(runtime: str, caller: Caller, server_zip: Path, repeats: int) -> tuple[float, float]:
    """Median seconds of a call of a server in this process, and of a request."""
    server = FHEServer(server_zip, runtime=runtime)
    assert server.runtime == runtime
    server.add_keys(caller.keys)
    direct, remote = [], []
    for _ in range(repeats + 1):
        ciphertext = caller.ciphertexts[0]
        start = time.perf_counter()
        result = server.run(ciphertext)
        direct.append(time.perf_counter() - start)
        caller.check(result, 1)
        remote.append(caller.ask(1))
    return statistics.median(direct[1:]), statistics.median(remote[1:])


def load(callers: list[Caller], n_rows: int, n_requests: int) -> list[str]:
    """Have callers ask at once: rows a second, and percentiles of the seconds of a request."""
    n_each = -(-n_requests // len(callers))

    def ask(caller: Caller) -> list[float]:
        return [caller.ask(n_rows) for _ in range(n_each)]

    with ThreadPoolExecutor(len(callers)) as threads:
        start = time.perf_counter()
        seconds = np.concatenate(list(threads.map(ask, callers)))
        rate = len(seconds) * n_rows / (time.perf_counter() - start)
    return [f"{rate:.1f}", *(f"{np.percentile(seconds, q):.3f}" for q in (50, 99))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=31, help="calls and requests in turns")
    parser.add_argument("--requests", type=int, default=100, help="of all clients together")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    X, y = load_breast_cancer(return_X_y=True)
    rows = X[: max(N_ROWS)]
    columns = ["network", "runtime", "server, s a row", "request, s a row", "overhead, ms", "%"]
    alone = header(columns)
    columns = ["runtime", "clients", "rows a request", "rows a second", "p50, s", "p99, s"]
    together, notes = header(columns), [""]
    for name, runtime in product(arguments.networks, RUNTIMES):
        clf = NeuralNetClassifier(random_state=0, **NETWORKS[name]).fit(X, y)
        clf.compile()
        with tempfile.TemporaryDirectory() as folder:
            client_zip, server_zip = export(clf, folder)
            with service(runtime, server_zip) as (url, pid):
                callers = [Caller(url, client_zip, rows, clf.predict(rows))]
                direct, remote = in_turns(runtime, callers[0], server_zip, arguments.repeats)
                added = remote - direct
                cells = [f"{direct:.4f}", f"{remote:.4f}", f"{1e3 * added:.2f}"]
                alone.append(row([name, runtime, *cells, f"{100 * added / direct:+.1f}"]))
                print(alone[-1], flush=True)
                if name != LOADED:
                    continue
                memory = megabytes(pid)
                for _ in range(max(N_CLIENTS) - 1):
                    callers.append(Caller(url, client_zip, rows, clf.predict(rows)))
                each = (megabytes(pid) - memory) / (len(callers) - 1)
                notes.append(
                    f"Memory of the service with {runtime}: {memory:.0f} MB with the keys of one "
                    f"client, {each:.0f} MB more for each further client."
                )
                for n_clients, n_rows in product(N_CLIENTS, N_ROWS):
                    cells = load(callers[:n_clients], n_rows, arguments.requests)
                    together.append(row([runtime, str(n_clients), str(n_rows), *cells]))
                    print(together[-1], flush=True)
    lines = [encrypted_environment(), "", *alone, "", f"{LOADED}:", "", *together, *notes, ""]
    (arguments.output / "serving.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
