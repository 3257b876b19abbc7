"""Torch module in eval mode = program in NumPy = simulated circuit = circuit on ciphertexts."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from cases import far_and_near, needs_concrete_python, needs_engine, random_module
from graphs import GRAPHS, every_code

from cipherlearn import Circuit, IntegerProgram
from cipherlearn.lowering._lower import lower
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._nodes import Lookup, Sum

ACTIVATIONS = [
    torch.nn.ReLU,
    torch.nn.Tanh,
    torch.nn.Sigmoid,
    torch.nn.GELU,
    torch.nn.SiLU,
    torch.nn.LeakyReLU,
    functools.partial(torch.nn.Hardtanh, -2.0, 0.5),
]

# Every new kind of layer joins here. Narrow, so that keys take seconds.
ENCRYPTED = [
    pytest.param({"n_layers": 1, "n_a_bits": 4, "n_w_bits": 3, "wide_path": False}, id="linear"),
    pytest.param({"n_layers": 1, "n_a_bits": 1}, id="wide-1-bit"),
    pytest.param({"n_layers": 2}, id="relu"),
    pytest.param({"n_layers": 2, "n_input_bits": 1}, id="1-bit-inputs"),
    pytest.param({"n_layers": 2, "wide_path": False}, id="relu-alone"),
    pytest.param({"n_layers": 2, "activation_function": torch.nn.Tanh}, id="tanh"),
    pytest.param({"n_layers": 3, "n_hidden_neurons": [3, 2]}, id="three-layers"),
    pytest.param({"n_layers": 4, "n_a_bits": 1, "n_hidden_neurons": 3}, id="four-layers-1-bit"),
    pytest.param({"n_layers": 2, "n_w_bits": 3, "n_a_bits": 1}, id="3-bit-weights"),
]

MORE_KEYS = needs_concrete_python("keys take ten seconds, so one network of each kind does")


def module_result(module, X):
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


def module_accumulators(module, X):
    """The sums of every path to the outputs, computed by torch."""
    with torch.no_grad():
        codes, *wide = (encoder(torch.from_numpy(X)) for encoder in module.encoders)
        for i, activation in enumerate(module.activations):
            codes = module.quantizers[i](activation(module.linears[i](codes)))
        paths = module.linears[len(module.activations) :]
        sums = [
            torch.nn.functional.linear(inputs, path.effective_weight())
            for inputs, path in zip((codes, *wide), paths, strict=True)
        ]
        return torch.cat(sums, dim=1).numpy()


@pytest.mark.parametrize("wide_path", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("n_w_bits", range(2, 9))
@pytest.mark.parametrize("n_a_bits", range(1, 9))
def test_program_equals_module_integer_for_integer(n_layers, n_w_bits, n_a_bits, wide_path):
    seed = 100 * n_layers + 10 * n_w_bits + n_a_bits
    module, X = random_module(
        seed,
        n_layers=n_layers,
        n_hidden_neurons=5,
        n_w_bits=n_w_bits,
        n_a_bits=n_a_bits,
        n_accum_bits=16,
        activation_function=ACTIVATIONS[seed % len(ACTIVATIONS)],
        wide_path=wide_path,
    )
    program = lower(module)
    rows = far_and_near(X, 200, seed)
    accumulators = program.run(program.quantize(rows))
    accumulators += program.scaler.offset  # what constant neurons add
    np.testing.assert_array_equal(accumulators, module_accumulators(module, rows))
    np.testing.assert_array_equal(program(rows), module_result(module, rows))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_tables_equal_the_activation_at_every_reachable_accumulator(activation):
    module, _ = random_module(
        3,
        n_features=2,
        n_hidden_neurons=6,
        n_a_bits=3,
        n_codes_per_feature=1,
        wide_path=False,
        activation_function=activation,
    )
    program = lower(module)
    # Every pair of codes, so every accumulator that any input reaches.
    codes = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2)
    thresholds = program.quantizer.thresholds
    below = np.column_stack([thresholds[:, 0] - 1, thresholds])
    rows = np.take_along_axis(below, codes.T, axis=1).T
    np.testing.assert_array_equal(program.quantize(rows), codes)
    np.testing.assert_array_equal(program(rows), module_result(module, rows))


@needs_engine
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=MORE_KEYS) for seed in (1, 2))])
@pytest.mark.parametrize("options", ENCRYPTED)
def test_ciphertexts_give_the_clear_result(options, seed):
    """27 networks, 10 rows each: with the trained ones elsewhere, over 200 encrypted rows."""
    options = {"n_hidden_neurons": 3, "n_accum_bits": 8, "n_hidden_accum_bits": 4, **options}
    options.setdefault("n_hidden_neurons_multiplier", 3.0)
    module, X = random_module(seed, **options)
    program = lower(module)
    circuit = Circuit(program, module.accum_bits)
    codes = program.quantize(far_and_near(X, 10, seed))
    clear = program.run(codes)
    np.testing.assert_array_equal(circuit.simulate(codes), clear)
    np.testing.assert_array_equal(circuit.execute(codes), clear)


ON_BOTH = ("a skip connection", "a wide path beside")


@needs_engine
@pytest.mark.parametrize(
    "name", [*ON_BOTH, *(pytest.param(g, marks=MORE_KEYS) for g in GRAPHS if g not in ON_BOTH)]
)
def test_ciphertexts_give_the_clear_result_of_graphs(name):
    program = GRAPHS[name]()
    circuit = Circuit(program, [16] * len(program.layers), batch_size=2)
    codes = every_code(program, 11, seed=3)
    clear = program.run(codes)
    np.testing.assert_array_equal(circuit.simulate(codes), clear)
    np.testing.assert_array_equal(circuit.execute(codes), clear)


@needs_concrete_python("its parameters can be read")
def test_a_wide_path_leaves_the_parameters_of_bootstraps_alone():
    program = GRAPHS["a wide path beside"]()
    narrow = IntegerProgram(
        program.quantizer,
        program.inputs[:1],
        [Sum((0,), program.nodes[0].weights), Lookup(1, *_table(program)), _output(program)],
        (3,),
        OutputScaler([1.0, 0.5], [0.0, 1.0]),
    )
    keysets = [
        json.loads(Circuit(p, [16] * len(p.layers)).files()["specs.json"])["keyset"]
        for p in (program, narrow)
    ]
    for kind in ("lweBootstrapKeys", "lweKeyswitchKeys"):
        beside, alone = ([key["params"] for key in keyset[kind]] for keyset in keysets)
        assert beside == alone
        assert alone


def _table(program):
    (node,) = program.lookups
    return node.tables, node.low


def _output(program):
    return Sum((2,), program.nodes[2].weights)
