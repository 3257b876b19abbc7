"""Content of a ``server.zip``, and checks of messages before the engine reads them."""

from __future__ import annotations

import os
from typing import Any

from cipherlearn._exceptions import MessageError
from cipherlearn.deployment._messages import HEADER_BYTES, Kind, Message
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._contents import ServerModel

__all__ = ["ServedModel"]

# Fields of client.json in the public description of a served model.
_SHOWN = ("estimator", "classes", "n_features", "feature_names", "batch_size", "engine")


class ServedModel:
    """The content of a ``server.zip``, and the checks of messages for it.

    Parameters
    ----------
    path : str or path
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.model = ServerModel.from_archive(Archive.read(path, "server"))
        self.client_zip = self.model.client.to_bytes()
        self.model_id = self.model.client.id
        self._client = self.model.client_model
        self._keyset_id = self._client.keyset_id
        self.frames = self._client.frames
        self.program = self.model.read_program()

    @property
    def engine(self) -> dict[str, str]:
        """Name and version of the engine that chose the cryptographic parameters."""
        engine: dict[str, str] = self._client.description["engine"]
        return engine

    @property
    def specs(self) -> bytes:
        """The cryptographic parameters that clients have."""
        return self._client.specs

    @property
    def description(self) -> dict[str, Any]:
        """Public description of the model, with the sizes of messages."""
        return {
            **{name: self._client.description[name] for name in _SHOWN},
            **self.model.description,
            "model_id": self.model_id,
            "keyset_id": self._keyset_id.hex(),
            "message_bytes": {name: self.message_bytes(name) for name in self.frames},
        }

    def message_bytes(self, name: str) -> int:
        """Length of a message with "evaluation_keys", a "ciphertext" or a "result"."""
        return self._client.message_bytes(name)

    def read_ciphertext(self, ciphertext: bytes) -> Message:
        """Parse a ciphertext, or raise MessageError unless it is one for this model."""
        message = Message.from_bytes(ciphertext, Kind.CIPHERTEXT)
        if message.scope.hex() != self.model_id:
            raise MessageError(
                f"This server has the model {self.model_id}. The ciphertext is for "
                f"{message.scope.hex()}. Get the client.zip of this server."
            )
        n_payload = self.frames["ciphertext"].n_payload
        if len(message.payload) != n_payload:
            raise MessageError(
                f"A ciphertext of this model must have a payload of {n_payload} bytes. "
                f"Got {len(message.payload)}."
            )
        return message

    def check_evaluation_keys(self, evaluation_keys: bytes) -> None:
        """Raise MessageError unless these are evaluation keys for this model. Copies none."""
        scope = Message.check(evaluation_keys, Kind.EVALUATION_KEYS)
        if scope != self._keyset_id:
            raise MessageError(
                "These evaluation keys are for other cryptographic parameters than this model's: "
                f"{scope.hex()} instead of {self._keyset_id.hex()}. Make keys with the "
                "model's client.zip."
            )
        self.frames["evaluation_keys"].check_length(len(evaluation_keys) - HEADER_BYTES)

    def read_evaluation_keys(self, evaluation_keys: bytes) -> bytes:
        """Return evaluation keys as the engine serializes them, or raise MessageError."""
        self.check_evaluation_keys(evaluation_keys)
        (keys,) = self.frames["evaluation_keys"].fill(evaluation_keys[HEADER_BYTES:])
        return keys
