"""The steps before the network, which the client runs in the clear, as skops stores them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cipherlearn._exceptions import ArtefactError, UntrustedTypesError
from cipherlearn.deployment.artefacts._archive import refusing_damage
from cipherlearn.deployment.artefacts._trusted_types import (
    BSPLINE,
    LOADERS_WITHOUT_NAMES,
    TREE,
    TRUSTED_TYPES,
)

__all__ = ["dump_preprocessing", "load_preprocessing", "load_skops"]

_NEEDS = "A model with preprocessing needs skops: pip install 'cipherlearn[client]'"


def dump_preprocessing(steps: Any, trusted: Sequence[str]) -> bytes:
    """Serialize fitted transformers, or raise ArtefactError if a client could not load them."""
    try:
        from skops.io import dumps
        from skops.io.exceptions import UnsupportedTypeException
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    try:
        content = dumps(steps)
    except UnsupportedTypeException as error:
        raise ArtefactError(
            "The steps before the network travel to clients without pickle, by skops, and skops "
            f"cannot store one of them. {error}. Let callers run that step, and export the rest."
        ) from error
    load_preprocessing(content, trusted)
    return content


def load_preprocessing(content: bytes | None, trusted: Sequence[str]) -> Any:
    """Load what :func:`dump_preprocessing` gave, if it is of trusted types alone."""
    if content is None:
        return None
    return load_skops(content, trusted, "The steps before the network", "preprocessing.skops")


def load_skops(content: bytes, trusted: Sequence[str], what: str, name: str) -> Any:
    """Load what skops stored, if it is of trusted types alone and its indices stay inside.

    Parameters
    ----------
    content : bytes
    trusted : sequence of str
        Types to trust besides those that scikit-learn's own transformers are made of.
    what, name : str
        What it is, and its file, for messages.
    """
    try:
        from skops.io import get_untrusted_types, loads
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    with refusing_damage(name):
        loaders = _check_members(content)
        untrusted = set(get_untrusted_types(data=content))
    if nameless := loaders & LOADERS_WITHOUT_NAMES:
        raise ArtefactError(
            f"{what} may hold no bound method and no operator, whose names do not tell what they "
            f"do. Got {sorted(nameless)}. Use a function instead."
        )
    if "TreeNode" in loaders:
        untrusted.add(TREE)
    accepted = TRUSTED_TYPES.union(trusted)
    if not untrusted <= accepted:
        raise UntrustedTypesError(what, sorted(untrusted - accepted))
    try:
        with refusing_damage(name):
            # Only those that are needed: a name is trusted wherever it stands.
            loaded = loads(content, trusted=sorted(untrusted))
            if BSPLINE in untrusted:
                _build_splines(loaded)
    except (AttributeError, ImportError) as error:
        raise ArtefactError(
            f"{what} must be of types that are installed here. {error}. Install the versions that "
            "the model was exported with."
        ) from error
    return loaded


def _check_members(content: bytes) -> set[str]:
    """Give the names of the loaders that a file asks for, and check its sparse matrices."""
    from scipy.sparse import load_npz

    with zipfile.ZipFile(io.BytesIO(content)) as members:
        for name in members.namelist():
            member = members.read(name)
            # A sparse matrix is an archive of NumPy, whatever its name.
            if member.startswith(b"PK"):
                try:
                    matrix = load_npz(io.BytesIO(member))
                except Exception:  # none, for skops neither
                    continue
                if matrix.format not in ("csr", "csc"):
                    raise ValueError(f"sparse matrices must be csr or csc, got {matrix.format}")
                # Loading alone does not look at every index.
                matrix.check_format(full_check=True)
        return set(_loaders(json.loads(members.read("schema.json"))))


def _loaders(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "__loader__" in schema:
            yield str(schema["__loader__"])
        schema = list(schema.values())
    if isinstance(schema, list):
        for value in schema:
            yield from _loaders(value)


def _build_splines(loaded: Any) -> None:
    """Build each spline of an object anew, which checks that its arrays fit together."""
    from scipy.interpolate import BSpline

    seen: dict[int, Any] = {}
    waiting = [loaded]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, BSpline):
            stored = vars(value)
            # SciPy has renamed two of them.
            t, c = (stored[f"_{name}" if f"_{name}" in stored else name] for name in "tc")
            value.__dict__ = vars(BSpline(t, c, stored["k"], stored["extrapolate"]))
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, np.ndarray) and value.dtype == object:
            waiting += value.ravel().tolist()
        else:
            waiting += getattr(value, "__dict__", {}).values()
