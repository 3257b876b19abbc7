"""Run ``cipherlearn`` without the kernels, as where they cannot be used, for ``serving.py``."""

from __future__ import annotations

from cipherlearn._exceptions import EngineNotFoundError
from cipherlearn.cli import main
from cipherlearn.engines.kernels import runtime


def refuse() -> None:
    raise EngineNotFoundError("This benchmark compares with the compiled circuit.")


# Worker processes import this file under the second name.
if __name__ in ("__main__", "__mp_main__"):
    runtime.load_library = refuse

if __name__ == "__main__":
    main()
