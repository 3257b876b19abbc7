"""What a service adds to an encrypted prediction, and whether it stays as it is over 500 requests.

    python benchmarks/serving.py --output benchmarks/results

Needs ``cipherlearn[client,server]``. Breast cancer, one encrypted row a request, one worker. Calls
of the circuit in this process and requests to a service on the loopback take turns, so that both
meet the same machine. Writes ``serving.md``.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
from report import NETWORKS, encrypted_environment, header
from sklearn.datasets import load_breast_cancer

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import FHEClient, FHEServer, RemoteModel, export

N_REQUESTS, N_CLIENTS = 500, 8


@contextmanager
def service(server_zip: Path, data_dir: Path) -> Iterator[str]:
    """Run ``cipherlearn serve``, and give its address."""
    command = [sys.executable, "-m", "cipherlearn", "serve", str(server_zip), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_dir), "--log-level", "info"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"running on (http://[\d.:]+)", line):
            break
    else:
        raise RuntimeError("the service did not start")
    with ThreadPoolExecutor(1) as drain:
        drain.submit(process.stderr.read)
        try:
            yield found[1]
        finally:
            process.terminate()
            process.wait()


def megabytes(url: str) -> float:
    """Memory of the service's own process, which keeps what requests leave."""
    text = requests.get(f"{url}/metrics", timeout=30).text
    found = re.search(r"^process_resident_memory_bytes (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1]) / 1e6


def in_turns(url: str, directory: Path, X: np.ndarray, repeats: int) -> tuple[float, float]:
    """Median seconds of a call of the circuit, and of a request."""
    client, server = FHEClient(directory / "client.zip"), FHEServer(directory / "server.zip")
    client.generate_keys()
    keys = client.evaluation_keys()
    server.add_keys(keys)
    session = requests.Session()
    session.put(f"{url}/v1/keys/{client.key_id}", data=keys, timeout=300).raise_for_status()
    ciphertexts = list(client.encrypt(X))
    direct, remote = [], []
    for i in range(repeats + 1):
        ciphertext = ciphertexts[i % len(ciphertexts)]
        start = time.perf_counter()
        ours = server.run(ciphertext)
        middle = time.perf_counter()
        theirs = session.post(f"{url}/v1/predict", data=ciphertext, timeout=300).content
        end = time.perf_counter()
        np.testing.assert_array_equal(client.decrypt([ours], 1), client.decrypt([theirs], 1))
        if i:  # the first calls unpack the keys
            direct.append(middle - start)
            remote.append(end - middle)
    return statistics.median(direct), statistics.median(remote)


def steadiness(url: str, X: np.ndarray) -> tuple[list[float], list[float]]:
    """Seconds and megabytes of each of many requests."""
    model = RemoteModel(url)
    seconds, memory = [], []
    for i in range(N_REQUESTS):
        start = time.perf_counter()
        model.predict(X[i % len(X)][None, :])
        seconds.append(time.perf_counter() - start)
        memory.append(megabytes(url))
    return seconds, memory


def many_clients(url: str, X: np.ndarray, expected: np.ndarray) -> float:
    """Rows a second of clients that ask at once, each with keys of its own."""
    models = [RemoteModel(url) for _ in range(N_CLIENTS)]
    with ThreadPoolExecutor(N_CLIENTS) as threads:
        list(threads.map(lambda model: model.predict(X[:1]), models))
        start = time.perf_counter()
        predictions = list(threads.map(lambda model: model.predict(X), models))
        seconds = time.perf_counter() - start
    np.testing.assert_array_equal(predictions, np.tile(expected, (N_CLIENTS, 1)))
    return N_CLIENTS * len(X) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=31)
    arguments = parser.parse_args()
    X, y = load_breast_cancer(return_X_y=True)
    lines = [
        encrypted_environment(),
        "",
        *header(["network", "circuit, s a row", "request, s a row", "overhead"]),
    ]
    more = []
    for name, parameters in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            clf = NeuralNetClassifier(random_state=0, **parameters).fit(X, y)
            clf.compile()
            export(clf, directory)
            with service(directory / "server.zip", directory / "keys") as url:
                direct, remote = in_turns(url, directory, X[:20], arguments.repeats)
                lines.append(
                    f"| {name} | {direct:.4f} | {remote:.4f} | {remote / direct - 1:+.1%} |"
                )
                print(lines[-1], flush=True)
                if name == "8 neurons, 4 bits":
                    seconds, memory = steadiness(url, X)
                    rate = many_clients(url, X[:5], clf.predict(X[:5]))
                    more = [
                        f"{N_REQUESTS} requests with {name}: median "
                        f"{statistics.median(seconds[50:150]):.4f} s for numbers 50 to 149, "
                        f"{statistics.median(seconds[-100:]):.4f} s for the last 100; "
                        f"{memory[50]:.1f} MB after 50, {memory[-1]:.1f} MB after the last, in the "
                        "service's own process.",
                        "",
                        f"{N_CLIENTS} clients at once, each with keys of its own: {rate:.1f} rows "
                        "a second, all predictions equal to the clear ones.",
                    ]
                    print(*more, sep="\n", flush=True)
    (arguments.output / "serving.md").write_text("\n".join([*lines, "", *more, ""]))


if __name__ == "__main__":
    main()
