"""Answers to requests that are refused or fail: a status, and a reason as JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.routing import Match

from cipherlearn._exceptions import MessageError, UnknownKeyError
from cipherlearn.deployment.service._logs import LOGGER
from cipherlearn.deployment.service._worker import EvaluationError, WorkerDiedError

__all__ = ["STATUSES", "as_http", "detail_of", "refusal", "refuse_method", "status_of"]

# Errors of a request, and their HTTP status.
STATUSES: dict[type[Exception], int] = {
    MessageError: 400,
    UnknownKeyError: 404,
    EvaluationError: 500,
    WorkerDiedError: 503,
    TimeoutError: 504,
    OSError: 507,
}


def refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer that refuses a request."""
    return JSONResponse({"detail": reason}, status, headers)


def status_of(error: Exception) -> int:
    """Return the status of an error in ``STATUSES``."""
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


def detail_of(error: Exception) -> str:
    """Return the reason that a client gets. Errors of the key store are logged instead."""
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        # The message names files of the service.
        LOGGER.error(f"the key store failed: {error}")
        return "The key store of this service is full, or fails."
    return str(error)


@contextlib.contextmanager
def as_http() -> Iterator[None]:
    """Turn errors of a request into their status and reason."""
    try:
        yield
    except tuple(STATUSES) as error:
        status = status_of(error)
        headers = {"Retry-After": "1"} if status == 503 else None
        raise HTTPException(status, detail_of(error), headers) from error


async def refuse_method(request: Request, error: Exception) -> JSONResponse:
    """Name the methods that a path has, also those of other endpoints."""
    endpoints = request.app.state.endpoints
    matching = (each for each in endpoints if each.matches(request.scope)[0] != Match.NONE)
    methods = {method for each in matching for method in getattr(each, "methods", None) or ()}
    allowed = ", ".join(sorted(methods))
    return refusal(405, f"The methods of this path are {allowed}. Got another.", {"Allow": allowed})
