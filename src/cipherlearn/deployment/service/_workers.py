"""Processes that evaluate, so that no input can take the service down with the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from cipherlearn._exceptions import CipherlearnError, MessageError, UnknownKeyError
from cipherlearn.deployment._served import ServedModel
from cipherlearn.deployment._server import FHEServer, compile_server
from cipherlearn.deployment.service._key_store import read_keys
from cipherlearn.deployment.service._settings import ServiceSettings

__all__ = ["BusyError", "WorkerPool"]

_ERRORS: dict[str, type[CipherlearnError]] = {
    "MessageError": MessageError,
    "UnknownKeyError": UnknownKeyError,
}

# Engine threads do not survive a fork.
_CONTEXT = multiprocessing.get_context("spawn")

# An import of the engine and a load of the compiled circuit take about a second.
_START_SECONDS = 120


class BusyError(RuntimeError):
    """As many requests as are allowed wait already."""


class _DiedError(RuntimeError):
    """A worker ended while it evaluated."""


class WorkerPool:
    """Evaluates ciphertexts in processes of their own, and replaces those that die.

    Parameters
    ----------
    served : ServedModel
    settings : ServiceSettings
    on_restart : callable
        Called whenever a worker has to be replaced.
    """

    def __init__(
        self, served: ServedModel, settings: ServiceSettings, on_restart: Callable[[], object]
    ) -> None:
        self._served = served
        self._settings = settings
        self._on_restart = on_restart
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task] = set()
        self._threads = ThreadPoolExecutor(settings.n_workers, "cipherlearn-worker")
        self.n_pending = 0

    async def start(self) -> None:
        """Compile the circuit, and start the workers."""
        self._library = tempfile.TemporaryDirectory(prefix="cipherlearn-")
        # Not in this process, since the engine meddles with signals.
        with ProcessPoolExecutor(1, _CONTEXT) as process:
            compiled = process.submit(compile_server, self._served, Path(self._library.name))
            await asyncio.wrap_future(compiled)
        await asyncio.gather(*(self._add_worker() for _ in range(self._settings.n_workers)))

    async def close(self) -> None:
        """End the workers, and wait for what they are at."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown()
        self._library.cleanup()

    async def evaluate(self, ciphertext: bytes, key_id: str) -> bytes:
        """Predict on one encrypted batch.

        Raises
        ------
        MessageError, UnknownKeyError
            As :meth:`FHEServer.run` does; MessageError also if the engine died of it, twice.
        BusyError
            If too many requests wait.
        TimeoutError
            If it takes too long.
        """
        if self.n_pending >= self._settings.max_pending:
            raise BusyError(
                f"This service takes {self._settings.max_pending} requests at a time. Come back."
            )
        # Whoever asked may go away meanwhile. The worker must be given back all the same.
        task = asyncio.create_task(self._evaluate(ciphertext, key_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _evaluate(self, ciphertext: bytes, key_id: str) -> bytes:
        self.n_pending += 1
        try:
            for _ in range(2):
                with contextlib.suppress(_DiedError):
                    return await self._evaluate_once(ciphertext, key_id)
        finally:
            self.n_pending -= 1
        raise MessageError("The engine failed on this ciphertext, twice. Make new keys and try.")

    async def _evaluate_once(self, ciphertext: bytes, key_id: str) -> bytes:
        worker = await self._take(key_id)
        ask = partial(worker.ask, ciphertext, key_id, self._settings.evaluation_timeout)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        finally:
            await self._give_back(worker)

    async def _take(self, key_id: str) -> _Worker:
        async with self._changed:
            await self._changed.wait_for(lambda: self._idle)
            # One that has the keys in memory, if there is one.
            worker = next((w for w in self._idle if w.last_key_id == key_id), self._idle[0])
            self._idle.remove(worker)
            return worker

    async def _give_back(self, worker: _Worker) -> None:
        if worker.is_alive:
            async with self._changed:
                self._idle.append(worker)
                self._changed.notify()
            return
        self._workers.discard(worker)
        worker.kill()
        self._on_restart()
        task = asyncio.create_task(self._add_worker())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _add_worker(self) -> None:
        worker = await asyncio.to_thread(_Worker, self._settings, self._library.name)
        self._workers.add(worker)
        async with self._changed:
            self._idle.append(worker)
            self._changed.notify()


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, settings: ServiceSettings, library: str) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work, args=(theirs, settings, library), daemon=True, name="cipherlearn-worker"
        )
        self._process.start()
        theirs.close()
        self.is_alive = True
        self.last_key_id = ""
        if not self._pipe.poll(_START_SECONDS) or self._pipe.recv_bytes() != b"ready":
            self.kill()
            raise RuntimeError("A worker process did not start. Its error is above.")

    def ask(self, ciphertext: bytes, key_id: str, timeout: int) -> bytes:
        """Have a ciphertext evaluated. Leaves ``is_alive`` False unless an answer came."""
        self.last_key_id = key_id
        self.is_alive = False
        try:
            self._pipe.send_bytes(ciphertext)
            if not self._pipe.poll(timeout):
                raise TimeoutError(f"One batch may take {timeout} seconds. This one took longer.")
            answer = self._pipe.recv_bytes()
        except (EOFError, ConnectionError) as error:
            raise _DiedError from error
        self.is_alive = True
        if answer[:1] == b"\0":
            return answer[1:]
        reason = json.loads(answer)
        raise _ERRORS[reason["type"]](reason["message"])

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _work(pipe: Connection, settings: ServiceSettings, library: str) -> None:
    # An interrupt from the keyboard reaches the whole group. The service decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    find_keys = partial(read_keys, settings.data_dir)
    server = FHEServer(settings.server_zip, settings.max_loaded_keys, find_keys, library)
    pipe.send_bytes(b"ready")
    # Without the service there is nobody to answer.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send_bytes(_answer(server, pipe.recv_bytes()))


def _answer(server: FHEServer, ciphertext: bytes) -> bytes:
    try:
        return b"\0" + server.run(ciphertext)
    except UnknownKeyError as error:
        return _describe("UnknownKeyError", error)
    except (MessageError, RuntimeError) as error:
        return _describe("MessageError", error)


def _describe(name: str, error: Exception) -> bytes:
    return json.dumps({"type": name, "message": str(error)}).encode()
