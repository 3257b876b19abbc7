"""Encrypted batches on joblib's workers, some of which die."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import contextlib
import copy
import logging
import os
import signal

import joblib
import numpy as np
import pytest
from cases import TINY, blobs, needs_concrete_python
from dask.distributed import Client, LocalCluster
from joblib.parallel import ThreadingBackend
from sklearn.model_selection import GridSearchCV, cross_val_score

from cipherlearn import NeuralNetClassifier, make_fhe_scorer
from cipherlearn._exceptions import CompilationError
from cipherlearn.circuit._joblib import Evaluation, _evaluate, _read, evaluate_batches
from cipherlearn.engines._options import CompileOptions

pytestmark = [
    needs_concrete_python("has no serialized circuits"),
    # loky on workers that stop, and dask on those that are slow to close.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def rows():
    return blobs(3)


@pytest.fixture(scope="module")
def clf(rows):
    clf = NeuralNetClassifier(**TINY).fit(*rows)
    clf.compile(batch_size=2)
    return clf


@contextlib.contextmanager
def two_workers():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster, Client(cluster) as dask:
        yield dask


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as dask:
        yield dask


@pytest.fixture
def doomed():
    """A cluster of its own, since dask does not always replace a worker that was killed."""
    with two_workers() as dask:
        yield dask


def assert_same(clf, X, **params):
    encrypted = clf.predict_proba(X, execute_in_fhe=True, **params)
    np.testing.assert_array_equal(encrypted, clf.predict_proba(X))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblibs_backends_predict_what_one_process_does(backend, clf, rows):
    with joblib.parallel_config(backend=backend):
        # The last batch is not full.
        assert_same(clf, rows[0][:7], n_jobs=2)


def test_results_of_processes_come_in_files(clf, rows, monkeypatch):
    # loky waits for ever for the rest of a long message of a worker that was killed.
    files = []
    monkeypatch.setattr(
        "cipherlearn.circuit._joblib._read", lambda path: files.append(path) or _read(path)
    )
    with joblib.parallel_config(backend="loky"):
        assert_same(clf, rows[0][:7], n_jobs=2)
    assert len(files) == 4
    assert not any(path.exists() or path.parent.exists() for path in files)


class InRounds(ThreadingBackend):
    """A backend that gives all results at the end, such as Ray's."""

    supports_return_generator = False


def test_a_backend_that_gives_results_at_the_end_is_asked_in_rounds(clf, rows, monkeypatch):
    monkeypatch.setattr("cipherlearn.circuit._joblib._CALLS_PER_JOB", 1)
    joblib.register_parallel_backend("in rounds", InRounds)
    with joblib.parallel_config(backend="in rounds", n_jobs=2):
        assert_same(clf, rows[0][:11])


def test_a_backend_that_forks_is_refused(clf, rows):
    with (
        joblib.parallel_config(backend="multiprocessing", n_jobs=2),
        pytest.raises(ValueError, match='Use "loky"'),
    ):
        clf.predict(rows[0][:3], execute_in_fhe=True)


def test_rows_are_counted_as_they_come(clf, rows, capsys):
    clf.circuit_.execute(clf.program_.quantize(rows[0][:7]), verbose=1, n_jobs=2)
    assert "Encrypted rows: 100%, 7/7" in capsys.readouterr().err


def test_a_cluster_predicts_what_one_process_does(clf, rows, cluster):
    with joblib.parallel_config(backend="dask"):
        assert_same(clf, rows[0][:9])
        assert_same(clf, rows[0][:9])


def test_a_cluster_compiles_once_and_gets_keys_once_per_worker(clf, rows, cluster):
    with joblib.parallel_config(backend="dask"):
        assert_same(clf, rows[0][:12])
        cluster.run(_count_openings)
        received = cluster.run(lambda dask_worker: _bytes_received(dask_worker))
        assert_same(clf, rows[0][:12])
    assert set(cluster.run(_openings).values()) == {0}
    for worker, n_bytes in cluster.run(lambda dask_worker: _bytes_received(dask_worker)).items():
        assert n_bytes - received[worker] < len(clf.circuit_.evaluation_keys())


def kill_after(n_results, pids, circuit, monkeypatch):
    """Kill processes once so many results have come, when workers have what was sent to them."""
    decrypt, results = circuit.decrypt, []

    def decrypt_and_kill(result):
        results.append(result)
        if len(results) == n_results:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        return decrypt(result)

    monkeypatch.setattr(circuit, "decrypt", decrypt_and_kill)


def test_a_killed_worker_of_a_cluster_loses_no_row(clf, rows, doomed, monkeypatch):
    X = np.tile(rows[0], (2, 1))
    before = set(doomed.run(os.getpid).values())
    kill_after(4, [min(before)], clf.circuit_, monkeypatch)
    with joblib.parallel_config(backend="dask"):
        assert_same(clf, X)
    assert min(before) not in doomed.run(os.getpid).values()


def test_keys_lost_with_the_workers_that_had_them_are_sent_again(clf, rows, doomed, monkeypatch):
    X = np.tile(rows[0], (2, 1))
    clf.circuit_.keygen(force=True)
    before = set(doomed.run(os.getpid).values())
    kill_after(20, before, clf.circuit_, monkeypatch)
    with joblib.parallel_config(backend="dask"):
        assert_same(clf, X)
    assert before.isdisjoint(doomed.run(os.getpid).values())


def test_searches_and_encrypted_scores_run_on_a_cluster(rows, cluster):
    linear = NeuralNetClassifier(**{**TINY, "module__n_layers": 1})
    with joblib.parallel_config(backend="dask"):
        search = GridSearchCV(linear, {"lr": [0.01, 0.03]}, cv=2, error_score="raise").fit(*rows)
        scorer = make_fhe_scorer(max_rows=4, random_state=0)
        scores = cross_val_score(linear, *rows, cv=2, scoring=scorer, error_score="raise")
    assert search.best_score_ > 0.7
    assert scores.shape == (2,)


@pytest.mark.parametrize("runtime", ["kernels", "compiled"])
def test_workers_evaluate_on_either_runtime(clf, rows, runtime):
    circuit = copy.deepcopy(clf).compile(runtime=runtime)
    assert circuit.runtime == runtime
    codes = circuit.program.quantize(rows[0][:5])
    expected = circuit.program.run(codes)
    np.testing.assert_array_equal(circuit.execute(codes), expected)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        np.testing.assert_array_equal(circuit.execute(codes), expected)


def test_a_killed_process_loses_no_row(clf, rows, monkeypatch):
    X = np.tile(rows[0], (2, 1))
    with joblib.parallel_config(backend="loky", n_jobs=2):
        pids = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(20))
        kill_after(4, pids[:1], clf.circuit_, monkeypatch)
        assert_same(clf, X)


def test_workers_get_no_secret_key(clf, rows, monkeypatch):
    given = []
    monkeypatch.setattr(
        "cipherlearn.circuit._joblib._evaluate",
        lambda *call: given.append(call) or _evaluate(*call),
    )
    with joblib.parallel_config(backend="threading", n_jobs=2):
        clf.circuit_._keys._for_workers = None
        assert_same(clf, rows[0][:3])
    secret = _secret_key(clf)
    assert secret in clf.circuit_._compiled().client.secret_keys()
    for _, ciphertexts, _, data, _ in given:
        assert secret not in b"".join(ciphertexts)
        assert data is None or secret not in data.tobytes()
    assert any(data is not None for *_, data, _ in given)


def test_a_worker_that_cannot_evaluate_is_an_error_and_not_a_retry(clf):
    files = clf.circuit_.files()
    other = {**files, "specs.json": files["specs.json"].replace(b"0", b"1", 1)}
    options = CompileOptions(runtime="compiled")
    evaluation = Evaluation(clf.program_, other, options, b"")
    with (
        joblib.parallel_config(backend="threading", n_jobs=2),
        pytest.raises(CompilationError, match="same version of concrete-python"),
    ):
        list(evaluate_batches(lambda number: [b""], 3, evaluation, None))


def test_an_error_of_encryption_is_raised(clf):
    def encrypt(number):
        raise ArithmeticError("no noise")

    evaluation = Evaluation(clf.program_, clf.circuit_.files(), CompileOptions(), b"")
    with pytest.raises(ArithmeticError, match="no noise"):
        list(evaluate_batches(encrypt, 3, evaluation, 2))


def test_workers_that_always_die_are_given_up(clf, monkeypatch):
    # Not by its name, for which workers would import this file.
    die = lambda *call: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    monkeypatch.setattr("cipherlearn.circuit._joblib._evaluate", die)
    monkeypatch.setattr("cipherlearn.circuit._joblib._MAX_FAILURES", 1)
    evaluation = Evaluation(clf.program_, {}, CompileOptions(), b"")
    with pytest.raises(joblib.externals.loky.process_executor.TerminatedWorkerError):
        list(evaluate_batches(lambda number: [b""], 2, evaluation, 2))


def _secret_key(clf) -> bytes:
    """Part of the largest secret key, as it is serialized."""
    everything = clf.circuit_._compiled().client.secret_keys()
    shared = clf.circuit_.evaluation_keys()
    # Secret keys come first. What evaluation keys begin with, and zeros, are structure.
    parts = (everything[i : i + 64] for i in range(1000, len(everything), 64))
    return next(part for part in parts if part not in shared and len(set(part)) > 16)


def _count_openings() -> None:
    from cipherlearn.engines.concrete_python import server

    open_server = server.open_server
    server.n_opened = 0

    def count(*args, **kwargs):
        server.n_opened += 1
        return open_server(*args, **kwargs)

    server.open_server = count


def _openings() -> int:
    from cipherlearn.engines.concrete_python import server

    return server.n_opened


def _bytes_received(dask_worker) -> int:
    return sum(event["total"] for event in dask_worker.transfer_incoming_log)
