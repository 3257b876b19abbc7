"""Audit of loaded preprocessing: values that scikit-learn would follow or call unchecked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import UntrustedTypesError
from cipherlearn.deployment.artefacts._trusted_types import (
    FUNCTION_TRANSFORMER,
    FUNCTIONS_OF_ATTRIBUTES,
    PREDICTORS,
)

__all__ = ["audit"]

# Words of the state of the Mersenne Twister, which draws the next one of them unchecked.
_MT19937_WORDS = 624

# Format of names of features, without widths, which could be any number.
_NAMING = re.compile(r"[^{}]*(\{transformer_name\}[^{}]*)?(\{feature_name\}[^{}]*)?")


def audit(loaded: Any, functions: Iterable[str], trusted: Set[str], what: str) -> None:
    """Check an object and all that it contains, and let it compute in one process.

    Parameters
    ----------
    loaded : object
    functions : iterable of str
        Names of the functions in it.
    trusted : set of str
        Types and functions that the caller trusts, which may stand anywhere.
    what : str
        Description of the object, for messages.

    Raises
    ------
    ValueError
        If an index leads outside, or a value stands in the place of a method or another attribute
        of a class.
    UntrustedTypesError
        If a function is called that must be trusted by name.
    """
    from scipy.interpolate import BSpline
    from scipy.sparse import issparse

    found = {name: _find(name) for name in functions}
    listed = {id(function): name for name, function in found.items() if name not in trusted}
    known = {id(function) for function in found.values()}
    seen: dict[int, Any] = {}
    waiting = [loaded]
    while waiting:
        value = waiting.pop()
        if id(value) in listed:
            raise UntrustedTypesError(what, [listed[id(value)]])
        if id(value) in seen or isinstance(value, type):
            continue
        seen[id(value)] = value
        if isinstance(value, BSpline):
            _build_anew(value)
        elif issparse(value):
            check_sparse(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, np.ndarray) and value.dtype == object:
            waiting += value.ravel().tolist()
        elif isinstance(value, np.random.RandomState):
            _check_random_state(value)
        elif hasattr(value, "__dict__"):
            _check_estimator(value, known, trusted, what)
            waiting += [
                each
                for name, each in vars(value).items()
                if listed.get(id(each)) not in FUNCTIONS_OF_ATTRIBUTES.get(name, ())
            ]


def check_sparse(matrix: Any) -> None:
    """Raise ValueError if a sparse matrix is not CSR or CSC, or its indices lead outside."""
    if matrix.format not in ("csr", "csc"):
        raise ValueError(f"sparse matrices must be csr or csc, got {matrix.format}")
    matrix.check_format(full_check=True)


def _find(name: str) -> Any:
    """Return what skops loaded by this name."""
    module, _, name = name.rpartition(".")
    return getattr(sys.modules[module], name)


def _check_random_state(state: np.random.RandomState) -> None:
    position: Any = state.get_state(legacy=False)["state"]["pos"]
    if not 0 <= position <= _MT19937_WORDS:
        raise ValueError(f"a random state has {_MT19937_WORDS} words, got position {position}")


def _check_estimator(estimator: Any, known: Set[int], trusted: Set[str], what: str) -> None:
    """Check attributes of an estimator, or of any other object of scikit-learn.

    ``known`` has the ids of the functions in the file, whose names were checked.
    """
    from sklearn.cluster import FeatureAgglomeration
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer

    name, attributes = _type_name(estimator), vars(estimator)
    if attributes.get("n_jobs") is not None:
        # Processes are the client's to start.
        attributes["n_jobs"] = None
    if not name.startswith("sklearn.") or name in trusted:
        return
    for attribute in attributes:
        if hasattr(type(estimator), attribute):
            raise ValueError(f"{name}.{attribute} must be that of the class")
    getter = attributes.get("importance_getter")
    if isinstance(getter, str) and any(part.startswith("_") for part in getter.split(".")):
        raise ValueError("importance_getter must name public attributes")
    for attribute in ("verbose_feature_names_out", "feature_name_combiner"):
        _check_naming(attributes.get(attribute), known, trusted)
    if isinstance(estimator, FunctionTransformer):
        _check_functions(attributes, known, trusted, what)
    elif name == "sklearn.impute._iterative.IterativeImputer":
        _check_imputer(attributes, trusted, what)
    elif isinstance(estimator, OneHotEncoder) and hasattr(estimator, "categories_"):
        _check_columns(estimator)
    elif isinstance(estimator, SplineTransformer) and hasattr(estimator, "bsplines_"):
        n_columns = estimator.bsplines_[0].c.shape[1] - (not estimator.include_bias)
        if (
            estimator.include_bias not in (False, True)
            or estimator.n_features_out_ != len(estimator.bsplines_) * n_columns
        ):
            raise ValueError("a spline transformer must have a column for each of its splines")
    elif isinstance(estimator, FeatureAgglomeration) and hasattr(estimator, "labels_"):
        labels = np.asarray(estimator.labels_)
        if labels.min() < 0 or labels.max() >= len(labels):
            raise ValueError(f"labels of {len(labels)} features must be below that")


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _check_naming(naming: Any, known: Set[int], trusted: Set[str]) -> None:
    """Check that names of features have a bounded length, or a function that is trusted."""
    if isinstance(naming, str):
        if not _NAMING.fullmatch(naming):
            raise ValueError(f"names of features must be filled in once each. Got {naming!r:.100}")
    elif callable(naming) and id(naming) not in known and _type_name(naming) not in trusted:
        raise ValueError("names of features must be made by a function that is trusted by name")


def _check_functions(
    attributes: dict[str, Any], known: Set[int], trusted: Set[str], what: str
) -> None:
    """Check that a function transformer calls nothing but functions, and with one argument."""
    for function in (attributes.get("func"), attributes.get("inverse_func")):
        if (
            function is not None
            and id(function) not in known
            and _type_name(function) not in trusted
        ):
            raise UntrustedTypesError(what, [FUNCTION_TRANSFORMER])
    # NumPy's functions write to some of them.
    if attributes.get("kw_args") or attributes.get("inv_kw_args"):
        raise UntrustedTypesError(what, [FUNCTION_TRANSFORMER])


def _check_imputer(attributes: dict[str, Any], trusted: Set[str], what: str) -> None:
    """Check that an imputer predicts by estimators whose predictions are safe."""
    from sklearn.impute._iterative import _ImputerTriplet

    for triplet in attributes.get("imputation_sequence_", ()):
        if type(triplet) is not _ImputerTriplet:
            raise ValueError("an imputer must have the steps of IterativeImputer")
        if (name := _type_name(triplet.estimator)) not in PREDICTORS and name not in trusted:
            raise UntrustedTypesError(what, [name])


def _build_anew(spline: Any) -> None:
    """Build a spline of its arrays, which checks that they fit together."""
    stored = vars(spline)
    # SciPy has renamed two of them.
    t, c = (stored[f"_{name}" if f"_{name}" in stored else name] for name in "tc")
    spline.__dict__ = vars(type(spline)(t, c, stored["k"], stored["extrapolate"]))


def _check_columns(encoder: Any) -> None:
    """Check that every category of a one-hot encoder has a column of its feature."""
    sizes = encoder._n_features_outs = encoder._compute_n_features_outs()
    nothing = [None] * len(sizes)
    dropped, grouping = encoder._drop_idx_after_grouping, bool(encoder._infrequent_enabled)
    for categories, size, drop, group, infrequent in zip(
        encoder.categories_,
        sizes,
        nothing if dropped is None else dropped.tolist(),
        encoder._default_to_infrequent_mappings if grouping else nothing,
        encoder._infrequent_indices if grouping else nothing,
        strict=True,
    ):
        if not _is_sorted(np.asarray(categories)):
            raise ValueError("numbers that are categories of a one-hot encoder must be in order")
        column = np.arange(len(categories))
        if infrequent is not None:
            # Unknown categories count as the first of those.
            column = np.append(column, infrequent[0])
        if group is not None:
            column = np.asarray(group)[column]
        if column.dtype.kind not in "iu":
            raise ValueError("a one-hot encoder must group categories by their numbers")
        if drop is not None:
            if not 0 <= drop < len(categories):
                raise ValueError("a one-hot encoder must not point outside its categories")
            column = column[column != drop]
            column = column - (column > drop)
        if size < 0 or (column < 0).any() or (column >= size).any():
            raise ValueError(f"a one-hot encoder of {size} columns must not point outside them")


def _is_sorted(categories: NDArray[Any]) -> bool:
    """Return whether a binary search for a category finds it, not a place behind the last one."""
    if categories.dtype.kind in "OSU":
        return True  # scikit-learn looks them up
    is_nan = categories != categories
    numbers = categories[~is_nan]
    return bool((numbers[1:] > numbers[:-1]).all()) and not is_nan[:-1].any()
