"""The server of a deployed model."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cipherlearn._checks import check_int
from cipherlearn._exceptions import (
    ArtefactError,
    CipherlearnError,
    UnknownKeyError,
    UnsupportedByEngineError,
)
from cipherlearn._guarded_zip import refusing_damage
from cipherlearn._words import count
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment._served import ServedModel
from cipherlearn.deployment.artefacts._contents import check_engine, summary
from cipherlearn.engines import Server

__all__ = ["FHEServer"]


class FHEServer:
    """Server of one model, which predicts on ciphertexts of many clients. It holds no secret.

    Needs neither torch nor scikit-learn. May be called from several threads at once.

    Parameters
    ----------
    path : str or path
        The ``server.zip`` of a model.
    max_key_bytes : int, default=2 GB
        Memory for evaluation keys that are ready for use. Those least recently used are dropped.
        A client's take as much as :attr:`key_bytes` says.
    find_keys : callable, default=None
        Gives the evaluation keys of a key id, as bytes, when they are not in memory; raises
        :class:`~cipherlearn.deployment.UnknownKeyError` if there are none.
    n_threads : int or None, default=None
        Threads to compute in. None takes ``OMP_NUM_THREADS`` if it is set, or else all cores that
        the process may use.
    runtime : {"kernels", "compiled"}, default="kernels"
        Concrete's kernels, or a circuit that is compiled from the model's program. That runs the
        native compiler for an unbounded time on a program that is as trustworthy as the file.

    Attributes
    ----------
    model_id : str
        The model's id, which its clients name.
    client_zip : bytes
        The artefact for clients.
    description : dict
        Public description of the model, with the sizes of messages.
    key_bytes : int
        Memory of a client's keys that are ready for use.
    runtime : {"kernels", "compiled"}
        Which of the two evaluates.

    Raises
    ------
    ArtefactError
        If the file is no server artefact, is damaged, or its cryptographic parameters do not fit
        its program. It is a ``ValueError``.
    UnsupportedByEngineError
        If the kernels cannot evaluate the program here, and ``runtime="compiled"`` is not given.

    Examples
    --------
    See :class:`FHEClient`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_key_bytes: int = 2_000_000_000,
        find_keys: Callable[[str], bytes] | None = None,
        n_threads: int | None = None,
        runtime: str = "kernels",
    ) -> None:
        from cipherlearn.engines.kernels import KeyCache

        if runtime not in ("kernels", "compiled"):
            raise ValueError(f'runtime must be "kernels" or "compiled". Got {runtime!r}.')
        self._find_keys = find_keys
        self._served = ServedModel(path)
        self.client_zip = self._served.client_zip
        self.model_id = self._served.model_id
        self.description = self._served.description
        self._server = _open(self._served, n_threads, runtime)
        self.runtime, self.key_bytes = self._server.runtime, self._server.key_bytes
        self._keys = KeyCache(check_int("max_key_bytes", max_key_bytes, 1))
        # One evaluation takes all threads, so that nothing is lost by doing one at a time.
        self._run_lock = threading.Lock()

    def __repr__(self) -> str:
        keys = f"evaluation keys of {count(len(self._keys), 'client')} in memory"
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
        ciphertexts = self._served.frames["ciphertext"].fill(message.payload)
        keys = self._find(message.key)
        with self._run_lock:
            (results,) = self._server.run([ciphertexts], keys)
        payload = self._served.frames["result"].strip(results)
        return Message(
            Kind.RESULT, message.scope, message.key, payload, answers=message.digest
        ).to_bytes()

    def evaluate(self, ciphertexts: Iterable[bytes]) -> Iterator[bytes]:
        """Predict on encrypted batches, one after the other: a transport for a client."""
        return map(self.run, ciphertexts)

    def _find(self, key_id: bytes) -> Any:
        keys = self._keys.get(key_id)
        if keys is not None:
            return keys
        if self._find_keys is None:
            raise UnknownKeyError(
                f"The server must have the evaluation keys {key_id.hex()}. It has not, or no "
                "longer. Add them again."
            )
        found = self._find_keys(key_id.hex())
        if hashlib.sha256(found).digest() != key_id:
            raise UnknownKeyError(f"The keys that were found are not {key_id.hex()}.")
        return self._load(key_id, found)

    def _load(self, key_id: bytes, evaluation_keys: bytes) -> Any:
        keys = self._server.load_keys(self._served.read_evaluation_keys(evaluation_keys))
        self._keys.put(key_id, keys)
        return keys


def _open(served: ServedModel, n_threads: int | None, runtime: str) -> Server:
    from cipherlearn.engines._options import CompileOptions
    from cipherlearn.engines.concrete_python import ENGINE, engine_version
    from cipherlearn.engines.concrete_python.server import OtherParametersError, open_server

    engine, description = served.engine, served.description
    check_engine(engine)
    options = CompileOptions(
        **served.model.description["error_probability"],
        batch_size=description["batch_size"],
        rounding=description["rounding"],
        runtime=runtime,
    )
    name = f"{ENGINE} {engine_version()}"
    rule = f"{name} must be able to evaluate the program in server.zip. It is not:"
    try:
        # Whoever makes a file chooses how a program and its parameters do not fit.
        with refusing_damage(
            ArtefactError, rule, "Export the model again.", passing=(CipherlearnError,)
        ):
            return open_server(served.program, served.specs, options, n_threads=n_threads)
    except UnsupportedByEngineError as error:
        if runtime != "kernels":
            raise
        # Whoever makes a file must not decide that a compiler runs.
        raise UnsupportedByEngineError(
            "Concrete's kernels must be able to evaluate the program in server.zip. "
            f"{error.__cause__ or error} A server compiles only a file that you trust, by "
            'FHEServer(runtime="compiled") or "cipherlearn serve --runtime compiled".'
        ) from error
    except OtherParametersError as error:
        raise ArtefactError(
            f"{name} chose other cryptographic parameters than version "
            f"{engine['version']} did when the model was exported, so that its clients' keys do "
            "not fit. Install that version, or export the model again."
        ) from error
