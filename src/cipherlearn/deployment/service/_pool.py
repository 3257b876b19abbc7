"""Worker processes, so that a crash of the engine does not end the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from cipherlearn._exceptions import CipherlearnError, MessageError, UnknownKeyError
from cipherlearn.deployment._server import FHEServer
from cipherlearn.deployment.keys._key_store import read_keys
from cipherlearn.deployment.service._settings import ServiceSettings
from cipherlearn.engines.kernels import count_threads

__all__ = ["EvaluationError", "WorkerDiedError", "WorkerPool"]

# Engine threads do not survive a fork.
_CONTEXT = multiprocessing.get_context("spawn")

# An import of the engine takes about a second; where a circuit must be compiled, some more.
_START_SECONDS = 120

# Seconds after which a worker that could not be started is tried again.
_RESTART_PAUSE = 1

_T = TypeVar("_T")

_LOGGER = logging.getLogger("cipherlearn.service")


class WorkerDiedError(RuntimeError):
    """A worker ended while it evaluated."""


class EvaluationError(CipherlearnError, RuntimeError):
    """The engine failed on a message that passed every check: the fault is the service's."""


# Errors that a worker reports by name. Only a failed check is the sender's fault.
_ERRORS: dict[str, type[CipherlearnError]] = {
    kind.__name__: kind for kind in (EvaluationError, MessageError, UnknownKeyError)
}


class WorkerPool:
    """Pool of processes that evaluate ciphertexts. Those that die are replaced.

    Parameters
    ----------
    settings : ServiceSettings
    on_restart : callable
        Called whenever a worker has to be replaced.
    """

    def __init__(self, settings: ServiceSettings, on_restart: Callable[[], object]) -> None:
        self._settings = settings
        self._on_restart = on_restart
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads = ThreadPoolExecutor(settings.n_workers, "cipherlearn-worker")
        self._is_closing = False

    @property
    def n_workers(self) -> int:
        """Processes that evaluate or wait for work."""
        return len(self._workers)

    async def start(self) -> None:
        """Start the workers."""
        await asyncio.gather(*(self._add_worker() for _ in range(self._settings.n_workers)))

    async def close(self) -> None:
        """End the workers, also those that evaluate."""
        self._is_closing = True
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        for worker in [*self._workers]:
            worker.kill()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown()

    async def evaluate(self, ciphertext: bytes, key_id: str) -> bytes:
        """Predict on one encrypted batch. May be cancelled.

        Raises
        ------
        MessageError, UnknownKeyError
            As :meth:`FHEServer.run` does.
        EvaluationError
            If the engine fails.
        WorkerDiedError
            If two workers ended while they evaluated it.
        TimeoutError
            If it takes too long.
        """
        for _ in range(2):
            worker = await self._take(key_id)
            with contextlib.suppress(WorkerDiedError):
                # The request may be cancelled meanwhile. The worker is given back all the same.
                return await asyncio.shield(self._start(self._ask(worker, ciphertext, key_id)))
        raise WorkerDiedError("Two workers ended while they evaluated this. Come back.")

    async def _ask(self, worker: _Worker, ciphertext: bytes, key_id: str) -> bytes:
        ask = partial(worker.ask, ciphertext, key_id, self._settings.evaluation_timeout)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        finally:
            await self._give_back(worker)

    def _start(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task that :meth:`close` cancels."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # asyncio warns of exceptions that nobody retrieves.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    async def _take(self, key_id: str) -> _Worker:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._idle)
                # Prefer one that has the keys in memory.
                worker = next((w for w in self._idle if w.last_key_id == key_id), self._idle[0])
                self._idle.remove(worker)
            if worker.is_running():
                return worker
            await self._give_back(worker)

    async def _give_back(self, worker: _Worker) -> None:
        if worker.is_running():
            async with self._changed:
                self._idle.append(worker)
                self._changed.notify_all()
            return
        self._workers.discard(worker)
        worker.kill()
        self._on_restart()
        self._start(self._replace_worker())

    async def _replace_worker(self) -> None:
        while not self._is_closing:
            try:
                await self._add_worker()
            except (OSError, RuntimeError):
                _LOGGER.exception("a worker could not be started; trying again")
                await asyncio.sleep(_RESTART_PAUSE)
            else:
                break

    async def _add_worker(self) -> None:
        worker = await asyncio.to_thread(_Worker, self._settings)
        self._workers.add(worker)
        async with self._changed:
            self._idle.append(worker)
            self._changed.notify_all()


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work, args=(theirs, settings), daemon=True, name="cipherlearn-worker"
        )
        self._process.start()
        theirs.close()
        self._is_lost = False
        self.last_key_id = ""
        if not self._is_ready():
            self.kill()
            raise RuntimeError("A worker process did not start. Its error is above.")

    def _is_ready(self) -> bool:
        try:
            return self._pipe.poll(_START_SECONDS) and self._pipe.recv_bytes() == b"ready"
        except (EOFError, ConnectionError):
            return False

    def is_running(self) -> bool:
        """Return whether the process is alive and has answered all calls."""
        return not self._is_lost and self._process.is_alive()

    def ask(self, ciphertext: bytes, key_id: str, timeout: int) -> bytes:
        """Evaluate a ciphertext in the process. Without an answer, the worker is lost."""
        self.last_key_id = key_id
        self._is_lost = True
        try:
            self._pipe.send_bytes(ciphertext)
            if not self._pipe.poll(timeout):
                raise TimeoutError(f"One batch may take {timeout} seconds. This one took longer.")
            answer = self._pipe.recv_bytes()
        except (EOFError, ConnectionError) as error:
            raise WorkerDiedError from error
        self._is_lost = False
        if answer[:1] == b"\0":
            return answer[1:]
        reason = json.loads(answer)
        raise _ERRORS[reason["type"]](reason["message"])

    def kill(self) -> None:
        """End the process. A call that waits for it gets an error."""
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, settings: ServiceSettings) -> None:
    # Ctrl+C reaches the whole process group. The service decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    find_keys = partial(read_keys, settings.data_dir)
    server = FHEServer(
        settings.server_zip,
        # All workers together take no more, and use no core twice.
        max(1, settings.max_key_bytes // settings.n_workers),
        find_keys,
        max(1, count_threads() // settings.n_workers),
    )
    pipe.send_bytes(b"ready")
    # The pipe breaks when the service ends.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send_bytes(_answer(server, pipe.recv_bytes()))


def _answer(server: FHEServer, ciphertext: bytes) -> bytes:
    try:
        return b"\0" + server.run(ciphertext)
    except (MessageError, UnknownKeyError) as error:
        return _describe(type(error), str(error))
    except RuntimeError as error:
        _LOGGER.exception("the engine failed")
        return _describe(EvaluationError, f"The engine could not evaluate this batch. {error}")


def _describe(kind: type[Exception], message: str) -> bytes:
    return json.dumps({"type": kind.__name__, "message": message}).encode()
