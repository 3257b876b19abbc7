"""Sums become outputs exactly, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.program._decoder import OutputScaler

LARGEST = 2**62 - 1

TERMS = st.one_of(
    st.integers(-LARGEST, LARGEST),
    st.sampled_from([-LARGEST, 1 - LARGEST, -1, 0, 1, 2**53 + 1, LARGEST - 1, LARGEST]),
)


def scaler(offset, gain=1.0):
    return OutputScaler([gain], [0.0], np.array([offset]))


@given(TERMS, TERMS)
def test_a_sum_is_that_of_python(accumulator, offset):
    (output,) = scaler(offset)(np.array([[accumulator]]))[0]
    # float32 is the nearest to the exact sum, and to no wrapped one.
    assert output == np.array(accumulator + offset, dtype=np.int64).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32])
def test_narrow_sums_do_not_wrap(dtype):
    largest = np.iinfo(dtype).max
    (output,) = scaler(largest)(np.array([[largest]], dtype=dtype))[0]
    assert output == np.float32(2 * int(largest))


@pytest.mark.parametrize(
    "value",
    [LARGEST + 1, -LARGEST - 1, 2**63 - 1, -(2**63), np.uint64(2**63), np.uint64(2**64 - 1)],
)
def test_integers_whose_sum_could_wrap_are_refused(value):
    with pytest.raises(ValueError, match=r"below 2\*\*62|must fit int64"):
        scaler(value)
    with pytest.raises(ValueError, match=r"Accumulators must be below 2\*\*62"):
        scaler(0)(np.array([[value]]))


@pytest.mark.parametrize("accumulators", [[[0.5]], [[2**70]]])
def test_other_numbers_are_refused(accumulators):
    with pytest.raises(ValueError, match="Accumulators must be integers"):
        scaler(0)(accumulators)


def test_an_output_beyond_float32_is_refused():
    largest = float(np.finfo(np.float32).max)
    assert scaler(0, largest)(np.array([[1]])) == np.float32(largest)
    with pytest.raises(OverflowError, match="must fit float32"):
        scaler(0, largest)(np.array([[2]]))


def test_no_rows_give_no_outputs():
    assert scaler(0)(np.empty((0, 1), dtype=np.int64)).shape == (0, 1)
