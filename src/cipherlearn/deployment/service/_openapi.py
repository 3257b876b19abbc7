"""Texts and schemas of bodies and answers in the service's OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

__all__ = ["BINARY", "DESCRIPTION", "KEY_ID", "Problem", "binary_body", "content", "reasons"]

BINARY = "application/octet-stream"

DESCRIPTION = """
Predicts on encrypted rows. This service sees ciphertexts and evaluation keys, and has no key that
could read a row or a prediction. Never send it anything that was decrypted.

`cipherlearn.deployment.RemoteModel` speaks this protocol.
"""

# The schema of a key's id.
KEY_ID = {"pattern": "^[0-9a-f]{64}$", "description": "SHA-256 of the evaluation keys."}

_REASONS = {
    400: "The body is damaged, or for another model; or the Host is no name of this service.",
    401: "The bearer token is missing or wrong.",
    403: "A page of another origin asks.",
    404: "The evaluation keys are not here. Upload them.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    500: "The engine failed. The fault is the service's.",
    503: "The service cannot take this now. Come back after Retry-After seconds.",
    504: "The evaluation took too long.",
    507: "The key store is full, or fails.",
}


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


def reasons(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of refusals."""
    return {status: {"description": _REASONS[status], "model": Problem} for status in statuses}


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of an answer that is no JSON."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"content": {media_type: {"schema": schema}}}}


def binary_body(n_bytes: int) -> dict[str, Any]:
    """Return the documentation of a body that has at least so many bytes."""
    schema = {"type": "string", "format": "binary", "minLength": n_bytes}
    return {"requestBody": {"required": True, "content": {BINARY: {"schema": schema}}}}
