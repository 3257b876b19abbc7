"""The steps before the network, which the client runs in the clear, as skops stores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cipherlearn._exceptions import ArtefactError
from cipherlearn.deployment._archive import refusing_damage

__all__ = ["dump_preprocessing", "load_preprocessing"]

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
    try:
        from skops.io import get_untrusted_types, loads
    except ImportError as error:
        raise ImportError(_NEEDS) from error
    with refusing_damage("preprocessing.skops"):
        untrusted = set(get_untrusted_types(data=content)) - set(trusted)
    if untrusted:
        raise ArtefactError(
            "The steps before the network may only hold types of scikit-learn and NumPy, or such "
            f"as are named as trusted. Got also {sorted(untrusted)}. Read what these types do, "
            f"and if you trust them give trusted={sorted(untrusted)}, or leave the step out."
        )
    with refusing_damage("preprocessing.skops"):
        return loads(content, trusted=list(trusted))
