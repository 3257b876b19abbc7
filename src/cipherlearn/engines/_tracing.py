"""Tracing of a program, for both compilers: their languages are alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from cipherlearn.program._nodes import Sum

__all__ = ["add_up", "name_inputs", "prepare_thread"]


def prepare_thread(tag_context: Any) -> None:
    """Give this thread the local that a compiler initializes in the importing thread only."""
    if not hasattr(tag_context, "stack"):
        tag_context.stack = []


def add_up(node: Sum, values: Sequence[Any]) -> Any:
    """Trace a sum of the values that it reads, of shape (n_rows, n_integers) each."""
    assert node.constant is not None
    read = [values[v] for v in node.reads]
    parts = node.parts(value.shape[1] for value in read)
    first, *others = (value @ part.T for value, part in zip(read, parts, strict=True))
    return sum(others, first) - -node.constant


def name_inputs(evaluate: Callable[..., Any], n_inputs: int) -> dict[str, str]:
    """Name the inputs of a function of any keywords, and mark each name as encrypted.

    Compilers ask a function for the names of its arguments, and call it by name.
    """
    names = [f"input_{i}" for i in range(n_inputs)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    evaluate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return dict.fromkeys(names, "encrypted")
