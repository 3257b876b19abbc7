"""A progress bar over rows, where one is asked for."""

from __future__ import annotations

from typing import Any

__all__ = ["progress_bar"]


def progress_bar(n_rows: int, title: str, verbose: bool | int) -> Any:
    """Make a bar of tqdm, or one that shows nothing.

    Parameters
    ----------
    n_rows : int
    title : str
    verbose : bool or int
        Whether to show it.

    Examples
    --------
    >>> from cipherlearn._progress import progress_bar
    >>> with progress_bar(2, "Rows", verbose=False) as progress:
    ...     progress.update(2)
    """
    if verbose:
        # In a notebook without widgets its import warns, so it waits until somebody wants a bar.
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(total=n_rows, desc=title, unit="row", disable=not verbose)
