"""Whether a service gives a wrong answer, loses keys or grows while it is ill-treated.

    python benchmarks/service_endurance.py --output benchmarks/results [--requests 20000]

Needs ``cipherlearn[client,server]`` and Linux. Clients with keys of their own ask for a row at a
time, evenly over the minutes, and compare each prediction with the clear one. Meanwhile workers are
killed at random, further clients have keys evicted, the disk is full for a while, and the service
is restarted twice, once by SIGKILL. A second network, with bootstraps, gets a tenth of the requests
in a third of the time. Writes ``service_endurance.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from report import encrypted_environment, header, row
from sklearn.datasets import load_iris

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import FHEClient, RemoteError, RemoteModel, export
from cipherlearn.deployment.keys._key_store import space_of

NETWORKS = {
    "1 layer": {"module__n_layers": 1},
    "2 neurons, 4 bits": {
        "module__n_hidden_neurons": 2,
        "module__n_hidden_accum_bits": 4,
        "module__n_output_accum_bits": 4,
    },
}
N_WORKERS = 2

# How often during a run. The disk is full for a fiftieth of it.
N_KILLS, N_EVICTIONS, N_SAMPLES = 90, 30, 360


class Service:
    """``cipherlearn serve``, restarted at will on the same port and store."""

    def __init__(self, server_zip: Path, data_dir: Path, n_key_bytes: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = data_dir
        self._command = [sys.executable, "-m", "cipherlearn", "serve", str(server_zip)]
        self._command += ["--port", str(port), "--data-dir", str(data_dir)]
        self._command += ["--workers", str(N_WORKERS), "--max-key-store-bytes", str(n_key_bytes)]
        self.events: Counter[str] = Counter()
        self.kept: set[str] = set()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        # Its log goes through a pipe, which a full disk does not stop.
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr, ready))
        self._reader.start()
        if not ready.wait(120):
            raise RuntimeError("the service did not start")

    def _read(self, log, ready: threading.Event) -> None:
        for line in log:
            if not line.startswith('{"time"'):
                self.events["other lines"] += 1
                continue
            entry = json.loads(line)
            if entry["event"].startswith("running on"):
                ready.set()
            if entry.get("status", 0) >= 500:
                self.events[f"status {entry['status']}"] += 1
            if entry["logger"] == "cipherlearn.audit":
                self.events[entry["event"]] += 1
                keep = entry["event"] == "keys stored"
                (self.kept.add if keep else self.kept.discard)(entry["key_id"])

    def stop(self, how: int) -> None:
        """End it by a signal."""
        self.process.send_signal(how)
        self.process.wait()
        self._reader.join()

    def lost(self) -> set[str]:
        """Keys that were stored, neither evicted nor deleted, and are not there."""
        return self.kept - {path.name for path in self.data_dir.iterdir()}

    def workers(self) -> list[int]:
        """Return the processes that evaluate."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for path in tasks for pid in path.read_text().split()]

    def size(self) -> tuple[float, int]:
        """Megabytes and open files of its own process."""
        process = Path(f"/proc/{self.process.pid}")
        pages = int((process / "statm").read_text().split()[1])
        n_files = len(list((process / "fd").iterdir()))
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, n_files


class Run:
    """One network's requests, and what happens to the service meanwhile."""

    def __init__(self, directory: Path, X: np.ndarray, expected: np.ndarray) -> None:
        self._directory, self._X, self._expected = directory, X, expected
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        # Of each of the service's lives.
        self.sizes: list[list[tuple[float, int]]] = [[]]

    def count(self, name: str, n: int = 1) -> None:
        """Count what happened, from any thread."""
        with self._lock:
            self.counts[name] += n

    def __call__(self, n_requests: int, n_clients: int, seconds: float) -> None:
        """Ask, and let everything happen."""
        client = FHEClient(self._directory / "client.zip")
        client.generate_keys()
        room = n_clients * space_of(len(client.evaluation_keys()))
        self.service = Service(self._directory / "server.zip", self._directory / "keys", room)
        self._end = time.monotonic() + seconds
        # Events take turns, so that each meets a whole service.
        turns = threading.Lock()
        rng = random.Random(0)
        plan: list[tuple[Callable[[], None], list[float]]] = [
            (lambda: self._kill(rng), _evenly(N_KILLS)),
            (self._evict, _evenly(N_EVICTIONS)),
            (self._sample, _evenly(N_SAMPLES)),
            (lambda: self._restart(signal.SIGKILL), [1 / 3]),
            (lambda: self._fill_the_disk(seconds / 50), [1 / 2]),
            (lambda: self._restart(signal.SIGTERM), [2 / 3]),
        ]
        with ThreadPoolExecutor(n_clients + len(plan)) as threads:
            events = [
                threads.submit(self._at, times, seconds, event, turns) for event, times in plan
            ]
            clients = [
                threads.submit(self._ask, i, n_requests // n_clients, seconds)
                for i in range(n_clients)
            ]
            for each in (*clients, *events):
                each.result()
        self.service.stop(signal.SIGTERM)
        self.count("lost keys", len(self.service.lost()))

    def _at(self, times: list[float], seconds: float, event: Callable[[], None], turns) -> None:
        start = self._end - seconds
        for each in times:
            time.sleep(max(0.0, start + each * seconds - time.monotonic()))
            with turns:
                event()

    def _ask(self, i: int, n_requests: int, seconds: float) -> None:
        start = self._end - seconds
        with RemoteModel(self.service.url, n_retries=9) as model:
            for j in range(n_requests):
                time.sleep(max(0.0, start + j / n_requests * seconds - time.monotonic()))
                k = (i + j) % len(self._X)
                self._answer(model, k)

    def _answer(self, model: RemoteModel, k: int) -> None:
        while True:
            try:
                (label,) = model.predict(self._X[k : k + 1])
            except RemoteError as error:
                # Keys that were evicted cannot be stored again until there is room.
                if "507" not in str(error):
                    raise
                self.count("refused for the full disk")
                time.sleep(1)
                continue
            self.count("answers")
            self.count("wrong answers", int(label != self._expected[k]))
            return

    def _kill(self, rng: random.Random) -> None:
        workers = self.service.workers()
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            self.count("workers killed")

    def _evict(self) -> None:
        with RemoteModel(self.service.url, n_retries=9) as model:
            model.upload_keys()

    def _sample(self) -> None:
        self.sizes[-1].append(self.service.size())

    def _restart(self, how: int) -> None:
        self.service.stop(how)
        self.count("lost keys", len(self.service.lost()))
        self.service.start()
        self.sizes.append([])

    def _fill_the_disk(self, seconds: float) -> None:
        pid = self.service.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, -1))
        try:
            with RemoteModel(self.service.url) as model:
                model.upload_keys()
        except RemoteError as error:
            if "507" not in str(error):
                raise
            self.count("refused for the full disk")
        time.sleep(seconds)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _evenly(n: int) -> list[float]:
    return [(i + 0.5) / n for i in range(n)]


def growth(sizes: list[list[tuple[float, int]]]) -> tuple[str, str]:
    """Medians of the second and of the last fifth of the longest life."""
    life = max(sizes, key=len)
    fifth = max(1, len(life) // 5)
    early, late = life[fifth : 2 * fifth] or life, life[-fifth:]
    megabytes, files = (
        tuple(statistics.median(sample[i] for sample in part) for part in (early, late))
        for i in range(2)
    )
    return f"{megabytes[0]:.1f}, {megabytes[1]:.1f}", f"{files[0]:.0f}, {files[1]:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    arguments = parser.parse_args()
    X, y = load_iris(return_X_y=True)
    rows = {}
    for name in arguments.networks:
        shares = (1, 1) if name == "1 layer" else (1 / 10, 1 / 3)
        n_requests, seconds = arguments.requests * shares[0], arguments.minutes * 60 * shares[1]
        with tempfile.TemporaryDirectory() as folder:
            clf = NeuralNetClassifier(random_state=0, **NETWORKS[name]).fit(X, y)
            clf.compile()
            export(clf, folder)
            run = Run(Path(folder), X, clf.predict(X))
            start = time.monotonic()
            run(int(n_requests), arguments.clients, seconds)
            seconds = time.monotonic() - start
        counts, events = run.counts, run.service.events
        megabytes, files = growth(run.sizes)
        rows[name] = {
            "requests": f"{counts['answers']}",
            "clients": f"{arguments.clients}",
            "minutes": f"{seconds / 60:.1f}",
            "workers killed": f"{counts['workers killed']}",
            "restarts of the service": f"{len(run.sizes) - 1}",
            "uploads and requests refused for the full disk": (
                f"{counts['refused for the full disk']}"
            ),
            "keys stored, evicted": f"{events['keys stored']}, {events['keys evicted']}",
            "**wrong answers**": f"{counts['wrong answers']}",
            "**lost keys**": f"{counts['lost keys']}",
            "megabytes of the service, early and late": megabytes,
            "open files, early and late": files,
        }
        print(name, json.dumps(rows[name], indent=1), dict(events), flush=True)
    lines = [
        re.sub(r" Seconds are .*", "", encrypted_environment()),
        "",
        *header(["", *rows]),
        *(
            row([name, *(each[name] for each in rows.values())])
            for name in next(iter(rows.values()))
        ),
        "",
        "Early and late: medians of the second and the last fifth of the service's longest life.",
        "",
    ]
    (arguments.output / "service_endurance.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
