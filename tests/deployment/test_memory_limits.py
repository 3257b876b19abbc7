"""What a file unpacks to is bounded before it is unpacked."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
import scipy.sparse
import skops.io
from memory import peak_below
from sklearn.preprocessing import StandardScaler

from cipherlearn import ProgramFormatError, load_program
from cipherlearn._guarded_zip import array_from, json_from, read_members
from cipherlearn.deployment import ArtefactError, FHEClient
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._preprocessing import load_preprocessing


def zipped(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def understated(content, size):
    """The archive with one member, which claims another size, and has the checksum for it."""
    (info,) = zipfile.ZipFile(io.BytesIO(content)).infolist()
    start = content[info.header_offset :]
    unpacked = zlib.decompressobj(-15).decompress(
        start[30 + len(info.filename) : 30 + len(info.filename) + info.compress_size], size
    )
    claims = struct.pack("<L", zlib.crc32(unpacked))
    real = struct.pack("<LLL", info.CRC, info.compress_size, info.file_size)
    return content.replace(real, claims + struct.pack("<LL", info.compress_size, size))


BOMB = bytes(1 << 24)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_other_methods_are_not_unpacked(method):
    content = zipped({"program.json": BOMB}, method)
    assert len(content) < 5000
    with peak_below(1 << 20), pytest.raises(ProgramFormatError, match="stored or deflated"):
        load_program(io.BytesIO(content))


def test_a_member_is_inflated_to_what_it_claims_and_no_further():
    content = understated(zipped({"a": BOMB}), 1000)
    with peak_below(1 << 20):
        assert read_members(content) == {"a": bytes(1000)}
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        read_members(understated(zipped({"a": bytes(2000)}), 1000).replace(b"a", b"b", 1))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_smaller_than_it_claims_is_refused(method):
    content = zipped({"a": bytes(range(100))}, method)
    assert read_members(content) == {"a": bytes(range(100))}
    (info,) = zipfile.ZipFile(io.BytesIO(content)).infolist()
    real = struct.pack("<LLL", info.CRC, info.compress_size, info.file_size)
    claimed = struct.pack("<LLL", info.CRC, info.compress_size, 101)
    assert content.count(real) == 2  # before the member, and in the directory
    with pytest.raises(ValueError, match="must have the 101 bytes that it claims"):
        read_members(content.replace(real, claimed))


def test_a_long_list_of_members_is_not_read():
    content = zipped({"a": b""})
    entry = content[content.index(b"PK\x01\x02") : content.index(b"PK\x05\x06")]
    n_members = (1 << 22) // len(entry) + 1
    start = content[: content.index(b"PK\x01\x02")]
    end = struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, 1, 1, n_members * len(entry), len(start), 0)
    with pytest.raises(ValueError, match="directory of an archive has at most"):
        read_members(start + n_members * entry + end)
    locator = b"PK\x06\x07" + bytes(16)
    with pytest.raises(ValueError, match="no Zip64"):
        read_members(content[:-22] + locator + content[-22:])
    with pytest.raises(ValueError, match="must end with the directory"):
        read_members(content + b"x")


def test_json_is_bounded():
    assert json_from(b"[" * 30 + b"]" * 30)
    for content in (b"[" * 33 + b"]" * 33, b"[" * 100_000, b"[" * 900 + b"]" * 900):
        with pytest.raises(ValueError, match="levels deep"):
            json_from(content)
    with pytest.raises(ValueError, match="at most 8388608 bytes"):
        json_from(b"[" + b"0," * (1 << 22) + b"0]")


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b", "\x7f", "\x00", "\ud800"])
def test_texts_that_command_a_terminal_are_refused(text, linear_artefacts):
    archive = Archive.read(linear_artefacts / "client.zip", "client")
    described = json.loads(archive.members["client.json"])
    for change in ({"cipherlearn": text}, {text: 1}):
        archive.members["client.json"] = json.dumps(described | change).encode()
        with pytest.raises(ArtefactError, match="control characters"):
            FHEClient.from_bytes(archive.to_bytes())
    assert json_from(json.dumps("length\nof a\twing, ∅\u200d").encode())


def npy(header, data=b""):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


PLAIN = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }\n"


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (" + b"(" * 300 + b"1,), }\n",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (1,), \n\n",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (1L,), }\n",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
        b"{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1,), }\n",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }\n",
        b"{'descr': '<i8', 'fortran_order': 0x, 'shape': (1,), }\n",
        b"{'descr': '|i1', 'fortran_order': False, 'shape': (8,), }\n",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (4398046511104,), }\n",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",), }\n",
    ],
)
def test_headers_of_arrays_are_matched_and_not_evaluated(header):
    with pytest.raises(ValueError):  # noqa: PT011 - numpy's or ours
        array_from(npy(header, bytes(8)))
    assert array_from(npy(PLAIN, bytes(8))) == 0


def test_arrays_come_back():
    for array in (np.arange(6).reshape(2, 3), np.array(3.0), np.zeros((3, 0)), np.float32([1, 2])):
        for order in "CF":
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array, order=order))
            np.testing.assert_array_equal(array_from(buffer.getvalue()), array)


# ---------------------------------------------------------------------- preprocessing


def with_members(content, change):
    """A file of skops with other members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    return zipped(members)


@pytest.fixture
def scaler():
    return StandardScaler(with_mean=False).fit(np.ones((2, 4)))


@pytest.fixture
def at_most_a_megabyte(monkeypatch):
    monkeypatch.setattr("cipherlearn._guarded_zip.MAX_BYTES", 1 << 20)
    monkeypatch.setattr("cipherlearn.deployment.artefacts._schema.MAX_BYTES", 1 << 20)


def test_steps_before_the_network_unpack_to_a_bounded_size(scaler, at_most_a_megabyte):
    scaler.mean_ = np.zeros(1 << 17)
    with pytest.raises(ArtefactError, match="at most 1048576 bytes"):
        load_preprocessing(with_members(skops.io.dumps(scaler), lambda members: None), ())


def test_a_file_that_is_named_often_counts_as_often(scaler, at_most_a_megabyte):
    scaler.mean_ = [np.full(1000, i) for i in range(120)]
    content = skops.io.dumps(scaler)
    load_preprocessing(content, ())

    def share(members):
        schema, others = members["schema.json"].decode(), list(members)
        for name in others:
            if name.endswith(".npy"):
                schema = schema.replace(name, "one.npy")
                members["one.npy"] = npy(
                    b"{'descr': '<i8', 'fortran_order': False, 'shape': (10000,), }\n",
                    bytes(80_000),
                )
                del members[name]
        members["schema.json"] = schema.encode()

    with pytest.raises(ArtefactError, match="names more than once"):
        load_preprocessing(with_members(content, share), ())


def test_an_archive_in_the_archive_is_bounded_too(scaler, at_most_a_megabyte):
    matrix = scipy.sparse.random(20, 20, 0.5, "csr", random_state=0)
    scaler.scale_ = matrix
    content = skops.io.dumps(scaler)
    assert (load_preprocessing(content, ()).scale_ != matrix).nnz == 0

    def inflate(members):
        for name in members:
            if members[name].startswith(b"PK"):
                members[name] = zipped({"data.npy": BOMB})

    with pytest.raises(ArtefactError, match="at most 1048576 bytes"):
        load_preprocessing(with_members(content, inflate), ())


@pytest.mark.parametrize("shape", ["(4398046511104,)", "(1,)", "(2, 9223372036854775807)"])
def test_arrays_of_steps_hold_what_they_claim(scaler, shape):
    def claim(members):
        for name in members:
            if name.endswith(".npy"):
                header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n"
                members[name] = npy(header.encode(), bytes(32))

    with pytest.raises(ArtefactError, match="that its header names"):
        load_preprocessing(with_members(skops.io.dumps(scaler), claim), ())
