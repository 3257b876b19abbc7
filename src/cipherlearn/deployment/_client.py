"""The client: it holds the keys, encrypts rows and decrypts results."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._checks import check_int
from cipherlearn._exceptions import ArtefactError, MessageError
from cipherlearn._features import check_features, refusing_overflow
from cipherlearn._progress import progress_bar, stage
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._model import ClientModel, check_engine, summary
from cipherlearn.deployment.artefacts._preprocessing import load_preprocessing
from cipherlearn.deployment.keys._key_file import read_keys, write_keys

if TYPE_CHECKING:
    from cipherlearn.engines.concrete_python.client import ClientRuntime

__all__ = ["FHEClient", "Transport"]

Transport = Callable[[Iterable[bytes]], Iterable[bytes]]

_NONCE_BYTES = 32


class FHEClient:
    """Holds the keys, encrypts rows and decrypts predictions.

    Needs neither torch nor scikit-learn (but what the model's own preprocessing needs). The
    cryptographic parameters in the artefact are checked for 128 bits of security.

    Parameters
    ----------
    path : str or path
        The ``client.zip`` of a model.
    trusted : sequence of str, default=()
        Types in the model's preprocessing that may be loaded besides scikit-learn's own, as
        ``skops.io.load`` names them.

    Attributes
    ----------
    model_id : str
        SHA-256 of the artefact's content.
    classes_ : ndarray of shape (n_classes,)
        Labels. Only of classifiers.

    Raises
    ------
    ArtefactError
        If the file is no client artefact, is damaged, or names insecure parameters; and when rows
        are encrypted, if its preprocessing holds types that are not trusted. It is a
        ``ValueError``.

    Examples
    --------
    >>> import tempfile
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.deployment import FHEClient, FHEServer, export
    >>> X = [[0.0], [1.0], [2.0], [3.0]]
    >>> clf = NeuralNetClassifier(module__n_layers=1, max_epochs=10).fit(X, ["a", "a", "b", "b"])
    >>> circuit = clf.compile()
    >>> directory = tempfile.mkdtemp()
    >>> paths = export(clf, directory)
    >>> server = FHEServer(f"{directory}/server.zip")
    >>> client = FHEClient(f"{directory}/client.zip")
    >>> client.generate_keys()
    >>> key_id = server.add_keys(client.evaluation_keys())
    >>> bool((client.predict(X, server.evaluate) == clf.predict(X)).all())
    True
    """

    def __init__(self, path: str | os.PathLike[str], trusted: Sequence[str] = ()) -> None:
        self._open(Archive.read(path, "client"), trusted)

    @classmethod
    def from_bytes(cls, content: bytes, trusted: Sequence[str] = ()) -> FHEClient:
        """Make a client of the content of a ``client.zip``."""
        client = cls.__new__(cls)
        client._open(Archive.from_bytes(content, "client"), trusted)
        return client

    def _open(self, archive: Archive, trusted: Sequence[str]) -> None:
        self.model_id = archive.id
        self._model = ClientModel.from_archive(archive)
        self._trusted = tuple(trusted)
        classes = self._model.classes
        if classes is not None:
            self.classes_ = classes
        self._frames = self._model.frames
        self._runtime = _runtime(self._model)
        self._nonce = b""
        self._key_id = b""

    def __repr__(self) -> str:
        return f"<FHEClient: {self._summary()}>"

    def _summary(self) -> str:
        keys = f"keys {self.key_id[:12]}" if self.has_keys else "no keys yet"
        return f"{summary(self.description, self.model_id)}, {keys}"

    @cached_property
    def _preprocessing(self) -> Any:
        # Keys can be made without it.
        return load_preprocessing(self._model.preprocessing, self._trusted)

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self._model.scaler.gain)

    @property
    def description(self) -> dict[str, Any]:
        """What the artefact says of the model."""
        return self._model.description

    def message_bytes(self, name: str) -> int:
        """Length of a message with "evaluation_keys", a "ciphertext" or a "result"."""
        return self._model.message_bytes(name)

    # ------------------------------------------------------------------ keys

    @property
    def has_keys(self) -> bool:
        """Whether keys were generated or loaded."""
        return bool(self._key_id)

    @property
    def key_id(self) -> str:
        """SHA-256 of the evaluation keys, by which a server knows them."""
        self._check_keys()
        return self._key_id.hex()

    def generate_keys(self, verbose: bool | int = False) -> None:
        """Make fresh keys. What was encrypted with earlier ones needs those to be read.

        Parameters
        ----------
        verbose : bool or int, default=False
            Whether to show how long it takes.
        """
        runtime = _runtime(self._model)
        with stage("Generating keys", verbose):
            runtime.generate_keys()
        self._use_keys(runtime, os.urandom(_NONCE_BYTES))

    def save_keys(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        """Write the keys, the secret ones included, to a new file that only its owner may read.

        Parameters
        ----------
        path : str or path
            A file that does not exist yet.
        passphrase : str or None, default=None
            Encrypts the file, with AES-256-GCM under a key that scrypt derives.

        Raises
        ------
        FileExistsError
            If there is such a file. It may hold the only key to some ciphertexts.
        ArtefactError
            If there are no keys yet.
        """
        self._check_keys()
        keys = self._nonce + self._runtime.secret_keys()
        write_keys(path, self._model.keyset_id, keys, passphrase)

    def load_keys(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        """Read keys that :meth:`save_keys` wrote.

        Keys serve every model of the same cryptographic parameters, such as a retrained one of
        the same shape.

        Parameters
        ----------
        path : str or path
        passphrase : str or None, default=None

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ArtefactError
            If the file is damaged or for other parameters, or the passphrase is wrong.
        """
        keys = read_keys(path, self._model.keyset_id, passphrase)
        runtime = _runtime(self._model)
        try:
            runtime.load_keys(keys[_NONCE_BYTES:])
            self._use_keys(runtime, keys[:_NONCE_BYTES])
        except (MessageError, RuntimeError) as error:
            raise ArtefactError(
                f"The engine {self.description['engine']} cannot read the keys in {path}. {error}"
            ) from error

    def open_keys(
        self,
        path: str | os.PathLike[str] | None,
        passphrase: str | None = None,
        verbose: bool | int = False,
    ) -> None:
        """Load the keys of a file, or make them, and the file if one is named.

        Parameters
        ----------
        path : str, path or None
            None makes keys that are not kept.
        passphrase : str or None, default=None
        verbose : bool or int, default=False
            As for :meth:`generate_keys`.
        """
        if path is not None and os.path.exists(path):
            self.load_keys(path, passphrase)
            return
        self.generate_keys(verbose)
        if path is not None:
            self.save_keys(path, passphrase)

    def evaluation_keys(self) -> bytes:
        """Give the keys that a server needs, as a message. They hold no secret."""
        self._check_keys()
        return self._evaluation_keys(self._runtime, self._nonce)

    def _use_keys(self, runtime: ClientRuntime, nonce: bytes) -> None:
        """Replace the keys, all that belongs to them at once."""
        key_id = hashlib.sha256(self._evaluation_keys(runtime, nonce)).digest()
        self._runtime, self._nonce, self._key_id = runtime, nonce, key_id

    def _evaluation_keys(self, runtime: ClientRuntime, nonce: bytes) -> bytes:
        payload = self._frames["evaluation_keys"].strip(runtime.evaluation_keys())
        message = Message(Kind.EVALUATION_KEYS, self._model.keyset_id, nonce, payload)
        return message.to_bytes()

    def _check_keys(self) -> None:
        if not self.has_keys:
            raise ArtefactError(
                "This client has no keys yet. Call generate_keys() or load_keys(path)."
            )

    # ------------------------------------------------------------------ rows

    def encrypt(self, X) -> Iterator[bytes]:
        """Encrypt rows, a batch at a time.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
            As for the model's ``predict``, before its preprocessing.

        Returns
        -------
        iterator of bytes
            A message for each batch of rows, encrypted when it is asked for.

        Raises
        ------
        ValueError
            If ``X`` is invalid.
        """
        self._check_keys()
        return (message.to_bytes() for message in self._encrypt_codes(self._quantize(X)))

    def decrypt(self, results: Sequence[bytes], n_rows: int) -> NDArray[np.float32]:
        """Decrypt results to the network's outputs.

        Parameters
        ----------
        results : sequence of bytes
            What the server answered to :meth:`encrypt`, in order. :meth:`predict` checks the order.
        n_rows : int
            Number of rows that were encrypted.

        Returns
        -------
        ndarray of shape (n_rows, n_outputs)
            For :meth:`labels`, :meth:`probabilities` or :meth:`targets`.

        Raises
        ------
        MessageError
            If a result is damaged, one of another model or other keys, or too few or many came.
        """
        self._check_keys()
        check_int("n_rows", n_rows, 0)
        n_batches = -(-n_rows // self.description["batch_size"])
        if len(results) != n_batches:
            raise MessageError(
                f"{n_rows} rows need {n_batches} results. Got {len(results)} of them."
            )
        sums = [self._decrypt_message(result)[1] for result in results]
        stacked = np.concatenate([np.empty((0, self.n_outputs), dtype=np.int64), *sums])
        return self._model.scaler(stacked[:n_rows])

    def predict(self, X, transport: Transport, verbose: bool | int = False):
        """Predict labels or targets of encrypted rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        transport : callable
            Takes an iterable of ciphertexts and returns an iterable of results, in the same
            order, such as :meth:`FHEServer.evaluate`.
        verbose : bool or int, default=False
            Whether to show progress.

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, n_outputs)
            Exactly what the model predicts in the clear.

        Raises
        ------
        ValueError
            If ``X`` is invalid.
        MessageError
            If a result does not answer its ciphertext.
        """
        outputs = self.outputs(X, transport, verbose)
        is_classifier = self.description["estimator"] == "classifier"
        return self.labels(outputs) if is_classifier else self.targets(outputs)

    def predict_proba(self, X, transport: Transport, verbose: bool | int = False):
        """Predict the probability of each class for encrypted rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        transport : callable
            As for :meth:`predict`.
        verbose : bool or int, default=False

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            Columns in the order of ``classes_``.
        """
        self._check_estimator("classifier", "predict_proba")
        return self.probabilities(self.outputs(X, transport, verbose))

    def outputs(self, X, transport: Transport, verbose: bool | int = False) -> NDArray[np.float32]:
        """Predict the network's outputs for encrypted rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        transport : callable
            As for :meth:`predict`.
        verbose : bool or int, default=False

        Returns
        -------
        ndarray of shape (n_rows, n_outputs)
            For :meth:`labels`, :meth:`probabilities` or :meth:`targets`.
        """
        self._check_keys()
        codes = self._quantize(X)
        sent: list[bytes] = []

        def ciphertexts() -> Iterator[bytes]:
            for message in self._encrypt_codes(codes):
                sent.append(message.digest)
                yield message.to_bytes()

        sums = np.empty((len(codes), len(self._model.scaler.gain)), dtype=np.int64)
        size = self.description["batch_size"]
        n_batches = -(-len(codes) // size)
        n_answers = 0
        with progress_bar(len(codes), "Rows", "row", verbose) as progress:
            for n_answers, result in enumerate(transport(ciphertexts()), start=1):
                start = (n_answers - 1) * size
                message, decrypted = self._decrypt_message(result)
                if n_answers > len(sent) or message.answers != sent[n_answers - 1]:
                    raise MessageError(
                        f"Result {n_answers} answers another ciphertext than was sent as number "
                        f"{n_answers}. A transport must keep the order."
                    )
                rows = sums[start : start + size]
                rows[:] = decrypted[: len(rows)]
                progress.update(len(rows))
        if n_answers != n_batches:
            raise MessageError(
                f"{n_batches} ciphertexts need as many results. The transport gave {n_answers}."
            )
        return self._model.scaler(sums)

    def labels(self, outputs: NDArray[np.float32]) -> NDArray:
        """Turn a classifier's outputs into labels."""
        self._check_estimator("classifier", "labels")
        return self.classes_[outputs.argmax(axis=1)]

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Turn a classifier's outputs into probabilities."""
        self._check_estimator("classifier", "probabilities")
        values = outputs.astype(np.float64)
        if self.description["probabilities"] is None:
            raise AttributeError(
                "This model's outputs are no probabilities: it was trained with a criterion of "
                "its own. Use predict, or decrypt for the outputs."
            )
        if self.description["probabilities"] == "softmax":
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        return values

    def targets(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Turn a regressor's outputs into targets, in the units of the training data."""
        self._check_estimator("regressor", "targets")
        scale, mean = self._model.target_scale, self._model.target_mean
        assert scale is not None
        assert mean is not None
        targets = outputs.astype(np.float64) * scale + mean
        return targets.ravel() if self.description["target_is_1d"] else targets

    def _check_estimator(self, kind: str, method: str) -> None:
        if self.description["estimator"] != kind:
            raise AttributeError(
                f"{method} is for a {kind}. This model is a {self.description['estimator']}."
            )

    def _quantize(self, X) -> NDArray[np.int64]:
        columns = getattr(X, "columns", None)
        names = self.description["feature_names"]
        if self._preprocessing is not None:
            # Its steps look at the names themselves.
            with refusing_overflow():
                X = self._preprocessing.transform(X)
        elif columns is not None and names is not None and list(columns) != names:
            raise ValueError(
                f"The feature names should match those of the training data, {names}. "
                f"Got {list(columns)}."
            )
        quantizer = self._model.quantizer
        return quantizer(check_features(X, quantizer.n_features))

    def _encrypt_codes(self, codes: NDArray[np.int64]) -> Iterator[Message]:
        size = self.description["batch_size"]
        scope = bytes.fromhex(self.model_id)
        for start in range(0, len(codes), size):
            batch = codes[start : start + size]
            batch = np.pad(batch, ((0, size - len(batch)), (0, 0)))
            payload = self._frames["ciphertext"].strip(self._runtime.encrypt(batch))
            yield Message(Kind.CIPHERTEXT, scope, self._key_id, payload)

    def _decrypt_message(self, result: bytes) -> tuple[Message, NDArray[np.int64]]:
        message = Message.from_bytes(result, Kind.RESULT)
        if message.scope.hex() != self.model_id:
            raise MessageError(
                f"This client is for the model {self.model_id}. The result is from "
                f"{message.scope.hex()}."
            )
        if message.key != self._key_id:
            raise MessageError(
                f"The result was computed with the keys {message.key.hex()}. This client's are "
                f"{self._key_id.hex()}, and cannot decrypt it."
            )
        return message, self._runtime.decrypt(self._frames["result"].fill(message.payload))


def _runtime(model: ClientModel) -> ClientRuntime:
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


def raw_outputs(
    client: FHEClient, codes: NDArray[np.int64], transport: Transport
) -> NDArray[np.float32]:
    """Give the network's outputs for codes, for the self-test of an export."""
    messages = (message.to_bytes() for message in client._encrypt_codes(codes))
    return client.decrypt([*transport(messages)], len(codes))
