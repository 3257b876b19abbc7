"""Outputs become the same predictions wherever they are decoded."""

import numpy as np
import pytest

from cipherlearn.program._decoder import LabelDecoder, TargetDecoder


@pytest.mark.parametrize("n_classes", [2, 3, 9, 40])
def test_probabilities_depend_on_nothing_but_their_row(n_classes):
    outputs = np.random.default_rng(0).normal(scale=5, size=(50, n_classes)).astype(np.float32)
    decoder = LabelDecoder(np.arange(n_classes), "softmax")
    probabilities = decoder.probabilities(outputs)
    np.testing.assert_array_equal(decoder.probabilities(np.asfortranarray(outputs)), probabilities)
    by_row = np.vstack([decoder.probabilities(row[None, :]) for row in outputs])
    np.testing.assert_array_equal(by_row, probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-14)


def test_the_largest_outputs_are_no_overflow():
    outputs = np.array([[3e38, 0.0], [0.0, 0.0]], dtype=np.float32)
    probabilities = LabelDecoder(np.arange(2), "softmax").probabilities(outputs)
    assert probabilities.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_decoding_leaves_outputs_as_they_are():
    outputs = np.array([[0.25, 0.75]])
    probabilities = LabelDecoder(np.arange(2), "identity").probabilities(outputs)
    assert probabilities.tolist() == outputs.tolist()
    assert not np.shares_memory(probabilities, outputs)


def test_outputs_without_a_rule_are_no_probabilities():
    with pytest.raises(AttributeError, match="outputs are no probabilities"):
        LabelDecoder(np.arange(2)).probabilities(np.zeros((1, 2), dtype=np.float32))


@pytest.mark.parametrize(("is_1d", "shape"), [(True, (3,)), (False, (3, 1))])
def test_targets_have_the_shape_of_the_training_targets(is_1d, shape):
    decoder = TargetDecoder(np.array([5.0]), np.array([2.0]), is_1d)
    assert decoder.predict(np.ones((3, 1), dtype=np.float32)).shape == shape
