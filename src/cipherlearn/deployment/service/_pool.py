"""Worker processes, so that a crash of the engine does not end the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from cipherlearn.deployment.service._logs import LOGGER
from cipherlearn.deployment.service._settings import ServiceSettings
from cipherlearn.deployment.service._worker import Worker, WorkerDiedError, WorkerSettings
from cipherlearn.engines.kernels import count_threads

__all__ = ["WorkerPool"]

# Seconds after which a worker that could not be started is tried again.
_RESTART_PAUSE = 1

_T = TypeVar("_T")


class WorkerPool:
    """Pool of processes that evaluate ciphertexts. Those that die are replaced.

    Parameters
    ----------
    settings : ServiceSettings
    model_id : str
        The model that the service announces.
    on_restart : callable
        Called whenever a worker has to be replaced.
    """

    def __init__(
        self, settings: ServiceSettings, model_id: str, on_restart: Callable[[], object]
    ) -> None:
        self._n_workers = settings.n_workers
        self._timeout = settings.evaluation_timeout
        self._worker_settings = WorkerSettings(
            str(settings.server_zip.absolute()),
            model_id,
            str(settings.data_dir.absolute()),
            # All workers together take no more, and use no core twice.
            max(1, settings.max_key_bytes // settings.n_workers),
            max(1, count_threads() // settings.n_workers),
            logging.getLogger().getEffectiveLevel(),
            settings.runtime,
        )
        self._on_restart = on_restart
        self._idle: list[Worker] = []
        self._workers: set[Worker] = set()
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
        await asyncio.gather(*(self._add_worker() for _ in range(self._n_workers)))

    async def close(self) -> None:
        """End the workers, also those that evaluate."""
        self._is_closing = True
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        for worker in [*self._idle]:
            self._unlist(worker)
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
        OSError
            If the key store fails.
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

    async def _ask(self, worker: Worker, ciphertext: bytes, key_id: str) -> bytes:
        ask = partial(worker.ask, ciphertext, key_id, self._timeout)
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

    async def _take(self, key_id: str) -> Worker:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._idle)
                # Prefer one that has the keys in memory.
                worker = next((w for w in self._idle if w.last_key_id == key_id), self._idle[0])
                self._unlist(worker)
            if worker.is_running():
                return worker
            self._replace(worker)

    async def _give_back(self, worker: Worker) -> None:
        if worker.is_running():
            await self._list(worker)
        else:
            self._replace(worker)

    async def _list(self, worker: Worker) -> None:
        """Let a worker wait for work, and notice when it dies meanwhile."""
        async with self._changed:
            self._idle.append(worker)
            asyncio.get_running_loop().add_reader(worker, self._lose, worker)
            self._changed.notify_all()

    def _unlist(self, worker: Worker) -> None:
        self._idle.remove(worker)
        asyncio.get_running_loop().remove_reader(worker)

    def _lose(self, worker: Worker) -> None:
        self._unlist(worker)
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        self._workers.discard(worker)
        worker.kill()
        self._on_restart()
        self._start(self._start_another())

    async def _start_another(self) -> None:
        while not self._is_closing:
            try:
                await self._add_worker()
            except (OSError, RuntimeError):
                LOGGER.exception("a worker could not be started; trying again")
                await asyncio.sleep(_RESTART_PAUSE)
            else:
                break

    async def _add_worker(self) -> None:
        worker = await asyncio.to_thread(Worker, self._worker_settings)
        self._workers.add(worker)
        await self._list(worker)
