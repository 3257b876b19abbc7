"""What the client and the server do for an encrypted row."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from cipherlearn._words import count, neurons
from cipherlearn.engines._options import CompileOptions
from cipherlearn.inspection._axes import one_axes
from cipherlearn.inspection._fitted import find_network
from cipherlearn.training._layer_limits import layer_limits

if TYPE_CHECKING:
    from cipherlearn.circuit._circuit import Circuit
    from cipherlearn.inspection._fitted import FittedNetwork
    from cipherlearn.program._layer import IntegerLayer

__all__ = ["CircuitDisplay"]


class Stage(NamedTuple):
    """A box of a :class:`CircuitDisplay`."""

    side: str
    title: str
    details: str
    n_bootstraps: int = 0
    is_apart: bool = False


class CircuitDisplay:
    """The way of a row: quantized and encrypted, summed and looked up, decrypted and decided.

    Boxes with a thick frame are those with bootstraps, which take the time. The picture is there
    before :meth:`~cipherlearn.NeuralNetClassifier.compile` too, since shapes
    and bits are proven from the trained integers. Afterwards it also says the engine and the error
    probability. Nothing is compiled, and no key is made, to draw it.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    stages : sequence of tuple of (side, title, details, n_bootstraps, is_apart)
        In the order of execution: who does it, "client" or "server", what it is, its shapes and
        bit-widths, and the bootstraps that it takes for a row. The last says whether it is a way
        of its own, from an encrypted input to an output, as the wide path is. Such a stage is
        beside the others.
    notes : sequence of str
        Lines below the picture.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    boxes_ : list of matplotlib FancyBboxPatch
        One for each stage.

    See Also
    --------
    NetworkDisplay : Which neuron reads what.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection import CircuitDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(max_epochs=10, random_state=0).fit(X, y)
    >>> display = CircuitDisplay.from_estimator(clf)
    >>> [stage.title for stage in display.stages if stage.side == "server"]
    ['Hidden 1: sums', 'Hidden 1: table lookups', 'Output: sums', 'Wide path: sums']
    >>> sum(stage.n_bootstraps for stage in display.stages) == clf.program_.n_bootstraps
    True
    """

    def __init__(
        self, *, stages: Sequence[tuple[str, str, str, int, bool]], notes: Sequence[str] = ()
    ) -> None:
        self.stages = stages
        self.notes = notes

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None):
        """Draw the circuit of a fitted estimator, compiled or not.

        Parameters
        ----------
        estimator : NeuralNetClassifier, NeuralNetRegressor, Pipeline or search
            Fitted. A pipeline ends in one of the former, a search has found one.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        CircuitDisplay
        """
        network = find_network(estimator)
        circuit = getattr(network, "circuit_", None)
        stages = _stages(network, circuit)
        program, rounding = network.program_, _rounding(circuit)
        notes = [program.bootstraps(rounding)]
        if circuit is None:
            notes.append("not compiled yet")
        else:
            notes.append(f"{circuit.engine}, {count(circuit.batch_size, 'row')} a call")
            notes.append(CompileOptions(**circuit.options).error_bound)
        return cls(stages=stages, notes=notes).plot(ax=ax)

    def plot(self, ax: Any = None):
        """Draw the circuit.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        CircuitDisplay
        """
        stages = [Stage(*stage) for stage in self.stages]
        n_columns = 3 if any(stage.is_apart for stage in stages) else 2
        places = _places(stages)
        n_rows = 1 + int(max(y for _, y in places))
        ax = one_axes(ax, figsize=(4 * n_columns, 0.85 * n_rows + 1.1))
        inches = ax.bbox.width / ax.figure.dpi, ax.bbox.height / ax.figure.dpi
        size = max(4.0, min(10.0, 3.4 * inches[0] / n_columns, 15 * inches[1] / n_rows))
        ax.plot([0, 0], [-0.4, n_rows - 0.1], color="0.6", linestyle=":", zorder=0)
        self.boxes_ = [
            _plot_box(ax, stage, *place, size) for stage, place in zip(stages, places, strict=True)
        ]
        chain = [i for i, stage in enumerate(stages) if not stage.is_apart]
        arrows = list(pairwise(chain))
        for i in (i for i, stage in enumerate(stages) if stage.is_apart):
            # From the last stage of the client to its next.
            encrypt = max(j for j in chain if j < i and stages[j].side == "client")
            decrypt = min(j for j in chain if j > i and stages[j].side == "client")
            arrows += [(encrypt, i), (i, decrypt)]
        for i, j in arrows:
            _plot_arrow(ax, places[i], places[j])
        for side, x, title in (
            ("client", -1, "Client: holds the secret key"),
            ("server", n_columns - 1, "Server: sees ciphertexts only"),
        ):
            ink = _COLORS[side][1]
            ax.text(x, n_rows - 0.25, title, ha="center", color=ink, weight="bold", fontsize=size)
        notes = "   ·   ".join(self.notes)
        ax.text(n_columns - 2, -0.62, notes, ha="center", va="top", fontsize=size)
        ax.set_xlim(-2, 2 * n_columns - 2)
        ax.set_ylim(-1, n_rows)
        ax.set_axis_off()
        self.ax_, self.figure_ = ax, ax.figure
        return self


# Of a box, and its text.
_COLORS = {"client": ("#e3f0fb", "#1f5a94"), "server": ("#fdecd8", "#a35200")}
# Centre of a column.
_X = {"client": -1.0, "server": 1.0, "apart": 3.0}
_HALF_WIDTH, _HALF_HEIGHT = 0.9, 0.28


def _stages(network: FittedNetwork, circuit: Circuit | None) -> list[Stage]:
    program = network.program_
    codes = f"{count(program.n_codes, 'code')} of {count(program.quantizer.n_bits, 'bit')}"
    stages = [
        Stage("client", "Quantize", f"{count(program.n_features, 'feature')} → {codes}"),
        Stage("client", "Encrypt", _integers(map(len, program.inputs))),
    ]
    layers = zip(program.layer_names, program.layers, layer_limits(network).n_neurons, strict=True)
    for name, layer, n_trained in layers:
        stages.append(_sums(name.capitalize(), layer, n_trained, name == "wide path"))
        if layer.tables is not None:
            stages += _lookup_stages(name.capitalize(), layer, _rounding(circuit))
    sizes = [len(layer.weights) for layer in program.output_layers]
    stages.append(Stage("client", "Decrypt", _integers(sizes)))
    scale = "scale" if len(sizes) == 1 else "scale, add both"
    if hasattr(network, "classes_"):
        decide = f"{scale}, softmax or argmax of {program.n_outputs} classes"
        stages.append(Stage("client", "Decide", decide))
    else:
        targets = f"{scale}, {count(program.n_outputs, 'target')} in the units of training"
        stages.append(Stage("client", "Scale", targets))
    return stages


def _integers(sizes: Iterable[int]) -> str:
    sizes = list(sizes)
    return " + ".join(map(str, sizes)) + (" integer" if sum(sizes) == 1 else " integers")


def _places(stages: Sequence[Stage]) -> list[tuple[float, float]]:
    """Give each box its centre: from top to bottom, or beside the box of the stage before it."""
    places, row = [], sum(not stage.is_apart for stage in stages)
    for stage in stages:
        row -= not stage.is_apart
        places.append((_X["apart" if stage.is_apart else stage.side], float(row)))
    return places


def _rounding(circuit: Circuit | None) -> str:
    return "exact" if circuit is None else circuit.rounding


def _lookup_stages(name: str, layer: IntegerLayer, rounding: str) -> list[Stage]:
    n_neurons, stages = len(layer.weights), []
    if layer.lsbs_to_remove:
        # Exact rounding takes away a bit at a time, with a bootstrap of 1 bit for each.
        extra = layer.n_rounding_bootstraps if rounding == "exact" else 0
        how = (
            f"{count(extra, 'bootstrap')} of 1 bit"
            if extra
            else "approximately, without bootstraps"
        )
        details = f"{layer.n_accum_bits} → {layer.n_table_bits} bits, {how}"
        stages.append(Stage("server", f"{name}: rounding", details, extra))
    details = (
        f"{count(n_neurons, 'bootstrap')} of {count(layer.n_table_bits, 'bit')} → "
        f"{count(n_neurons, 'code')} of {count(layer.output_bits, 'bit')}"
    )
    stages.append(Stage("server", f"{name}: table lookups", details, n_neurons))
    return stages


def _sums(name: str, layer: IntegerLayer, n_trained: int, is_apart: bool) -> Stage:
    bits, weights = count(layer.n_accum_bits, "bit"), count(layer.n_weights, "non-zero weight")
    return Stage(
        "server",
        f"{name}: sums",
        f"{neurons(len(layer.weights), n_trained)}, sums of {bits}, {weights}",
        is_apart=is_apart,
    )


def _plot_box(ax: Any, stage: Stage, x: float, y: float, size: float) -> Any:
    from matplotlib.patches import FancyBboxPatch

    fill, ink = _COLORS[stage.side]
    box = FancyBboxPatch(
        (x - _HALF_WIDTH, y - _HALF_HEIGHT),
        2 * _HALF_WIDTH,
        2 * _HALF_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=fill,
        edgecolor=ink,
        linewidth=2.5 if stage.n_bootstraps else 1,
    )
    ax.add_patch(box)
    style = {"ha": "center", "va": "center"}
    ax.text(x, y + 0.11, stage.title, color=ink, weight="bold", fontsize=size, **style)
    ax.text(x, y - 0.13, stage.details, color="0.2", fontsize=0.85 * size, **style)
    return box


def _plot_arrow(ax: Any, place: tuple[float, float], following: tuple[float, float]) -> None:
    """Point from a box to one below it, or over the network to the side of the other."""
    (x, y), (next_x, next_y) = place, following
    start, end, style = (x, y - _HALF_HEIGHT), (next_x, next_y + _HALF_HEIGHT), "arc3"
    if next_x > x:
        # To the right, then down.
        start, style = (x + _HALF_WIDTH, y), "angle,angleA=0,angleB=90,rad=6"
    elif next_x < x:
        # Down, then to the left.
        end, style = (next_x + _HALF_WIDTH, next_y), "angle,angleA=90,angleB=0,rad=6"
    ax.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": "0.35",
            "connectionstyle": style,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
