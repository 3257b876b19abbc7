"""Lowering of a torch module to an integer program."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from cipherlearn._features import as_floats, dense_rows
from cipherlearn.lowering._foreign import check_outputs, lower_traced
from cipherlearn.nn._block import Block
from cipherlearn.nn._components import PrincipalComponents
from cipherlearn.nn._encoder import InputEncoder
from cipherlearn.nn._layers import SparseQuantLinear
from cipherlearn.nn._network import SparseQuantNeuralNetImpl
from cipherlearn.program._components import Components
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._passes import simplify
from cipherlearn.program._program import IntegerProgram

__all__ = ["lower"]

# Rows on which a program is compared with its module.
_CHECKED_ROWS = 64


def lower(module: nn.Module, X: ArrayLike | None = None) -> IntegerProgram:
    """Express a quantized module in integers, with proven ranges.

    Bias, normalisation, activation and re-quantization of a neuron depend on its
    accumulator alone, so they fold into one table, filled by evaluating the
    module's own element-wise operations on every reachable accumulator. What cannot change
    an output is left out.

    Parameters
    ----------
    module : torch.nn.Module
        A trained module of Brevitas layers, whose ``forward`` takes float32 rows of shape
        ``(n_rows, n_features)`` and quantizes them first, or a SparseQuantNeuralNetImpl after
        ``calibrate``. It is computed with as in eval mode, and not changed.
    X : array-like or sparse matrix of shape (n_rows, n_features), default=None
        Some rows, which say how many features there are. The program is compared with the module
        on 64 of them. A SparseQuantNeuralNetImpl needs none.

    Returns
    -------
    IntegerProgram

    Raises
    ------
    AccumulatorOverflowError
        If a sum that is looked up needs more than 16 bits. It is a ``ValueError`` that names the
        layer and the channel.
    ValueError
        If a layer or an operation has no integer form, which the message names, the module is not
        quantized, or its parameters are not finite.

    Notes
    -----
    The codes of the features are the module's for every float. Everywhere else the module computes
    in float32 what the program computes in integers. With scales that are powers of two both are
    the same to the last bit, as long as biases are quantized. Otherwise the module's sums are
    rounded, by at most ``(n_terms + 2) * 2**-24`` of the sum of the magnitudes of their terms: a
    table has the code of the sum that is not rounded, which is another one only if the sum is that
    close to the border between two codes, and outputs differ by that much.

    Examples
    --------
    >>> import torch
    >>> from brevitas.nn import QuantIdentity, QuantLinear, QuantReLU
    >>> from cipherlearn import lower
    >>> _ = torch.manual_seed(0)
    >>> module = torch.nn.Sequential(
    ...     QuantIdentity(bit_width=4),
    ...     QuantLinear(5, 3, bias=True, weight_bit_width=3),
    ...     QuantReLU(bit_width=2),
    ...     QuantLinear(3, 2, bias=True, weight_bit_width=3),
    ... )
    >>> X = torch.randn(50, 5)
    >>> _ = module(X)  # in training mode, where Brevitas learns the ranges
    >>> program = lower(module.eval(), X)
    >>> program.bootstraps()
    '3 bootstraps of 7 bits a row'
    >>> bool(abs(program(X) - module(X).detach().numpy()).max() < 1e-5)
    True
    """
    if isinstance(module, SparseQuantNeuralNetImpl):
        return _lower_own(module)
    if not isinstance(module, nn.Module):
        raise TypeError(f"Only a torch module can be lowered. Got {type(module).__name__}.")
    if X is None or np.ndim(X) != 2:
        raise ValueError(
            "lower needs some rows, of shape (n_rows, n_features), besides a module. "
            f"Got {X!r:.100}. Call lower(module, X)."
        )
    rows = as_floats(X)
    lowered = lower_traced(module, rows.shape[1])
    check_outputs(lowered.program, module, dense_rows(rows, slice(_CHECKED_ROWS)))
    return simplify(lowered.program)


@torch.no_grad()
def _lower_own(module: SparseQuantNeuralNetImpl) -> IntegerProgram:
    if not module.quantized:
        raise ValueError("Only a quantized module has an integer form. Call calibrate(X) first.")
    module = copy.deepcopy(module).cpu().eval()
    _check_finite(module)
    encoders = list(module.encoders)
    n_thresholds = max(encoder.max_code for encoder in encoders)
    quantizer = InputQuantizer(
        n_features=len(module.components.factor),
        feature=np.concatenate([np.repeat(np.arange(e.n_features), e.n_codes) for e in encoders]),
        thresholds=np.concatenate([_thresholds(e, n_thresholds) for e in encoders]),
        components=_components(module.components),
    )
    ends = np.cumsum([len(encoder.largest) for encoder in encoders])
    inputs = np.split(np.arange(len(quantizer.feature)), ends[:-1])
    high = quantizer.largest[inputs[0]]
    low = np.zeros_like(high)
    nodes: list[Sum | Lookup] = []
    read = 0
    for block in module.blocks:
        weights, lsbs_to_remove = _weights(block.linear), block.linear.lsbs_to_remove
        tables = _tabulate(block, IntegerLayer(weights, low, high))
        layer = IntegerLayer(weights, low, high, tables, lsbs_to_remove)
        low = np.array([r.low for r in layer.table_ranges], dtype=np.int64)
        high = np.array([r.high for r in layer.table_ranges], dtype=np.int64)
        nodes.append(Sum((read,), weights))
        nodes.append(Lookup(_last(inputs, nodes), tables, layer.low, lsbs_to_remove))
        read = _last(inputs, nodes)
    outputs = []
    for number, linear in enumerate(module.paths):
        # A wide path reads an input of its own.
        nodes.append(Sum((number or read,), _weights(linear)))
        outputs.append(_last(inputs, nodes))
    gain = torch.cat([linear.log_gain.exp() for linear in module.paths])
    scaler = OutputScaler(gain=gain.numpy(), bias=module.paths[0].bias.numpy())
    return simplify(IntegerProgram(quantizer, tuple(inputs), tuple(nodes), tuple(outputs), scaler))


def _thresholds(encoder: InputEncoder, n_thresholds: int) -> np.ndarray:
    """Return the thresholds of each code, filled up to as many as the widest has."""
    thresholds = encoder.thresholds.reshape(-1, encoder.max_code).numpy()
    return np.pad(
        thresholds, ((0, 0), (0, n_thresholds - encoder.max_code)), constant_values=np.inf
    )


def _components(module: PrincipalComponents) -> Components | None:
    if not len(module.weights):
        return None
    weights = module.weights.to(torch.int64).numpy()
    return Components(module.factor.numpy(), module.shift.numpy(), weights)


def _weights(linear: SparseQuantLinear) -> np.ndarray:
    return linear.quant_weight().int().to(torch.int64).numpy()


def _last(inputs: list[np.ndarray], nodes: list[Sum | Lookup]) -> int:
    """Return the number of the value that the last of the nodes gives."""
    return len(inputs) + len(nodes) - 1


def _tabulate(block: Block, layer: IntegerLayer) -> np.ndarray:
    """Code of each neuron (row) at each offset of its accumulator from ``layer.low``."""
    size = int((layer.high - layer.low).max()) + 1
    grid = torch.from_numpy(layer.low + np.arange(size)[:, None]).to(torch.float32)
    codes = block.encode(block.linear.from_accumulator(grid))
    return codes.to(torch.int64).numpy().T


def _check_finite(module: SparseQuantNeuralNetImpl) -> None:
    values: dict[str, torch.Tensor] = dict(module.named_parameters())
    values |= {f"gain of layer {i}": m.log_gain.exp() for i, m in enumerate(module.linears)}
    values |= {f"inverse step {i}": 1 / m.step for i, m in enumerate(module.quantizers)}
    for name, value in values.items():
        if not value.isfinite().all():
            raise ValueError(
                f"Trained parameters must be finite. {name} is not: training diverged. "
                "Lower lr, or scale the data."
            )
