"""Progress: bars on terminals and in notebooks, lines in logs."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm.std import TqdmWarning
from tqdm.std import tqdm as text_bar

__all__ = ["progress_bar", "say", "stage"]

# Seconds between lines of a log: the first pause, which doubles, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 1, 60

# Size of a terminal that reports none. tqdm would show nothing there.
_SIZE = {"ncols": 79, "nrows": 24}


def progress_bar(
    total: int, title: str, unit: str, verbose: bool | int, in_parts: bool = False
) -> Any:
    """Make a tqdm bar on standard error, which shows nothing unless ``verbose``.

    Parameters
    ----------
    total : int
        Number of steps.
    title, unit : str
        What is done, and what a step is.
    verbose : bool or int
    in_parts : bool, default=False
        Whether to show parts of a step.

    Examples
    --------
    >>> from cipherlearn._progress import progress_bar
    >>> with progress_bar(10, "Rows", "row", verbose=False) as bar:
    ...     _ = bar.update(10)
    """
    if not verbose:
        return text_bar(disable=True)
    options: dict[str, Any] = {"total": total, "desc": title, "unit": unit}
    count = ("{n:.1f}" if in_parts else "{n_fmt}") + "/{total_fmt}"
    times = " [{elapsed}<{remaining}, {rate_fmt}"
    if _is_log():
        form = "{desc}: {percentage:.0f}%, " + count + times + "]{postfix}"
        return _LogLines(**options, bar_format=form)
    options["bar_format"] = "{desc}: {percentage:3.0f}%|{bar}| " + count + times + "{postfix}]"
    if not _is_notebook():
        return text_bar(**options, **({} if _tells_size() else _SIZE))
    with warnings.catch_warnings():
        # Without ipywidgets, tqdm warns and makes a bar of text.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm
    return tqdm(**options)


@contextmanager
def stage(title: str, verbose: bool | int, expected: float | None = None) -> Iterator[None]:
    """Print how long a step without a progress bar takes, if ``verbose``.

    Parameters
    ----------
    title : str
    verbose : bool or int
    expected : float or None, default=None
        Seconds that it should take, if known.

    Examples
    --------
    >>> from cipherlearn._progress import stage
    >>> with stage("Compiling", verbose=False, expected=2.0):
    ...     pass
    """
    about = "" if expected is None else f", about {expected:.1f} s"
    # Other lines may have been printed in between.
    end, again = ("\n", f"{title}: ") if _is_log() else (" ", "")
    say(f"{title}{about}...", verbose, end)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        say(f"{again}failed", verbose)
        raise
    say(f"{again}{time.perf_counter() - start:.1f} s", verbose)


def say(text: str, verbose: bool | int, end: str = "\n") -> None:
    """Print a line to where bars are shown, if ``verbose``."""
    if verbose:
        print(text, end=end, file=sys.stdout if _is_notebook() else sys.stderr, flush=True)


def _is_log() -> bool:
    return not (_is_notebook() or sys.stderr.isatty())


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _tells_size() -> bool:
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 2
    except (OSError, ValueError):
        return False


class _LogLines:
    """Progress bar for files, which writes a new line instead of redrawing one.

    Each line is written whole, since others may write to the same log.
    """

    def __init__(self, total: int, desc: str, unit: str, bar_format: str) -> None:
        self.n: float = 0
        self.total = total
        self._format = {"prefix": desc, "unit": unit, "bar_format": bar_format}
        self._file: TextIO = sys.stderr
        self._start = time.perf_counter()
        self._pause = _FIRST_PAUSE
        self._show()

    def update(self, n: float = 1) -> None:
        self.n += n
        if self.n != self._shown and time.perf_counter() >= self._next:
            self._show()
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def set_postfix(self, values: Mapping[str, str], refresh: bool = True) -> None:
        self._format["postfix"] = ", ".join(f"{name}={value}" for name, value in values.items())

    def close(self) -> None:
        if self.n != self._shown:
            self._show()

    def __enter__(self) -> _LogLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self) -> None:
        now = time.perf_counter()
        line = text_bar.format_meter(self.n, self.total, now - self._start, **self._format)
        print(line, file=self._file, flush=True)
        self._shown, self._next = self.n, now + self._pause
