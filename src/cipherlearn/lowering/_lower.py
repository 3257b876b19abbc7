"""Lowering of a torch module to an integer program."""

from __future__ import annotations

import copy

import numpy as np
import torch

from cipherlearn.nn._network import SparseQuantNeuralNetImpl
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
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
        If the module is not quantized, or its parameters or its activation function
        give values that are not finite.

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
    encoder = module.encoder
    quantizer = InputQuantizer(
        n_features=encoder.n_features,
        feature=np.repeat(np.arange(encoder.n_features), encoder.n_codes),
        thresholds=encoder.thresholds.reshape(-1, encoder.max_code).numpy(),
    )
    low, high = np.zeros(len(quantizer.feature), dtype=np.int64), quantizer.largest

    layers = []
    for i, linear in enumerate(module.linears):
        weights = linear.quant_weight().int().to(torch.int64).numpy()
        layer = IntegerLayer(weights, low, high)
        if i < len(module.activations):
            tables = _tabulate(module, i, layer)
            layer = IntegerLayer(weights, low, high, tables, linear.lsbs_to_remove)
            low = np.array([r.low for r in layer.table_ranges], dtype=np.int64)
            high = np.array([r.high for r in layer.table_ranges], dtype=np.int64)
        layers.append(layer)

    last = module.linears[-1]
    scaler = OutputScaler(gain=last.log_gain.exp().numpy(), bias=last.bias.numpy())
    return simplify(IntegerProgram.chain(quantizer, layers, scaler))


def _tabulate(module: SparseQuantNeuralNetImpl, i: int, layer: IntegerLayer) -> np.ndarray:
    """Code of each neuron (row) at each offset of its accumulator from ``layer.low``."""
    size = int((layer.high - layer.low).max()) + 1
    grid = torch.from_numpy(layer.low + np.arange(size)[:, None]).to(torch.float32)
    codes = module.quantizers[i](module.activations[i](module.linears[i].from_accumulator(grid)))
    if codes.isnan().any():
        raise ValueError(
            "The activation function must give a number for every accumulator. "
            f"{type(module.activations[i]).__name__} gives NaN in layer {i}. "
            "Choose another activation function."
        )
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
