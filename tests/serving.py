"""A real service in a process of its own, for tests."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests

_START_SECONDS = 60

needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc"), reason="processes are looked at through /proc"
)


class Service:
    """``cipherlearn serve`` on the loopback. A context that ends it."""

    def __init__(
        self,
        server_zip: Path,
        data_dir: Path,
        *flags: str,
        token: str | None = None,
        program: Sequence[str] = ("-m", "cipherlearn"),
        cwd: Path | None = None,
    ):
        self.data_dir = data_dir
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        environment = {
            key: value for key, value in os.environ.items() if key != "CIPHERLEARN_TOKEN"
        }
        if token is not None:
            environment["CIPHERLEARN_TOKEN"] = token
        command = [sys.executable, *program, "serve", str(server_zip)]
        command += ["--port", "0", "--data-dir", str(data_dir), *flags]
        self._log = self.log_path.open("ab")
        start = self._log.tell()
        self.process = subprocess.Popen(command, stderr=self._log, env=environment, cwd=cwd)
        self.url = self._wait_for_url(start)

    def _wait_for_url(self, start: int) -> str:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(rb"running on (https?://[\d.:]+)", self.log_path.read_bytes()[start:])
            if found:
                return found[1].decode()
            select.select([], [], [], 0.05)
        raise AssertionError(f"the service did not start: {self.log_path.read_text()}")

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where it is, for sockets."""
        host, port = self.url.rpartition("//")[2].split(":")
        return host, int(port)

    def connect(self, peer: str = "127.0.0.1") -> socket.socket:
        """Open a connection, from any address of the loopback."""
        return socket.create_connection(self.address, timeout=20, source_address=(peer, 0))

    def stop(self) -> int:
        """End it gracefully, and return its status: minus the signal, as uvicorn passes it on."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def logs(self) -> list[dict]:
        """All log records. Each line must be one."""
        lines = self.log_path.read_text().splitlines()
        assert all(line.startswith('{"time"') for line in lines), "\n".join(lines)
        return [json.loads(line) for line in lines]

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        return sum(float(v) for v in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def is_healthy(self) -> bool:
        return requests.get(f"{self.url}/health", timeout=10).json().get("status") == "ok"

    def worker_ids(self) -> list[int]:
        """Processes that evaluate."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = [int(pid) for path in tasks for pid in path.read_text().split()]
        return sorted(pid for pid in children if b"service._worker" in _command_line(pid))

    def memory(self) -> int:
        """Bytes in memory of the service and its workers."""
        pages = [
            int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            for pid in (self.process.pid, *self.worker_ids())
        ]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_for(url: str) -> None:
    """Wait until a service answers."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            requests.get(f"{url}/health", timeout=10)
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"no service at {url}")


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_closed(connection, seconds=20):
    """Tell whether the other end closes a connection within some seconds, whatever it sends."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def put_keys(service, client):
    keys = client.evaluation_keys()
    return requests.put(f"{service.url}/v1/keys/{client.key_id}", data=keys, timeout=60)


def post(service, body, **kwargs):
    return requests.post(f"{service.url}/v1/predict", data=body, timeout=60, **kwargs)
