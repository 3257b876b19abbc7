"""What a notebook shows of an estimator beside scikit-learn's diagram: its state.

Nothing is computed for it that is not known already: no key, no compilation, no timing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn._cost import known_cost
from cipherlearn._reference import describe_scores

if TYPE_CHECKING:
    from cipherlearn._circuit import Circuit

__all__ = ["error_probability", "html_table", "state_panel"]

# Colours are those of the page, so that it reads on dark ones too.
_STYLE = """<style>
.cipherlearn-state {
  display: inline-block; margin: 0.3em 0 0.6em; padding: 0.5em 0.9em; color: inherit;
  border: 1px solid rgba(128, 128, 128, 0.6); border-radius: 0.4em; font-size: 0.9em;
}
.cipherlearn-state table {
  border-collapse: collapse; margin: 0.4em 0; color: inherit; font-size: inherit;
}
.cipherlearn-state th, .cipherlearn-state td {
  padding: 0.15em 0.8em 0.15em 0; text-align: right; background: transparent; color: inherit;
}
.cipherlearn-state th:first-child, .cipherlearn-state td:first-child { text-align: left; }
.cipherlearn-state p { margin: 0.2em 0; }
</style>"""


def html_table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table of escaped cells."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def state_panel(net: Any) -> str:
    """Describe how far an estimator is, as HTML: trained, compiled, and what it costs."""
    if not hasattr(net, "program_"):
        return _panel("Not fitted", "<p>Call fit, then compile for encrypted prediction.</p>")
    circuit = getattr(net, "circuit_", None)
    program, cost = net.program_, None
    layers = html_table(
        ("layer", "neurons", "non-zero weights", "proven bits", "allowed bits", "bootstraps"),
        [
            (
                name,
                str(len(layer.weights)),
                str(np.count_nonzero(layer.weights)),
                str(layer.n_accum_bits),
                str(allowed),
                "" if layer.tables is None else str(len(layer.weights)),
            )
            for name, layer, allowed in zip(
                program.layer_names, program.layers, net.module_.accum_bits, strict=True
            )
        ],
    )
    lines = [f"{program.n_bootstraps} table lookups (bootstraps) a row."]
    scores = describe_scores(net)
    if scores is not None:
        lines.append(scores)
    if circuit is None:
        lines.append("Call compile for encrypted prediction.")
        cost = known_cost(program)
    else:
        lines.append(
            f"{circuit.engine}, {error_probability(circuit)}, rows a call: {circuit.batch_size}, "
            f"rounding: {circuit.rounding}."
        )
        extra = program.n_rounding_bootstraps
        if extra and circuit.rounding == "exact":
            lines.append(f"Exact rounding takes {extra} more bootstraps a row, of 1 bit.")
        cost = known_cost(program, **circuit.options)
    if cost is not None:
        lines.append(
            f"Estimated on this machine: {cost.seconds_per_row:.3g} s a row, "
            f"{cost.seconds:.3g} s a call, evaluation keys {cost.key_bytes / 1e6:.0f} MB."
        )
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return _panel("Fitted" if circuit is None else "Compiled", layers + text)


def error_probability(circuit: Circuit) -> str:
    """Say what ``compile`` was asked for. It costs nothing, even before an engine is loaded."""
    options = circuit.options
    if options["global_p_error"] is not None:
        return f"error probability of a call ≤ {_power(options['global_p_error'])}"
    return f"error probability of a bootstrap ≤ {_power(options['p_error'])}"


def _power(probability: float) -> str:
    exponent = math.log2(probability)
    if exponent.is_integer() and exponent < -3:
        digits = str(int(-exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"2⁻{digits}"
    return f"{probability:.2g}"


def _panel(state: str, content: str) -> str:
    return f'{_STYLE}<div class="cipherlearn-state"><b>{escape(state)}</b>{content}</div>'
