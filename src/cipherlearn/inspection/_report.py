"""What each layer of a trained network costs on ciphertexts, as text, HTML and a plot."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from cipherlearn._html import html_table, panel, paragraphs
from cipherlearn._words import count, of_trained
from cipherlearn.circuit._cost import CostEstimate
from cipherlearn.inspection._axes import one_axes
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import FloatArray

__all__ = ["LayerReport", "Report", "make_report", "observed_widths"]

_COLUMNS = (
    "layer",
    "neurons",
    "most weights",
    "budget",
    "allowed bits",
    "proven bits",
    "observed bits",
    "table bits",
    "bootstraps",
    "latency",
)


@dataclass(frozen=True)
class LayerReport:
    """One line of a :class:`Report`.

    Attributes
    ----------
    name : str
        "hidden 1" and so on, "output", or "wide path".
    n_neurons : int
        Neurons in the program. What cannot change an output is left out of it.
    n_trained : int
        Neurons that were trained.
    n_weights, budget : int
        Most non-zero weights of any neuron, and how many it may have.
    allowed_bits, proven_bits, observed_bits : int or None
        Bits of the accumulators: allowed, needed by some possible input, and needed by the rows
        given. None without rows.
    table_bits : int or None
        Bits that the lookup tables see. None in a layer whose sums are decrypted.
    n_bootstraps : int
        Lookups on ciphertexts per row, without those of exact rounding.
    latency_share : float
        Part of the time of a call that the layer's bootstraps take.
    """

    name: str
    n_neurons: int
    n_trained: int
    n_weights: int
    budget: int
    allowed_bits: int
    proven_bits: int
    observed_bits: int | None
    table_bits: int | None
    n_bootstraps: int
    latency_share: float


@dataclass(frozen=True)
class Report:
    """What encrypted prediction costs, and where. ``print`` it, or show it in a notebook.

    Attributes
    ----------
    layers : tuple of LayerReport
        One for each layer.
    cost : CostEstimate
        Expected cost on this machine.
    flip_rate : float or None
        Share of rows that approximate rounding changes, once compiled.
    scores : str or None
        Scores on training rows, before and after quantization and pruning.
    """

    layers: tuple[LayerReport, ...]
    cost: CostEstimate
    flip_rate: float | None = None
    scores: str | None = None

    def __repr__(self) -> str:
        rows = [_COLUMNS, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([*lines, "", *self._summary()])

    def _repr_html_(self) -> str:
        return panel("Report", html_table(_COLUMNS, self._rows()) + paragraphs(self._summary()))

    def plot(self, ax: Any = None) -> Any:
        """Draw where the time of a call goes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        matplotlib Axes
        """
        ax = one_axes(ax, figsize=(6, 1 + 0.5 * len(self.layers)))
        hidden = [layer for layer in self.layers if layer.n_bootstraps]
        names = [
            "fixed",
            *(f"{layer.name}\n{count(layer.n_bootstraps, 'bootstrap')}" for layer in hidden),
        ]
        bars = ax.barh(names, [self.cost.fixed_seconds, *self.cost.layer_seconds])
        ax.bar_label(bars, fmt="%.3f s", padding=3)
        ax.invert_yaxis()
        ax.margins(x=0.2)
        ax.set_xlabel("expected seconds a call")
        return ax

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for layer in self.layers:
            name, n_neurons, n_trained, *cells, share = astuple(layer)
            text = ("" if cell is None else str(cell) for cell in cells)
            share = f"{100 * share:.0f} %" if layer.n_bootstraps else ""
            rows.append((name, of_trained(n_neurons, n_trained), *text, share))
        return rows

    def _summary(self) -> list[str]:
        lines = self.cost.lines
        if self.flip_rate is not None:
            lines.append(f"Approximate rounding changes {100 * self.flip_rate:.1f} % of the rows.")
        if self.scores is not None:
            lines.append(self.scores)
        return lines


def make_report(
    program: IntegerProgram,
    n_trained: list[int],
    budgets: list[int],
    accum_bits: list[int],
    cost: CostEstimate,
    X: FloatArray | None = None,
    flip_rate: float | None = None,
    scores: str | None = None,
) -> Report:
    """Describe every layer of a program.

    Parameters
    ----------
    program : IntegerProgram
    n_trained : list of int
        Neurons of each layer that were trained.
    budgets, accum_bits : list of int
        Allowed number of weights of a neuron, and bits of an accumulator, of each layer.
    cost : CostEstimate
    X : ndarray of shape (n_samples, n_features), default=None
        Rows on which accumulators are observed.
    flip_rate : float or None, default=None
    scores : str or None, default=None
    """
    observed: list[int | None] = [None] * len(program.layers)
    if X is not None:
        observed = [max(1, width.bit_length()) for width in observed_widths(program, X)]
    layers = []
    of_lookups = iter(zip(cost.table_bits, cost.layer_seconds, strict=True))
    for i, layer in enumerate(program.layers):
        is_hidden = layer.tables is not None
        table_bits, seconds = next(of_lookups) if is_hidden else (None, 0.0)
        layers.append(
            LayerReport(
                name=program.layer_names[i],
                n_neurons=len(layer.weights),
                n_trained=n_trained[i],
                n_weights=int(np.count_nonzero(layer.weights, axis=1).max()),
                budget=budgets[i],
                allowed_bits=accum_bits[i],
                proven_bits=layer.n_accum_bits,
                observed_bits=observed[i],
                table_bits=table_bits,
                n_bootstraps=len(layer.weights) if is_hidden else 0,
                latency_share=seconds / cost.seconds,
            )
        )
    return Report(tuple(layers), cost, flip_rate, scores)


def observed_widths(program: IntegerProgram, X: FloatArray) -> list[int]:
    """Return the largest range of any neuron's sums over some rows, for each layer."""
    X = program.quantizer.check(X)
    lowest = [np.full(len(layer.weights), np.inf) for layer in program.layers]
    highest = [-low for low in lowest]
    for _, codes in program.quantizer.blocks(X):
        traced = zip(program.trace(codes), lowest, highest, strict=True)
        for (_, _, sums), low, high in traced:
            np.minimum(low, sums.min(axis=1), out=low)
            np.maximum(high, sums.max(axis=1), out=high)
    return [int((high - low).max()) for low, high in zip(lowest, highest, strict=True)]
