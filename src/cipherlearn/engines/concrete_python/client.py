"""A client's side: keys, encryption and decryption.

It uses the compiled bindings alone. Concrete's tracing front end imports torch.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn.engines._bindings import compiler

__all__ = ["ClientRuntime"]


class ClientRuntime:
    """Keys, encryption and decryption.

    Parameters
    ----------
    specs : bytes
        The circuit's cryptographic parameters and shapes, as JSON.
    """

    def __init__(self, specs: bytes) -> None:
        self._info = compiler.ProgramInfo.deserialize(specs)
        self._function = json.loads(specs)["circuits"][0]["name"]
        self._keyset: Any = None

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys, from the system's randomness."""
        # Seeds of 0 stand for none.
        self._keyset = compiler.Keyset(self._info, None, 0, 0, 0, 0, None)

    def secret_keys(self) -> bytes:
        """Serialize all keys, the secret ones included."""
        return self._keyset.serialize()

    def load_keys(self, keys: bytes) -> None:
        """Use keys that :meth:`secret_keys` gave."""
        self._keyset = compiler.Keyset.deserialize(keys)

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""
        return self._keyset.get_server_keys().serialize()

    def encrypt(self, codes: NDArray[np.int64]) -> bytes:
        """Encrypt codes of shape (batch_size, n_codes)."""
        # Concrete reads arrays row by row, whatever their strides say.
        value = compiler.Value(np.ascontiguousarray(codes, dtype=np.int64))
        return self._circuit().prepare_input(value, 0).serialize()

    def decrypt(self, result: bytes) -> NDArray[np.int64]:
        """Decrypt a result of shape (batch_size, n_outputs)."""
        value = compiler.TransportValue.deserialize(result)
        return np.asarray(self._circuit().process_output(value, 0).to_py_val(), dtype=np.int64)

    def _circuit(self) -> Any:
        program = compiler.ClientProgram.create_encrypted(self._info, self._keyset)
        return program.get_client_circuit(self._function)
