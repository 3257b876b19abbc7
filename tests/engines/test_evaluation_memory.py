"""The memory of an evaluation is bounded, whatever a program computes in between."""

# engine: concrete-python

from __future__ import annotations

import numpy as np
import pytest

from cipherlearn._exceptions import ArtefactError
from cipherlearn.engines.kernels import Parameters
from cipherlearn.engines.kernels._memory import plan_memory
from cipherlearn.engines.kernels._parameters import Gate
from cipherlearn.engines.kernels._steps import ConstantStep, SumStep

GATE = Gate(1, 16, 0, 1023, 13, False, True, 0.0)
PARAMETERS = Parameters((), (), (GATE,), (GATE,))


def add_up(*reads, n=2**12):
    """A step of 2**25 bytes a row, and nothing in weights."""
    return SumStep(reads, np.broadcast_to(np.int64(1), (n, 1)), np.zeros(n, np.uint64))


def test_values_in_between_count_for_the_rows_of_a_block():
    assert plan_memory([add_up(0, n=16)], [1], PARAMETERS)[0] == 2**10
    assert plan_memory([add_up(0), add_up(1, n=16)], [2], PARAMETERS)[0] == 2**2
    constant = ConstantStep(1023, np.zeros(2**13, np.uint64))
    assert plan_memory([constant, add_up(0, 1, n=16)], [2], PARAMETERS)[0] == 2


def test_a_value_is_kept_until_it_was_last_read():
    steps = [add_up(0), add_up(1), add_up(1, 2), None, add_up(3)]
    assert plan_memory(steps, [3, 5], PARAMETERS)[1] == [[0], [], [1, 2], [], []]


def test_a_row_that_needs_gigabytes_is_refused():
    chain = [add_up(i) for i in range(300)]
    assert plan_memory(chain, [300], PARAMETERS)[0] == 4
    fan = [add_up(0) for _ in range(300)]
    with pytest.raises(ArtefactError, match="one row must take at most 4294967296 bytes"):
        plan_memory([*fan, add_up(*range(1, 301), n=16)], [301], PARAMETERS)
