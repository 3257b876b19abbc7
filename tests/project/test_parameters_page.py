"""The page that lists parameters, beside the estimators' own defaults."""

# The same with any engine.
# engine: concrete-python

import ast
import re
from pathlib import Path

import pytest

from cipherlearn import NeuralNetClassifier

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "choose_parameters.rst"
_, TABLE = PAGE.read_text("utf-8").split("   * - Parameter and default\n")
STATED = dict(
    stated.split("=", 1)
    for names in re.findall(r"^   \* - (``.*``.*)$", TABLE, re.MULTILINE)
    for stated in re.findall(r"``([^`]*=[^`]*)``", names)
)


@pytest.mark.parametrize("name", STATED)
def test_the_page_states_the_default(name):
    value = NeuralNetClassifier().get_params()[name]
    if isinstance(value, type):
        assert STATED[name] == f"torch.{value.__module__.split('.')[1]}.{value.__name__}"
    else:
        assert ast.literal_eval(STATED[name]) == value
