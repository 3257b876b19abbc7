"""The client of a deployed model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ArtefactError
from cipherlearn.deployment._client_keys import ClientKeys, client_runtime
from cipherlearn.deployment._exchange import Exchange, Transport
from cipherlearn.deployment._row_encoder import RowEncoder
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._contents import ClientModel, summary
from cipherlearn.program._decoder import LabelDecoder

__all__ = ["FHEClient", "raw_outputs"]

Outputs = NDArray[np.float32]
Floats = NDArray[np.float64]


class FHEClient:
    """Client of one model, which holds the keys, encrypts rows and decrypts predictions.

    Needs neither torch nor scikit-learn (but what the model's own preprocessing needs). The
    cryptographic parameters in the artefact are checked for 128 bits of security.

    Parameters
    ----------
    path : str or path
        The ``client.zip`` of a model.
    trusted : sequence of str, default=()
        Types and functions in the model's preprocessing that may be loaded besides those of
        scikit-learn that are known to be safe, by full name.

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
        are encrypted, if its preprocessing holds types that are not trusted.

    Examples
    --------
    >>> import tempfile
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.deployment import FHEClient, FHEServer, export
    >>> X = [[0.0], [1.0], [2.0], [3.0]]
    >>> clf = NeuralNetClassifier(module__n_layers=1, max_epochs=10).fit(X, ["a", "a", "b", "b"])
    >>> circuit = clf.compile()
    >>> client_zip, server_zip = export(clf, tempfile.mkdtemp())
    >>> client, server = FHEClient(client_zip), FHEServer(server_zip)
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
        # What the engine cannot read shows now.
        client_runtime(self._model)
        self._quantize = RowEncoder(self._model, trusted)
        self._decoder = self._model.decoder
        if isinstance(self._decoder, LabelDecoder):
            self.classes_ = self._decoder.classes
        self._present: Exchange | None = None

    def __repr__(self) -> str:
        return f"<FHEClient: {self._summary()}>"

    def _summary(self) -> str:
        keys = f"keys {self.key_id[:12]}" if self.has_keys else "no keys yet"
        return f"{summary(self.description, self.model_id)}, {keys}"

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self._model.scaler.bias)

    @property
    def description(self) -> dict[str, Any]:
        """Content of ``client.json`` in the artefact."""
        return self._model.description

    def message_bytes(self, name: str) -> int:
        """Length of a message with "evaluation_keys", a "ciphertext" or a "result"."""
        return self._model.message_bytes(name)

    @property
    def has_keys(self) -> bool:
        """True once keys were generated or loaded."""
        return self._present is not None

    @property
    def key_id(self) -> str:
        """SHA-256 of the evaluation keys, by which a server knows them."""
        return self._exchange.keys.id.hex()

    def generate_keys(self, verbose: bool | int = False) -> None:
        """Make fresh keys. Only the earlier ones can decrypt what was encrypted with them.

        Parameters
        ----------
        verbose : bool or int, default=False
            Whether to show how long it takes.
        """
        keys = ClientKeys.generate(self._model, verbose)
        self._present = Exchange(self._model, self.model_id, keys)

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
        self._exchange.keys.save(path, passphrase)

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
        keys = ClientKeys.load(self._model, path, passphrase)
        self._present = Exchange(self._model, self.model_id, keys)

    def open_keys(
        self,
        path: str | os.PathLike[str] | None,
        passphrase: str | None = None,
        verbose: bool | int = False,
    ) -> None:
        """Load keys from a file if it exists, else make keys and write them to it.

        Parameters
        ----------
        path : str, path or None
            File of the keys. ``None`` makes keys that are not kept.
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
        """Serialize the evaluation keys for a server. They hold no secret."""
        return self._exchange.keys.evaluation_keys()

    @property
    def _exchange(self) -> Exchange:
        """Messages with the present keys, or an ArtefactError if there are none."""
        if self._present is None:
            raise ArtefactError(
                "This client has no keys yet. Call generate_keys() or load_keys(path)."
            )
        return self._present

    def encrypt(self, X: Any) -> Iterator[bytes]:
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
        return (message.to_bytes() for message in self._exchange.encrypt(self._quantize(X)))

    def decrypt(self, results: Sequence[bytes], n_rows: int) -> Outputs:
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
            For :meth:`decode` or :meth:`probabilities`.

        Raises
        ------
        MessageError
            If a result is damaged, one of another model or other keys, or too few or many came.
        """
        return self._model.outputs(self._exchange.decrypt(results, n_rows))

    def predict(self, X: Any, transport: Transport, verbose: bool | int = False) -> NDArray[Any]:
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
        return self.decode(self.outputs(X, transport, verbose))

    def predict_proba(self, X: Any, transport: Transport, verbose: bool | int = False) -> Floats:
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
        decoder = self._label_decoder("predict_proba")
        return decoder.probabilities(self.outputs(X, transport, verbose))

    def outputs(self, X: Any, transport: Transport, verbose: bool | int = False) -> Outputs:
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
            For :meth:`decode` or :meth:`probabilities`.
        """
        return self._model.outputs(self._exchange.evaluate(self._quantize(X), transport, verbose))

    def decode(self, outputs: Outputs) -> NDArray[Any]:
        """Turn outputs into labels, or targets in the units of the training data."""
        return self._decoder.predict(outputs)

    def probabilities(self, outputs: Outputs) -> Floats:
        """Turn a classifier's outputs into probabilities."""
        return self._label_decoder("probabilities").probabilities(outputs)

    def _label_decoder(self, method: str) -> LabelDecoder:
        if not isinstance(self._decoder, LabelDecoder):
            raise AttributeError(f"{method} is for a classifier. This model is a regressor.")
        return self._decoder


def raw_outputs(client: FHEClient, codes: NDArray[np.int64], transport: Transport) -> Outputs:
    """Give the network's outputs for codes, for the self-test of an export."""
    return client._model.outputs(client._exchange.evaluate(codes, transport))
