"""A client that holds the keys, and a server that never sees data.

Importing a client or a server imports neither torch nor scikit-learn.
"""

# Servers and clients use its bindings.
# engine: concrete-python

from __future__ import annotations

from typing import TYPE_CHECKING

from cipherlearn._exceptions import (
    ArtefactError,
    MessageError,
    RemoteError,
    UnknownKeyError,
    UntrustedTypesError,
)
from cipherlearn._lazy import lazy_names

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
    "UntrustedTypesError",
    "export",
]

_MODULES = {
    "FHEClient": "_client",
    "FHEServer": "_server",
    "RemoteModel": "_remote",
    "export": "_export",
}

__getattr__ = lazy_names(__name__, _MODULES)
