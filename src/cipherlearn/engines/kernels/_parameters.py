"""Cryptographic parameters of a circuit, checked before kernels use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cipherlearn._exceptions import ArtefactError

__all__ = ["BootstrapKey", "Gate", "KeyswitchKey", "Parameters"]

# Larger than the compiler ever chooses, and so small that no product of them overflows.
_MAX_DIMENSION = 2**17
_MAX_POLYNOMIALS = 2**10
_MIN_POLYNOMIAL_SIZE = 256
_MAX_ROWS = 2**20

# Bytes that a client counts for even without keys.
_CLIENT_BYTES = 1024


@dataclass(frozen=True)
class BootstrapKey:
    """Shape of a bootstrap key.

    Parameters
    ----------
    source, target : int
        Ids of the secret keys of ciphertexts before and after the bootstrap.
    n : int
        Dimension of ciphertexts before the bootstrap.
    polynomial_size, k : int
        Number of coefficients of a polynomial, and number of polynomials. The dimension after the
        bootstrap is ``k * polynomial_size``.
    levels, base_log : int
        Number of digits of the decomposition, and bits of a digit.
    seeded : bool
        Whether the key is sent as a seed and the words that are not random.
    """

    source: int
    target: int
    n: int
    polynomial_size: int
    k: int
    levels: int
    base_log: int
    seeded: bool

    @property
    def n_words(self) -> int:
        """Words of the whole key, and of its Fourier transform."""
        return self.n * self.levels * (self.k + 1) ** 2 * self.polynomial_size

    @property
    def n_sent(self) -> int:
        """Words that are sent."""
        return self.n_words // (self.k + 1) + 2 if self.seeded else self.n_words


@dataclass(frozen=True)
class KeyswitchKey:
    """Shape of a keyswitch key, in the terms of :class:`BootstrapKey`."""

    source: int
    target: int
    n_in: int
    n_out: int
    levels: int
    base_log: int
    seeded: bool

    @property
    def n_words(self) -> int:
        """Words of the whole key."""
        return self.n_in * self.levels * (self.n_out + 1)

    @property
    def n_sent(self) -> int:
        """Words that are sent."""
        return self.n_in * self.levels + 2 if self.seeded else self.n_words


@dataclass(frozen=True)
class Gate:
    """Type of an encrypted input or output.

    Parameters
    ----------
    batch_size, n_values : int
        Rows of a message, and ciphertexts of a row.
    key, dimension : int
        Id and dimension of the secret key.
    width : int
        Bits of a value: a message ``m`` is the word ``m << (63 - width)``.
    is_signed : bool
    seeded : bool
        Whether a ciphertext is sent as a seed and its body.
    variance : float
        Variance of the noise.
    """

    batch_size: int
    n_values: int
    key: int
    dimension: int
    width: int
    is_signed: bool
    seeded: bool
    variance: float

    @property
    def n_words(self) -> int:
        """Words of a ciphertext: a seed of two words, or the mask, and the body."""
        return 3 if self.seeded else self.dimension + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the words of a message."""
        return self.batch_size, self.n_values, self.n_words


@dataclass(frozen=True)
class Parameters:
    """Cryptographic parameters of a circuit: keys, encrypted inputs and outputs.

    Examples
    --------
    >>> from cipherlearn.engines.kernels import Parameters
    >>> Parameters.from_specs(b"{}")
    Traceback (most recent call last):
        ...
    cipherlearn._exceptions.ArtefactError: ...
    """

    bootstrap_keys: tuple[BootstrapKey, ...]
    keyswitch_keys: tuple[KeyswitchKey, ...]
    inputs: tuple[Gate, ...]
    outputs: tuple[Gate, ...]

    @classmethod
    def from_specs(cls, specs: bytes) -> Parameters:
        """Parse the "specs.json" of a circuit's ``files()``.

        Raises
        ------
        ArtefactError
            If it does not describe a circuit that the kernels can evaluate.
        """
        try:
            given = json.loads(specs)
            keyset = given["keyset"]
            dimensions = {key["id"]: _dimension(key["params"]) for key in keyset["lweSecretKeys"]}
            (circuit,) = given["circuits"]
            if keyset["packingKeyswitchKeys"]:
                raise ValueError("packing keyswitch keys are not supported")
            return cls(
                tuple(_bootstrap_key(key, dimensions) for key in keyset["lweBootstrapKeys"]),
                tuple(_keyswitch_key(key, dimensions) for key in keyset["lweKeyswitchKeys"]),
                tuple(_gate(gate, dimensions) for gate in circuit["inputs"]),
                tuple(_gate(gate, dimensions) for gate in circuit["outputs"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ArtefactError(
                "Cryptographic parameters must describe one circuit that Concrete's kernels can "
                f"evaluate. Got some that do not: {error!r:.300}. Export the model again."
            ) from error

    @property
    def key_bytes(self) -> int:
        """Bytes of memory that a client's loaded evaluation keys take."""
        return _CLIENT_BYTES + 8 * sum(shape.n_words for shape in self.key_shapes)

    @property
    def sent_bytes(self) -> int:
        """Bytes of a client's evaluation keys, as they are sent."""
        return 8 * sum(shape.n_sent for shape in self.key_shapes)

    @property
    def key_shapes(self) -> tuple[BootstrapKey | KeyswitchKey, ...]:
        """Shapes of all evaluation keys."""
        return (*self.bootstrap_keys, *self.keyswitch_keys)


def _bootstrap_key(key: dict[str, Any], dimensions: dict[int, int]) -> BootstrapKey:
    params = _native(key["params"])
    size = _integer(params, "polynomialSize", _MIN_POLYNOMIAL_SIZE, _MAX_DIMENSION)
    if size & (size - 1):
        raise ValueError(f"polynomialSize must be a power of two, got {size}")
    k = _integer(params, "glweDimension", 1, _MAX_POLYNOMIALS)
    n = _integer(params, "inputLweDimension", 1, _MAX_DIMENSION)
    if (n, k * size) != (dimensions[key["inputId"]], dimensions[key["outputId"]]):
        raise ValueError(f"dimensions {n} and {k} * {size} are not those of the secret keys")
    decomposition = _decomposition(params)
    return BootstrapKey(key["inputId"], key["outputId"], n, size, k, *decomposition, _seeded(key))


def _keyswitch_key(key: dict[str, Any], dimensions: dict[int, int]) -> KeyswitchKey:
    params = _native(key["params"])
    n_in = _integer(params, "inputLweDimension", 1, _MAX_DIMENSION)
    n_out = _integer(params, "outputLweDimension", 1, _MAX_DIMENSION)
    if (n_in, n_out) != (dimensions[key["inputId"]], dimensions[key["outputId"]]):
        raise ValueError(f"dimensions {n_in} and {n_out} are not those of the secret keys")
    decomposition = _decomposition(params)
    return KeyswitchKey(key["inputId"], key["outputId"], n_in, n_out, *decomposition, _seeded(key))


def _gate(gate: dict[str, Any], dimensions: dict[int, int]) -> Gate:
    ciphertext = gate["typeInfo"]["lweCiphertext"]
    integer = ciphertext["encoding"]["integer"]
    encryption = _native(ciphertext["encryption"])
    if integer["mode"] != {"native": {}}:
        raise ValueError(f"only the native encoding is supported, got {integer['mode']}")
    batch_size, n_values = ciphertext["abstractShape"]["dimensions"]
    shape = {"batch_size": batch_size, "n_values": n_values}
    result = Gate(
        _integer(shape, "batch_size", 1, _MAX_ROWS),
        _integer(shape, "n_values", 1, _MAX_DIMENSION),
        encryption["keyId"],
        _integer(encryption, "lweDimension", 1, _MAX_DIMENSION),
        _integer(integer, "width", 1, 62),
        integer["isSigned"] is True,
        _seeded(ciphertext),
        float(encryption["variance"]),
    )
    if result.dimension != dimensions[result.key]:
        raise ValueError(f"dimension {result.dimension} is not that of the secret key")
    expected = list(result.shape)
    if ciphertext["concreteShape"]["dimensions"] != expected:
        raise ValueError(f"ciphertexts must have the shape {expected}")
    return result


def _decomposition(params: dict[str, Any]) -> tuple[int, int]:
    levels, base_log = _integer(params, "levelCount", 1, 63), _integer(params, "baseLog", 1, 63)
    if levels * base_log > 63:
        raise ValueError(f"{levels} levels of {base_log} bits are more than a word has")
    return levels, base_log


def _native(params: dict[str, Any]) -> dict[str, Any]:
    if params["modulus"] != {"modulus": {"native": {}}}:
        raise ValueError(f"the modulus must be 2**64, got {params['modulus']}")
    if params.get("integerPrecision", 64) != 64 or params.get("keyType", "binary") != "binary":
        raise ValueError("keys must be binary, in words of 64 bits")
    return params


def _seeded(value: dict[str, Any]) -> bool:
    if value["compression"] not in ("seed", "none"):
        raise ValueError(f"compression must be seed or none, got {value['compression']}")
    return bool(value["compression"] == "seed")


def _dimension(params: dict[str, Any]) -> int:
    return _integer(params, "lweDimension", 1, _MAX_DIMENSION)


def _integer(values: dict[str, Any], name: str, low: int, high: int) -> int:
    value = values[name]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r:.100}")
    return value
