"""Checks of ``client.json`` and ``server.json``."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ArtefactError

__all__ = ["check_client_description", "check_server_description", "read_labels"]

# Fields of client.json, and the types that each may have.
_FIELDS: dict[str, tuple[type, ...]] = {
    "cipherlearn": (str,),
    "engine": (dict,),
    "estimator": (str,),
    "n_features": (int,),
    "n_network_features": (int,),
    "n_components": (int,),
    "n_inputs": (int,),
    "feature_names": (list, type(None)),
    "classes": (dict, type(None)),
    "probabilities": (str, type(None)),
    "target_is_1d": (bool, type(None)),
    "batch_size": (int,),
    "program_sha256": (str,),
    "frames": (dict,),
}

_SERVER_FIELDS = {
    "achieved_p_error",
    "error_probability",
    "flip_rate",
    "n_bootstraps",
    "rounding",
}

# Types of labels: strings, numbers or booleans. An array takes the longest string for each.
_LABEL_TYPE = re.compile(r"object|[<>|]?(?:b1|[iu][1248]|f[248]|f16|U\d{1,4})")
_MAX_LABEL_BYTES = 1 << 26


def check_client_description(description: dict[str, Any]) -> None:
    """Raise ArtefactError unless fields of client.json have the values that they may have."""
    for name, types in _FIELDS.items():
        if type(description[name]) not in types:
            raise ArtefactError(
                f"{name} in client.json must be of type {' or '.join(t.__name__ for t in types)}. "
                f"Got {description[name]!r:.100}."
            )
    engine = description["engine"]
    if not (isinstance(engine["name"], str) and isinstance(engine["version"], str)):
        raise ArtefactError(f"engine must have a name and a version. Got {engine!r:.100}.")
    kinds = ("classifier", "regressor")
    if description["estimator"] not in kinds:
        raise ArtefactError(
            f"estimator must be one of {kinds}. Got {description['estimator']!r:.100}."
        )
    if (description["classes"] is None) != (description["estimator"] == "regressor"):
        raise ArtefactError("A classifier needs classes, and a regressor has none.")
    if not all(isinstance(name, str) for name in description["feature_names"] or ()):
        raise ArtefactError(
            f"feature_names must be strings. Got {description['feature_names']!r:.100}."
        )
    names, n_features = description["feature_names"], description["n_features"]
    if names is not None and len(names) != n_features:
        raise ArtefactError(
            f"{n_features} features need as many feature_names, or none. Got {len(names)}."
        )
    if description["probabilities"] not in ("softmax", "identity", None):
        raise ArtefactError(
            "probabilities must be softmax, identity or null. "
            f"Got {description['probabilities']!r:.100}."
        )
    for name in ("batch_size", "n_features", "n_network_features", "n_inputs"):
        if description[name] < 1:
            raise ArtefactError(f"{name} must be at least 1. Got {description[name]}.")
    if description["n_components"] < 0:
        raise ArtefactError(f"n_components must be at least 0. Got {description['n_components']}.")


def read_labels(classes: dict[str, Any], n_outputs: int) -> NDArray[Any]:
    """Read the labels of a classifier, or raise ArtefactError."""
    values, name = classes["values"], classes["dtype"]
    if type(values) is not list or len(values) != n_outputs:
        raise ArtefactError(f"{n_outputs} outputs need as many classes. Got {values!r:.100}.")
    if not all(type(value) in (str, bool, int, float) for value in values) or not (
        type(name) is str and _LABEL_TYPE.fullmatch(name)
    ):
        raise ArtefactError(
            "Labels must be strings, numbers or booleans. "
            f"Got {values!r:.100} of type {name!r:.100}."
        )
    dtype = np.dtype(name)
    if n_outputs * dtype.itemsize > _MAX_LABEL_BYTES:
        raise ArtefactError(f"Labels take at most {_MAX_LABEL_BYTES} bytes. Got {name}.")
    return np.array(values, dtype=dtype)


def check_server_description(description: dict[str, Any]) -> None:
    """Raise ArtefactError unless server.json says how its circuit was compiled."""
    other = set(description) - _SERVER_FIELDS  # all of them are published
    if other:
        raise ArtefactError(
            f"server.json holds {', '.join(sorted(_SERVER_FIELDS))} and nothing else. "
            f"Got {sorted(other)!r:.100}."
        )
    probability, rounding = description["error_probability"], description["rounding"]
    if type(probability) is not dict or set(probability) != {"p_error", "global_p_error"}:
        raise ArtefactError(f"error_probability must hold both. Got {probability!r:.100}.")
    given = [value for value in probability.values() if value is not None]
    if len(given) != 1 or type(given[0]) is not float or not 0 < given[0] < 1:
        raise ArtefactError(f"One error probability must be in (0, 1). Got {probability!r:.100}.")
    if rounding not in ("exact", "approximate"):
        raise ArtefactError(f"rounding must be exact or approximate. Got {rounding!r:.100}.")
