"""The client's own check of the parameters that somebody else chose for its keys."""

from __future__ import annotations

import math
from typing import Any

from cipherlearn._exceptions import ArtefactError

__all__ = ["check_security"]

# The smallest noise that hides a message for 128 bits of security at binary keys of n bits and a
# modulus of 2**64: log2(standard deviation / modulus) = slope * n + intercept. Concrete's curve,
# fitted to the Lattice Estimator (https://github.com/zama-ai/concrete, tools/parameter-curves).
_SLOPE, _INTERCEPT = -0.025696778711484593, 2.675931372549016

# The curve holds from here on.
_MIN_DIMENSION = 450

# Rounding of the variance on its way through JSON.
_TOLERANCE = 1e-6


def check_security(specs: dict[str, Any]) -> None:
    """Raise ArtefactError unless everything that a client encrypts is 128 bits secure.

    An artefact from a careless or hostile server could otherwise name parameters under which
    the client's ciphertexts and keys hide nothing.
    """
    try:
        keyset = specs["keyset"]
        dimensions = {}
        for key in keyset["lweSecretKeys"]:
            dimensions[key["id"]] = int(key["params"]["lweDimension"])
            _check_type(key["params"])
        encrypted = []
        for name in ("lweBootstrapKeys", "lweKeyswitchKeys", "packingKeyswitchKeys"):
            for key in keyset[name]:
                _check_type(key["params"])
                encrypted.append((dimensions[key["outputId"]], key["params"]["variance"]))
        for circuit in specs["circuits"]:
            for gate in circuit["inputs"]:
                encryption = gate["typeInfo"]["lweCiphertext"]["encryption"]
                encrypted.append((dimensions[encryption["keyId"]], encryption["variance"]))
        for dimension, variance in encrypted:
            _check_noise(dimension, float(variance))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(
            f"The cryptographic parameters of an artefact must name keys and noise. {error!r}."
        ) from error


def _check_type(parameters: dict[str, Any]) -> None:
    if parameters["keyType"] != "binary" or parameters["integerPrecision"] != 64:
        raise ArtefactError(
            "Keys must be binary, with ciphertexts of 64-bit integers. Got "
            f"{parameters['keyType']!r} and {parameters['integerPrecision']!r} bits."
        )


def _check_noise(dimension: int, variance: float) -> None:
    needed = _SLOPE * dimension + _INTERCEPT
    noise = 0.5 * math.log2(variance) if variance > 0 else -math.inf
    if dimension < _MIN_DIMENSION or not noise >= needed - _TOLERANCE:
        raise ArtefactError(
            "The parameters of an artefact must give 128 bits of security. Keys of dimension "
            f"{dimension} need noise of at least 2**{needed:.2f}, and dimension "
            f"{_MIN_DIMENSION}. Got 2**{noise:.2f}. Do not use it: whoever made it could read "
            "what you encrypt."
        )
