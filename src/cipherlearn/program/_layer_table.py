"""The table of a program's layers that notebooks show."""

from __future__ import annotations

from collections.abc import Sequence

from cipherlearn._html import html_table
from cipherlearn._words import of_trained
from cipherlearn.program._layer import IntegerLayer

__all__ = ["layer_table"]


def layer_table(
    names: Sequence[str],
    layers: Sequence[IntegerLayer],
    n_trained: Sequence[int] | None = None,
    allowed_bits: Sequence[int] | None = None,
) -> str:
    """Make an HTML table of layers, one in each row.

    Parameters
    ----------
    names : sequence of str
    layers : sequence of IntegerLayer
    n_trained : sequence of int, default=None
        Neurons that each layer was trained with. None stands for those in the program.
    allowed_bits : sequence of int, default=None
        Bits that each layer's accumulators may have. ``None`` leaves the column out.
    """
    columns = ["layer", "neurons", "non-zero weights", "proven bits", "bootstraps"]
    rows = [
        [
            name,
            str(len(layer.weights)),
            str(layer.n_weights),
            str(layer.n_accum_bits),
            "" if layer.tables is None else str(len(layer.weights)),
        ]
        for name, layer in zip(names, layers, strict=True)
    ]
    for i, row in enumerate(rows):
        if n_trained is not None:
            row[1] = of_trained(int(row[1]), n_trained[i])
        if allowed_bits is not None:
            row.insert(4, str(allowed_bits[i]))
    if allowed_bits is not None:
        columns.insert(4, "allowed bits")
    return html_table(columns, rows)
