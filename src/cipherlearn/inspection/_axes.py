"""Where pictures are drawn: on given axes, or in a new figure. The only file that makes one."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["axes_grid", "one_axes", "pyplot"]


def pyplot() -> Any:
    """Import matplotlib.pyplot.

    Raises
    ------
    ImportError
        If matplotlib is not installed, with the line that installs it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which this environment lacks. Install it with: "
            "python -m pip install 'cipherlearn[plot]'"
        ) from error
    return plt


def one_axes(ax: Any = None, figsize: tuple[float, float] | None = None) -> Any:
    """Return ``ax`` or, if it is None, the axes of a new figure."""
    plt = pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax


def axes_grid(ax: Any, n_rows: int, n_columns: int, figsize: tuple[float, float]) -> Any:
    """Return an array of axes: of a new figure, in the place of one axes, or those given.

    Parameters
    ----------
    ax : matplotlib Axes, array-like of Axes or None
    n_rows, n_columns : int
    figsize : tuple of float
        Of a new figure, in inches.

    Returns
    -------
    ndarray of shape (n_rows, n_columns)

    Raises
    ------
    ValueError
        If several axes are given, but not as many as are needed.
    """
    plt = pyplot()
    if ax is None:
        figure = plt.figure(figsize=figsize, layout="constrained")
        return figure.subplots(n_rows, n_columns, squeeze=False)
    if isinstance(ax, plt.Axes):
        ax.set_axis_off()
        cells = ax.get_subplotspec().subgridspec(n_rows, n_columns)
        return cells.subplots(squeeze=False)
    given = np.asarray(ax, dtype=object)
    if given.size != n_rows * n_columns:
        raise ValueError(
            f"ax must be one Axes, or one for each of the {n_rows} x {n_columns} panels. "
            f"Got {given.size}. Pass one Axes or None to have panels made."
        )
    return given.reshape(n_rows, n_columns)
