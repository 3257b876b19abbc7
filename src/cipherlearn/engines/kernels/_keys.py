"""Loaded evaluation keys, and a cache of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from cipherlearn._exceptions import MessageError
from cipherlearn.engines.kernels._backend import Backend, in_threads
from cipherlearn.engines.kernels._parameters import BootstrapKey, KeyswitchKey, Parameters
from cipherlearn.engines.kernels._wire import Words, read_keys

__all__ = ["EvaluationKeys", "KeyCache", "keys_for", "prepare_keys"]


@dataclass(frozen=True)
class EvaluationKeys:
    """A client's evaluation keys, decompressed, with bootstrap keys in the Fourier domain.

    Parameters
    ----------
    bootstrap, keyswitch : tuple
        As the backend made them, in the order of the parameters.
    n_bytes : int
        Bytes of memory that they take.
    shapes : tuple of BootstrapKey and KeyswitchKey
        Shapes of all keys, which must be those of the parameters.
    """

    bootstrap: tuple[Any, ...]
    keyswitch: tuple[Any, ...]
    n_bytes: int
    shapes: tuple[BootstrapKey | KeyswitchKey, ...] = ()


def prepare_keys(
    parameters: Parameters, serialized: bytes, backend: Backend, n_threads: int
) -> EvaluationKeys:
    """Load evaluation keys that Concrete serialized.

    Raises
    ------
    MessageError
        If the keys are damaged, or for other parameters.
    """
    bootstrap, keyswitch = keys_for(parameters, *read_keys(serialized))
    keys: dict[int, Any] = {}

    def prepare(_: int, i: int) -> None:
        if i < len(bootstrap):
            keys[i] = backend.bootstrap_key(parameters.bootstrap_keys[i], bootstrap[i])
        else:
            j = i - len(bootstrap)
            keys[i] = backend.keyswitch_key(parameters.keyswitch_keys[j], keyswitch[j])

    n_keys = len(bootstrap) + len(keyswitch)
    in_threads(n_threads, n_keys, prepare)
    ready = tuple(keys[i] for i in range(n_keys))
    return EvaluationKeys(
        ready[: len(bootstrap)],
        ready[len(bootstrap) :],
        parameters.key_bytes,
        parameters.key_shapes,
    )


def keys_for(
    parameters: Parameters, bootstrap: list[Words], keyswitch: list[Words]
) -> tuple[list[Words], list[Words]]:
    """Return keys, or raise MessageError unless they have the lengths that parameters ask for."""
    for kind, keys, shapes in (
        ("bootstrap", bootstrap, parameters.bootstrap_keys),
        ("keyswitch", keyswitch, parameters.keyswitch_keys),
    ):
        expected = [shape.n_sent for shape in shapes]
        if list(map(len, keys)) != expected:
            raise MessageError(
                f"The {kind} keys of this model must have {expected} words. Got "
                f"{list(map(len, keys))}. Make keys with the model's client.zip."
            )
    return bootstrap, keyswitch


class KeyCache:
    """Cache of keys up to a number of bytes, which drops the least recently used.

    May be used from several threads at once.

    Parameters
    ----------
    max_bytes : int
        Largest size of all keys. The last ones are kept even if they alone exceed it.

    Examples
    --------
    >>> from cipherlearn.engines.kernels import EvaluationKeys, KeyCache
    >>> cache = KeyCache(max_bytes=100)
    >>> for name in "abc":
    ...     cache.put(name, EvaluationKeys((), (), n_bytes=50))
    >>> cache.get("a") is None, cache.get("c").n_bytes, cache.n_bytes
    (True, 50, 100)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._keys: OrderedDict[Hashable, EvaluationKeys] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def n_bytes(self) -> int:
        """Bytes that all keys take."""
        with self._lock:
            return self._count()

    def get(self, name: Hashable) -> EvaluationKeys | None:
        """Return keys and mark them as recently used, or return ``None``."""
        with self._lock:
            if name in self._keys:
                self._keys.move_to_end(name)
            return self._keys.get(name)

    def put(self, name: Hashable, keys: EvaluationKeys) -> None:
        """Keep keys, and drop others as needed."""
        with self._lock:
            self._keys[name] = keys
            self._keys.move_to_end(name)
            while len(self._keys) > 1 and self._count() > self._max_bytes:
                self._keys.popitem(last=False)

    def _count(self) -> int:
        return sum(keys.n_bytes for keys in self._keys.values())
