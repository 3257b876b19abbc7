"""The kernels give the very words that the compiled circuit gives."""

# engine: concrete-python

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from cases import linear_program
from graphs import CODES, GRAPHS, every_code, lookup, random_graph
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cipherlearn import (
    CompilationError,
    IntegerProgram,
    UnsupportedByEngineError,
)
from cipherlearn.engines import load_engine
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines.concrete_python import _circuit as engine
from cipherlearn.engines.kernels import (
    CpuBackend,
    KernelRuntime,
    KernelTimes,
    _backend,
    _library,
    _masks,
    count_threads,
    estimate_kernels,
    time_kernels,
    why_unavailable,
)
from cipherlearn.engines.kernels._library import load_library
from cipherlearn.engines.kernels._parameters import BootstrapKey, KeyswitchKey
from cipherlearn.engines.kernels._wire import read_value
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._nodes import Sum
from cipherlearn.program._passes import unsigned

# Wrong once in a million bootstraps, and several times quicker than the default.
P_ERROR = 2.0**-20


@dataclass
class Compiled:
    """A program's circuit with keys, and what it makes of some rows."""

    program: IntegerProgram
    circuit: Any
    options: CompileOptions

    @classmethod
    def of(cls, program: IntegerProgram, **options: Any) -> Compiled:
        options = CompileOptions(p_error=P_ERROR, runtime="compiled", **options)
        return cls(program, load_engine().compile_program(program, options), options)

    @property
    def specs(self) -> bytes:
        return self.circuit.files()["specs.json"]

    def runtime(self, code_bits: list[int] | None = None) -> KernelRuntime:
        return KernelRuntime(self.program, self.specs, self.options.rounding, code_bits)

    @property
    def code_bits(self) -> list[int]:
        """Bits that the compiler encodes the codes of each lookup with."""
        pattern = r"apply_(?:mapped_)?lookup_table.*-> tensor<.*!FHE\.eint<(\d+)>>"
        return list(map(int, re.findall(pattern, self.circuit.files()["circuit.mlir"].decode())))

    def encrypt(self, seed: int = 0) -> tuple[np.ndarray, Any]:
        codes = every_code(self.program, 2 + self.options.batch_size, seed)[2:]
        return codes, self.circuit.client.encrypt(self.program.split(codes))


def check(program: IntegerProgram, n_threads: int = 1, **options: Any) -> None:
    """Compare words with the compiled circuit, and what they decrypt to with the program."""
    compiled = Compiled.of(program, **options)
    circuit, fewest = compiled.circuit, compiled.runtime()
    same = compiled.runtime(compiled.code_bits)
    client, server = circuit.client, circuit.server
    client.generate_keys()
    keys = same.load_keys(client.evaluation_keys(), n_threads)
    compiled_keys = server.load_keys(client.evaluation_keys())
    arrays = (*keys.bootstrap, *keys.keyswitch)
    assert keys.n_bytes == same.parameters.key_bytes
    assert keys.n_bytes == pytest.approx(sum(key.nbytes for key in arrays), abs=1024)
    messages, expected = [], []
    for seed in range(2):
        codes, ciphertexts = compiled.encrypt(seed)
        messages.append(same.read(ciphertexts))
        results = map(read_value, server.run([ciphertexts], compiled_keys)[0])
        mine = same.run(messages[-1], keys, n_threads)
        for words, theirs in zip(mine, results, strict=True):
            np.testing.assert_array_equal(words.ravel(), theirs)
        expected.append(mine)
        for words in (mine, fewest.run(messages[-1], keys)):
            sums = client.decrypt(same.write(words))
            # Approximate rounding is wrong now and then, in the compiled circuit too.
            if compiled.options.rounding == "exact":
                np.testing.assert_array_equal(sums, unsigned(program).run(codes))
    together = same.run(list(map(np.concatenate, zip(*messages, strict=True))), keys, n_threads)
    for words, parts in zip(together, zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(words, np.concatenate(parts))


def chain(*n_neurons: int, lsbs_to_remove: int = 0, largest: int = 3) -> IntegerProgram:
    """Layers that read one another. The last has no tables."""
    rng, nodes, low, high = np.random.default_rng(0), [], np.zeros(3, int), np.full(3, 3)
    for n in n_neurons:
        weights = rng.choice([-1, 1, 1], (n, len(low)))
        nodes.append(Sum((len(nodes),), weights))
        if len(nodes) < 2 * len(n_neurons) - 1:
            smallest = np.minimum(weights, 0) @ high
            size = int((np.abs(weights) @ high).max()) + 1
            cells = smallest[:, None] + np.arange(size) + (1 << lsbs_to_remove >> 1)
            cells >>= lsbs_to_remove
            tables = rng.integers(0, largest + 1, (n, size + 1))
            tables = np.take_along_axis(tables, cells - cells[:, :1], axis=1)
            node = replace(lookup(len(nodes), weights), tables=tables, low=smallest)
            nodes.append(replace(node, lsbs_to_remove=lsbs_to_remove))
            low, high = np.zeros(n, int), tables.max(axis=1)
    scaler = OutputScaler(np.ones(n_neurons[-1]), np.zeros(n_neurons[-1]))
    inputs = (np.arange(3),)
    return IntegerProgram(CODES, inputs, tuple(nodes), (len(nodes),), scaler)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_linear_model_needs_no_keys(batch_size):
    check(linear_program([[1, -2, 3], [0, 1, 1]]), batch_size=batch_size)


def test_batches_and_threads_change_no_word():
    """Nor does approximate rounding."""
    check(chain(2, 2, lsbs_to_remove=1), n_threads=2, batch_size=2, rounding="approximate")


def test_bits_that_are_removed_exactly_have_keys_of_their_own():
    check(chain(1, 1, lsbs_to_remove=1), rounding="exact")


def test_tables_of_several_bit_widths_give_values_under_several_keys():
    check(GRAPHS["two parallel paths"]())


def _always_the_same(program: IntegerProgram) -> IntegerProgram:
    *nodes, last = program.nodes
    nodes[3] = replace(nodes[3], tables=np.full_like(nodes[3].tables, 2))
    return replace(program, nodes=(*nodes, last))


def _without_weights(program: IntegerProgram) -> IntegerProgram:
    *nodes, last = program.nodes
    last = Sum(last.reads, 0 * last.weights, [3])
    return replace(program, nodes=(*nodes, last))


@pytest.mark.parametrize("change", [_always_the_same, _without_weights])
def test_what_is_the_same_for_every_input_takes_no_bootstrap(change):
    """And what only that reads is computed by nobody."""
    program = change(chain(1, 1, 1))
    assert Compiled.of(program).runtime().parameters.bootstrap_keys == ()
    check(program)


@settings(max_examples=1, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_random_graphs(seed):
    program = random_graph(seed, n_sums=2)
    assume(max(layer.n_accum_bits for layer in program.layers) < 5)
    try:
        check(program, rounding="approximate")
    except (CompilationError, UnsupportedByEngineError):
        assume(False)


def test_keys_and_ciphertexts_may_be_uncompressed(monkeypatch):
    plain = {"compress_evaluation_keys": False, "compress_input_ciphertexts": False}
    configuration = engine.fhe.Configuration
    monkeypatch.setattr(
        engine.fhe, "Configuration", lambda **options: configuration(**{**options, **plain})
    )
    compiled = Compiled.of(chain(1, 1, largest=1))
    client, runtime = compiled.circuit.client, compiled.runtime()
    assert not any(gate.seeded for gate in runtime.parameters.inputs)
    client.generate_keys()
    codes, ciphertexts = compiled.encrypt()
    keys = runtime.load_keys(client.evaluation_keys())
    sums = client.decrypt(runtime.write(runtime.run(runtime.read(ciphertexts), keys)))
    np.testing.assert_array_equal(sums, unsigned(compiled.program).run(codes))


def test_masks_are_those_of_the_kernels(monkeypatch):
    """In ciphertexts and keys, of even and odd dimensions, drawn at once and in parts."""
    monkeypatch.setattr(_masks, "_WORDS", 100)
    rng = np.random.default_rng(0)
    seeded = rng.integers(0, 2**64, (5, 3), dtype=np.uint64)
    bootstrap = BootstrapKey(0, 1, 3, 256, 2, 2, 10, seeded=True)
    keyswitch = KeyswitchKey(1, 0, 33, 7, 3, 4, seeded=True)
    sent = rng.integers(0, 2**64, bootstrap.n_sent, dtype=np.uint64)

    def drawn():
        backend = CpuBackend(load_library())
        return [
            *(backend.expand(seeded, dimension, 2) for dimension in (1, 2, 9, 1111)),
            backend.bootstrap_key(bootstrap, sent),
            backend.keyswitch_key(keyswitch, sent[: keyswitch.n_sent]),
        ]

    by_aes = drawn()
    # Where AES is not installed or gives other words, the kernels draw.
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    by_kernels = drawn()
    monkeypatch.setattr(_backend, "draw_masks", lambda ciphertexts, *_: ciphertexts.fill(0))
    for theirs in (by_kernels, drawn()):
        for ours, each in zip(by_aes, theirs, strict=True):
            np.testing.assert_array_equal(ours, each)


def test_estimates_need_no_keys():
    compiled = Compiled.of(chain(2, 1))
    parameters = compiled.runtime().parameters
    times = time_kernels(parameters, n_threads=1)
    estimate = partial(estimate_kernels, compiled.program, parameters, "exact")
    assert len(times.bootstrap) == len(times.keyswitch) == len(times.expand) == 1
    assert min(*times.bootstrap, *times.keyswitch, *times.keyswitch_many, *times.expand) > 0
    row = estimate(times)
    assert row.bootstraps == pytest.approx([2 * times.bootstrap[0]])
    assert row.masks == pytest.approx(3 * times.expand[0])
    rows = estimate(replace(times, n_threads=2), n_rows=4)
    assert rows.bootstraps == pytest.approx([2 * row.bootstraps[0]])
    # A thread has one of two, and the third none.
    assert estimate(replace(times, n_threads=3)).bootstraps == times.bootstrap


def test_exact_rounding_costs_bootstraps():
    program = chain(1, 1, lsbs_to_remove=1)
    costs = {}
    for rounding in ("exact", "approximate"):
        parameters = Compiled.of(program, rounding=rounding).runtime().parameters
        n_keys, n_inputs = len(parameters.bootstrap_keys), len(parameters.inputs)
        times = KernelTimes((1.0,) * n_keys, (1.0,) * 9, (1.0,) * 9, (0.0,) * n_inputs)
        costs[rounding] = sum(estimate_kernels(program, parameters, rounding, times).bootstraps)
    assert costs == {"exact": 2.0, "approximate": 1.0}


def test_other_versions_are_left_to_the_compiled_circuit(monkeypatch):
    assert why_unavailable() is None
    _library._find.cache_clear()
    try:
        monkeypatch.setattr(_library, "version", lambda name: "2.99.0")
        assert "2.99.0" in why_unavailable()
        compiled = Compiled.of(linear_program([[1, 1]]))
        with pytest.raises(ImportError, match=r"2\.99\.0.*Use the compiled circuit"):
            compiled.runtime()
    finally:
        _library._find.cache_clear()


def test_a_library_without_the_kernels_is_noticed(monkeypatch):
    monkeypatch.setattr(
        _library, "_SIGNATURES", {**_library._SIGNATURES, "no_such_kernel": (None, [])}
    )
    _library._find.cache_clear()
    try:
        assert "no_such_kernel" in why_unavailable()
    finally:
        _library._find.cache_clear()


def test_circuits_with_other_keys_are_left_to_the_compiled_circuit():
    compiled = Compiled.of(chain(1, 1))
    assert compiled.runtime().parameters.key_shapes
    specs = json.loads(compiled.specs)
    specs["keyset"]["lweKeyswitchKeys"] *= 2
    with pytest.raises(UnsupportedByEngineError, match="Use the compiled circuit"):
        KernelRuntime(compiled.program, json.dumps(specs).encode())


@pytest.mark.parametrize(
    ("environment", "expected"), [("3", 3), ("2,4", 2), ("", None), ("many", None), ("0", None)]
)
def test_threads_are_those_that_the_environment_allows(monkeypatch, environment, expected):
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", environment)
    assert count_threads() == (expected or count_threads(None)) >= 1
    assert count_threads(5) == 5
    with pytest.raises(ValueError, match="n_threads"):
        count_threads(0)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    compiled = Compiled.of(linear_program([[1, 1]], n_bits=1))
    runtime = compiled.runtime()
    compiled.circuit.client.generate_keys()
    keys = runtime.load_keys(compiled.circuit.client.evaluation_keys())
    messages = runtime.read(compiled.encrypt()[1])

    class Broken(CpuBackend):
        def expand(self, seeded, dimension, n_threads):
            raise MemoryError("no more")

    runtime._backend = Broken(load_library())
    with pytest.raises(MemoryError, match="no more"):
        runtime.run(messages, keys, n_threads=2)
