"""Programs survive the way to a file and back, and nothing else is taken for one."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cases import far_and_near, random_module
from hypothesis import assume, given
from hypothesis import strategies as st
from memory import peak_below

from cipherlearn import ProgramFormatError, _guarded_zip, load_program, save_program
from cipherlearn.lowering._lower import lower
from cipherlearn.program import _file
from cipherlearn.program._former_files import _affine_quantizer

DATA = Path(__file__).parents[1] / "data"


def saved(**kwargs) -> tuple:
    module, X = random_module(0, **kwargs)
    program = lower(module)
    file = io.BytesIO()
    save_program(program, file)
    return program, X, file.getvalue()


def rewritten(content: bytes, **changes) -> io.BytesIO:
    """The archive with members replaced, or dropped where the new value is None."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            member = changes.get(name.partition(".")[0], old.read(name))
            if member is not None:
                new.writestr(name, member)
    return result


def test_removed_bits_travel_with_the_program():
    program, X, content = saved(n_hidden_accum_bits=6, rounding_bits=4)
    loaded = load_program(io.BytesIO(content))
    assert [node.lsbs_to_remove for node in loaded.lookups] == [2]
    np.testing.assert_array_equal(loaded(X), program(X))


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_a_loaded_program_computes_the_same(n_layers, tmp_path):
    program, X, _ = saved(n_layers=n_layers, n_a_bits=3)
    save_program(program, tmp_path / "model.zip")
    rows = far_and_near(X, 100, seed=1)
    np.testing.assert_array_equal(load_program(tmp_path / "model.zip")(rows), program(rows))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_files_of_earlier_versions_stay_readable(version):
    """Written once, by code of that time. Never regenerate them."""
    program = load_program(DATA / f"program_v{version}.zip")
    with np.load(DATA / f"program_v{version}_cases.npz", allow_pickle=False) as cases:
        np.testing.assert_array_equal(program(cases["X"]), cases["outputs"])


@pytest.mark.parametrize("shapes", [((900, 1), (900, 1)), ((3,), (2,)), ((3,), (1,)), ((), ())])
def test_an_affine_rule_has_a_step_for_each_offset(shapes):
    offset, step = map(np.ones, shapes)
    with peak_below(1 << 20), pytest.raises(ValueError, match=r"one step for each|dimension"):
        _affine_quantizer(offset, step, 1)


@pytest.mark.parametrize("n_bits", [1, 2, 5])
@given(offset=st.floats(-1e9, 1e9), step=st.floats(1e-6, 1e6), x=st.floats(-3, 40) | st.floats())
def test_the_affine_rule_of_version_1_keeps_every_code(n_bits, offset, step, x):
    x = np.array([[offset + step * x]])
    assume(not np.isnan(x).any())
    quantizer = _affine_quantizer(np.array([offset]), np.array([step]), n_bits)
    with np.errstate(over="ignore"):
        units = (x - offset) / step
    assert quantizer(x) == np.rint(np.clip(units, 0, 2**n_bits - 1))


@pytest.mark.parametrize(("offset", "step"), [(-1.5, 1.0), (-0.5, 1.0), (-3.0, 2.0), (0.0, 1e-9)])
def test_a_threshold_of_version_1_may_be_zero(offset, step):
    quantizer = _affine_quantizer(np.array([offset]), np.array([step]), 2)
    x = np.array([-4.0, -1e-300, -0.0, 0.0, 5e-324, 1e-300, 1e-9, 0.5, 1.0, 4.0])
    expected = np.rint(np.clip((x - offset) / step, 0, 3))
    assert quantizer(x[:, None]).ravel().tolist() == expected.tolist()


def test_no_pickled_array_is_loaded():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ProgramFormatError, match="undamaged"):
        load_program(rewritten(saved()[2], input_thresholds=buffer.getvalue()))


@pytest.mark.parametrize("length", [0, 10, 500, -1])
def test_a_truncated_file_is_refused(length):
    with pytest.raises(ProgramFormatError, match="Write it again with save_program"):
        load_program(io.BytesIO(saved()[2][:length]))


def test_no_flipped_byte_raises_anything_else():
    content = saved(n_hidden_neurons=2)[2]
    refused = 0
    for i in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[i] ^= 0xFF
        try:
            load_program(io.BytesIO(damaged))
        except ProgramFormatError:
            refused += 1
    assert refused > len(content) / 6  # the rest hits what zip does not need, such as dates


def test_a_header_that_lacks_removed_bits_is_refused():
    with zipfile.ZipFile(DATA / "program_v3.zip") as archive:
        header = json.loads(archive.read("program.json"))
    content = (DATA / "program_v3.zip").read_bytes()
    header["lsbs_to_remove"] = []
    with pytest.raises(ProgramFormatError, match="IndexError"):
        load_program(rewritten(content, program=json.dumps(header)))


NODES = [
    {"kind": "sum", "reads": [0]},
    {"kind": "lookup", "reads": 1, "lsbs_to_remove": 0},
    {"kind": "sum", "reads": [2]},
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": [{**NODES[0], "kind": "call"}, *NODES[1:]]}, "KeyError"),
        ({"nodes": [{**NODES[0], "reads": [2]}, *NODES[1:]]}, "must read values before them"),
        ({"nodes": [{**NODES[0], "reads": [-1]}, *NODES[1:]]}, "by their number, from 0"),
        ({"nodes": [{**NODES[0], "reads": [True]}, *NODES[1:]]}, "by their number, from 0"),
        ({"nodes": [{**NODES[0], "reads": []}, *NODES[1:]]}, "at least one value"),
        ({"nodes": [NODES[0], {**NODES[1], "reads": 0}, NODES[2]]}, "must read a sum before it"),
        ({"nodes": [*NODES[:2], {**NODES[2], "reads": [1]}]}, "must be read or be an output"),
        ({"outputs": [2]}, "outputs of a program must be sums"),
        ({"outputs": [99]}, "outputs of a program must be sums"),
        ({"outputs": []}, "outputs of a program must be sums"),
        ({"n_inputs": 0}, "at least one input"),
        ({"n_inputs": 10**12}, "input_1_codes"),
    ],
)
def test_a_graph_that_does_not_fit_together_is_refused(change, message):
    _, _, content = saved(wide_path=False)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read("program.json"))
    assert header["nodes"] == NODES
    with pytest.raises(ProgramFormatError, match=message):
        load_program(rewritten(content, program=json.dumps(header | change)))


def npy(header: str) -> bytes:
    """An array whose header says more than follows."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_an_array_that_claims_32_tebibytes_is_not_allocated():
    huge = npy("{'descr': '<i8', 'fortran_order': False, 'shape': (4398046511104,)}")
    with pytest.raises(ProgramFormatError, match="that its header names"):
        load_program(rewritten(saved()[2], node_0_weights=huge))


def test_a_sum_that_reads_a_value_often_is_refused_before_it_is_read():
    _, _, content = saved(wide_path=False)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read("program.json"))
    header["nodes"][0]["reads"] = [0] * 10**6
    with pytest.raises(ProgramFormatError, match="integers that it reads"):
        load_program(rewritten(content, program=json.dumps(header)))


def test_an_array_of_many_short_rows_is_refused():
    # As little as the file takes, a proof would make objects for each.
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2**20 + 1, dtype=np.int64))
    with pytest.raises(ProgramFormatError, match="at most 1048576 rows"):
        load_program(rewritten(saved()[2], node_0_constant=buffer.getvalue()))


def test_a_program_too_large_to_be_read_is_not_written(monkeypatch, tmp_path):
    program, _, _ = saved()
    monkeypatch.setattr(_file, "_MAX_ROWS", 1)
    with pytest.raises(ValueError, match="at most 1 rows"):
        save_program(program, tmp_path / "program.zip")
    assert not list(tmp_path.iterdir())


def test_an_archive_is_bounded_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(_guarded_zip, "MAX_BYTES", 1000)
    with pytest.raises(ProgramFormatError, match="at most 1000 bytes"):
        load_program(io.BytesIO(saved()[2]))


def test_only_plain_members_with_names_of_their_own_are_read():
    content = saved()[2]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("program.json", "{}")
    with pytest.raises(ProgramFormatError, match="stored or deflated"):
        load_program(packed)
    twice = io.BytesIO(content)
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("program.json", "{}")
    with pytest.raises(ProgramFormatError, match="names of their own"):
        load_program(twice)


def test_a_missing_array_is_named():
    with pytest.raises(ProgramFormatError, match=r"node_1_tables\.npy"):
        load_program(rewritten(saved()[2], node_1_tables=None))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "cipherlearn-program", "version": 6}, "versions 1 to 5. Got version 6"),
        ({"format": "cipherlearn-program", "version": True}, "Got version True"),
        ({"format": "something-else", "version": 1}, "something-else"),
        ([], "must name its format"),
    ],
)
def test_another_format_or_version_is_refused(header, message):
    with pytest.raises(ProgramFormatError, match=message):
        load_program(rewritten(saved()[2], program=json.dumps(header)))


def test_a_range_that_is_not_proven_is_refused():
    """Codes reach 3, so a file that promises the second layer nothing above 0 is false."""
    content = (DATA / "program_v2.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        high = np.load(io.BytesIO(archive.read("layer_1_input_high.npy")))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros_like(high))
    with pytest.raises(ProgramFormatError, match="assumes inputs"):
        load_program(rewritten(content, layer_1_input_high=buffer.getvalue()))


def test_a_table_that_a_sum_could_leave_is_refused():
    program, _, content = saved(n_hidden_neurons=4, wide_path=False)
    buffer = io.BytesIO()
    np.save(buffer, program.lookups[0].low + 1)
    with pytest.raises(ProgramFormatError, match="cover every reachable accumulator"):
        load_program(rewritten(content, node_1_low=buffer.getvalue()))


def test_a_missing_file_is_reported_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_program(tmp_path / "absent.zip")
