"""A client that holds the keys, and a server that never sees data.

Importing a client or a server imports neither torch nor scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cipherlearn._exceptions import ArtefactError, MessageError, RemoteError, UnknownKeyError

if TYPE_CHECKING:
    from cipherlearn.deployment._client import FHEClient
    from cipherlearn.deployment._export import export
    from cipherlearn.deployment._remote import RemoteModel
    from cipherlearn.deployment._server import FHEServer

__all__ = [
    "ArtefactError",
    "FHEClient",
    "FHEServer",
    "MessageError",
    "RemoteError",
    "RemoteModel",
    "UnknownKeyError",
    "export",
]

_MODULES = {
    "FHEClient": "_client",
    "FHEServer": "_server",
    "RemoteModel": "_remote",
    "export": "_export",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
