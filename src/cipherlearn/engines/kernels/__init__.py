"""Evaluation of programs on Concrete's own kernels, without compilation.

A compiled circuit copies and transforms the whole bootstrap key in every call. Here that is done
once for each client. Encryption, decryption and key generation remain Concrete's.
"""

# The kernels are part of concrete-python, whose tests these doctests belong to:
# engine: concrete-python

from __future__ import annotations

from cipherlearn.engines.kernels._backend import Backend, CpuBackend, count_threads
from cipherlearn.engines.kernels._estimate import estimate_kernels
from cipherlearn.engines.kernels._keys import EvaluationKeys, KeyCache, keys_for
from cipherlearn.engines.kernels._library import why_unavailable
from cipherlearn.engines.kernels._parameters import Gate, Parameters
from cipherlearn.engines.kernels._times import KernelTimes, time_kernels
from cipherlearn.engines.kernels._wire import read_keys, read_value, write_keys, write_value
from cipherlearn.engines.kernels.runtime import KernelRuntime

__all__ = [
    "Backend",
    "CpuBackend",
    "EvaluationKeys",
    "Gate",
    "KernelRuntime",
    "KernelTimes",
    "KeyCache",
    "Parameters",
    "count_threads",
    "estimate_kernels",
    "keys_for",
    "read_keys",
    "read_value",
    "time_kernels",
    "why_unavailable",
    "write_keys",
    "write_value",
]
