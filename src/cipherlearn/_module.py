"""The torch module, whose eval-mode arithmetic is exact on integers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cipherlearn._budget import l1_limit, neuron_budget
from cipherlearn._layers import AffineQuantizer, SparseQuantLinear

__all__ = ["SparseQuantNeuralNetImpl", "check_int"]

MAX_BITS = 8


class SparseQuantNeuralNetImpl(nn.Module):
    """Sparse, quantized, fully connected network.

    The module starts as a plain float network. :meth:`calibrate` turns it, in
    place, into a quantized one that computes nearly the same function, to be
    fine-tuned. The estimators call it; so can a training loop of your own.

    Parameters
    ----------
    input_dim : int
        Number of features.
    n_outputs : int
        Number of outputs: classes, or regression targets.
    n_layers : int, default=2
        Number of linear layers. 1 is a linear model, which needs no bootstrap.
    n_hidden_neurons : int or sequence of int, default=16
        Width of the hidden layers, or one width per hidden layer.
    n_w_bits : int, default=2
        Width of a weight, in bits, from 2 to 8.
    n_a_bits : int, default=2
        Width of an input or activation, in bits, from 1 to 8.
    n_accum_bits : int, default=8
        Width of an accumulator, in bits, from 1 to 16.
    n_hidden_accum_bits : int or None, default=None
        Width of the accumulators of hidden layers, in bits: the precision, hence the cost,
        of their bootstraps. It is guaranteed by a bound on the sum of the magnitudes of each
        neuron's weights. With None, or without ``pruning``, ``n_accum_bits`` applies.
    n_hidden_neurons_multiplier : float, default=1.0
        A neuron may have ``floor(n_hidden_neurons_multiplier * Ω)`` non-zero weights,
        with Ω for ``n_accum_bits``.
    budget : {"omega", "l1"}, default="omega"
        How ``n_accum_bits`` is enforced. "omega" bounds the number of a neuron's non-zero
        weights, as if all were maximal. "l1" bounds the sum of their magnitudes instead,
        which is what the accumulator needs, and guarantees that it fits.
    activation_function : callable returning a torch.nn.Module, default=torch.nn.ReLU
        Class of an element-wise activation. It becomes a lookup table.
    pruning : bool, default=True
        Whether to keep each neuron within its budget of non-zero weights. Without
        it ``compile`` succeeds only if the trained weights happen to fit.

    Attributes
    ----------
    accum_bits : list of int
        Width of the accumulators of each layer, in bits.
    budgets : list of int
        Largest number of non-zero weights of a neuron of each layer.
    l1_limits : list of int or None
        Largest sum of the magnitudes of a neuron's integer weights, of each layer.

    Raises
    ------
    ValueError
        If a parameter is out of range, or leaves a neuron without any weight.

    Examples
    --------
    >>> import torch
    >>> from cipherlearn import SparseQuantNeuralNetImpl
    >>> module = SparseQuantNeuralNetImpl(input_dim=30, n_outputs=2, n_layers=3)
    >>> module(torch.zeros(5, 30)).shape
    torch.Size([5, 2])
    >>> module.budgets
    [28, 28, 28]
    """

    def __init__(
        self,
        input_dim: int,
        n_outputs: int,
        n_layers: int = 2,
        n_hidden_neurons: int | Sequence[int] = 16,
        n_w_bits: int = 2,
        n_a_bits: int = 2,
        n_accum_bits: int = 8,
        n_hidden_accum_bits: int | None = None,
        n_hidden_neurons_multiplier: float = 1.0,
        budget: str = "omega",
        activation_function: Callable[[], nn.Module] = nn.ReLU,
        pruning: bool = True,
    ) -> None:
        super().__init__()
        input_dim = check_int("input_dim", input_dim, 1)
        n_outputs = check_int("n_outputs", n_outputs, 1)
        n_layers = check_int("n_layers", n_layers, 1)
        n_w_bits = check_int("n_w_bits", n_w_bits, 2, MAX_BITS)
        n_a_bits = check_int("n_a_bits", n_a_bits, 1, MAX_BITS)
        n_accum_bits = check_int("n_accum_bits", n_accum_bits, 1, 16)
        if n_hidden_accum_bits is not None:
            n_hidden_accum_bits = check_int("n_hidden_accum_bits", n_hidden_accum_bits, 1, 16)
        hidden = _hidden_widths(n_layers, n_hidden_neurons)

        self._arguments = {
            "input_dim": input_dim,
            "n_outputs": n_outputs,
            "n_layers": n_layers,
            "n_hidden_neurons": n_hidden_neurons,
            "n_w_bits": n_w_bits,
            "n_a_bits": n_a_bits,
            "n_accum_bits": n_accum_bits,
            "n_hidden_accum_bits": n_hidden_accum_bits,
            "n_hidden_neurons_multiplier": n_hidden_neurons_multiplier,
            "budget": budget,
            "activation_function": activation_function,
            "pruning": pruning,
        }
        if budget not in ("omega", "l1"):
            raise ValueError(f'budget must be "omega" or "l1". Got {budget!r}.')
        self.pruning = pruning
        hidden_bits = n_accum_bits
        if pruning and n_hidden_accum_bits is not None:
            hidden_bits = min(hidden_bits, n_hidden_accum_bits)
        self.accum_bits = [hidden_bits] * len(hidden) + [n_accum_bits]
        # A count alone does not make hidden sums as narrow as asked, nor those of "l1".
        self.l1_limits = [
            l1_limit(n_max, n_a_bits)
            if pruning and (budget == "l1" or n_max < n_accum_bits)
            else None
            for n_max in self.accum_bits
        ]
        # A neuron cannot have more non-zero weights than their magnitudes add up to.
        count_limit = max([input_dim, *hidden])
        if pruning and budget == "omega":
            count_limit = neuron_budget(
                n_accum_bits, n_w_bits, n_a_bits, n_hidden_neurons_multiplier
            )
        self.budgets = [min(count_limit, limit or count_limit) for limit in self.l1_limits]

        widths = [input_dim, *hidden, n_outputs]
        self.quantizers: Sequence[AffineQuantizer] = _module_list(
            AffineQuantizer(width, n_a_bits, torch.float64 if i == 0 else torch.float32)
            for i, width in enumerate(widths[:-1])
        )
        self.linears: Sequence[SparseQuantLinear] = _module_list(
            SparseQuantLinear(n_in, n_out, n_w_bits, limit)
            for (n_in, n_out), limit in zip(itertools.pairwise(widths), self.l1_limits, strict=True)
        )
        self.activations: Sequence[nn.Module] = _module_list(
            _element_wise(activation_function) for _ in hidden
        )

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Compute logits, or standardized regression outputs.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, input_dim)
            Features, in the units of the training data.
        sample_weight : torch.Tensor of shape (n_samples,), optional
            Not used here. skorch passes on whatever the batch holds.

        Returns
        -------
        torch.Tensor of shape (n_samples, n_outputs)
        """
        codes = self.quantizers[0](X).to(torch.float32)
        for activation, quantizer, linear in zip(
            self.activations, self.quantizers[1:], self.linears[:-1], strict=True
        ):
            codes = quantizer(activation(linear(codes)))
        return self.linears[-1](codes)

    def train(self, mode: bool = True) -> SparseQuantNeuralNetImpl:
        """Set the mode, without walking through Brevitas's many modules for nothing."""
        return self if mode == self.training else super().train(mode)

    @property
    def quantized(self) -> bool:
        """Whether :meth:`calibrate` has been called."""
        return all(bool(linear.quantized) for linear in self.linears)

    @torch.no_grad()
    def normalize(self, X: Tensor) -> None:
        """Centre and scale the features inside the float network, for conditioning."""
        first = self.quantizers[0]
        X = X.to(first.offset.dtype)
        spread = X.std(dim=0, unbiased=False)
        first.offset.copy_(X.mean(dim=0))
        first.log_step.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)).log())

    @torch.no_grad()
    def calibrate(self, X: Tensor, percentile: float = 95.0) -> None:
        """Quantize the network in place, with ranges learned from data.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, input_dim)
            Representative features.
        percentile : float, default=95.0
            Codes span the data between percentiles ``100 - percentile`` and
            ``percentile`` of each feature and neuron. Values beyond are clipped.
        """
        values = X
        for i, (quantizer, linear) in enumerate(zip(self.quantizers, self.linears, strict=True)):
            values = values.to(quantizer.offset.dtype)
            old_offset, old_step = quantizer.offset.clone(), quantizer.step.clone()
            low, high = _robust_range(values, percentile)
            quantizer.calibrate(low, high)
            linear.substitute_input(
                ((quantizer.offset - old_offset) / old_step).to(torch.float32),
                (quantizer.step / old_step).to(torch.float32),
            )
            linear.calibrate()
            if i < len(self.activations):
                codes = quantizer(values).to(torch.float32)
                values = self.activations[i](linear(codes))

    def __reduce__(self):
        # Brevitas's injected quantizer classes do not pickle; the tensors do. The
        # Parameter objects themselves travel, so an optimizer keeps pointing at them.
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        return _rebuild, (type(self), self._arguments, tensors, self.training)


def _module_list(modules: Iterable[nn.Module]) -> Any:
    """Make a ModuleList, which its type does not let say what it holds."""
    return nn.ModuleList(modules)


def _element_wise(activation_function: Callable[[], nn.Module]) -> nn.Module:
    """Create the activation, and check that a lookup table per neuron can stand for it."""
    activation = activation_function()
    rows = torch.linspace(-2, 2, 12).reshape(3, 4)
    with torch.no_grad():
        whole = activation.eval()(rows)
        apart = [activation(value.reshape(1, 1)) for value in rows.flatten()]
    if not whole.isfinite().all():
        raise ValueError(
            "activation_function must be finite for every number, since any sum can occur. "
            f"{activation} is not, between -2 and 2. Use one such as torch.nn.ReLU."
        )
    element_wise = whole.shape == rows.shape and torch.allclose(
        torch.cat(apart).reshape(rows.shape), whole
    )
    if not element_wise:
        raise ValueError(
            "activation_function must be element-wise, since it becomes a lookup table. "
            f"{activation} mixes its inputs. Use one such as torch.nn.ReLU."
        )
    return activation.train()


def _rebuild(cls, arguments, tensors, training):
    # Initial weights are drawn and then replaced: leave the global generator alone.
    with torch.random.fork_rng(devices=[]):
        module = cls(**arguments)
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(path), leaf, tensor)
    return module.train(training)


def _robust_range(values: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    fraction = percentile / 100
    low = torch.quantile(values, 1 - fraction, dim=0)
    high = torch.quantile(values, fraction, dim=0)
    # A feature that is nearly always the same value still needs its rare ones.
    flat = high <= low
    return (
        torch.where(flat, values.amin(dim=0), low),
        torch.where(flat, values.amax(dim=0), high),
    )


def _hidden_widths(n_layers: int, n_hidden_neurons: int | Sequence[int]) -> list[int]:
    if isinstance(n_hidden_neurons, Sequence | np.ndarray):
        widths = list(n_hidden_neurons)
    else:
        widths = [n_hidden_neurons] * (n_layers - 1)
    if len(widths) != n_layers - 1:
        raise ValueError(
            "n_hidden_neurons must be an int, or hold one width per hidden layer "
            f"(n_layers - 1 = {n_layers - 1}). Got {n_hidden_neurons!r}."
        )
    return [check_int("n_hidden_neurons", width, 1) for width in widths]


def check_int(name: str, value: int, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int, or raise ValueError unless it is one in ``[low, high]``."""
    valid = hasattr(value, "__index__") and not isinstance(value, bool) and value >= low
    if not valid or (high is not None and value > high):
        bound = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {bound}. Got {value!r}.")
    return int(value)
