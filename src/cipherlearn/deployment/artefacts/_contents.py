"""The two artefacts of a model, parsed and checked."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ArtefactError, MessageError, ProgramFormatError
from cipherlearn._guarded_zip import array_bytes
from cipherlearn._words import count
from cipherlearn.deployment._messages import HEADER_BYTES, Frame
from cipherlearn.deployment.artefacts._archive import Archive, json_bytes, refusing_damage
from cipherlearn.deployment.artefacts._description import (
    check_client_description,
    check_server_description,
    read_labels,
)
from cipherlearn.deployment.artefacts._specs import read_specs
from cipherlearn.engines import engine_name
from cipherlearn.engines.kernels import Parameters, write_value
from cipherlearn.program._decoder import LabelDecoder, OutputScaler, TargetDecoder
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._file import load_program
from cipherlearn.program._program import IntegerProgram

__all__ = ["ClientModel", "ServerModel", "check_engine", "summary"]

# More than any input can hold.
_MAX_CODES = 1 << 18


@dataclass(frozen=True)
class ClientModel:
    """Content of a ``client.zip``: the encoder of features and the decoder of sums.

    Parameters
    ----------
    description : dict
        Content of ``client.json``, which ``docs/artefact_formats.rst`` describes.
    specs : bytes
        Cryptographic parameters and shapes, as JSON for the engine.
    quantizer : InputQuantizer
    inputs : tuple of ndarray
        Codes that each ciphertext holds, by their number.
    scaler : OutputScaler
        Map from decrypted sums to outputs.
    target_mean, target_scale : ndarray of shape (n_outputs,) or None
        Mean and scale of a regressor's targets.
    preprocessing : bytes or None
        The steps before the network, in the format of skops.
    """

    description: dict[str, Any]
    specs: bytes
    quantizer: InputQuantizer
    inputs: tuple[NDArray[np.int64], ...]
    scaler: OutputScaler
    target_mean: NDArray[np.float64] | None = None
    target_scale: NDArray[np.float64] | None = None
    preprocessing: bytes | None = None

    @property
    def keyset_id(self) -> bytes:
        """SHA-256 of the parameters that keys are made for. Models may share them."""
        return hashlib.sha256(json_bytes(json.loads(self.specs)["keyset"])).digest()

    @cached_property
    def frames(self) -> dict[str, Frame]:
        """Structure of "evaluation_keys", a "ciphertext" and a "result"."""
        frames = self.description["frames"]
        names = ("evaluation_keys", "ciphertext", "result")
        return {name: Frame.from_json(frames[name]) for name in names}

    def message_bytes(self, name: str) -> int:
        """Length of a message with "evaluation_keys", a "ciphertext" or a "result"."""
        return HEADER_BYTES + self.frames[name].n_payload

    def _check_gates(self) -> None:
        """Check that the engine can encrypt every code, and gets results of its own structure."""
        gates = Parameters.from_specs(self.specs)
        for columns, gate in zip(self.inputs, gates.inputs, strict=True):
            largest, width = self.quantizer.largest[columns].max(), gate.width - gate.is_signed
            if largest >= 2**width:
                raise ArtefactError(
                    f"An input of {width} bits holds codes below {2**width}. Got {largest}."
                )
        first, second = (
            [write_value(np.full(gate.shape, word, np.uint64), gate) for gate in gates.outputs]
            for word in (0, 2**64 - 1)
        )
        structure, frame = Frame.between(first, second), self.frames["result"]
        try:
            if frame.sizes != structure.sizes:
                raise MessageError(
                    f"Results have {structure.sizes} bytes. Got {frame.sizes!s:.100}."
                )
            # Whatever numbers it is filled with, it must be nothing but numbers in their places.
            for byte in (b"\0", b"\xff"):
                structure.strip(frame.fill(byte * frame.n_payload))
        except MessageError as error:
            raise ArtefactError(
                "The frame of results must be that of the engine's ciphertexts. It is not: the "
                "artefact is damaged, or could crash the engine. Get it again."
            ) from error

    def check_messages(self) -> None:
        """Check that messages for a server are as long as the parameters need."""
        gates = Parameters.from_specs(self.specs)
        inputs = 8 * sum(math.prod(gate.shape) for gate in gates.inputs)
        for name, n_bytes in (("evaluation_keys", gates.sent_bytes), ("ciphertext", inputs)):
            # The structure around it is in the artefact itself, and so bounded.
            if self.frames[name].n_payload != n_bytes:
                raise ArtefactError(
                    f"The cryptographic parameters need {n_bytes} bytes of {name}. The "
                    f"frame is for {self.frames[name].n_payload}. Export the model again."
                )

    @property
    def classes(self) -> NDArray[Any] | None:
        """Labels of a classifier."""
        classes = self.description["classes"]
        return None if classes is None else read_labels(classes, len(self.scaler.bias))

    @property
    def decoder(self) -> LabelDecoder | TargetDecoder:
        """Decoder of outputs to predictions."""
        if self.classes is not None:
            return LabelDecoder(self.classes, self.description["probabilities"])
        assert self.target_mean is not None
        assert self.target_scale is not None
        return TargetDecoder(self.target_mean, self.target_scale, self.description["target_is_1d"])

    def outputs(self, sums: NDArray[np.int64]) -> NDArray[np.float32]:
        """Turn decrypted sums into outputs, or raise MessageError if they are beyond float32."""
        try:
            return self.scaler(sums)
        except (OverflowError, ValueError) as error:
            raise MessageError(f"The results are not of this model. {error}") from error

    def to_archive(self) -> Archive:
        """Write the members of client.zip."""
        assert self.scaler.offset is not None
        members = {
            "client.json": json_bytes(self.description),
            "specs.json": self.specs,
            "output_gain.npy": array_bytes(self.scaler.gain),
            "output_bias.npy": array_bytes(self.scaler.bias),
            "output_offset.npy": array_bytes(self.scaler.offset),
        }
        for name, array in self.quantizer.arrays().items():
            members[f"{name}.npy"] = array_bytes(array)
        for i, columns in enumerate(self.inputs):
            members[f"input_{i}_codes.npy"] = array_bytes(columns)
        if self.target_mean is not None and self.target_scale is not None:
            members["target_mean.npy"] = array_bytes(self.target_mean)
            members["target_scale.npy"] = array_bytes(self.target_scale)
        if self.preprocessing is not None:
            members["preprocessing.skops"] = self.preprocessing
        return Archive("client", members)

    @classmethod
    def from_archive(cls, archive: Archive) -> ClientModel:
        """Read and check the members of client.zip, or raise ArtefactError."""
        with refusing_damage("client.zip"):
            description = archive.json("client.json")
            check_client_description(description)
            is_regressor = description["estimator"] == "regressor"
            quantizer = InputQuantizer.from_arrays(
                description["n_network_features"],
                description["n_components"],
                lambda name: archive.array(f"{name}.npy"),
            )
            scaler = OutputScaler(
                archive.array("output_gain.npy"),
                archive.array("output_bias.npy"),
                archive.array("output_offset.npy"),
            )
            if len(quantizer.feature) > _MAX_CODES:
                raise ArtefactError(
                    f"A row has at most {_MAX_CODES} codes. Got {len(quantizer.feature)}."
                )
            n_codes, n_outputs = len(quantizer.feature), len(scaler.bias)
            inputs = tuple(
                archive.array(f"input_{i}_codes.npy") for i in range(description["n_inputs"])
            )
            for columns in inputs:
                _check_columns(columns, n_codes)
            if len(np.unique(np.concatenate(inputs))) != n_codes:
                raise ArtefactError(
                    f"Inputs must together hold all of the {n_codes} codes. They do not. Export "
                    "the model again."
                )
            widths = [*map(len, inputs)], [n_outputs] * (len(scaler.gain) // n_outputs)
            model = cls(
                description,
                read_specs(archive.members["specs.json"], *widths, description["batch_size"]),
                quantizer,
                inputs,
                scaler,
                archive.array("target_mean.npy", (n_outputs,)) if is_regressor else None,
                archive.array("target_scale.npy", (n_outputs,)) if is_regressor else None,
                archive.members.get("preprocessing.skops"),
            )
            # Read now, so that damage shows now.
            _ = model.decoder
            model._check_gates()
        return model


def _check_columns(columns: NDArray[Any], n_codes: int) -> None:
    if columns.dtype != np.int64 or columns.ndim != 1 or not len(columns):
        raise ArtefactError(
            "Each input must name the codes that it holds, as a vector of int64. "
            f"Got {columns.dtype} of shape {columns.shape}."
        )
    if columns.min() < 0 or columns.max() >= n_codes:
        raise ArtefactError(
            f"Inputs must hold codes 0 to {n_codes - 1}. Got {columns.min()} to {columns.max()}."
        )


@dataclass(frozen=True)
class ServerModel:
    """Content of a ``server.zip``: the program and the artefact for clients.

    Parameters
    ----------
    description : dict
        Content of ``server.json``.
    program : bytes
        The program, with the weights and tables.
    client : Archive
    client_model : ClientModel
        Content of ``client``.
    """

    description: dict[str, Any]
    program: bytes
    client: Archive
    client_model: ClientModel

    def to_archive(self) -> Archive:
        """Write the members of server.zip."""
        members = {
            "server.json": json_bytes(self.description),
            "program.zip": self.program,
            "client.zip": self.client.to_bytes(),
        }
        return Archive("server", members)

    @classmethod
    def from_archive(cls, archive: Archive) -> ServerModel:
        """Read and check the members of server.zip, or raise ArtefactError."""
        with refusing_damage("server.zip"):
            client = Archive.from_bytes(archive.members["client.zip"], "client")
            model = cls(
                archive.json("server.json"),
                archive.members["program.zip"],
                client,
                ClientModel.from_archive(client),
            )
            members = {"server.json", "program.zip", "client.zip"}
            if set(archive.members) != members:
                raise ArtefactError(
                    f"server.zip must hold {', '.join(sorted(members))} and nothing else. "
                    f"Got {', '.join(sorted(archive.members))}."
                )
            check_server_description(model.description)
            model.client_model.check_messages()
            stated = model.client_model.description["program_sha256"]
            if stated != hashlib.sha256(model.program).hexdigest():
                raise ArtefactError(
                    f"The program of a server must be that of its clients, with the SHA-256 "
                    f"{stated}. This one is another. Export the model again."
                )
        return model

    def read_program(self) -> IntegerProgram:
        """Read the program, or raise ArtefactError."""
        try:
            return load_program(io.BytesIO(self.program))
        except ProgramFormatError as error:
            raise ArtefactError(f"server.zip must hold a whole program. {error}") from error


def summary(description: dict[str, Any], model_id: str) -> str:
    """Describe a model in a few words, for reprs."""
    what = f"{description['estimator']} of {count(description['n_features'], 'feature')}"
    if description["classes"] is not None:
        what += f" and {count(len(description['classes']['values']), 'class')}"
    return f"{what}, {count(description['batch_size'], 'row')} a call, model {model_id[:12]}"


def check_engine(engine: dict[str, str]) -> None:
    """Raise ArtefactError unless the engine that a model was compiled for is installed."""
    installed = engine_name()
    if engine["name"] != installed:
        raise ArtefactError(
            f"This model was compiled for {engine['name']} {engine['version']}. Installed here is "
            f"{installed}. Install that one, or load the program in server.zip and compile again."
        )
