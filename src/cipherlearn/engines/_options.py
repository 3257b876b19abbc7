"""Options of compilation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cipherlearn._checks import check_int
from cipherlearn._words import count, power

__all__ = ["DEFAULT_P_ERROR", "CompileOptions"]

DEFAULT_P_ERROR = 2.0**-40


@dataclass(frozen=True)
class CompileOptions:
    """Options that a program is compiled with. They decide cost and exactness of its circuit.

    Parameters
    ----------
    p_error : float or None, default=None
        Probability that one bootstrap gives a wrong result. It is 2**-40 if both probabilities
        are ``None``.
    global_p_error : float or None, default=None
        Probability that a batch's result has any wrong bootstrap.
    batch_size : int, default=1
        Rows of one ciphertext.
    rounding : {"exact", "approximate"}, default="exact"
        How bits that tables do not see are removed. "exact" takes one bootstrap of 1 bit for
        each. "approximate" takes none, and the noise of encryption decides how sums near the
        middle between two multiples are rounded.
    runtime : {"auto", "kernels", "compiled"}, default="auto"
        Whether Concrete's kernels evaluate, which keep keys in memory, or the compiled circuit.
        "auto" takes the kernels where they can be used.

    Raises
    ------
    ValueError
        If both error probabilities are given, one is not between 0 and 1, ``batch_size`` is not a
        positive integer, or ``rounding`` or ``runtime`` is not one of the choices.

    Examples
    --------
    >>> from cipherlearn.engines._options import CompileOptions
    >>> CompileOptions(global_p_error=0.001, batch_size=4).error_probability
    {'p_error': None, 'global_p_error': 0.001}
    """

    p_error: float | None = None
    global_p_error: float | None = None
    batch_size: int = 1
    rounding: str = "exact"
    runtime: str = "auto"

    def __post_init__(self) -> None:
        if self.rounding not in ("exact", "approximate"):
            raise ValueError(f'rounding must be "exact" or "approximate". Got {self.rounding!r}.')
        if self.runtime not in ("auto", "kernels", "compiled"):
            raise ValueError(
                f'runtime must be "auto", "kernels" or "compiled". Got {self.runtime!r}.'
            )
        object.__setattr__(self, "batch_size", check_int("batch_size", self.batch_size, 1))
        if self.p_error is not None and self.global_p_error is not None:
            raise ValueError(
                "Give p_error (per bootstrap) or global_p_error (per row), not both. "
                f"Got p_error={self.p_error!r} and global_p_error={self.global_p_error!r}."
            )
        if self.p_error is None and self.global_p_error is None:
            object.__setattr__(self, "p_error", DEFAULT_P_ERROR)
        for name, value in self.error_probability.items():
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} must be above 0 and below 1. Got {value!r}.")

    @property
    def error_probability(self) -> dict[str, float | None]:
        """Both error probabilities by name. One of them is ``None``."""
        return {"p_error": self.p_error, "global_p_error": self.global_p_error}

    @property
    def notes(self) -> list[str]:
        """Short descriptions of the error probability and of options other than the default."""
        probabilities = self.error_probability.items()
        return [
            *([count(self.batch_size, "row") + " a call"] if self.batch_size > 1 else []),
            *(["approximate rounding"] if self.rounding == "approximate" else []),
            *(f"{name} ≤ {power(value)}" for name, value in probabilities if value is not None),
        ]

    @property
    def error_bound(self) -> str:
        """The error probability in words."""
        if self.global_p_error is not None:
            return f"error probability of a call ≤ {power(self.global_p_error)}"
        assert self.p_error is not None
        return f"error probability of a bootstrap ≤ {power(self.p_error)}"

    def to_dict(self) -> dict[str, Any]:
        """Return all options by name, as ``compile`` takes them."""
        return asdict(self)
