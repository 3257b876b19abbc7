"""What a program is compiled for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cipherlearn._checks import check_int
from cipherlearn._words import count, power

__all__ = ["DEFAULT_P_ERROR", "CompileOptions"]

DEFAULT_P_ERROR = 2.0**-40


@dataclass(frozen=True)
class CompileOptions:
    """What decides, besides the program, what a circuit costs and how exact it is.

    Parameters
    ----------
    p_error : float or None, default=None
        Probability that one bootstrap gives a wrong result. When both probabilities are None it
        is 2**-40.
    global_p_error : float or None, default=None
        Probability that a batch's result has any wrong bootstrap.
    batch_size : int, default=1
        Rows of one ciphertext.
    rounding : {"exact", "approximate"}, default="exact"
        How bits that tables do not see are removed: by a narrow bootstrap each, or by the noise
        of the table's own.
    runtime : {"auto", "kernels", "compiled"}, default="auto"
        What evaluates: Concrete's kernels, with keys that stay ready, or the circuit that its
        compiler wrote. "auto" stands for the kernels where they can be used.

    Raises
    ------
    ValueError
        If both error probabilities are given, or one is not between 0 and 1, the batch size is
        no positive integer, or the rounding or the runtime is another.

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
        """Both probabilities by name, one of them None."""
        return {"p_error": self.p_error, "global_p_error": self.global_p_error}

    @property
    def notes(self) -> list[str]:
        """The error probability, and what else is not the default, in a few words each."""
        probabilities = self.error_probability.items()
        return [
            *([count(self.batch_size, "row") + " a call"] if self.batch_size > 1 else []),
            *(["approximate rounding"] if self.rounding == "approximate" else []),
            *(f"{name} ≤ {power(value)}" for name, value in probabilities if value is not None),
        ]

    @property
    def error_bound(self) -> str:
        """Which error probability was asked for, in words."""
        if self.global_p_error is not None:
            return f"error probability of a call ≤ {power(self.global_p_error)}"
        assert self.p_error is not None
        return f"error probability of a bootstrap ≤ {power(self.p_error)}"

    def to_dict(self) -> dict[str, Any]:
        """Give all options by name, as for ``compile``."""
        return asdict(self)
