"""What notebooks show of estimators, beside scikit-learn's diagram, and of what they hold.

Nothing is computed for it that is not known already: no key, no compilation, no timing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from cipherlearn._words import of_trained, power
from cipherlearn.training._reference import describe_scores

if TYPE_CHECKING:
    from cipherlearn.circuit._circuit import Circuit
    from cipherlearn.program._program import IntegerProgram

__all__ = [
    "ShowsState",
    "circuit_html",
    "error_probability",
    "html_table",
    "panel",
    "paragraphs",
    "program_html",
    "state_panel",
]

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


def paragraphs(lines: Iterable[str]) -> str:
    """Put each line in a paragraph, escaped."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def panel(title: str, content: str) -> str:
    """Frame some HTML below a title."""
    return f'{_STYLE}<div class="cipherlearn-state"><b>{escape(title)}</b>{content}</div>'


class ShowsState:
    """An estimator of scikit-learn's that notebooks show with its state below the diagram."""

    def _state_html(self) -> str:
        raise NotImplementedError

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + self._state_html()  # type: ignore[misc]

    def _repr_mimebundle_(self, **kwargs) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] = self._repr_html_inner()
        return bundle


def state_panel(net: Any) -> str:
    """Describe how far an estimator is, as HTML: trained, compiled, and what it costs."""
    # It knows circuits, which have HTML of their own.
    from cipherlearn.circuit._cost import known_cost

    if not hasattr(net, "program_"):
        return panel("Not fitted", paragraphs(["Call fit, then compile for encrypted prediction."]))
    circuit = getattr(net, "circuit_", None)
    content = program_html(net.program_, net.module_.n_neurons, net.module_.accum_bits)
    scores = describe_scores(net)
    if scores is not None:
        content += paragraphs([scores])
    if circuit is None:
        content += paragraphs(
            [f"{net.program_.bootstraps()}.", "Call compile for encrypted prediction."]
        )
        cost = known_cost(net.program_)
    else:
        content += circuit_html(circuit)
        cost = known_cost(net.program_, **circuit.options)
    if cost is not None:
        content += paragraphs(["Estimated on this machine:", *cost.lines])
    return panel("Fitted" if circuit is None else "Compiled", content)


def program_html(
    program: IntegerProgram,
    n_trained: Sequence[int] | None = None,
    allowed_bits: Sequence[int] | None = None,
) -> str:
    """Make a table of a program's layers, with what training knows of them if given."""
    columns = ["layer", "neurons", "non-zero weights", "proven bits", "bootstraps"]
    rows = [
        [
            name,
            str(len(layer.weights)),
            str(layer.n_weights),
            str(layer.n_accum_bits),
            "" if layer.tables is None else str(len(layer.weights)),
        ]
        for name, layer in zip(program.layer_names, program.layers, strict=True)
    ]
    for i, row in enumerate(rows):
        if n_trained is not None:
            row[1] = of_trained(int(row[1]), n_trained[i])
        if allowed_bits is not None:
            row.insert(4, str(allowed_bits[i]))
    if allowed_bits is not None:
        columns.insert(4, "allowed bits")
    return html_table(columns, rows)


def circuit_html(circuit: Circuit) -> str:
    """Describe how a circuit was compiled."""
    keys = "Keys are generated." if circuit.has_keys else "Keys are generated when first needed."
    return paragraphs(
        [
            f"{circuit.program.bootstraps(circuit.rounding)}.",
            f"{circuit.engine}, {error_probability(circuit)}, rows a call: {circuit.batch_size}, "
            f"rounding: {circuit.rounding}.",
            keys,
        ]
    )


def error_probability(circuit: Circuit) -> str:
    """Say what ``compile`` was asked for. It costs nothing, even before an engine is loaded."""
    options = circuit.options
    if options["global_p_error"] is not None:
        return f"error probability of a call ≤ {power(options['global_p_error'])}"
    return f"error probability of a bootstrap ≤ {power(options['p_error'])}"
