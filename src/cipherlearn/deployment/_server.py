"""The server of a deployed model."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cipherlearn._checks import check_int
from cipherlearn._exceptions import ArtefactError, UnknownKeyError
from cipherlearn._words import count
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment._served import ServedModel
from cipherlearn.deployment.artefacts._model import check_engine, summary

__all__ = ["FHEServer", "compile_server"]


class FHEServer:
    """Server of one model, which predicts on ciphertexts of many clients. It holds no secret.

    Needs neither torch nor scikit-learn. May be called from several threads at once.

    Parameters
    ----------
    path : str or path
        The ``server.zip`` of a model.
    max_loaded_keys : int, default=8
        Clients whose evaluation keys are kept in memory. Those least recently used are dropped.
    find_keys : callable, default=None
        Gives the evaluation keys of a key id, as bytes, when they are not in memory; raises
        :class:`~cipherlearn.deployment.UnknownKeyError` if there are none.
    library : str or path, default=None
        Directory of the circuit as it was compiled before. ``None`` compiles it.

    Attributes
    ----------
    model_id : str
        The model's id, which its clients name.
    client_zip : bytes
        The artefact for clients.
    description : dict
        Public description of the model, with the sizes of messages.

    Raises
    ------
    ArtefactError
        If the file is no server artefact, is damaged, or does not compile to the cryptographic
        parameters that clients have. It is a ``ValueError``.

    Examples
    --------
    See :class:`FHEClient`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_loaded_keys: int = 8,
        find_keys: Callable[[str], bytes] | None = None,
        library: str | os.PathLike[str] | None = None,
    ) -> None:
        from cipherlearn.engines.concrete_python.server import ServerRuntime, compiled_runtime

        self._max_loaded_keys = check_int("max_loaded_keys", max_loaded_keys, 1)
        self._find_keys = find_keys
        self._served = ServedModel(path)
        self.client_zip = self._served.client_zip
        self.model_id = self._served.model_id
        self.description = self._served.description
        if library is None:
            self._runtime = compiled_runtime(partial(compile_server, self._served))
        else:
            self._runtime = ServerRuntime(Path(library))
        self._loaded: OrderedDict[bytes, Any] = OrderedDict()
        self._keys_lock = threading.Lock()
        # Threads that share a circuit of the engine get each other's results. One evaluation uses
        # all cores, so evaluating one at a time loses nothing.
        self._run_lock = threading.Lock()

    def __repr__(self) -> str:
        keys = f"evaluation keys of {count(len(self._loaded), 'client')} in memory"
        return f"<FHEServer: {summary(self.description, self.model_id)}, {keys}>"

    def add_keys(self, evaluation_keys: bytes) -> str:
        """Keep a client's evaluation keys in memory.

        Parameters
        ----------
        evaluation_keys : bytes
            What :meth:`FHEClient.evaluation_keys` gave.

        Returns
        -------
        str
            Their id.

        Raises
        ------
        MessageError
            If they are damaged, or for other cryptographic parameters.
        """
        key_id = hashlib.sha256(evaluation_keys).digest()
        self._load(key_id, evaluation_keys)
        return key_id.hex()

    def run(self, ciphertext: bytes) -> bytes:
        """Predict on one encrypted batch.

        Parameters
        ----------
        ciphertext : bytes
            A message of :meth:`FHEClient.encrypt`.

        Returns
        -------
        bytes
            A message for :meth:`FHEClient.decrypt`.

        Raises
        ------
        MessageError
            If it is damaged, or for another model.
        UnknownKeyError
            If its client's evaluation keys are not here.
        """
        message = self._served.read_ciphertext(ciphertext)
        value = self._served.frames["ciphertext"].fill(message.payload)
        keys = self._keys(message.key)
        with self._run_lock:
            result = self._runtime.run(value, keys)
        payload = self._served.frames["result"].strip(result)
        return Message(
            Kind.RESULT, message.scope, message.key, payload, answers=message.digest
        ).to_bytes()

    def evaluate(self, ciphertexts: Iterable[bytes]) -> Iterator[bytes]:
        """Predict on encrypted batches, one after the other: a transport for a client."""
        return map(self.run, ciphertexts)

    def _keys(self, key_id: bytes) -> Any:
        with self._keys_lock:
            if key_id in self._loaded:
                self._loaded.move_to_end(key_id)
                return self._loaded[key_id]
        if self._find_keys is None:
            raise UnknownKeyError(
                f"The server must have the evaluation keys {key_id.hex()}. It has not, or no "
                "longer. Add them again."
            )
        keys = self._find_keys(key_id.hex())
        if hashlib.sha256(keys).digest() != key_id:
            raise UnknownKeyError(f"The keys that were found are not {key_id.hex()}.")
        return self._load(key_id, keys)

    def _load(self, key_id: bytes, evaluation_keys: bytes) -> Any:
        keys = self._runtime.load_keys(self._served.read_evaluation_keys(evaluation_keys))
        with self._keys_lock:
            self._loaded[key_id] = keys
            self._loaded.move_to_end(key_id)
            while len(self._loaded) > self._max_loaded_keys:
                self._loaded.popitem(last=False)
        return keys


def compile_server(served: ServedModel, directory: Path) -> None:
    """Compile a server's circuit into a directory, or raise ArtefactError."""
    from cipherlearn.engines.concrete_python import ENGINE, engine_version
    from cipherlearn.engines.concrete_python.server import OtherParametersError, compile_library

    engine = served.engine
    check_engine(engine)
    probability = served.model.description["error_probability"]
    try:
        compile_library(served.model.circuit, served.specs, directory, **probability)
    except RuntimeError as error:
        raise ArtefactError(f"{ENGINE} cannot compile this model's circuit. {error}") from error
    except OtherParametersError as error:
        raise ArtefactError(
            f"{ENGINE} {engine_version()} chose other cryptographic parameters than version "
            f"{engine['version']} did when the model was exported, so that its clients' keys do "
            "not fit. Install that version, or export the model again."
        ) from error
