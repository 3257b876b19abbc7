"""Messages for unknown names: the nearest known ones, or ours for those of similar libraries."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

import torch

__all__ = ["ATTRIBUTES", "COMPILE_ARGUMENTS", "PREDICT_ARGUMENTS", "check_names", "refusing"]

Method = TypeVar("Method", bound=Callable[..., Any])

_MLP, _CONCRETE_ML, _SKORCH = "scikit-learn's MLP", "Concrete-ML", "skorch"

_STOPPING = (
    "Use callbacks=[skorch.callbacks.EarlyStopping(patience=..., threshold=...)] with "
    "train_split=skorch.dataset.ValidSplit(...)."
)
_SYMMETRIC = "Leave it out: weights are always symmetric and signed."
_FOUND = "Leave it out: fit finds it in the data."

# Parameters of other libraries: whose, and what to do instead.
_PARAMETERS = {
    "hidden_layer_sizes": (
        _MLP,
        "Use module__n_hidden_neurons, and module__n_layers, which counts the last layer too.",
    ),
    "activation": (_MLP, "Use module__activation_function, a class such as torch.nn.Tanh."),
    "solver": (_MLP, "Use optimizer, a class such as torch.optim.SGD."),
    "alpha": (_MLP, "Use callbacks__weight_decay__strength or optimizer__weight_decay."),
    "learning_rate": (_MLP, "Use lr, which callbacks__lr_decay=None keeps constant."),
    "learning_rate_init": (_MLP, "Use lr."),
    "power_t": (_MLP, "Use callbacks, with a skorch.callbacks.LRScheduler."),
    "max_iter": (_MLP, "Use max_epochs."),
    "max_fun": (_MLP, "Use max_epochs."),
    "shuffle": (_MLP, "Use iterator_train__shuffle."),
    "tol": (_MLP, _STOPPING),
    "early_stopping": (_MLP, _STOPPING),
    "validation_fraction": (_MLP, _STOPPING),
    "n_iter_no_change": (_MLP, _STOPPING),
    "momentum": (_MLP, "Use optimizer__momentum with optimizer=torch.optim.SGD."),
    "nesterovs_momentum": (_MLP, "Use optimizer__nesterov with optimizer=torch.optim.SGD."),
    "beta_1": (_MLP, "Use optimizer__betas."),
    "beta_2": (_MLP, "Use optimizer__betas."),
    "epsilon": (_MLP, "Use optimizer__eps."),
    "loss": (_MLP, "Use criterion, a class such as torch.nn.SmoothL1Loss."),
    "n_bits": (_CONCRETE_ML, "Use module__n_w_bits for weights and module__n_a_bits for codes."),
    "module__n_prune_neurons_percentage": (
        _CONCRETE_ML,
        "Call prune(X, y, n_prune_neurons_percentage) after fit.",
    ),
    "module__power_of_two_scaling": (_CONCRETE_ML, "Use module__rounding_bits, if at all."),
    "module__quant_narrow": (_CONCRETE_ML, _SYMMETRIC),
    "module__quant_signed": (_CONCRETE_ML, _SYMMETRIC),
    "module__input_dim": (_CONCRETE_ML, _FOUND),
    "module__n_outputs": (_CONCRETE_ML, _FOUND),
    "classes": (_SKORCH, "Pass classes to partial_fit."),
    "use_caching": (_SKORCH, "Leave it out: it has one sensible value here."),
    "torch_load_kwargs": (_SKORCH, "Leave it out: it has one sensible value here."),
    "class_weight": ("NeuralNetClassifier", "Pass sample_weight to fit."),
    "compile": (_SKORCH, "Call compile() after fit, which makes a circuit."),
    "dataset": (_SKORCH, "Leave it out: fit makes the dataset."),
    "predict_nonlinearity": (_SKORCH, "Leave it out: it follows from criterion."),
}

# Attributes of Concrete-ML's networks, and ours.
ATTRIBUTES = {
    "base_module": "module_",
    "check_model_is_compiled": 'hasattr(model, "circuit_")',
    "dequantize_output": "program_.dequantize",
    "fhe_circuit": "circuit_",
    "fhe_circuit_": "circuit_",
    "fit_benchmark": "float_twin",
    "is_compiled": 'hasattr(model, "circuit_")',
    "is_fitted": 'hasattr(model, "program_")',
    "onnx_model": "program_",
    "onnx_model_": "program_",
    "quantize_input": "program_.quantize",
    "quantized_module_": "program_",
}

PREDICT_ARGUMENTS = {
    "fhe": 'Use execute_in_fhe=True for fhe="execute", and execute_in_fhe="simulate" or False.'
}

_NO_DATA = "Leave it out: compile needs no data, since ranges are proven from the weights."
_NO_OPTION = "Leave it out: options of the compiler are not exposed."
COMPILE_ARGUMENTS = {
    "X": _NO_DATA,
    "inputset": _NO_DATA,
    "configuration": _NO_OPTION,
    "artifacts": _NO_OPTION,
    "show_mlir": _NO_OPTION,
    "device": "Leave it out: encrypted prediction uses the CPU.",
}

# Arguments of the parts that the net itself gives.
_GIVEN = {
    "module": {"input_dim", "n_outputs"},
    "optimizer": {"params"},
    "iterator_train": {"dataset"},
    "iterator_valid": {"dataset"},
    "dataset": {"X", "y"},
}


def check_names(net: Any, names: Iterable[str]) -> None:
    """Raise ValueError unless each name is a parameter of the net, or an argument of a part of it.

    Parameters
    ----------
    net : NeuralNetClassifier or NeuralNetRegressor
    names : iterable of str
        Names with skorch's prefixes. A part that takes any argument is given any.
    """
    own = net._signature_parameters()
    given = sorted({*names}.difference(own))
    if not given:
        return
    arguments = _arguments(net)
    unknown = [name for name in given if not _is_known(name, net.prefixes_, arguments)]
    if unknown:
        parts = [f"{prefix}__{name}" for prefix, known in arguments.items() for name in known or ()]
        estimator = type(net).__name__
        raise ValueError("\n".join(_problem(name, estimator, own, parts) for name in unknown))


def _arguments(net: Any) -> dict[str, set[str] | None]:
    """Give the arguments of each part by prefix, or None for a part that takes any."""
    arguments = {}
    for prefix in ("module", "criterion", "optimizer", "iterator_train", "iterator_valid"):
        part = getattr(net, prefix)
        if prefix == "criterion" and part is None:
            part = net._default_criterion
        arguments[prefix] = _arguments_of(part, _GIVEN.get(prefix, set()))
    arguments["dataset"] = _arguments_of(net.dataset, _GIVEN["dataset"])
    if arguments["optimizer"] is not None:
        arguments["optimizer"].add("param_groups")
    callbacks = net._named_callbacks()
    if callbacks is None:
        return {**arguments, "callbacks": None}
    for name, callback in callbacks.items():
        prefix = f"callbacks__{name}"
        callback = getattr(net, prefix, callback)
        kind = callback if isinstance(callback, type) else type(callback)
        arguments[prefix] = set() if callback is None else _arguments_of(kind, set())
    return arguments


def _arguments_of(part: Any, given: set[str]) -> set[str] | None:
    if isinstance(part, torch.nn.Module):
        return set()
    try:
        parameters = inspect.signature(part).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters} - given


def _is_known(name: str, prefixes: Iterable[str], arguments: dict[str, set[str] | None]) -> bool:
    if name in arguments:
        return True
    for prefix, known in arguments.items():
        if name.startswith(f"{prefix}__"):
            argument = name[len(prefix) + 2 :].partition("__")[0]
            return known is None or argument in known
    # A subclass may have parts of its own.
    prefix, delimiter, _ = name.partition("__")
    return bool(delimiter) and prefix != "callbacks" and prefix in prefixes


def _problem(name: str, estimator: str, own: list[str], parts: list[str]) -> str:
    problem = f"Invalid parameter {name!r} for estimator {estimator}"
    if name in _PARAMETERS:
        whose, remedy = _PARAMETERS[name]
        return f"{problem} ({whose} has it). {remedy}"
    by_spelling = {spelling: full for full in parts for spelling in (full.split("__")[-1], full)}
    # Last, so that they come first where a part's argument has the same name.
    by_spelling |= {full.split("__")[-1]: full for full in own} | {full: full for full in own}
    near = [name] if name in by_spelling else get_close_matches(name, by_spelling)
    near = list(dict.fromkeys(by_spelling[spelling] for spelling in near))
    if near:
        return f"{problem}. Did you mean {' or '.join(near)}?"
    return f"{problem}. Valid parameters are: {own!r}."


def refusing(remedies: dict[str, str]) -> Callable[[Method], Method]:
    """Make a method raise TypeError, with a remedy, for arguments of Concrete-ML's.

    Examples
    --------
    >>> from cipherlearn.estimators._names import refusing
    >>> class Model:
    ...     @refusing({"fhe": "Use execute_in_fhe."})
    ...     def predict(self, execute_in_fhe=False): ...
    >>> Model().predict(fhe="execute")
    Traceback (most recent call last):
    ...
    TypeError: predict() has no argument 'fhe' (Concrete-ML has it). Use execute_in_fhe.
    """

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            for name in kwargs:
                if name in remedies:
                    raise TypeError(
                        f"{method.__name__}() has no argument {name!r} (Concrete-ML has it). "
                        f"{remedies[name]}"
                    )
            return method(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate
