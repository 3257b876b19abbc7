"""Lowering of a torch module to an integer program."""

from __future__ import annotations

import copy

import numpy as np
import torch

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


@torch.no_grad()
def lower(module: SparseQuantNeuralNetImpl) -> IntegerProgram:
    """Express a quantized module in integers, with proven ranges.

    Bias, gain, activation and re-quantization of a neuron depend on its
    accumulator alone, so they fold into one table, filled by evaluating the
    module's own element-wise operations on every reachable accumulator. What cannot change
    an output is left out.

    Parameters
    ----------
    module : SparseQuantNeuralNetImpl
        A module after ``calibrate``. It is not changed.

    Returns
    -------
    IntegerProgram

    Raises
    ------
    ValueError
        If the module is not quantized, or its parameters are not finite.

    Examples
    --------
    >>> import torch
    >>> from cipherlearn import SparseQuantNeuralNetImpl
    >>> from cipherlearn.lowering._lower import lower
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(50, 4)
    >>> module = SparseQuantNeuralNetImpl(input_dim=4, n_outputs=3)
    >>> module.fit_encoder(X)
    >>> module.calibrate(X)
    >>> program = lower(module)
    >>> bool((program(X.numpy()) == module(X).detach().numpy()).all())
    True
    """
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
