"""Tracing of a program's sums, in the language that both compilers share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from cipherlearn.program._nodes import Sum

__all__ = ["add_up", "name_inputs", "prepare_thread"]


def prepare_thread(tag_context: Any) -> None:
    """Initialize a thread-local of a compiler, which it does in the importing thread only."""
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
    """Name the inputs of a function that takes any keywords, and mark each as encrypted.

    Compilers read the names from the function's signature, and call it by keywords.
    """
    names = [f"input_{i}" for i in range(n_inputs)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    evaluate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return dict.fromkeys(names, "encrypted")
