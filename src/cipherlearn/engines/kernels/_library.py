"""Concrete's kernels: C functions of the shared library in concrete-python's wheel."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import EngineNotFoundError

__all__ = ["Library", "Seed", "load_library", "pointer", "why_unavailable"]

# The functions' arguments changed in 2.6, and nothing but the version would tell.
_TESTED = ("2.11",)

_SIZE = ctypes.c_size_t
_POINTER = ctypes.c_void_p


class Seed(ctypes.Structure):
    """128 bits that masks are drawn from."""

    _fields_ = [("little_endian_bytes", ctypes.c_uint8 * 16)]


# Of each function, "concrete_cpu_" and this: what it returns, and what it takes.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "construct_concrete_fft": (None, [_POINTER, _SIZE]),
    "decompress_seeded_lwe_ciphertext_u64": (None, [_POINTER, _POINTER, _SIZE, Seed]),
    "decompress_seeded_lwe_bootstrap_key_u64": (
        None,
        [_POINTER, _POINTER, *[_SIZE] * 5, Seed, ctypes.c_uint32],
    ),
    "decompress_seeded_lwe_keyswitch_key_u64": (
        None,
        [_POINTER, _POINTER, *[_SIZE] * 4, Seed, ctypes.c_uint32],
    ),
    "bootstrap_key_convert_u64_to_fourier": (
        None,
        [_POINTER, _POINTER, *[_SIZE] * 5, _POINTER, _POINTER, _SIZE],
    ),
    "bootstrap_key_convert_u64_to_fourier_scratch": (ctypes.c_uint32, [_POINTER] * 3),
    "bootstrap_lwe_ciphertext_u64": (
        None,
        [*[_POINTER] * 4, *[_SIZE] * 5, _POINTER, _POINTER, _SIZE],
    ),
    "bootstrap_lwe_ciphertext_u64_scratch": (
        ctypes.c_uint32,
        [_POINTER, _POINTER, _SIZE, _SIZE, _POINTER],
    ),
    "keyswitch_lwe_ciphertext_u64": (None, [*[_POINTER] * 3, *[_SIZE] * 4]),
    "bootstrap_key_size_u64": (_SIZE, [_SIZE] * 4),
    "fourier_bootstrap_key_size_u64": (_SIZE, [_SIZE] * 4),
    "keyswitch_key_size_u64": (_SIZE, [_SIZE] * 3),
}


class Library:
    """The kernels that the runtime calls, and what they share.

    Parameters
    ----------
    path : str
        The shared library.

    Raises
    ------
    OSError
        If it cannot be loaded.
    AttributeError
        If it lacks a kernel.
    """

    def __init__(self, path: str) -> None:
        self._native = ctypes.CDLL(path)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._native, f"concrete_cpu_{name}")
            function.restype, function.argtypes = result, arguments
        self._fft_size = _SIZE.in_dll(self._native, "CONCRETE_FFT_SIZE").value
        self._fft_align = _SIZE.in_dll(self._native, "CONCRETE_FFT_ALIGN").value
        self._ffts: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _SIGNATURES:
            raise AttributeError(name)
        function: Callable[..., Any] = getattr(self._native, f"concrete_cpu_{name}")
        return function

    def fft(self, polynomial_size: int) -> int:
        """Return the address of the Fourier transform of a size, which threads share."""
        with self._lock:
            if polynomial_size not in self._ffts:
                memory = aligned(self._fft_size, self._fft_align)
                self.construct_concrete_fft(pointer(memory), polynomial_size)
                self._ffts[polynomial_size] = memory
            return pointer(self._ffts[polynomial_size])

    def scratch(self, name: str, *arguments: int) -> NDArray[np.uint8]:
        """Allocate the working memory of a kernel, for one thread."""
        size, align = _SIZE(), _SIZE()
        status = getattr(self, f"{name}_scratch")(
            ctypes.addressof(size), ctypes.addressof(align), *arguments
        )
        if status != 0:
            raise MemoryError(f"{name} needs more memory than there is.")
        return aligned(size.value, align.value)

    def disagreement(self) -> str | None:
        """Return a description of key sizes that differ from this file's assumptions, or None."""
        levels, k, size, n = 2, 3, 512, 5
        expected = {
            "bootstrap_key_size_u64": n * levels * (k + 1) ** 2 * size,
            "fourier_bootstrap_key_size_u64": n * levels * (k + 1) ** 2 * size // 2,
        }
        found = {name: getattr(self, name)(levels, k, size, n) for name in expected}
        expected["keyswitch_key_size_u64"] = 7 * levels * (n + 1)
        found["keyswitch_key_size_u64"] = self.keyswitch_key_size_u64(levels, 7, n)
        return None if found == expected else f"expected {expected}, got {found}"


def aligned(n_bytes: int, alignment: int) -> NDArray[np.uint8]:
    """Allocate bytes whose address is a multiple of a power of two."""
    memory = np.zeros(n_bytes + alignment, dtype=np.uint8)
    start = -pointer(memory) % alignment
    return memory[start : start + n_bytes]


def pointer(array: NDArray[Any]) -> int:
    """Return the address of an array, which must outlive its use."""
    return array.ctypes.data


@cache
def _find() -> Library | str:
    """Load the library, or return why it cannot be used."""
    try:
        installed = version("concrete-python")
    except PackageNotFoundError:
        return "concrete-python is not installed"
    if ".".join(installed.split(".")[:2]) not in _TESTED:
        return (
            f"the kernels were tested with concrete-python {' and '.join(_TESTED)}, and "
            f"{installed} is installed"
        )
    from cipherlearn.engines._bindings import compiler

    try:
        library = Library(compiler.lookup_runtime_lib())
    except (AttributeError, OSError, ValueError) as error:
        return f"concrete-python {installed} does not give its kernels: {error}"
    disagreement = library.disagreement()
    if disagreement is not None:
        return f"the kernels of concrete-python {installed} have other sizes: {disagreement}"
    return library


def why_unavailable() -> str | None:
    """Return why the kernels cannot be used here, or ``None`` if they can.

    Examples
    --------
    >>> from cipherlearn.engines.kernels import why_unavailable
    >>> why_unavailable()
    """
    found = _find()
    return found if isinstance(found, str) else None


def load_library() -> Library:
    """Load the kernels, once.

    Raises
    ------
    EngineNotFoundError
        If they cannot be used here.
    """
    found = _find()
    if isinstance(found, str):
        raise EngineNotFoundError(
            f"Evaluation on Concrete's kernels is not possible here: {found}. "
            "Use the compiled circuit."
        )
    return found
