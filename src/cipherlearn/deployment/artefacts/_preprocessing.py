"""Storage by skops of the steps before the network, which the client runs in the clear."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cipherlearn._exceptions import ArtefactError, UntrustedTypesError
from cipherlearn._guarded_zip import MAX_BYTES, read_members
from cipherlearn.deployment.artefacts._archive import refusing_damage
from cipherlearn.deployment.artefacts._trusted_types import (
    LOADERS_WITHOUT_NAMES,
    TREE,
    TRUSTED_TYPES,
)

__all__ = ["dump_preprocessing", "load_preprocessing", "load_skops"]

# What skops says of an object takes some twenty times the memory of its text.
_MAX_SCHEMA_BYTES = 1 << 26

_NEEDS = "A model with preprocessing needs skops: pip install 'cipherlearn[client]'"


def dump_preprocessing(steps: Any, trusted: Sequence[str]) -> bytes:
    """Serialize fitted transformers, or raise ArtefactError if a client could not load them."""
    try:
        from skops.io import dumps
        from skops.io.exceptions import UnsupportedTypeException
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    try:
        content: bytes = dumps(steps)
    except UnsupportedTypeException as error:
        raise ArtefactError(
            "The steps before the network travel to clients without pickle, by skops, and skops "
            f"cannot store one of them. {error}. Let callers run that step, and export the rest."
        ) from error
    load_preprocessing(content, trusted)
    return content


def load_preprocessing(content: bytes | None, trusted: Sequence[str]) -> Any:
    """Load what :func:`dump_preprocessing` gave, or raise ArtefactError for other types."""
    if content is None:
        return None
    return load_skops(content, trusted, "The steps before the network", "preprocessing.skops")


def load_skops(content: bytes, trusted: Sequence[str], what: str, name: str) -> Any:
    """Load what skops stored, or raise ArtefactError for other types or indices out of range.

    Parameters
    ----------
    content : bytes
    trusted : sequence of str
        Types to trust besides those that scikit-learn's own transformers are made of.
    what, name : str
        Description of the object, and name of its file, for messages.
    """
    try:
        from skops.io import get_untrusted_types, loads
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    with refusing_damage(name):
        content, loaders = _repacked(content)
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
            # Only those that are needed, since skops trusts a name wherever it stands.
            loaded = loads(content, trusted=sorted(untrusted))
            _audit(loaded)
    except (AttributeError, ImportError) as error:
        raise ArtefactError(
            f"{what} must be of types that are installed here. {error}. Install the versions that "
            "the model was exported with."
        ) from error
    return loaded


def _repacked(content: bytes) -> tuple[bytes, set[str]]:
    """Return a file that unpacks to no more than it holds, and the names of loaders in it.

    Readers of skops, NumPy and SciPy inflate whatever an archive says.
    """
    members, size = read_members(content), 0
    for name, member in members.items():
        # Of a sparse matrix, an archive in the archive.
        parts = read_members(member) if member.startswith(b"PK") else {}
        for array in parts.values() if parts else [member]:
            _check_array(array)
        members[name] = _packed(parts) if parts else member
        size += len(members[name])
        if size > MAX_BYTES:
            raise ValueError(f"It unpacks to more than {MAX_BYTES} bytes")
    if len(members["schema.json"]) > _MAX_SCHEMA_BYTES:
        raise ValueError(f"schema.json has at most {_MAX_SCHEMA_BYTES} bytes")
    schema = json.loads(members["schema.json"])
    # Each node that names a file reads it anew.
    if sum(len(members.get(str(name), b"")) for name in _values(schema, "file")) > MAX_BYTES:
        raise ValueError(f"It holds more than {MAX_BYTES} bytes, with what it names more than once")
    return _packed(members), set(map(str, _values(schema, "__loader__")))


def _check_array(content: bytes) -> None:
    """Raise ValueError if an array claims other than it holds, which NumPy would allocate."""
    npy: Any = np.lib.format
    if not content.startswith(npy.MAGIC_PREFIX):
        return
    file = io.BytesIO(content)
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, _, dtype = read_header(file)
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"An array must hold the {shape} values that its header names")


def _packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return buffer.getvalue()


def _values(schema: Any, name: str) -> Iterator[Any]:
    """Give the values of a name wherever it stands."""
    if isinstance(schema, dict):
        if name in schema:
            yield schema[name]
        schema = list(schema.values())
    if isinstance(schema, list):
        for value in schema:
            yield from _values(value, name)


def _audit(loaded: Any) -> None:
    """Check indices that compiled code follows unchecked, in an object and all that it contains.

    Raises
    ------
    ValueError
        If an index leads outside.
    """
    from scipy.interpolate import BSpline
    from scipy.sparse import issparse
    from sklearn.preprocessing import OneHotEncoder

    seen: dict[int, Any] = {}
    waiting = [loaded]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, BSpline):
            _build_anew(value)
        elif issparse(value):
            if value.format not in ("csr", "csc"):
                raise ValueError(f"sparse matrices must be csr or csc, got {value.format}")
            value.check_format(full_check=True)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, np.ndarray) and value.dtype == object:
            waiting += value.ravel().tolist()
        else:
            if isinstance(value, OneHotEncoder) and hasattr(value, "categories_"):
                _check_columns(value)
            waiting += getattr(value, "__dict__", {}).values()


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
    dropped = encoder._drop_idx_after_grouping
    grouped = getattr(encoder, "_default_to_infrequent_mappings", nothing)
    for categories, size, drop, group in zip(
        encoder.categories_,
        sizes,
        nothing if dropped is None else dropped.tolist(),
        grouped,
        strict=True,
    ):
        column = np.arange(len(categories)) if group is None else np.asarray(group)
        drop = len(categories) if drop is None else drop
        column = column[column != drop]
        column = column - (column > drop)
        if size < 0 or (column < 0).any() or (column >= size).any():
            raise ValueError(f"a one-hot encoder of {size} columns must not point outside them")
