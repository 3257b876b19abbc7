"""Networks and circuits that the tests of circuits share."""

from __future__ import annotations

import pytest
from cases import LINEAR, TINY, classes, linear_program

from cipherlearn import Circuit, NeuralNetClassifier


@pytest.fixture(scope="session")
def sum_of_four():
    """The circuit of a sum of four 2-bit codes."""
    return Circuit(linear_program([1, 1, 1, 1]), [8])


@pytest.fixture(scope="session")
def compiled():
    """A classifier with keys. Tests that share it must not change it."""
    X, y = classes()
    clf = NeuralNetClassifier(**TINY, module__n_components=0).fit(X, y)
    clf.compile().keygen()
    return clf


@pytest.fixture(scope="session")
def fitted_linear():
    X, y = classes()
    return NeuralNetClassifier(**LINEAR).fit(X, y)
