"""A client's side: keys, encryption and decryption.

It uses the compiled bindings alone. Concrete's tracing front end imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn.engines._bindings import compiler
from cipherlearn.engines.concrete_python._keyset import largest_keys, rewritten_keys

__all__ = ["ClientRuntime"]


class ClientRuntime:
    """Keys, encryption and decryption for one circuit.

    Parameters
    ----------
    specs : bytes
        The circuit's cryptographic parameters and shapes, as JSON.
    """

    def __init__(self, specs: bytes) -> None:
        self._specs = specs
        self._info = compiler.ProgramInfo.deserialize(specs)
        self._function = json.loads(specs)["circuits"][0]["name"]
        self._keyset: Any = None

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys, from the system's randomness."""
        # Seeds of 0 mean that the keys are drawn from the system's randomness.
        self._keyset = compiler.Keyset(self._info, None, 0, 0, 0, 0, None)

    def secret_keys(self) -> bytes:
        """Serialize all keys, the secret ones included."""
        return bytes(self._keyset.serialize())

    def load_keys(self, keys: bytes) -> None:
        """Load keys that :meth:`secret_keys` serialized, or raise MessageError."""
        self._keyset = compiler.Keyset.deserialize(rewritten_keys(keys, self._specs))

    @property
    def max_key_bytes(self) -> int:
        """Largest length of all keys, serialized."""
        return largest_keys(self._specs)

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""
        return bytes(self._keyset.get_server_keys().serialize())

    def encrypt(self, inputs: Sequence[NDArray[np.int64]]) -> list[bytes]:
        """Encrypt the codes of each input, of shape (batch_size, n_integers)."""
        circuit = self._circuit()
        # Concrete reads arrays row by row, whatever their strides say.
        values = (compiler.Value(np.ascontiguousarray(codes, dtype=np.int64)) for codes in inputs)
        return [circuit.prepare_input(value, i).serialize() for i, value in enumerate(values)]

    def decrypt(self, results: Sequence[bytes]) -> NDArray[np.int64]:
        """Decrypt the results of all outputs, concatenated, of shape (batch_size, n_sums)."""
        circuit = self._circuit()
        values = map(compiler.TransportValue.deserialize, results)
        clear = (circuit.process_output(value, i).to_py_val() for i, value in enumerate(values))
        return np.concatenate([np.asarray(sums, dtype=np.int64) for sums in clear], axis=1)

    def _circuit(self) -> Any:
        program = compiler.ClientProgram.create_encrypted(self._info, self._keyset)
        return program.get_client_circuit(self._function)
