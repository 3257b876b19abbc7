"""Words for numbers with units, shared by reports, pictures and reprs."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["bootstraps", "count", "neurons", "of_trained", "power", "size"]


def count(number: int, what: str) -> str:
    """Write a number with its noun, in the singular or plural.

    Examples
    --------
    >>> from cipherlearn._words import count
    >>> count(1, "bit"), count(2, "bit")
    ('1 bit', '2 bits')
    >>> count(2, "class")
    '2 classes'
    """
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number} {what}{ending}"


def of_trained(n_neurons: int, n_trained: int) -> str:
    """Count the neurons in a program, of those that were trained.

    Examples
    --------
    >>> from cipherlearn._words import of_trained
    >>> of_trained(29, 32), of_trained(32, 32)
    ('29 of 32', '32')
    """
    return str(n_neurons) if n_neurons == n_trained else f"{n_neurons} of {n_trained}"


def neurons(n_neurons: int, n_trained: int) -> str:
    """Name the neurons that :func:`of_trained` counts.

    Examples
    --------
    >>> from cipherlearn._words import neurons
    >>> neurons(29, 32), neurons(1, 1)
    ('29 of 32 neurons', '1 neuron')
    """
    return f"{of_trained(n_neurons, n_trained)} {'neuron' if n_trained == 1 else 'neurons'}"


def bootstraps(n_lookups: int, table_bits: Iterable[int], n_rounding: int = 0) -> str:
    """Count the bootstraps of an encrypted row.

    Parameters
    ----------
    n_lookups : int
        Table lookups, one for each hidden neuron in the program.
    table_bits : iterable of int
        Bit-widths of the lookup tables of each hidden layer.
    n_rounding : int, default=0
        Further bootstraps, for exact rounding.

    Examples
    --------
    >>> from cipherlearn._words import bootstraps
    >>> bootstraps(28, [5])
    '28 bootstraps of 5 bits a row'
    >>> bootstraps(14, [5, 4], 28)
    '14 bootstraps of 4 and 5 bits a row, and 28 of 1 bit for exact rounding'
    """
    if n_lookups == 0:
        return "no bootstraps"
    *others, most = sorted(set(table_bits))
    bits = " and ".join([*map(str, others), count(most, "bit")])
    rounding = f", and {n_rounding} of 1 bit for exact rounding" if n_rounding else ""
    return f"{count(n_lookups, 'bootstrap')} of {bits} a row{rounding}"


def power(probability: float) -> str:
    """Write a probability, as a power of two if it is one.

    Examples
    --------
    >>> from cipherlearn._words import power
    >>> power(2**-40), power(0.01)
    ('2⁻⁴⁰', '0.01')
    """
    exponent = math.log2(probability)
    if exponent.is_integer() and exponent < -3:
        digits = str(int(-exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"2⁻{digits}"
    return f"{probability:.2g}"


def size(n_bytes: int) -> str:
    """Write a number of bytes in MB or kB.

    Examples
    --------
    >>> from cipherlearn._words import size
    >>> size(864), size(33_048), size(25_346_400)
    ('0.9 kB', '33.0 kB', '25 MB')
    """
    return f"{n_bytes / 1e3:.1f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:.0f} MB"
