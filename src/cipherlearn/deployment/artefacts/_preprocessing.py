"""Storage by skops of the steps before the network, which the client runs in the clear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cipherlearn._exceptions import ArtefactError, UntrustedTypesError
from cipherlearn.deployment.artefacts._archive import refusing_damage
from cipherlearn.deployment.artefacts._fitted_values import audit
from cipherlearn.deployment.artefacts._schema import repacked
from cipherlearn.deployment.artefacts._trusted_types import (
    LOADERS_WITHOUT_NAMES,
    TREE,
    TYPES_OF_LOADERS,
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
        Types and functions to trust besides those listed in ``_trusted_types``.
    what, name : str
        Description of the object, and name of its file, for messages.
    """
    try:
        from skops.io import get_untrusted_types, loads
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    with refusing_damage(name):
        content, nodes = repacked(content)
    if nameless := {loader for loader, _ in nodes} & LOADERS_WITHOUT_NAMES:
        raise ArtefactError(
            f"{what} may hold no bound method and no operator, whose names do not tell what they "
            f"do. Got {sorted(nameless)}. Use a function instead."
        )
    # What skops trusts by default does not count, as scikit-learn's estimators are among it.
    named = {each for loader, each in nodes if each not in TYPES_OF_LOADERS.get(loader, ())}
    if any(loader == "TreeNode" for loader, _ in nodes):
        named.add(TREE)
    if not named <= {*trusted}:
        raise UntrustedTypesError(what, sorted(named.difference(trusted)))
    with refusing_damage(name):
        untrusted = {*get_untrusted_types(data=content)}
    # Those that skops looks up besides.
    if not untrusted <= {each for _, each in nodes}.union(named, trusted):
        raise UntrustedTypesError(what, sorted(untrusted.difference(trusted)))
    try:
        with refusing_damage(name):
            # Only those that are needed, since skops trusts a name wherever it stands.
            loaded = loads(content, trusted=sorted(untrusted))
            functions = {each for loader, each in nodes if loader == "FunctionNode"}
            audit(loaded, functions, {*trusted}, what)
    except (AttributeError, ImportError) as error:
        raise ArtefactError(
            f"{what} must be of types that are installed here. {error}. Install the versions that "
            "the model was exported with."
        ) from error
    return loaded
