"""The HTTP interface."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from cipherlearn._exceptions import MessageError, UnknownKeyError
from cipherlearn._version import __version__
from cipherlearn.deployment._messages import HEADER_BYTES, Kind, Message
from cipherlearn.deployment._served import ServedModel
from cipherlearn.deployment.keys._key_store import KeyStore, space_of
from cipherlearn.deployment.service._access import Access
from cipherlearn.deployment.service._observability import AccessLog, Metrics, audit
from cipherlearn.deployment.service._openapi import (
    BINARY,
    DESCRIPTION,
    KEY_ID,
    binary_body,
    content,
    reasons,
)
from cipherlearn.deployment.service._pool import WorkerPool
from cipherlearn.deployment.service._refusals import (
    STATUSES,
    as_http,
    detail_of,
    refuse_method,
    status_of,
)
from cipherlearn.deployment.service._settings import ServiceSettings
from cipherlearn.deployment.service._slots import SlotLimit, Slots
from cipherlearn.deployment.service._tokens import Tokens

__all__ = ["create_app"]

_BEARER = HTTPBearer(auto_error=False, description="One of the service's tokens.")

_KeyId = Annotated[str, Path(json_schema_extra=KEY_ID)]

_CHECKS_AT_A_TIME = 2

_PART_BYTES = 65536

# Seconds between checks whether a waiting client is still connected.
_LOOK_SECONDS = 1.0


def create_app(settings: ServiceSettings) -> FastAPI:
    """Make the service of a model, for any ASGI server.

    Parameters
    ----------
    settings : ServiceSettings

    Returns
    -------
    fastapi.FastAPI
        Its documentation is at ``/docs``.

    Raises
    ------
    ArtefactError
        If ``server_zip`` is no server artefact.
    ValueError
        If the limits leave no room for a single client.
    """
    service = _Service(settings)
    app = FastAPI(
        title="cipherlearn",
        version=__version__,
        description=DESCRIPTION,
        lifespan=service.lifespan,
        # A redirect would lead to whatever host the request names.
        redirect_slashes=False,
        redoc_url=None,
        exception_handlers={405: refuse_method},
    )
    app.state.metrics = service.metrics
    app.add_middleware(
        SlotLimit,
        slots={("POST", "/v1/predict"): service.predictions, ("PUT", "/v1/keys"): service.uploads},
    )
    # Around the slots, which strangers must not take.
    app.add_middleware(Access, tokens=service.tokens, hosts=settings.allowed_hosts)
    app.add_middleware(AccessLog, metrics=service.metrics)
    app.get("/health", tags=["operation"], responses=reasons(400, 503))(service.health)
    router = service.router()
    app.include_router(router)
    app.state.endpoints = [*app.routes, *router.routes]
    return app


class _Service:
    """The endpoints, and what they share."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.tokens = Tokens(settings.tokens, settings.token_file)
        # Without the tokens, of which only digests are kept.
        self._settings = settings = replace(settings, tokens=())
        self._served = ServedModel(settings.server_zip)
        _check_limits(settings, self._served)
        self.metrics = Metrics()
        self._store = KeyStore(
            settings.data_dir, settings.max_key_store_bytes, self._served.check_evaluation_keys
        )
        self.predictions = Slots(settings.max_pending)
        self.uploads = Slots(settings.max_uploads)
        self._pool = WorkerPool(settings, self._served.model_id, self.metrics.restarts.inc)
        # Each is a file of up to hundreds of megabytes that is read and checked.
        self._checks = asyncio.Semaphore(_CHECKS_AT_A_TIME)
        # Thousands of small ciphertexts are checked in Python, which others wait for.
        self._admissions = asyncio.Semaphore(1)
        self._description = bytes(JSONResponse(self._served.description).body)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        await self._pool.start()
        yield
        await self._pool.close()
        self._store.close()

    def router(self) -> APIRouter:
        """Return the endpoints that need a token where the service has tokens."""
        needed = self.tokens.are_needed()
        # For the documentation. The middleware Access checks the token.
        router = APIRouter(
            dependencies=[Depends(_BEARER)] if needed else [],
            responses=reasons(400, 401) if needed else reasons(400),
        )
        router.get(
            "/metrics",
            tags=["operation"],
            response_class=Response,
            responses=content(CONTENT_TYPE_LATEST),
        )(self.prometheus)
        router.get(
            "/v1/model",
            tags=["model"],
            response_class=Response,
            responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
        )(self.model)
        router.get(
            "/v1/client.zip",
            tags=["model"],
            response_class=Response,
            responses=content("application/zip"),
        )(self.client)
        key = "/v1/keys/{key_id}"
        router.get(key, tags=["keys"], responses=reasons(404))(self.has_keys)
        router.put(
            key,
            tags=["keys"],
            status_code=201,
            openapi_extra=binary_body(self._served.message_bytes("evaluation_keys")),
            responses=reasons(403, 408, 413, 503, 507),
        )(self.put_keys)
        router.delete(key, tags=["keys"], status_code=204, responses=reasons(403, 404, 507))(
            self.delete_keys
        )
        router.post(
            "/v1/predict",
            tags=["prediction"],
            openapi_extra=binary_body(self._served.message_bytes("ciphertext")),
            response_class=StreamingResponse,
            responses={**content(BINARY), **reasons(403, 404, 408, 413, 500, 503, 504, 507)},
        )(self.predict)
        return router

    async def health(self) -> dict[str, str]:
        """Return whether the service can predict, and the id of its model."""
        if not self._pool.n_workers:
            raise HTTPException(503, "No worker is running. One is being started.")
        return {"status": "ok", "model_id": self._served.model_id}

    async def prometheus(self) -> Response:
        """Return metrics for Prometheus."""
        self.metrics.pending.set(self.predictions.n_running)
        self.metrics.keys.set(len(self._store))
        self.metrics.key_bytes.set(self._store.n_bytes)
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def model(self) -> Response:
        """Describe the model: its labels and features, error probability and message sizes."""
        return _in_parts(self._description, "application/json")

    async def client(self) -> Response:
        """Return the artefact that clients make keys and ciphertexts with."""
        return _in_parts(self._served.client_zip, "application/zip")

    async def has_keys(self, key_id: _KeyId) -> dict[str, str]:
        """Return whether the service has a client's evaluation keys."""
        if key_id not in self._store:
            raise HTTPException(404, f"There are no keys {key_id!r:.80}. Upload them.")
        return {"key_id": key_id}

    async def put_keys(self, key_id: _KeyId, request: Request) -> dict[str, str]:
        """Store a client's evaluation keys, named by the SHA-256 of the body."""
        expected = self._served.message_bytes("evaluation_keys")
        with as_http(), self._store.upload(key_id) as upload:
            async for chunk in _body(request, expected, self._settings.body_timeout):
                await asyncio.to_thread(upload.write, chunk)
            async with self._checks:
                evicted = await asyncio.to_thread(upload.commit)
        audit("keys stored", request, key_id=key_id, bytes=expected)
        for each in evicted:
            audit("keys evicted", request, key_id=each)
        return {"key_id": key_id}

    async def delete_keys(self, key_id: _KeyId, request: Request) -> None:
        """Delete a client's evaluation keys."""
        with as_http():
            await asyncio.to_thread(self._store.remove, key_id)
        audit("keys deleted", request, key_id=key_id)

    async def predict(self, request: Request) -> Response:
        """Predict on encrypted batches, one after the other.

        The body is one or more ciphertexts. The answer is as many results, each sent as soon as
        it is computed. An error after the first result is sent as a message of kind error.
        """
        limits = self._settings
        body = _body(request, limits.max_body_bytes, limits.body_timeout)
        # Not a list, which would take much more for a body that comes in many small parts.
        data = bytearray()
        async for chunk in body:
            data += chunk
        with as_http():
            is_long = len(data) > _PART_BYTES
            async with self._admissions if is_long else contextlib.nullcontext():
                await asyncio.to_thread(self._admit, data)
            # One at a time. Python's objects take more than what small ciphertexts hold.
            size = self._served.message_bytes("ciphertext")
            ciphertexts = (bytes(data[i : i + size]) for i in range(0, len(data), size))
            first = await _unless_gone(request, self._evaluate(request, next(ciphertexts)))
        if len(data) == size:
            return _in_parts(first, BINARY)
        answers = self._answers(request, first, ciphertexts)
        return StreamingResponse(answers, media_type=BINARY)

    def _admit(self, data: bytearray) -> None:
        """Check the ciphertexts of a body, and note that their keys are used."""
        size = self._served.message_bytes("ciphertext")
        if not data or len(data) % size:
            raise MessageError(
                f"A body must be one or more ciphertexts of {size} bytes each. "
                f"Got {len(data)} bytes."
            )
        view, used = memoryview(data), set()
        for start in range(0, len(data), size):
            self._served.read_ciphertext(bytes(view[start : start + size]))
        for start in range(0, len(data), size):
            key = Message.key_of(bytes(view[start : start + HEADER_BYTES]))
            if key not in used:  # unknown ones are refused, so that these are few
                self._store.use(key.hex())
                used.add(key)

    async def _evaluate(self, request: Request, ciphertext: bytes) -> bytes:
        key_id = Message.key_of(ciphertext[:HEADER_BYTES]).hex()
        try:
            result = await self._pool.evaluate(ciphertext, key_id)
        except UnknownKeyError:
            # The worker found the key file missing or damaged.
            if await asyncio.to_thread(self._store.remove_damaged, key_id):
                audit("keys damaged", request, key_id=key_id)
            raise
        self.metrics.evaluations.inc()
        return result

    async def _answers(
        self, request: Request, first: bytes, others: Iterable[bytes]
    ) -> AsyncIterator[bytes]:
        for part in _parts(first):
            yield part
        try:
            for ciphertext in others:
                for part in _parts(await self._evaluate(request, ciphertext)):
                    yield part
        except tuple(STATUSES) as error:
            reason = json.dumps({"status": status_of(error), "detail": detail_of(error)}).encode()
            yield Message(Kind.ERROR, bytes(32), bytes(32), reason).to_bytes()


def _check_limits(settings: ServiceSettings, served: ServedModel) -> None:
    keys, ciphertext = map(served.message_bytes, ("evaluation_keys", "ciphertext"))
    for limit, name, needed in (
        ("max_key_store_bytes", "evaluation_keys", space_of(keys)),
        ("max_body_bytes", "ciphertext", ciphertext),
    ):
        allowed = getattr(settings, limit)
        if allowed < needed:
            raise ValueError(
                f"{limit} must hold one message with this model's {name}, of {needed} bytes. "
                f"Got {allowed}."
            )


def _in_parts(data: bytes, media_type: str) -> Response:
    """Answer so that a slow reader holds its slot, and no copy of the answer."""
    if len(data) <= _PART_BYTES:
        return Response(data, media_type=media_type)
    length = {"Content-Length": str(len(data))}
    return StreamingResponse(_each(_parts(data)), media_type=media_type, headers=length)


def _parts(data: bytes) -> Iterator[bytes]:
    return (data[i : i + _PART_BYTES] for i in range(0, len(data), _PART_BYTES))


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _unless_gone(request: Request, awaitable: Coroutine[Any, Any, bytes]) -> bytes:
    """Wait for a result, or raise HTTPException if the client disconnects."""
    task = asyncio.create_task(awaitable)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise HTTPException(400, "The client went away before the first result.")
        return task.result()
    finally:
        task.cancel()


async def _body(request: Request, max_bytes: int, timeout: int) -> AsyncIterator[bytes]:
    """Give a body as it arrives, or raise HTTPException if it is too large or too slow."""
    too_large = HTTPException(413, f"The body may have {max_bytes} bytes. This one has more.")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        raise HTTPException(400, f"Content-Length must be a number. Got {length!r:.40}.")
    if int(length) > max_bytes:
        raise too_large
    deadline = asyncio.get_running_loop().time() + timeout
    n_bytes = 0
    chunks = request.stream()
    while True:
        remaining = deadline - asyncio.get_running_loop().time()
        try:
            chunk = await asyncio.wait_for(anext(chunks), max(0.0, remaining))
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise HTTPException(400, "The client went away before the body was whole.") from error
        except asyncio.TimeoutError as error:
            raise HTTPException(
                408, f"The body must arrive within {timeout} seconds. It did not."
            ) from error
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise too_large
        yield chunk
