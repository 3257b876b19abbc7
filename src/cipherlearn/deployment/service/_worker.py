"""A process that evaluates, and what the service knows of it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from cipherlearn._exceptions import CipherlearnError, MessageError, UnknownKeyError
from cipherlearn.deployment._server import FHEServer
from cipherlearn.deployment.keys._key_store import read_keys
from cipherlearn.deployment.service._logs import LOGGER, configure_logging

__all__ = ["EvaluationError", "Worker", "WorkerDiedError", "WorkerSettings", "main"]

# The first entry of the path would be the working directory, whoever may write there. Python 3.10
# has no option to leave it out.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from cipherlearn.deployment.service._worker import main; main(int(sys.argv[1]))"
)

# An import of the engine takes about a second; where a circuit must be compiled, some more.
_START_SECONDS = 120


class WorkerDiedError(RuntimeError):
    """A worker ended while it evaluated."""


class EvaluationError(CipherlearnError, RuntimeError):
    """The engine failed on a message that passed every check: the fault is the service's."""


# Errors that a worker reports by name. Only a failed check is the sender's fault.
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (EvaluationError, MessageError, OSError, UnknownKeyError)
}


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker is told.

    Parameters
    ----------
    server_zip : str
        Absolute path of the artefact.
    model_id : str
        The model that must be in it.
    data_dir : str
        Absolute path of the key store.
    max_key_bytes : int
        Memory for keys that are ready for use.
    n_threads : int
        Threads to compute in.
    log_level : int
    runtime : {"kernels", "compiled"}, default="kernels"
    """

    server_zip: str
    model_id: str
    data_dir: str
    max_key_bytes: int
    n_threads: int
    log_level: int
    runtime: str = "kernels"


class Worker:
    """One process, and the pipe to it.

    Parameters
    ----------
    settings : WorkerSettings

    Raises
    ------
    RuntimeError
        If the process does not get ready.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=_environment(),
        )
        theirs.close()
        self._is_lost = False
        self.last_key_id = ""
        if not self._is_ready(settings):
            self.kill()
            raise RuntimeError("A worker process did not start. Its error is above.")

    def _is_ready(self, settings: WorkerSettings) -> bool:
        try:
            self._pipe.send_bytes(json.dumps(asdict(settings)).encode())
            return self._pipe.poll(_START_SECONDS) and self._pipe.recv_bytes() == b"ready"
        except (EOFError, ConnectionError):
            return False

    def fileno(self) -> int:
        """Return the descriptor of the pipe. Of an idle worker, it is readable when it died."""
        return self._pipe.fileno()

    def is_running(self) -> bool:
        """Return whether the process is alive and has answered all calls."""
        return not self._is_lost and self._process.poll() is None

    def ask(self, ciphertext: bytes, key_id: str, timeout: int) -> bytes:
        """Evaluate a ciphertext in the process. Without an answer, the worker is lost."""
        self.last_key_id = key_id
        self._is_lost = True
        # A process that is stopped empties no pipe, and can stop in the midst of an answer. Its
        # end breaks the pipe, whatever is waited for.
        deadline = time.monotonic() + timeout
        watch = threading.Timer(timeout, self._process.kill)
        watch.start()
        try:
            self._pipe.send_bytes(ciphertext)
            answer = self._pipe.recv_bytes()
        except (EOFError, ConnectionError) as error:
            if time.monotonic() < deadline:
                raise WorkerDiedError from error
            raise TimeoutError(
                f"One batch may take {timeout} seconds. This one took longer."
            ) from error
        finally:
            watch.cancel()
        self._is_lost = False
        if answer[:1] == b"\0":
            return answer[1:]
        reason = json.loads(answer)
        raise _ERRORS[reason["type"]](reason["message"])

    def kill(self) -> None:
        """End the process. A call that waits for it gets an error."""
        self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """Return the environment of a worker: the packages of this process, and no token."""
    environment = {key: value for key, value in os.environ.items() if key != "CIPHERLEARN_TOKEN"}
    root = str(Path(__file__).parents[3])
    path = [entry for entry in sys.path if entry not in ("", os.getcwd()) or entry == root]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    return environment


def main(descriptor: int) -> None:
    """Evaluate what comes through a pipe, until it breaks.

    Parameters
    ----------
    descriptor : int
        The pipe, which gives a :class:`WorkerSettings` first.
    """
    # Ctrl+C reaches the whole process group. The service decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(descriptor)
    # The pipe breaks when the service ends.
    with contextlib.suppress(EOFError, ConnectionError):
        settings = WorkerSettings(**json.loads(pipe.recv_bytes()))
        configure_logging(settings.log_level)
        server = FHEServer(
            settings.server_zip,
            settings.max_key_bytes,
            partial(read_keys, Path(settings.data_dir)),
            settings.n_threads,
            settings.runtime,
        )
        if server.model_id != settings.model_id:
            raise RuntimeError(
                f"The model of {settings.server_zip} must be {settings.model_id}, with which the "
                f"service was started. It is {server.model_id}. Start the service anew."
            )
        pipe.send_bytes(b"ready")
        while True:
            pipe.send_bytes(_answer(server, pipe.recv_bytes()))


def _answer(server: FHEServer, ciphertext: bytes) -> bytes:
    try:
        return b"\0" + server.run(ciphertext)
    except (MessageError, UnknownKeyError) as error:
        return _describe(type(error), str(error))
    except OSError:
        LOGGER.exception("the key store failed")
        return _describe(OSError, "The key store failed.")
    except Exception:
        LOGGER.exception("the engine failed")
        return _describe(EvaluationError, "The engine could not evaluate this batch.")


def _describe(kind: type[Exception], message: str) -> bytes:
    return json.dumps({"type": kind.__name__, "message": message}).encode()
