"""Progress for whoever asks for it: bars on screens and in notebooks, lines in logs."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.std import TqdmWarning
from tqdm.std import tqdm as text_bar

__all__ = ["progress_bar", "stage"]

# Between two lines of a log.
_LOG_SECONDS = 10


def progress_bar(total: int, title: str, unit: str, verbose: bool | int) -> Any:
    """Make a tqdm bar on standard error, which shows nothing unless ``verbose``.

    Parameters
    ----------
    total : int
        Number of steps.
    title, unit : str
        What is done, and what a step is.
    verbose : bool or int

    Examples
    --------
    >>> from cipherlearn._progress import progress_bar
    >>> with progress_bar(10, "Rows", "row", verbose=False) as bar:
    ...     _ = bar.update(10)
    """
    if not verbose:
        return text_bar(disable=True)
    options = {"total": total, "desc": title, "unit": unit}
    if _is_notebook():
        with warnings.catch_warnings():
            # A notebook without ipywidgets gets a bar of text.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm
        return tqdm(**options)
    if sys.stderr.isatty():
        return text_bar(**options)
    return _LogLines(**options)


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class _LogLines(text_bar):
    """A bar that is never redrawn, as files do not forget what was there before."""

    def __init__(self, **options) -> None:
        line = "{desc}: {percentage:.0f}%, {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
        super().__init__(
            bar_format=line + "{postfix}",
            position=0,
            mininterval=_LOG_SECONDS,
            maxinterval=_LOG_SECONDS,
            delay=1e-9,  # no line at 0 %
            **options,
        )

    @staticmethod
    def status_printer(file):
        ends = []

        def show(line: str) -> None:
            # tqdm ends the last line.
            file.write("".join(ends) + line)
            file.flush()
            ends[:] = ["\n"]

        return show


@contextmanager
def stage(title: str, verbose: bool | int) -> Iterator[None]:
    """Print how long something takes that cannot tell how far it is, if ``verbose``."""
    if not verbose:
        yield
        return
    print(f"{title}...", end=" ", flush=True)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.perf_counter() - start:.1f} s", flush=True)
