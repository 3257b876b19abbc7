"""Check of the cryptographic parameters in a client's artefact."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from cipherlearn._exceptions import ArtefactError
from cipherlearn._guarded_zip import json_from
from cipherlearn.deployment.artefacts._archive import json_bytes
from cipherlearn.engines.kernels import Parameters

__all__ = ["read_specs"]

# The smallest noise that hides a message for 128 bits of security at binary keys of n bits and a
# modulus of 2**64: log2(standard deviation / modulus) = slope * n + intercept. Concrete's curve,
# fitted to the Lattice Estimator (https://github.com/zama-ai/concrete, tools/parameter-curves).
_SLOPE, _INTERCEPT = -0.025696778711484593, 2.675931372549016

# The curve holds from here on. No circuit needs more than the largest.
_MIN_DIMENSION, _MAX_DIMENSION = 450, 2**20

# Noise of a quarter of the modulus hides everything from everybody. More may wrap to none.
_LARGEST_NOISE = -2.0

# Rounding of the variance on its way through JSON.
_TOLERANCE = 1e-6

# Evaluation keys, ready for use, and what is encrypted at a time. Keys for tables of 8 bits take
# 3.5 GB, and minutes to make.
_MAX_KEY_BYTES, _MAX_ROW_BYTES, _MAX_MESSAGE_BYTES = 1 << 32, 1 << 31, 1 << 27

# Names of functions, as the engine's front end gives them.
_NAME = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)

_NATIVE: dict[str, Any] = {"modulus": {"native": {}}}


def read_specs(
    raw: bytes, input_sizes: Sequence[int], output_sizes: Sequence[int], batch_size: int
) -> bytes:
    """Return specs that are safe to give to the engine, or raise ArtefactError.

    Only what is understood here reaches the engine: the specs are written anew from fields that
    were checked, and must say nothing else. All that a client encrypts must be 128 bits secure. An
    artefact from a hostile server could otherwise name parameters that hide nothing, on which the
    engine aborts, or with which it never ends.
    """
    try:
        given = json_from(raw)
        dimensions = [_dimension(key) for key in given["keyset"]["lweSecretKeys"]]
        (circuit,) = given["circuits"]

        def gates(side: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
            return [
                _gate(gate, [batch_size, size], dimensions)
                for gate, size in zip(circuit[side], sizes, strict=True)
            ]

        rewritten = {
            "keyset": _keyset(given["keyset"], dimensions),
            "circuits": [
                {
                    "name": _name(circuit["name"]),
                    "inputs": gates("inputs", input_sizes),
                    "outputs": gates("outputs", output_sizes),
                }
            ],
        }
    except ArtefactError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtefactError(
            f"The cryptographic parameters of an artefact must describe one circuit. {error!r}."
        ) from error
    if rewritten != given:
        raise ArtefactError(
            "The cryptographic parameters of an artefact must fit each other and its model, and "
            "hold nothing else. These do not. Do not use it: whoever made it could read what you "
            "encrypt."
        )
    specs = json_bytes(rewritten)
    parameters = Parameters.from_specs(specs)
    _check_sizes(parameters)
    # Nothing bounds the sizes of others.
    named = {gate.key for gate in (*parameters.inputs, *parameters.outputs)}
    named.update(*((key.source, key.target) for key in parameters.key_shapes))
    if len(named) != len(dimensions):
        raise ArtefactError(
            f"Each secret key of an artefact must have a use. Of {len(dimensions)} keys "
            f"{len(dimensions) - len(named)} have none. Export the model again."
        )
    return specs


def _check_sizes(parameters: Parameters) -> None:
    """Bound the time and memory of making keys, and the sizes of ciphertexts and messages."""
    gates = (parameters.inputs, parameters.outputs)
    rows = (8 * sum(g.n_values * (g.dimension + 1) for g in side) for side in gates)
    messages = (8 * sum(g.batch_size * g.n_values * g.n_words for g in side) for side in gates)
    for what, n_bytes, most in (
        ("evaluation keys", parameters.key_bytes, _MAX_KEY_BYTES),
        ("a row's ciphertexts", max(rows), _MAX_ROW_BYTES),
        ("a batch's message", max(messages), _MAX_MESSAGE_BYTES),
    ):
        if n_bytes > most:
            raise ArtefactError(
                f"The parameters of an artefact must leave {what} within {most} bytes. These ask "
                f"for {n_bytes}. Use fewer bits, features or rows a batch."
            )


def _keyset(keyset: dict[str, Any], dimensions: list[int]) -> dict[str, Any]:
    return {
        "lweSecretKeys": [
            {"id": i, "params": _key_type(dimension)} for i, dimension in enumerate(dimensions)
        ],
        "lweBootstrapKeys": [
            _bootstrap_key(i, key, dimensions) for i, key in enumerate(keyset["lweBootstrapKeys"])
        ],
        "lweKeyswitchKeys": [
            _keyswitch_key(i, key, dimensions) for i, key in enumerate(keyset["lweKeyswitchKeys"])
        ],
        "packingKeyswitchKeys": [],
    }


def _key_type(dimension: int) -> dict[str, Any]:
    return {"lweDimension": dimension, "integerPrecision": 64, "keyType": "binary"}


def _bootstrap_key(i: int, key: dict[str, Any], dimensions: list[int]) -> dict[str, Any]:
    source, target = _index(key["inputId"], dimensions), _index(key["outputId"], dimensions)
    size = _integer(key["params"]["polynomialSize"], 1, _MAX_DIMENSION)
    return {
        "id": i,
        "inputId": source,
        "outputId": target,
        "params": {
            **_decomposition(key, dimensions[target]),
            "glweDimension": dimensions[target] // size,
            "polynomialSize": size,
            "inputLweDimension": dimensions[source],
        },
        "compression": _compression(key),
    }


def _keyswitch_key(i: int, key: dict[str, Any], dimensions: list[int]) -> dict[str, Any]:
    source, target = _index(key["inputId"], dimensions), _index(key["outputId"], dimensions)
    return {
        "id": i,
        "inputId": source,
        "outputId": target,
        "params": {
            **_decomposition(key, dimensions[target]),
            "inputLweDimension": dimensions[source],
            "outputLweDimension": dimensions[target],
        },
        "compression": _compression(key),
    }


def _decomposition(key: dict[str, Any], dimension: int) -> dict[str, Any]:
    return {
        "levelCount": _integer(key["params"]["levelCount"], 1, 63),
        "baseLog": _integer(key["params"]["baseLog"], 1, 63),
        "variance": _variance(key["params"]["variance"], dimension),
        "integerPrecision": 64,
        "modulus": _NATIVE,
        "keyType": "binary",
    }


def _gate(gate: dict[str, Any], shape: list[int], dimensions: list[int]) -> dict[str, Any]:
    ciphertext = gate["typeInfo"]["lweCiphertext"]
    encryption, integer = ciphertext["encryption"], ciphertext["encoding"]["integer"]
    key = _index(encryption["keyId"], dimensions)
    compression = _compression(ciphertext)
    # A seed of two words and the body; or the mask and the body.
    concrete = [*shape, 3 if compression == "seed" else dimensions[key] + 1]
    return {
        "rawInfo": {
            "shape": {"dimensions": concrete},
            "integerPrecision": 64,
            "isSigned": False,
        },
        "typeInfo": {
            "lweCiphertext": {
                "abstractShape": {"dimensions": shape},
                "concreteShape": {"dimensions": concrete},
                "integerPrecision": 64,
                "encryption": {
                    "keyId": key,
                    "variance": _variance(encryption["variance"], dimensions[key]),
                    "lweDimension": dimensions[key],
                    "modulus": _NATIVE,
                },
                "compression": compression,
                "encoding": {
                    "integer": {
                        "width": _integer(integer["width"], 1, 64),
                        "isSigned": integer["isSigned"] is True,
                        "mode": {"native": {}},
                    }
                },
            }
        },
    }


def _dimension(key: dict[str, Any]) -> int:
    return _integer(key["params"]["lweDimension"], 1, _MAX_DIMENSION)


def _integer(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"expected an integer from {low} to {high}, got {value!r:.100}")
    return value


def _index(value: Any, dimensions: list[int]) -> int:
    return _integer(value, 0, len(dimensions) - 1)


def _name(value: Any) -> str:
    if type(value) is not str or not _NAME.fullmatch(value):
        raise ValueError(f"expected the name of a function, got {value!r:.100}")
    return value


def _compression(value: dict[str, Any]) -> str:
    return "seed" if value["compression"] == "seed" else "none"


def _variance(variance: Any, dimension: int) -> float:
    """Return the variance of an encryption under a key, if it gives 128 bits of security."""
    if type(variance) is not float:
        raise ValueError(f"expected a variance, got {variance!r:.100}")
    needed = _SLOPE * dimension + _INTERCEPT
    noise = 0.5 * math.log2(variance) if variance > 0 else -math.inf
    if dimension < _MIN_DIMENSION or not needed - _TOLERANCE <= noise <= _LARGEST_NOISE:
        raise ArtefactError(
            "The parameters of an artefact must give 128 bits of security. Keys of dimension "
            f"{dimension} need noise from 2**{needed:.2f} to 2**{_LARGEST_NOISE:.0f}, and at least "
            f"dimension {_MIN_DIMENSION}. Got 2**{noise:.2f}. Do not use it: whoever made it could "
            "read what you encrypt."
        )
    return variance
