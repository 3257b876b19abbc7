"""What notebooks show below an estimator's diagram.

Nothing is computed for it that is not known already: no key, no compilation, no timing.
"""

from __future__ import annotations

from typing import Any

from cipherlearn._html import panel, paragraphs
from cipherlearn.circuit._cost import known_cost
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._layer_table import layer_table
from cipherlearn.training._layer_limits import layer_limits
from cipherlearn.training._reference import describe_scores

__all__ = ["state_panel"]


def state_panel(net: Any) -> str:
    """Describe how far an estimator is, as HTML: trained, compiled, and what it costs."""
    if not hasattr(net, "program_"):
        return panel("Not fitted", paragraphs(["Call fit, then compile for encrypted prediction."]))
    circuit = getattr(net, "circuit_", None)
    program, limits = net.program_, layer_limits(net)
    content = layer_table(program.layer_names, program.layers, limits.n_neurons, limits.accum_bits)
    scores = describe_scores(net)
    if scores is not None:
        content += paragraphs([scores])
    if circuit is None:
        content += paragraphs(
            [f"{program.bootstraps()}.", "Call compile for encrypted prediction."]
        )
        cost = known_cost(program, CompileOptions())
    else:
        content += paragraphs(circuit.lines)
        cost = known_cost(program, CompileOptions(**circuit.options))
    if cost is not None:
        content += paragraphs(["Estimated on this machine:", *cost.lines])
    return panel("Fitted" if circuit is None else "Compiled", content)
