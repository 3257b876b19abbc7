"""The messages of a client with a server: batches of codes, and the sums that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cipherlearn._checks import check_int
from cipherlearn._exceptions import ArtefactError, MessageError
from cipherlearn._progress import progress_bar
from cipherlearn.deployment._client_keys import ClientKeys
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.artefacts._contents import ClientModel

__all__ = ["Exchange", "Transport"]

Transport = Callable[[Iterable[bytes]], Iterable[bytes]]


class Exchange:
    """Encrypts codes, a batch at a time, and decrypts the results that answer them.

    Parameters
    ----------
    model : ClientModel
    model_id : str
    keys : ClientKeys
    """

    def __init__(self, model: ClientModel, model_id: str, keys: ClientKeys) -> None:
        self.keys = keys
        self._frames = model.frames
        self._model_id = model_id
        self._batch_size: int = model.description["batch_size"]
        self._inputs = model.inputs
        self._n_sums = len(model.scaler.gain)

    def encrypt(self, codes: NDArray[np.int64]) -> Iterator[Message]:
        """Encrypt the next batch whenever a message is asked for. The last batch is padded."""
        scope = bytes.fromhex(self._model_id)
        for start in range(0, len(codes), self._batch_size):
            batch = codes[start : start + self._batch_size]
            padding = ((0, self._batch_size - len(batch)), (0, 0))
            inputs = [np.pad(batch[:, columns], padding) for columns in self._inputs]
            try:
                payload = self._frames["ciphertext"].strip(self.keys.runtime.encrypt(inputs))
            except (MessageError, RuntimeError) as error:
                raise ArtefactError(
                    f"The engine cannot encrypt for this model. {error} Get its client.zip again."
                ) from error
            yield Message(Kind.CIPHERTEXT, scope, self.keys.id, payload)

    def decrypt(self, results: Sequence[bytes], n_rows: int) -> NDArray[np.int64]:
        """Decrypt the results of ``n_rows`` rows to sums, or raise MessageError."""
        check_int("n_rows", n_rows, 0)
        n_batches = self._n_batches(n_rows)
        if len(results) != n_batches:
            raise MessageError(
                f"{n_rows} rows need {n_batches} results. Got {len(results)} of them."
            )
        nothing = np.empty((0, self._n_sums), dtype=np.int64)
        sums: NDArray[np.int64] = np.concatenate(
            [nothing, *(self._decrypt(result)[1] for result in results)]
        )[:n_rows]
        return sums

    def evaluate(
        self, codes: NDArray[np.int64], transport: Transport, verbose: bool | int = False
    ) -> NDArray[np.int64]:
        """Have codes evaluated to sums, or raise MessageError unless each batch is answered."""
        sent: list[bytes] = []

        def ciphertexts() -> Iterator[bytes]:
            for message in self.encrypt(codes):
                sent.append(message.digest)
                yield message.to_bytes()

        sums = np.empty((len(codes), self._n_sums), dtype=np.int64)
        n_batches = self._n_batches(len(codes))
        n_answers = 0
        with progress_bar(len(codes), "Rows", "row", verbose) as progress:
            for n_answers, result in enumerate(transport(ciphertexts()), start=1):
                start = (n_answers - 1) * self._batch_size
                message, decrypted = self._decrypt(result)
                if n_answers > len(sent) or message.answers != sent[n_answers - 1]:
                    raise MessageError(
                        f"Result {n_answers} answers another ciphertext than was sent as number "
                        f"{n_answers}. A transport must keep the order."
                    )
                rows = sums[start : start + self._batch_size]
                rows[:] = decrypted[: len(rows)]
                progress.update(len(rows))
        if n_answers != n_batches:
            raise MessageError(
                f"{n_batches} ciphertexts need as many results. The transport gave {n_answers}."
            )
        return sums

    def _n_batches(self, n_rows: int) -> int:
        return -(-n_rows // self._batch_size)

    def _decrypt(self, result: bytes) -> tuple[Message, NDArray[np.int64]]:
        message = Message.from_bytes(result, Kind.RESULT)
        if message.scope.hex() != self._model_id:
            raise MessageError(
                f"This client is for the model {self._model_id}. The result is from "
                f"{message.scope.hex()}."
            )
        if message.key != self.keys.id:
            raise MessageError(
                f"The result was computed with the keys {message.key.hex()}. This client's are "
                f"{self.keys.id.hex()}, and cannot decrypt it."
            )
        try:
            sums = self.keys.runtime.decrypt(self._frames["result"].fill(message.payload))
        except RuntimeError as error:
            raise MessageError(f"The engine cannot decrypt this result. {error}") from error
        return message, sums
