"""Compilers from an integer program to a homomorphic circuit, one file each.

A module here offers ``compile_program(program, batch_size, rounding, **error_probability)``, which
returns an object with the methods of :class:`EngineCircuit`. No other file imports an FHE library.
"""

from __future__ import annotations

from typing import Any, Protocol

from cipherlearn._program import IntArray

__all__ = ["EngineCircuit"]


class EngineCircuit(Protocol):
    """What every engine's circuit can do, with a batch of rows at a time."""

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys."""

    def encrypt(self, codes: IntArray) -> Any:
        """Encrypt codes of shape (batch_size, n_codes)."""

    def run(self, ciphertext: Any) -> Any:
        """Evaluate the network on a ciphertext with the evaluation keys."""

    def decrypt(self, ciphertext: Any) -> IntArray:
        """Decrypt to the accumulators, of shape (batch_size, n_outputs)."""

    def simulate(self, codes: IntArray) -> IntArray:
        """Run the circuit's noise model on clear codes."""

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""

    def size(self, ciphertext: Any) -> int:
        """Bytes of a serialized ciphertext."""

    def files(self) -> dict[str, bytes]:
        """Return what a client ("specs.json") and a server ("circuit.mlir") compute from."""

    @property
    def n_bootstraps(self) -> int:
        """Bootstraps of one call, among them those of exact rounding."""

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap, as the optimizer achieved it."""
