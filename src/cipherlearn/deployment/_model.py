"""The two artefacts of a model, parsed and checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ArtefactError
from cipherlearn._program import InputQuantizer, OutputScaler
from cipherlearn.deployment._archive import Archive, array_bytes, json_bytes
from cipherlearn.deployment._messages import Frame
from cipherlearn.deployment._security import check_security

__all__ = ["ClientModel", "ServerModel"]


@dataclass(frozen=True)
class ClientModel:
    """What a client knows of a model: how to make codes of features, and labels of sums.

    Parameters
    ----------
    description : dict
        What ``client.json`` holds; ``docs/artefact_formats.rst`` describes it.
    specs : bytes
        Cryptographic parameters and shapes, as the engine's JSON.
    quantizer : InputQuantizer
    scaler : OutputScaler
        From the sums as they are decrypted.
    target_mean, target_scale : ndarray of shape (n_outputs,) or None
        A regressor's units.
    preprocessing : bytes or None
        The steps before the network, in the format of skops.
    """

    description: dict[str, Any]
    specs: bytes
    quantizer: InputQuantizer
    scaler: OutputScaler
    target_mean: NDArray[np.float64] | None = None
    target_scale: NDArray[np.float64] | None = None
    preprocessing: bytes | None = None

    @property
    def keyset_id(self) -> bytes:
        """SHA-256 of the parameters that keys are made for. Models may share them."""
        return hashlib.sha256(json_bytes(json.loads(self.specs)["keyset"])).digest()

    def frame(self, name: str) -> Frame:
        """Structure of "evaluation_keys", a "ciphertext" or a "result"."""
        return Frame.from_json(self.description["frames"][name])

    @property
    def classes(self) -> NDArray | None:
        """Labels of a classifier."""
        classes = self.description["classes"]
        return None if classes is None else np.array(classes["values"], dtype=classes["dtype"])

    def to_archive(self) -> Archive:
        """Write the members of client.zip."""
        assert self.scaler.offset is not None
        members = {
            "client.json": json_bytes(self.description),
            "specs.json": self.specs,
            "input_feature.npy": array_bytes(self.quantizer.feature),
            "input_thresholds.npy": array_bytes(self.quantizer.thresholds),
            "output_gain.npy": array_bytes(self.scaler.gain),
            "output_bias.npy": array_bytes(self.scaler.bias),
            "output_offset.npy": array_bytes(self.scaler.offset),
        }
        if self.target_mean is not None and self.target_scale is not None:
            members["target_mean.npy"] = array_bytes(self.target_mean)
            members["target_scale.npy"] = array_bytes(self.target_scale)
        if self.preprocessing is not None:
            members["preprocessing.skops"] = self.preprocessing
        return Archive("client", members)

    @classmethod
    def from_archive(cls, archive: Archive) -> ClientModel:
        """Read and check the members of client.zip, or raise ArtefactError."""
        try:
            description = archive.json("client.json")
            _check_description(description)
            is_regressor = description["estimator"] == "regressor"
            model = cls(
                description,
                archive.members["specs.json"],
                InputQuantizer(
                    int(description["n_network_features"]),
                    archive.array("input_feature.npy"),
                    archive.array("input_thresholds.npy"),
                ),
                OutputScaler(
                    archive.array("output_gain.npy"),
                    archive.array("output_bias.npy"),
                    archive.array("output_offset.npy"),
                ),
                archive.array("target_mean.npy") if is_regressor else None,
                archive.array("target_scale.npy") if is_regressor else None,
                archive.members.get("preprocessing.skops"),
            )
            for name in ("evaluation_keys", "ciphertext", "result"):
                model.frame(name)
            classes = model.classes
            specs = archive.json("specs.json")
        except ArtefactError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtefactError(
                f"client.zip must hold a whole model. {error!r}. Export it again."
            ) from error
        n_outputs = len(model.scaler.gain)
        if classes is not None and classes.shape != (n_outputs,):
            raise ArtefactError(f"{n_outputs} outputs need as many classes. Got {len(classes)}.")
        check_security(specs)
        return model


def _check_description(description: dict[str, Any]) -> None:
    kinds = ("classifier", "regressor")
    if description["estimator"] not in kinds:
        raise ArtefactError(f"estimator must be one of {kinds}. Got {description['estimator']!r}.")
    if (description["classes"] is None) != (description["estimator"] == "regressor"):
        raise ArtefactError("A classifier needs classes, and a regressor has none.")
    if description["probabilities"] not in ("softmax", "identity", None):
        raise ArtefactError(
            "probabilities must be softmax, identity or null. "
            f"Got {description['probabilities']!r}."
        )
    if not (isinstance(description["batch_size"], int) and description["batch_size"] >= 1):
        raise ArtefactError(f"batch_size must be at least 1. Got {description['batch_size']!r}.")


@dataclass(frozen=True)
class ServerModel:
    """What a server knows of a model: the circuit, and what it hands to clients.

    Parameters
    ----------
    description : dict
        What ``server.json`` holds.
    circuit : bytes
        The engine's MLIR, with the weights and tables.
    program : bytes
        The same network as a cipherlearn program, which needs no particular engine.
    client : Archive
    """

    description: dict[str, Any]
    circuit: bytes
    program: bytes
    client: Archive

    def to_archive(self) -> Archive:
        """Write the members of server.zip."""
        members = {
            "server.json": json_bytes(self.description),
            "circuit.mlir": self.circuit,
            "program.zip": self.program,
            "client.zip": self.client.to_bytes(),
        }
        return Archive("server", members)

    @classmethod
    def from_archive(cls, archive: Archive) -> ServerModel:
        """Read and check the members of server.zip, or raise ArtefactError."""
        try:
            model = cls(
                archive.json("server.json"),
                archive.members["circuit.mlir"],
                archive.members["program.zip"],
                Archive.from_bytes(archive.members["client.zip"], "client"),
            )
            probability = model.description["error_probability"]
            for name in ("p_error", "global_p_error"):
                if probability[name] is not None and not 0 < probability[name] < 1:
                    raise ArtefactError(f"{name} must be null or in (0, 1). Got {probability!r}.")
            ClientModel.from_archive(model.client)
        except ArtefactError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"server.zip must hold a whole model. {error!r}. Export it again."
            ) from error
        return model
