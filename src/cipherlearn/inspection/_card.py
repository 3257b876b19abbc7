"""A model card in the format of the Hugging Face Hub: what the model is, costs and protects."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier

from cipherlearn._samples import sample_rows
from cipherlearn._version import __version__
from cipherlearn._words import of_trained
from cipherlearn.engines import engine_name
from cipherlearn.engines._options import DEFAULT_P_ERROR
from cipherlearn.inspection._report import Report
from cipherlearn.training._reference import describe_scores

try:
    from skops.card import Card
except ImportError as error:
    raise ImportError("A model card needs skops: pip install 'cipherlearn[card]'") from error

if TYPE_CHECKING:
    from cipherlearn.inspection._fitted import FittedNetwork

__all__ = ["ModelCard", "make_card"]

# Rows that are simulated, and names that are listed, at most.
_SIMULATED_ROWS, _LISTED = 1000, 50

_LIBRARIES = ("torch", "scikit-learn", "brevitas", "numpy")


class ModelCard(Card):
    """A card of skops, with the metadata that the Hugging Face Hub reads.

    Parameters
    ----------
    model : estimator
        What the card describes.
    front_matter : dict
        The metadata. Change it to add a licence or a language.
    """

    def __init__(self, model: Any, front_matter: dict[str, Any]) -> None:
        super().__init__(model, model_diagram=False, template=None)
        # skops itself writes metadata up to 0.11 only, from an attribute of another name.
        self.front_matter = front_matter

    def render(self) -> str:
        """Return the card as Markdown, with its metadata."""
        return self._metadata() + super().render()

    def save(self, path: str | os.PathLike[str], copy_files: bool = False) -> None:
        """Write the card, with its metadata, to a file such as ``README.md``."""
        super().save(path, copy_files=copy_files)
        with open(path, encoding="utf-8") as file:
            body = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._metadata() + body)

    def _metadata(self) -> str:
        # Every JSON value is a YAML value.
        lines = (f"{key}: {json.dumps(value)}\n" for key, value in self.front_matter.items())
        return f"---\n{''.join(lines)}---\n"


def make_card(
    net: FittedNetwork, X: ArrayLike | None = None, y: ArrayLike | None = None
) -> ModelCard:
    """Describe a fitted estimator.

    Parameters
    ----------
    net : NeuralNetClassifier or NeuralNetRegressor
        What to describe. Fitted, compiled or not.
    X : array-like of shape (n_samples, n_features), default=None
        Rows to evaluate it on.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Their labels or targets.

    Returns
    -------
    skops.card.Card

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection._card import make_card
    >>> clf = NeuralNetClassifier(module__n_layers=1, max_epochs=5)
    >>> card = make_card(clf.fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]))
    >>> card.front_matter["pipeline_tag"]
    'tabular-classification'
    """
    if (X is None) != (y is None):
        given, missing = ("y", "X") if X is None else ("X", "y")
        raise ValueError(
            f"An evaluation needs rows and their labels or targets. Got only {given}. Give "
            f"{missing} too, or neither."
        )
    task = "classification" if is_classifier(net) else "regression"
    report = net.report(X)
    tags = ["cipherlearn", "scikit-learn", "fully-homomorphic-encryption", f"tabular-{task}"]
    card = ModelCard(
        net,
        {"library_name": "cipherlearn", "pipeline_tag": f"tabular-{task}", "tags": tags},
    )
    sections = {
        "Model description": _description(net),
        "Model description/How to use": _use(net),
        "Model description/Hyperparameters": _hyperparameters(net),
        "Model description/Architecture": _architecture(report),
    }
    if X is not None and y is not None:
        sections["Evaluation"] = _evaluation(net, X, y)
    sections |= {
        "Cost of an encrypted prediction": _cost(net, report),
        "Security": _security(net),
        "Intended use and limits": _LIMITS,
        "Licence": _LICENCE,
    }
    card.add(**sections)
    return card


_ARCHITECTURE = (
    "Neurons are those left in the program, of those that were trained. The weights are the "
    "non-zero ones of the neuron that has most, and the budget how many it may have. Proven bits "
    "hold a neuron's sum for every possible input. A table replaces each hidden neuron's sum in "
    "one bootstrap, and sees the table bits."
)

_WIDE_PATH = (
    " The wide path is a linear sum from the inputs straight to the outputs, which takes no "
    "bootstrap. It may read every input: the bits of its sums are its limit."
)

_SECURITY = """\
Whoever computes the encrypted prediction, the server, sees ciphertexts and evaluation keys. It
sees no feature, no hidden value and no result. It learns who asks, when and how often. It has the
model in the clear.

- **Decrypted results must not go back to the server**, nor anything from which it can infer them.
  The security is IND-CPA. It does not cover an attacker who sees decrypted results (IND-CPA-D).
- Ciphertexts are malleable, and nothing proves what was computed. The server is trusted to
  compute, not to see.
- A client who may ask often enough can copy the model. It decrypts exact sums, which tell more
  than a label does, and those of a wide path apart from the others.
- Training is in the clear: whoever trains sees the training data.
- cipherlearn has had no security audit."""

_LIMITS = """\
The model is meant for tables of numbers like those that it was trained on, where the rows to
predict must stay unread by the machine that predicts. Features beyond their range in training are
clipped to it, so that an unusual row is predicted like the nearest usual one. The evaluation
holds for rows of the same distribution only.

What the model must not decide, and for whom it was not tested, is for its maker to add here."""

_LICENCE = """\
cipherlearn is under the BSD 3-Clause licence. It computes on ciphertexts with Concrete, which is
under the BSD 3-Clause Clear licence. That one grants no patent rights: **commercial use of
Concrete needs a patent licence from Zama**. The licence of the model itself is for its maker to
state."""


def _table(header: tuple[str, ...], rows: Iterable[tuple]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _listed(names: Any) -> str:
    quoted = (str(name).replace("`", "'").replace("\n", " ") for name in names[:_LISTED])
    shown = ", ".join(f"`{name}`" for name in quoted)
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def _description(net: FittedNetwork) -> str:
    program = net.program_
    n_layers, n_outputs = len(program.layers) - len(program.wide_paths), program.n_outputs
    kind = "classes" if is_classifier(net) else "targets" if n_outputs > 1 else "target"
    layers = f"{n_layers} layer" + "s" * (n_layers > 1)
    if program.wide_paths:
        layers += " and a wide path"
    same = "Both compute the same integers."
    if hasattr(net, "circuit_") and net.circuit_.rounding == "approximate":
        same = "The latter rounds approximately, so that some results differ."
    lines = [
        f"A `{type(net).__name__}` of cipherlearn {__version__}: a sparse quantized neural network "
        f"of {layers}, from {net.n_features_in_} features to {n_outputs} {kind}. It predicts in "
        f"the clear, and on encrypted rows by fully homomorphic encryption (FHE). {same}",
    ]
    if is_classifier(net):
        lines.append(f"Classes: {_listed(net.classes_)}.")
    if hasattr(net, "feature_names_in_"):
        lines.append(f"Features: {_listed(net.feature_names_in_)}.")
    scores = describe_scores(net)
    if scores is not None:
        lines.append(scores)
    return "\n\n".join(lines)


def _use(net: FittedNetwork) -> str:
    code = ["import numpy as np"]
    rows = f"np.zeros((1, {net.n_features_in_}))"
    if hasattr(net, "feature_names_in_"):
        code.append("import pandas as pd")
        names = net.feature_names_in_.tolist()
        columns = repr(names) if len(names) <= _LISTED else "model.feature_names_in_"
        rows = f"pd.DataFrame({rows}, columns={columns})"
    code += [
        "import skops.io",
        "",
        'types = skops.io.get_untrusted_types(file="model.skops")  # read them',
        'model = skops.io.load("model.skops", trusted=types)',
    ]
    if not hasattr(net, "circuit_"):
        code.append("model.compile()")
    code += [
        f"X = {rows}  # your rows",
        "print(model.predict(X))  # in the clear",
        "print(model.predict(X, execute_in_fhe=True))  # on ciphertexts",
    ]
    return "\n".join(
        [
            'Stored by `skops.io.dump(model, "model.skops")`, it is loaded and asked like this:',
            "",
            "```python",
            *code,
            "```",
            "",
            "The last line plays both parts, the client's and the server's. "
            '`cipherlearn.deployment.export(model, "artefacts")` gives each a file of its own.',
        ]
    )


def _hyperparameters(net: FittedNetwork) -> str:
    params = sorted(net.get_params(deep=False).items())
    rows = ((f"`{name}`", f"`{_shown(value)}`") for name, value in params)
    return _table(("parameter", "value"), rows)


def _shown(value: Any) -> str:
    """Show a parameter, without what an object may hold: it could be data."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple) and len(value) <= _LISTED:
        return "[" + ", ".join(map(_shown, value)) + "]"
    described = value if hasattr(value, "__qualname__") else type(value)
    return f"{described.__module__}.{described.__qualname__}"


def _architecture(report: Report) -> str:
    header = (
        *("layer", "neurons", "most weights", "budget"),
        *("proven bits", "table bits", "bootstraps"),
    )
    rows = (
        (
            *(layer.name, of_trained(layer.n_neurons, layer.n_trained)),
            *(layer.n_weights, layer.budget, layer.proven_bits),
            *("" if layer.table_bits is None else layer.table_bits, layer.n_bootstraps),
        )
        for layer in report.layers
    )
    has_wide_path = any(layer.name == "wide path" for layer in report.layers)
    return f"{_ARCHITECTURE}{_WIDE_PATH * has_wide_path}\n\n{_table(header, rows)}"


def _evaluation(net: FittedNetwork, X: ArrayLike, y: ArrayLike) -> str:
    features = net._check_features(X)
    rows = [
        ("Rows", features.shape[0]),
        ("Accuracy" if is_classifier(net) else "R²", f"{net.score(X, y):.4f}"),
    ]
    if hasattr(net, "circuit_"):
        codes = net.program_.quantize(features[sample_rows(features.shape[0], _SIMULATED_ROWS)])
        equal = (net.circuit_.simulate(codes) == net.program_.run(codes)).all(axis=1)
        rows.append(
            ("Simulated outputs equal the clear ones", f"{equal.sum()} of {len(equal)} rows")
        )
    text = "In the clear, on rows that whoever made this card chose."
    return f"{text}\n\n{_table(('measure', 'value'), rows)}"


def _cost(net: FittedNetwork, report: Report) -> str:
    options = "that `compile()` has by default"
    if hasattr(net, "circuit_"):
        given = {name: value for name, value in net.circuit_.options.items() if value is not None}
        options = "of the compiled circuit, " + ", ".join(f"`{k}={v!r}`" for k, v in given.items())
    machine = [platform.machine(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    libraries = [f"{name} {version(name)}" for name in (*_LIBRARIES, engine_name())]
    text = (
        f"Estimated with the options {options}, on the machine that made this card: "
        f"{', '.join([*machine, *libraries])}."
    )
    cost = report.cost
    n_rounding = cost.n_rounding_bootstraps
    rows = [
        ("Table lookups a row, a bootstrap each", cost.n_bootstraps),
        *([("Bootstraps of exact rounding a row, of 1 bit", n_rounding)] if n_rounding else []),
        ("Seconds a row", f"{cost.seconds_per_row:.3g}"),
        ("Seconds a call", f"{cost.seconds:.3g}"),
        ("Evaluation keys, bytes", cost.key_bytes),
        ("Encrypted batch, bytes", cost.input_bytes),
        ("Encrypted result, bytes", cost.output_bytes),
    ]
    if report.flip_rate is not None:
        share = f"{100 * report.flip_rate:.1f} %"
        rows.append(("Random rows whose result approximate rounding changes", share))
    return f"{text}\n\n{_table(('what', 'value'), rows)}"


def _security(net: FittedNetwork) -> str:
    name = engine_name()
    p_error = f"at most {DEFAULT_P_ERROR:.1e}, the default of `compile()`"
    if hasattr(net, "circuit_"):
        p_error = f"{net.circuit_.p_error:.1e}"
    rows = [
        ("Scheme", "TFHE"),
        ("Security", "about 128 bits under IND-CPA, not IND-CPA-D"),
        ("Error probability of a bootstrap", p_error),
        ("Engine", f"{name} {version(name)}"),
    ]
    return f"{_table(('parameter', 'value'), rows)}\n\n{_SECURITY}"
