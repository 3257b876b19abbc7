"""What a network computes from what."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cipherlearn._words import count, neurons
from cipherlearn.inspection._axes import one_axes
from cipherlearn.inspection._fitted import class_names as names_of_outputs
from cipherlearn.inspection._fitted import feature_names as names_of_features
from cipherlearn.inspection._fitted import find_network
from cipherlearn.program._nodes import Sum
from cipherlearn.program._program import IntegerProgram
from cipherlearn.training._layer_limits import layer_limits

__all__ = ["NetworkDisplay"]

# By the sign of an edge.
_COLORS = {1: "#3b7dd8", -1: "#e0523f", 0: "0.7"}

# Names longer than this are cut.
_LONGEST = 28


class NetworkDisplay:
    """Features, hidden neurons and outputs, with the integer weights between them.

    Only non-zero weights have an edge, and only features that some neuron reads are shown. Several
    codes encode a feature, and a neuron may read some of them: their weights are one edge, as wide
    as their magnitudes together, and coloured by their sum, blue if the neuron grows with the
    feature, red if it falls. Hidden neurons are ordered so that few edges cross. Neurons are those
    in the program, which leaves out what cannot change an output.

    In a module of your own, edges lead from each layer to the next: branches are left out.

    A wide path has a weight for nearly every code and output, too many to be lines. It is not
    drawn, and a note says how many weights it has.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    weights : sequence of array-like of shape (n_neurons, n_inputs)
        Integers of each layer. The first reads codes.
    code_features : array-like of shape (n_codes,)
        Feature that each code encodes.
    feature_names : sequence of str
        Name of each feature.
    output_names : sequence of str
        Name of each output.
    layer_names : sequence of str
        Name of each layer.
    n_trained : sequence of int, default=None
        Neurons of each layer that were trained, of which the program may have fewer.
    n_wide_weights : int, default=0
        Non-zero weights of the wide path, which is not drawn. With 0 there is none.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    features_ : ndarray
        Indices of the features shown, from top to bottom.
    edges_ : list of matplotlib LineCollection
        Those into each layer.
    nodes_ : list of matplotlib PathCollection
        Features, and the neurons of each layer.

    See Also
    --------
    CircuitDisplay : What the client and the server do.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection import NetworkDisplay
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = NeuralNetClassifier(max_epochs=10, random_state=0).fit(X, y)
    >>> display = NetworkDisplay.from_estimator(clf, class_names=["setosa", "other", "virginica"])
    >>> n_edges = len(display.edges_[-1].get_segments())
    >>> n_edges == clf.program_.layers[1].n_weights
    True
    """

    def __init__(
        self,
        *,
        weights: Sequence[NDArray],
        code_features: ArrayLike,
        feature_names: Sequence[str],
        output_names: Sequence[str],
        layer_names: Sequence[str],
        n_trained: Sequence[int] | None = None,
        n_wide_weights: int = 0,
    ) -> None:
        self.weights = weights
        self.code_features = code_features
        self.feature_names = feature_names
        self.output_names = output_names
        self.layer_names = layer_names
        self.n_trained = n_trained
        self.n_wide_weights = n_wide_weights

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        max_features: int = 64,
        ax: Any = None,
    ):
        """Draw the network of a fitted estimator.

        Parameters
        ----------
        estimator : NeuralNetClassifier, NeuralNetRegressor, Pipeline or search
            Fitted. A pipeline ends in one of the former, a search has found one.
        feature_names : sequence of str, default=None
            Names of the features that reach the network. None takes those seen in ``fit``.
        class_names : sequence of str, default=None
            Names of the outputs. None takes the labels.
        max_features : int, default=64
            Most features to show: those of the largest weights.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        NetworkDisplay

        Raises
        ------
        ValueError
            If there are not as many names as features or outputs.
        """
        network = find_network(estimator)
        program = network.program_
        features = names_of_features(estimator) if feature_names is None else list(feature_names)
        outputs = names_of_outputs(network) if class_names is None else list(class_names)
        for kind, names, n_names in (
            ("feature_names", features, program.n_features),
            ("class_names", outputs, program.n_outputs),
        ):
            if len(names) != n_names:
                raise ValueError(f"{kind} must hold {n_names} names. Got {len(names)}.")
        features += [f"component {i + 1}" for i in range(program.quantizer.n_components)]
        layers = dict(zip(program.layer_names, program.layers, strict=True))
        wide_path = layers.pop("wide path", None)
        # Another sum for the same outputs.
        layers = {name: layer for name, layer in layers.items() if not name.startswith("output ")}
        display = cls(
            weights=_chain(program, set(layers)),
            code_features=program.quantizer.feature[program.inputs[0]],
            feature_names=features,
            output_names=outputs,
            layer_names=list(layers),
            n_trained=layer_limits(network).n_neurons[: len(layers)],
            n_wide_weights=0 if wide_path is None else wide_path.n_weights,
        )
        return display.plot(ax=ax, max_features=max_features)

    def plot(self, ax: Any = None, *, max_features: int = 64):
        """Draw the network.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        max_features : int, default=64
            Most features to show: those of the largest weights.

        Returns
        -------
        NetworkDisplay
        """
        signed, sizes = self._edge_weights()
        total = sizes[0].sum(axis=0)
        largest = np.argsort(-total, kind="stable")[:max_features]
        self.features_ = np.sort(largest[total[largest] > 0])
        n_left_out = int((total > 0).sum()) - len(self.features_)
        signed[0], sizes[0] = signed[0][:, self.features_], sizes[0][:, self.features_]

        self._untangle(signed, sizes)
        counts = [len(self.features_), *(len(layer) for layer in signed)]
        ax = one_axes(ax, figsize=(3.5 + 2.5 * len(signed), max(3.5, 0.19 * max(counts))))
        heights = [_spread(n_nodes) for n_nodes in counts]
        self._plot_edges(ax, signed, sizes, heights)
        self.nodes_ = [
            ax.scatter(
                np.full(len(y), i), y, s=_node_size(len(y)), color=color, edgecolor="0.2", zorder=2
            )
            for i, (y, color) in enumerate(
                zip(heights, ["#ffe0b3", *["0.9"] * (len(signed) - 1), "#cfe8cf"], strict=True)
            )
        ]
        names = [_cut(str(self.feature_names[i])) for i in self.features_]
        self._label(ax, 0, heights[0], names, "right")
        self._label(ax, len(signed), heights[-1], map(_cut, self.output_names), "left")
        read = f"{counts[0]} of {len(self.feature_names)} features"
        read += f"\n({n_left_out} more are read)" if n_left_out else ""
        in_program = counts[1:]
        trained = in_program if self.n_trained is None else self.n_trained
        titles = [
            f"{name}\n{neurons(*counted)}"
            for name, *counted in zip(self.layer_names, in_program, trained, strict=True)
        ]
        for i, title in enumerate([read, *titles]):
            ax.annotate(title, (i, 1.0), (0, 12), textcoords="offset points", ha="center")
        self._finish(ax, len(signed), self.n_wide_weights)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _edge_weights(self) -> tuple[list[NDArray], list[NDArray]]:
        """Return sums of weights, and of their magnitudes, with the codes of a feature together."""
        first, *others = [np.asarray(weights) for weights in self.weights]
        reads = np.asarray(self.code_features)[:, None] == np.arange(len(self.feature_names))
        reads = reads.astype(np.int64)
        return [first @ reads, *others], [np.abs(first) @ reads, *map(np.abs, others)]

    @staticmethod
    def _untangle(signed: list[NDArray], sizes: list[NDArray]) -> None:
        """Order hidden neurons by the mean height of what they read: fewer edges cross."""
        for i in range(len(sizes) - 1):
            at = sizes[i] @ _spread(sizes[i].shape[1]) / np.maximum(1, sizes[i].sum(axis=1))
            order = np.argsort(-at, kind="stable")
            for layers in (signed, sizes):
                layers[i], layers[i + 1] = layers[i][order], layers[i + 1][:, order]

    def _plot_edges(self, ax: Any, signed: list, sizes: list, heights: list[NDArray]) -> None:
        from matplotlib.collections import LineCollection

        self.edges_ = []
        for i, (sums, magnitudes) in enumerate(zip(signed, sizes, strict=True)):
            targets, sources = np.nonzero(magnitudes)
            size = magnitudes[targets, sources] / magnitudes.max(initial=1)
            lines = LineCollection(
                [
                    [(i, heights[i][source]), (i + 1, heights[i + 1][target])]
                    for target, source in zip(targets, sources, strict=True)
                ],
                colors=[_COLORS[int(sign)] for sign in np.sign(sums[targets, sources])],
                linewidths=0.4 + 2.2 * size,
                alpha=0.7,
                zorder=1,
            )
            self.edges_.append(ax.add_collection(lines))

    @staticmethod
    def _label(ax: Any, x: int, heights: NDArray, names: Any, side: str) -> None:
        offset = -8 if side == "right" else 10
        for y, name in zip(heights, names, strict=True):
            ax.annotate(
                name,
                (x, y),
                (offset, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=7 if len(heights) > 24 else 9,
            )

    @staticmethod
    def _finish(ax: Any, n_layers: int, n_wide_weights: int) -> None:
        from matplotlib.lines import Line2D

        kinds = dict(
            zip(("positive", "negative", "of both signs, sum 0"), _COLORS.values(), strict=True)
        )
        ax.legend(
            handles=[Line2D([], [], color=color, lw=2, label=k) for k, color in kinds.items()],
            title="weights",
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=3,
            frameon=False,
        )
        if n_wide_weights:
            note = f"Not drawn: the wide path, {count(n_wide_weights, 'weight')} from features "
            ax.annotate(
                note + "straight to the outputs",
                (0.5, 0.0),
                (0, -48),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
                color="0.3",
            )
        ax.set_xlim(-0.15, n_layers + 0.15)
        ax.set_ylim(-0.02, 1.02)
        ax.set_axis_off()


def _chain(program: IntegerProgram, names: set[str]) -> list[NDArray]:
    """Return each layer's weights of what the layer before it gives. Others are not drawn."""
    n_inputs, before, chain = len(program.inputs), 0, []
    sums = [v for v, node in enumerate(program.nodes, n_inputs) if isinstance(node, Sum)]
    lookups = {
        node.reads: v for v, node in enumerate(program.nodes, n_inputs) if not isinstance(node, Sum)
    }
    for value, name in zip(sums, program.layer_names, strict=True):
        if name not in names:
            continue
        node = program.nodes[value - n_inputs]
        assert isinstance(node, Sum)
        parts = node.parts(len(program.ranges[v][0]) for v in node.reads)
        weights = np.zeros((node.n_neurons, len(program.ranges[before][0])), dtype=np.int64)
        for read, part in zip(node.reads, parts, strict=True):
            if read == before:
                weights = weights + part
        chain.append(weights)
        before = lookups.get(value, value)
    return chain


def _spread(n_nodes: int) -> NDArray:
    """Heights between 1 and 0, from the top."""
    return (np.arange(n_nodes)[::-1] + 0.5) / max(1, n_nodes)


def _node_size(n_nodes: int) -> float:
    return float(np.clip(2400 / max(1, n_nodes), 25, 160))


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
