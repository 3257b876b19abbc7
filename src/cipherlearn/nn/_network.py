"""Network as a torch module, whose eval-mode arithmetic is exact on integers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cipherlearn._checks import check_int
from cipherlearn.nn._activations import ActivationQuantizer, LearnedActivation, element_wise
from cipherlearn.nn._block import Block, quantize
from cipherlearn.nn._components import PrincipalComponents
from cipherlearn.nn._encoder import InputEncoder, fit_encoders
from cipherlearn.nn._layers import SparseQuantLinear
from cipherlearn.nn._plan import hidden_widths, plan_layers

__all__ = ["SparseQuantNeuralNetImpl"]

MAX_BITS = 8


class SparseQuantNeuralNetImpl(nn.Module):
    """Sparse, quantized, fully connected network.

    :meth:`fit_encoder` learns how features become integer codes. The module then is a float
    network on these codes, until :meth:`calibrate` turns it, in place, into a quantized one
    that computes nearly the same function, to be fine-tuned. The estimators call both; so can
    a training loop of your own.

    Parameters
    ----------
    input_dim : int
        Number of features.
    n_outputs : int
        Number of outputs: classes, or regression targets.
    n_layers : int, default=2
        Number of linear layers one after the other. 1 is a linear model, which needs no
        bootstrap.
    n_hidden_neurons : int or sequence of int, default=16
        Neurons of each hidden layer, or one number per hidden layer.
    n_w_bits : int, default=2
        Bit-width of a weight, from 2 to 8.
    n_a_bits : int, default=2
        Bit-width of an input or activation, from 1 to 8.
    n_accum_bits : int, default=8
        Bit-width of an accumulator, from 1 to 16.
    n_hidden_accum_bits : int or None, default=None
        Bit-width of the accumulators of hidden layers: the precision, hence the cost,
        of their bootstraps. It is guaranteed by a bound on the span of each neuron.
        With ``None``, or without ``pruning``, ``n_accum_bits`` applies.
    rounding_bits : int or None, default=None
        Most significant bits of a hidden accumulator that its lookup table sees, which training
        then knows. They, and no longer the accumulator's bit-width, set most of the cost of a
        bootstrap. With ``None`` it sees all.
    n_output_accum_bits : int or None, default=None
        Bit-width of the accumulators of the last layer. Narrower outputs make every
        bootstrap before them cheaper. It is guaranteed as ``n_hidden_accum_bits`` is.
    n_hidden_neurons_multiplier : float, default=1.0
        A neuron may have ``floor(n_hidden_neurons_multiplier * Ω)`` non-zero weights,
        with Ω for ``n_accum_bits``.
    budget : {"omega", "l1"}, default="omega"
        How ``n_accum_bits`` is enforced. "omega" bounds the number of a neuron's non-zero
        weights, as if all were maximal. "l1" bounds the sum of their magnitudes times the largest
        codes instead, which is what the accumulator needs, and guarantees that it fits.
    n_input_bits : int or None, default=None
        Bit-width of the codes that the first layer reads. Narrower ones leave room for more of them
        in a sum. With ``None``, and on the wide path, it is ``n_a_bits``.
    n_components : int, default=0
        Principal components that are encoded beside the features.
    n_codes_per_feature : int or "auto", default="auto"
        Codes that encode a feature. The client computes them, so they are free. Together they
        tell ``n_codes_per_feature * (2**bits - 1) + 1`` values apart.
        "auto" takes 6 to 48 thresholds, the more the fewer features there are, rounded up to
        whole codes.
    threshold_placement : {"mixed", "uniform", "quantile"}, default="mixed"
        Whether the thresholds between codes are evenly spaced, have equally many values of the
        data between them, or are the means of both.
    activation_function : callable returning a torch.nn.Module, default=torch.nn.ReLU
        Class of an element-wise activation. It becomes a lookup table.
    pruning : bool, default=True
        Whether to keep each neuron within its budget of non-zero weights. Without
        it ``compile`` succeeds only if the trained weights happen to fit.
    wide_path : bool, default=True
        Whether the input codes also lead straight to the outputs, with a weight of 8 bits for
        every code and sums of 16 bits. Nothing looks these sums up, so they cost next to nothing:
        the client decrypts them as a second output, and adds them up. With ``n_layers=1`` it is
        the whole network.

    Attributes
    ----------
    plans : tuple of LayerPlan
        Shape, bit-widths, budget and largest span of each layer, of a wide path last.

    Raises
    ------
    ValueError
        If a parameter is out of range, or leaves a neuron without any weight.

    Examples
    --------
    >>> import torch
    >>> from cipherlearn import SparseQuantNeuralNetImpl
    >>> module = SparseQuantNeuralNetImpl(input_dim=30, n_outputs=2, n_layers=3)
    >>> X = torch.randn(100, 30)
    >>> module.fit_encoder(X)
    >>> module(X[:5]).shape
    torch.Size([5, 2])
    >>> module.budgets  # the last is the wide path's: all of its 210 inputs
    [28, 28, 28, 210]
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
        rounding_bits: int | None = None,
        n_output_accum_bits: int | None = None,
        n_hidden_neurons_multiplier: float = 1.0,
        budget: str = "omega",
        n_input_bits: int | None = None,
        n_components: int = 0,
        n_codes_per_feature: int | str = "auto",
        threshold_placement: str = "mixed",
        activation_function: Callable[[], nn.Module] = nn.ReLU,
        pruning: bool = True,
        wide_path: bool = True,
    ) -> None:
        super().__init__()
        input_dim = check_int("input_dim", input_dim, 1)
        n_outputs = check_int("n_outputs", n_outputs, 1)
        n_layers = check_int("n_layers", n_layers, 1)
        n_w_bits = check_int("n_w_bits", n_w_bits, 2, MAX_BITS)
        n_a_bits = check_int("n_a_bits", n_a_bits, 1, MAX_BITS)
        n_accum_bits = check_int("n_accum_bits", n_accum_bits, 1, 16)
        n_hidden_accum_bits = _optional_bits("n_hidden_accum_bits", n_hidden_accum_bits)
        n_output_accum_bits = _optional_bits("n_output_accum_bits", n_output_accum_bits)
        rounding_bits = _optional_bits("rounding_bits", rounding_bits)
        hidden = hidden_widths(n_layers, n_hidden_neurons)

        arguments = locals()  # checked above, or by what they are given to
        parameters = inspect.signature(SparseQuantNeuralNetImpl).parameters
        self._arguments: dict[str, Any] = {name: arguments[name] for name in parameters}
        n_input_bits = n_a_bits if n_input_bits is None else n_input_bits
        n_input_bits = check_int("n_input_bits", n_input_bits, 1, MAX_BITS)
        self.components = PrincipalComponents(input_dim, n_components)
        width = input_dim + len(self.components.weights)
        # Of the codes that the layers read, and of those that the wide path reads.
        bits = [n_input_bits] if hidden or not wide_path else []
        bits += [n_a_bits] if wide_path else []
        encoders = [InputEncoder(width, n, n_codes_per_feature, threshold_placement) for n in bits]
        self.pruning = pruning
        widths = [len(encoders[0].largest), *hidden, n_outputs]
        self.plans = plan_layers(
            widths,
            n_input_bits=n_input_bits,
            n_wide_codes=len(encoders[-1].largest),
            n_w_bits=n_w_bits,
            n_a_bits=n_a_bits,
            n_accum_bits=n_accum_bits,
            n_hidden_accum_bits=n_hidden_accum_bits,
            n_output_accum_bits=n_output_accum_bits,
            rounding_bits=rounding_bits,
            n_hidden_neurons_multiplier=n_hidden_neurons_multiplier,
            budget=budget,
            pruning=pruning,
            wide_path=wide_path,
        )
        self.encoders: Sequence[InputEncoder] = _module_list(encoders)
        # Both paths end in outputs, and share one bias.
        self.linears: Sequence[SparseQuantLinear] = _module_list(
            SparseQuantLinear(
                plan.n_inputs,
                plan.n_neurons,
                plan.weight_bits,
                plan.largest_code,
                plan.max_span,
                plan.lsbs_to_remove,
                bias=i < n_layers,
            )
            for i, plan in enumerate(self.plans)
        )
        self.quantizers: Sequence[ActivationQuantizer] = _module_list(
            ActivationQuantizer(width, n_a_bits) for width in hidden
        )
        self.activations: Sequence[LearnedActivation] = _module_list(
            LearnedActivation(element_wise(activation_function), width) for width in hidden
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
        codes = self.encode(X)
        return self.from_codes(codes[0], codes[-1])

    def encode(self, X: Tensor) -> list[Tensor]:
        """Compute the inputs of the first layer and, if it has other codes, of the wide path."""
        features = self.components(X)
        return [encoder(features) for encoder in self.encoders]

    def from_codes(self, codes: Tensor, wide_codes: Tensor, i_layer: int = 0) -> Tensor:
        """Compute the outputs from the inputs of layer ``i_layer`` and of the wide path."""
        for block in self.blocks[i_layer:]:
            codes = block(codes)
        last, *wide = self.paths
        if not wide:
            return last(codes)
        # In the order in which clients add them up, to the last bit.
        return last.without_bias(codes) + wide[0](wide_codes) + last.bias

    def train(self, mode: bool = True) -> SparseQuantNeuralNetImpl:
        """Set the mode, without walking through Brevitas's many modules for nothing."""
        return self if mode == self.training else super().train(mode)

    @property
    def blocks(self) -> list[Block]:
        """The hidden layers, each with its activation and quantizer."""
        return list(map(Block, self.linears, self.activations, self.quantizers))

    @property
    def paths(self) -> list[SparseQuantLinear]:
        """The layers to the outputs: behind the hidden layers and, if there is one, beside them."""
        return list(self.linears)[len(self.activations) :]

    @property
    def n_neurons(self) -> list[int]:
        """Neurons that each layer trains. The last are the outputs."""
        return [linear.out_features for linear in self.linears]

    @property
    def accum_bits(self) -> list[int]:
        """Bit-width of the accumulators of each layer."""
        return [plan.accum_bits for plan in self.plans]

    @property
    def budgets(self) -> list[int]:
        """Largest number of non-zero weights of a neuron of each layer."""
        return [plan.budget for plan in self.plans]

    @property
    def max_widths(self) -> list[int | None]:
        """Largest ``sum(abs(weight) * largest input code)`` of a neuron, where it is bounded."""
        return [plan.max_span for plan in self.plans]

    @property
    def quantized(self) -> bool:
        """Whether :meth:`calibrate` has been called."""
        return all(bool(linear.quantized) for linear in self.linears)

    @torch.no_grad()
    def fit_encoder(self, X: Any, verbose: bool | int = False) -> None:
        """Place the thresholds of the input codes. Call it once, before training.

        Parameters
        ----------
        X : torch.Tensor or sparse matrix of shape (n_samples, input_dim)
        verbose : bool or int, default=False
            Whether to show a progress bar over the features.
        """
        fit_encoders(self.encoders, self.components, X, verbose)
        for encoder, linear in zip(
            self.encoders, (self.linears[0], self.linears[-1]), strict=False
        ):
            linear.input_max.copy_(encoder.largest)
            linear.mask.copy_((encoder.largest > 0).expand_as(linear.mask))

    @torch.no_grad()
    def calibrate(self, X: Tensor, percentile: float = 95.0) -> None:
        """Quantize the network in place, with ranges learned from data.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, input_dim)
            Representative features.
        percentile : float, default=95.0
            Codes span each neuron's activation between percentiles ``100 - percentile`` and
            ``percentile``. Activations beyond are clipped.
        """
        features = self.components(X)
        inputs = [encoder.calibrate(features) for encoder in self.encoders]
        codes = inputs[0]
        for block in self.blocks:
            codes = block.calibrate(codes, percentile)
        last, *wide = self.paths
        quantize(last, last.bias, codes)
        for linear in wide:
            quantize(linear, last.bias, inputs[-1])

    def __reduce__(self):
        # Brevitas's injected quantizer classes do not pickle; the tensors do. The
        # Parameter objects themselves travel, so an optimizer keeps pointing at them.
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        return _rebuild, (type(self), self._arguments, tensors, self.training)

    def plain_state(self) -> dict[str, Any]:
        """Describe the trained module by its arguments and arrays."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}
        return {"arguments": self._arguments, "arrays": arrays}

    @classmethod
    def from_plain_state(cls, state: dict[str, Any]) -> SparseQuantNeuralNetImpl:
        """Make the module that :meth:`plain_state` described."""
        module = _construct(cls, state["arguments"])
        module.load_state_dict({name: torch.tensor(a) for name, a in state["arrays"].items()})
        return module.eval()


def _optional_bits(name: str, value: int | None) -> int | None:
    return None if value is None else check_int(name, value, 1, 16)


def _module_list(modules: Iterable[nn.Module]) -> Any:
    """Make a ModuleList. Its type does not name the type of its modules, so it is Any."""
    return nn.ModuleList(modules)


def _construct(cls: type[SparseQuantNeuralNetImpl], arguments: dict[str, Any]) -> Any:
    """Make a module whose initial weights will be replaced, without the global generator."""
    with torch.random.fork_rng(devices=[]):
        return cls(**arguments)


def _rebuild(cls, arguments, tensors, training):
    module = _construct(cls, arguments)
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(path), leaf, tensor)
    return module.train(training)
