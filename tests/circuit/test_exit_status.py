"""A process that has run a circuit ends with its own exit status."""

import pickle
import subprocess
import sys
import textwrap

import pytest
from cases import needs_concrete_python

from cipherlearn import NeuralNetClassifier

pytestmark = needs_concrete_python("is what changes the status, and has serialized circuits")

# By the client and the server, which import no torch and start faster.
PREDICT = """
import sys, threading
from cipherlearn.deployment import FHEClient, FHEServer

def predict():
    server, client = FHEServer("server.zip"), FHEClient("client.zip")
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    client.predict([[0.0]], server.evaluate)

"""

ESTIMATOR = """
import pickle, sys
with open("model.pkl", "rb") as file:
    clf = pickle.load(file)

"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from cipherlearn.deployment import export

    folder = tmp_path_factory.mktemp("exit_status")
    clf = NeuralNetClassifier(
        module__n_hidden_neurons=2,
        module__n_hidden_accum_bits=3,
        module__n_output_accum_bits=4,
        max_epochs=2,
        random_state=0,
    ).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    clf.compile()
    export(clf, folder)
    (folder / "model.pkl").write_bytes(pickle.dumps(clf))
    return folder


def run(folder, code, *command):
    (folder / "script.py").write_text(code)
    arguments = [sys.executable, *(command or ["script.py"])]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("predict()", 0),
        ("predict(); sys.exit(3)", 3),
        ("predict(); raise OSError('uncaught')", 1),
        # A thread that outlives the main one.
        ("threading.Thread(target=predict).start(); sys.exit(3)", 3),
    ],
)
def test_a_prediction_leaves_the_exit_status_alone(folder, ending, status):
    result = run(folder, PREDICT + ending)
    assert result.returncode == status, result.stderr
    assert ("OSError: uncaught" in result.stderr) == (status == 1)


def test_an_estimator_and_its_workers_leave_the_exit_status_alone(folder):
    ending = "clf.predict([[0.0], [3.0]], execute_in_fhe=True, n_jobs=2); sys.exit(3)"
    result = run(folder, ESTIMATOR + "if __name__ == '__main__':\n    " + ending)
    assert result.returncode == 3, result.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_end_with_their_own_status(folder, method):
    code = f"""
    def work():
        exec({PREDICT!r}, globals())
        predict()
        raise SystemExit(3)

    if __name__ == "__main__":
        import multiprocessing
        context = multiprocessing.get_context({method!r})
        worker = context.Process(target=work)
        worker.start()
        worker.join()
        raise SystemExit(worker.exitcode + 1)
    """
    result = run(folder, textwrap.dedent(code))
    assert result.returncode == 4, result.stderr


def test_pytest_reports_a_failed_test_by_its_status(folder):
    test = "def test_wrong():\n    assert clf.predict([[0.0]], execute_in_fhe=True) == 2"
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "script.py")
    result = run(folder, ESTIMATOR + test, *command)
    assert result.returncode == 1, result.stdout
    assert "1 failed" in result.stdout
