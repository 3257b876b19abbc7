"""Run ``cipherlearn`` without the kernels, as where they cannot be used, for ``serving.py``."""

from __future__ import annotations

from cipherlearn._exceptions import EngineNotFoundError
from cipherlearn.cli import main
from cipherlearn.deployment.service import _worker
from cipherlearn.engines.kernels import runtime


def refuse() -> None:
    raise EngineNotFoundError("This benchmark compares with the compiled circuit.")


def leave_kernels_out() -> None:
    runtime.load_library = refuse


if __name__ == "__main__":
    # Workers get this process's path.
    start = "from compiled_service import leave_kernels_out; leave_kernels_out(); "
    _worker._PROGRAM = start + _worker._PROGRAM
    main()
