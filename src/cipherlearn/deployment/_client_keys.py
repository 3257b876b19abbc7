"""The keys of a client, and their file."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from cipherlearn._exceptions import ArtefactError, MessageError
from cipherlearn._progress import stage
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.artefacts._contents import ClientModel, check_engine
from cipherlearn.deployment.keys._key_file import read_keys, write_keys

if TYPE_CHECKING:
    from cipherlearn.engines.concrete_python.client import ClientRuntime

__all__ = ["ClientKeys", "client_runtime"]

_NONCE_BYTES = 32


class ClientKeys:
    """Secret and evaluation keys, and the id by which a server knows them.

    Parameters
    ----------
    model : ClientModel
    runtime : ClientRuntime
        With keys.
    nonce : bytes
        Random, and sent along with the evaluation keys.

    Attributes
    ----------
    id : bytes
        SHA-256 of the message with the evaluation keys.
    """

    def __init__(self, model: ClientModel, runtime: ClientRuntime, nonce: bytes) -> None:
        self.runtime = runtime
        self._model = model
        self._nonce = nonce
        self.id = hashlib.sha256(self.evaluation_keys()).digest()

    @classmethod
    def generate(cls, model: ClientModel, verbose: bool | int = False) -> ClientKeys:
        """Make fresh keys."""
        runtime = client_runtime(model)
        try:
            with stage("Generating keys", verbose):
                runtime.generate_keys()
            return cls(model, runtime, os.urandom(_NONCE_BYTES))
        except (MessageError, RuntimeError) as error:
            raise ArtefactError(
                f"The engine cannot make keys for this model. {error} Get its client.zip again."
            ) from error

    @classmethod
    def load(
        cls, model: ClientModel, path: str | os.PathLike[str], passphrase: str | None
    ) -> ClientKeys:
        """Read keys that :meth:`save` wrote."""
        runtime = client_runtime(model)
        keys = read_keys(path, model.keyset_id, passphrase, _NONCE_BYTES + runtime.max_key_bytes)
        try:
            runtime.load_keys(keys[_NONCE_BYTES:])
            return cls(model, runtime, keys[:_NONCE_BYTES])
        except (MessageError, RuntimeError) as error:
            raise ArtefactError(
                f"The engine {model.description['engine']} cannot read the keys in {path}. {error}"
            ) from error

    def save(self, path: str | os.PathLike[str], passphrase: str | None) -> None:
        """Write all keys, the secret ones included, to a new file."""
        keys = self._nonce + self.runtime.secret_keys()
        write_keys(path, self._model.keyset_id, keys, passphrase)

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys for a server. They hold no secret."""
        payload = self._model.frames["evaluation_keys"].strip([self.runtime.evaluation_keys()])
        message = Message(Kind.EVALUATION_KEYS, self._model.keyset_id, self._nonce, payload)
        return message.to_bytes()


def client_runtime(model: ClientModel) -> ClientRuntime:
    """Open the engine with a model's parameters, or raise ArtefactError if it refuses them."""
    from cipherlearn.engines.concrete_python import ENGINE
    from cipherlearn.engines.concrete_python.client import ClientRuntime

    engine = model.description["engine"]
    check_engine(engine)
    try:
        return ClientRuntime(model.specs)
    except RuntimeError as error:
        raise ArtefactError(
            f"{ENGINE} cannot read the model's cryptographic parameters. {error} It was exported "
            f"with version {engine['version']}."
        ) from error
