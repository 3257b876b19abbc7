"""A test that fails after it has run a circuit, by which .ci/run proves that it would notice."""

import pytest
from cases import TINY, blobs

from cipherlearn import NeuralNetClassifier


@pytest.mark.alone
def test_that_fails():
    X, y = blobs()
    clf = NeuralNetClassifier(**TINY).fit(X, y)
    clf.compile()
    assert clf.predict(X[:1], execute_in_fhe=True) == ["neither"]
