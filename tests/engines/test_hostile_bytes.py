"""The kernels' runtime raises errors for any damaged bytes, and never aborts."""

# engine: concrete-python

from __future__ import annotations

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from cases import linear_program
from graphs import GRAPHS

from cipherlearn._exceptions import ArtefactError, MessageError
from cipherlearn.engines import load_engine
from cipherlearn.engines._bindings import compiler
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines.kernels import (
    EvaluationKeys,
    Gate,
    KernelRuntime,
    KeyCache,
    Parameters,
    read_keys,
    read_value,
    write_keys,
    write_value,
)

# It mutates what it is given, in a process that an abort would end.
FUZZER = """
import sys
from pathlib import Path
import numpy as np
from cipherlearn._exceptions import ArtefactError, MessageError
from cipherlearn.engines.kernels._wire import read_keys, read_value

whole = Path(sys.argv[1]).read_bytes()
rng = np.random.default_rng(0)
edges = sorted({i % len(whole) for i in range(-400, 400)})
outcomes = {"read": 0, "refused": 0}
for _ in range(3000):
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        data[rng.choice(edges)] = rng.integers(0, 256)
    if rng.random() < 0.2:
        data = data[: rng.integers(0, len(data) + 1)]
    for read in (read_value, read_keys):
        try:
            read(bytes(data))
            outcomes["read"] += 1
        except MessageError:
            outcomes["refused"] += 1
print(*outcomes.values())
"""


@pytest.fixture(scope="module")
def linear():
    """A circuit with keys."""
    program = linear_program([[1, -2, 3], [0, 1, 1]])
    circuit = load_engine().compile_program(program, CompileOptions(batch_size=2))
    circuit.client.generate_keys()
    return program, circuit, KernelRuntime(program, circuit.files()["specs.json"])


@pytest.fixture(scope="module")
def specs():
    """Parameters with bootstraps and conversions."""
    program = GRAPHS["two parallel paths"]()
    return program, load_engine().compile_program(program, CompileOptions()).files()["specs.json"]


def test_mutated_values_and_keys_are_read_or_refused(linear, tmp_path):
    program, circuit, _ = linear
    (value,) = circuit.client.encrypt(program.split(np.zeros((2, 3), dtype=int)))
    for name, data in {"value": value, "keys": circuit.client.evaluation_keys()}.items():
        (tmp_path / name).write_bytes(data)
        command = [sys.executable, "-c", FUZZER, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        n_read, n_refused = map(int, done.stdout.split())
        assert n_read + n_refused == 6000
        assert n_refused > 1000


def test_far_pointers_and_lists_lead_nowhere_outside():
    words = {
        "a struct far away": [2**31 | 1 << 48],
        "a list where a struct must be": [1 | 2 << 32],
        "a far pointer to no segment": [2 | 7 << 32],
        "a far pointer to itself": [2],
        "a double far pointer to itself": [6, 2],
        "nothing": [0],
        "a struct without pointers": [1 << 32, 0],
        "a list of many byte strings": [1 << 48, 1 | 6 << 32 | 65 << 35],
    }
    for data in words.values():
        message = struct.pack(f"<II{len(data)}Q", 0, len(data), *data)
        with pytest.raises(MessageError, match="as Concrete serializes them"):
            read_value(message)
    with pytest.raises(MessageError):
        read_value(struct.pack("<I", 2**32 - 1))


def test_byte_strings_that_overlap_take_no_more_memory_than_the_message():
    # 64 strings, each the same 1000 words.
    payload = [1 << 48, 1 | 6 << 32 | 64 << 35]
    strings = [(63 - i) << 2 | 1 | 2 << 32 | 8000 << 35 for i in range(64)]
    data = [1 << 48, *payload, *strings, *[0] * 1000]
    with pytest.raises(MessageError, match="overlap"):
        read_value(struct.pack(f"<II{len(data)}Q", 0, len(data), *data))


def test_byte_strings_of_different_keys_do_not_overlap():
    # Two keys of the same 1000 words, which would be copied for each.
    keys = [2 << 48, 1 << 2 | 1 | 7 << 32 | 4 << 35, 0, 2 << 2 | 2 << 48]
    payload = [0, 2 << 2 | 1 << 48, 0, 1 << 48, 1 | 6 << 32 | 1 << 35, 1 | 2 << 32 | 8000 << 35]
    data = [*keys, *payload, *[0] * 1000]
    with pytest.raises(MessageError, match="overlap"):
        read_keys(struct.pack(f"<II{len(data)}Q", 0, len(data), *data))
    data[3] = 1 << 2 | 2 << 48
    data[1] = 1 << 2 | 1 | 7 << 32 | 2 << 35
    ((key,), _) = read_keys(struct.pack(f"<II{len(data)}Q", 0, len(data), *data))
    assert len(key) == 1000


def test_what_is_written_is_read(linear):
    _, circuit, runtime = linear
    (gate,) = runtime.parameters.outputs
    words = np.arange(2 * 2 * gate.n_words, dtype=np.uint64).reshape(2, 2, -1)
    np.testing.assert_array_equal(read_value(write_value(words, gate)), words.ravel())
    assert circuit.client.decrypt([write_value(words, gate)]).shape == (2, 2)


@pytest.mark.parametrize(
    ("n_rows", "n_values", "n_words", "dtype"),
    [(1, 3, 4, np.uint64), (1, 2, 3, np.uint64), (1, 3, 3, np.int64)],
)
def test_ciphertexts_of_another_shape_are_refused(linear, n_rows, n_values, n_words, dtype):
    runtime = linear[-1]
    keys = runtime.load_keys(linear[1].client.evaluation_keys())
    with pytest.raises(MessageError, match="Ciphertexts of this input must be"):
        runtime.run([np.zeros((n_rows, n_values, n_words), dtype)], keys)


def test_no_rows_give_no_rows(linear):
    _, circuit, runtime = linear
    keys = runtime.load_keys(circuit.client.evaluation_keys())
    (result,) = runtime.run([np.zeros((0, 3, 3), np.uint64)], keys)
    assert result.shape == (0, 2, runtime.parameters.outputs[0].n_words)


def test_values_and_keys_of_another_model_are_refused(linear, specs):
    program, circuit, runtime = linear
    other = KernelRuntime(*specs)
    (value,) = circuit.client.encrypt(program.split(np.zeros((2, 3), dtype=int)))
    assert other.read([value])[0].shape == (2, 3, 3)
    with pytest.raises(MessageError, match="has 1 encrypted inputs"):
        other.read([value, value])
    (gate,) = runtime.parameters.outputs
    with pytest.raises(MessageError, match="Rows of this model have 9 words"):
        runtime.read([write_value(np.zeros((1, 1, 5), np.uint64), gate)])
    with pytest.raises(MessageError, match="bootstrap keys of this model must have"):
        other.load_keys(circuit.client.evaluation_keys())
    assert read_keys(circuit.client.evaluation_keys()) == ([], [])
    # Keys that were loaded for one are not used with another.
    keys = runtime.load_keys(circuit.client.evaluation_keys())
    with pytest.raises(MessageError, match="for other cryptographic parameters"):
        other.run(other.read([value]), keys)


def compiled(program):
    """A circuit with keys, whose server compiles."""
    options = CompileOptions(p_error=0.01, runtime="compiled")
    circuit = load_engine().compile_program(program, options)
    circuit.client.generate_keys()
    return circuit


def test_a_compiled_server_gets_numbers_and_no_structure():
    """What it deserializes is written in its own process, so that nothing in it can crash it."""
    program = linear_program([[1, -2, 3], [0, 1, 1]])
    circuit = compiled(program)
    keys = circuit.server.load_keys(circuit.client.evaluation_keys())
    (value,) = circuit.client.encrypt(program.split(np.zeros((1, 3), dtype=int)))
    words, n_refused = np.frombuffer(value, "<u8").copy(), 0
    for position in range(20):
        for word in (0, 2**33 + 1, 2**64 - 1):
            changed = words.copy()
            changed[position] = word
            try:
                circuit.server.run([[changed.tobytes()]], keys)
            except MessageError:
                n_refused += 1
    assert n_refused > 10
    for batch in ([], [value, value]):
        with pytest.raises(MessageError, match="have the shapes"):
            circuit.server.run([batch], keys)


def test_a_compiled_server_loads_keys_of_its_parameters_only():
    circuit = compiled(GRAPHS["two parallel paths"]())
    keys, specs = circuit.client.evaluation_keys(), circuit.files()["specs.json"]
    written = write_keys(json.loads(specs)["keyset"], *read_keys(keys))
    assert bytes(compiler.ServerKeyset.deserialize(written).serialize()) == keys
    assert circuit.server.load_keys(keys).n_bytes == len(written)
    other = compiled(linear_program([[1]])).client.evaluation_keys()
    for data in (keys[:-8], keys[:1000], b"", bytes(64), other):
        with pytest.raises(MessageError):
            circuit.server.load_keys(data)


def test_long_keys_are_written_as_several_byte_strings(monkeypatch):
    monkeypatch.setattr("cipherlearn.engines.kernels._capnp._BLOB_WORDS", 3)
    gate = Gate(1, 2, 0, 4, 5, False, False, 0.0)
    words = np.arange(10, dtype=np.uint64).reshape(1, 2, 5)
    np.testing.assert_array_equal(read_value(write_value(words, gate)), words.ravel())


def test_messages_may_start_anywhere_in_memory(linear):
    program, circuit, _ = linear
    (value,) = circuit.client.encrypt(program.split(np.zeros((2, 3), dtype=int)))
    shifted = memoryview(b"x" + value)[1:]
    np.testing.assert_array_equal(read_value(shifted), read_value(value))
    assert read_value(shifted).flags.aligned


BOOTSTRAP, KEYSWITCH = ("keyset", "lweBootstrapKeys", 0), ("keyset", "lweKeyswitchKeys", 0)
INPUT = ("circuits", 0, "inputs", 0, "typeInfo", "lweCiphertext")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*BOOTSTRAP, "params", "polynomialSize"), 1000),
        ((*BOOTSTRAP, "params", "polynomialSize"), 2**40),
        ((*BOOTSTRAP, "params", "polynomialSize"), 2.0),
        ((*BOOTSTRAP, "params", "glweDimension"), 7),
        ((*BOOTSTRAP, "params", "inputLweDimension"), 0),
        ((*BOOTSTRAP, "params", "levelCount"), 0),
        ((*BOOTSTRAP, "params", "baseLog"), 64),
        ((*BOOTSTRAP, "params", "keyType"), "ternary"),
        ((*BOOTSTRAP, "params", "modulus"), {"modulus": {"integer": {"modulus": 3}}}),
        ((*BOOTSTRAP, "outputId"), 99),
        ((*BOOTSTRAP, "compression"), "paillier"),
        ((*KEYSWITCH, "params", "levelCount"), 40),
        ((*KEYSWITCH, "params", "outputLweDimension"), 2**18),
        ((*KEYSWITCH, "inputId"), None),
        ((*INPUT, "encoding", "integer", "width"), 63),
        ((*INPUT, "encoding", "integer", "width"), 1),
        ((*INPUT, "encoding", "integer", "mode"), {"crt": {"moduli": [3, 5]}}),
        ((*INPUT, "encryption", "lweDimension"), 5),
        ((*INPUT, "abstractShape", "dimensions"), [1, 2]),
        ((*INPUT, "concreteShape", "dimensions"), [1, 3, 4]),
        (("circuits", 0, "inputs"), []),
        (("circuits", 0, "outputs", 0, "typeInfo", "lweCiphertext", "compression"), "seed"),
        (("circuits",), []),
        (("keyset",), "nothing"),
        (("keyset", "packingKeyswitchKeys"), [{}]),
    ],
)
def test_parameters_that_no_kernel_may_see_are_refused(specs, path, value):
    program, valid = specs
    changed = json.loads(valid)
    *parents, last = path
    place = changed
    for name in parents:
        place = place[name]
    place[last] = value
    with pytest.raises(ArtefactError):
        KernelRuntime(program, json.dumps(changed).encode())


def test_tables_that_would_fill_the_memory_are_refused(specs, monkeypatch):
    monkeypatch.setattr("cipherlearn.engines.kernels._plan._MAX_TABLE_BYTES", 1 << 14)
    with pytest.raises(ArtefactError, match="at most 16384 bytes as polynomials"):
        KernelRuntime(*specs)


@pytest.mark.parametrize("specs", [b"", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_description_is_refused(specs):
    with pytest.raises(ArtefactError):
        Parameters.from_specs(specs)


def test_a_cache_keeps_the_keys_used_last():
    cache = KeyCache(max_bytes=100)
    for name in ("a", "b"):
        cache.put(name, EvaluationKeys((), (), n_bytes=40))
    assert cache.get("a") is not None
    cache.put("c", EvaluationKeys((), (), n_bytes=40))
    assert cache.get("b") is None
    assert (len(cache), cache.n_bytes) == (2, 80)
    # Those in use are kept even where they alone are too large.
    cache.put("d", EvaluationKeys((), (), n_bytes=1000))
    assert (len(cache), cache.n_bytes) == (1, 1000)
