"""Settings of every test run."""

from pathlib import Path

import pytest
from hypothesis import settings

from cipherlearn.engines import engine_name

# The same examples on every machine.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("fixed")

# Pages whose examples time circuits.
TIMED = {
    Path(__file__).parent / "docs" / page
    for page in ("how_to/make_it_faster.rst", "user_guide/latency.rst")
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Let nothing run beside what measures time, be it a page."""
    for item in items:
        if item.path in TIMED:
            item.add_marker("alone")


if engine_name() == "concrete-python":
    collect_ignore = ["src/cipherlearn/engines/concrete_numpy.py"]
else:
    collect_ignore_glob = [
        "src/cipherlearn/engines/concrete_python/*",
        # Deployment needs the successor.
        "src/cipherlearn/deployment/*",
        "tests/serving.py",
        # Cards need skops, notebooks jupytext, and the metadata promises the successor.
        "src/cipherlearn/inspection/_card.py",
        "tests/notebooks.py",
        "src/cipherlearn/estimators/_base.py",
        *(
            f"tests/test_{name}*.py"
            for name in (
                *("artefacts", "card", "cli", "composition", "deployment", "messages", "notebooks"),
                *("invalid_input", "packaging", "persistence", "service", "workers"),
            )
        ),
        # The same with any engine.
        "tests/test_docs.py",
        "tests/test_inspection.py",
        "src/cipherlearn/inspection/*",
        # Their networks have sums of up to 8 bits, whose keys take many minutes here.
        "tests/test_examples.py",
        "tests/test_readme.py",
        "src/cipherlearn/estimators/_classifier.py",
        "docs/faq.rst",
        "docs/how_to/*",
        "docs/index.rst",
        "docs/migration.rst",
        "docs/quickstart.rst",
        "docs/user_guide/accumulators.rst",
        "docs/user_guide/deployment.rst",
        "docs/user_guide/encrypted_prediction.rst",
        "docs/user_guide/latency.rst",
        "docs/user_guide/scikit_learn.rst",
    ]
