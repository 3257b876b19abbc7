"""Progress is shown when it is asked for, and nothing is shown otherwise."""

from __future__ import annotations

import copy
import fcntl
import io
import os
import pickle
import pty
import re
import struct
import subprocess
import sys
import termios
from types import SimpleNamespace

import numpy as np
import pytest
from cases import TINY, blobs
from skorch.callbacks import Callback, Checkpoint

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier, _progress
from cipherlearn._progress import progress_bar, stage
from cipherlearn.circuit import _circuit_keys, _cost
from cipherlearn.model_selection import _search

LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8, "max_epochs": 5}


class Screen(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only tests let pass."""
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(_progress, "time", clock)
    return clock


def test_a_log_gets_whole_lines_and_no_control_characters(capsys):
    with progress_bar(3, "Rows", "row", verbose=1) as bar:
        bar.set_postfix({"loss": "0.5"}, refresh=False)
        for _ in range(3):
            bar.update()
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"Rows: 0%, 0/3 \[.*row/s\]\n(Rows: .*\n)?Rows: 100%, 3/3 \[.*row/s\], loss=0\.5\n", err
    )


def test_a_log_says_at_once_what_begins_and_after_a_second_how_long_it_takes(capsys, clock):
    bar = progress_bar(100, "Rows", "row", verbose=1)
    assert capsys.readouterr().err == "Rows: 0%, 0/100 [00:00<?, ?row/s]\n"
    clock.now = 0.9
    bar.update()
    assert capsys.readouterr().err == ""
    clock.now = 2.0
    bar.update()
    assert capsys.readouterr().err == "Rows: 2%, 2/100 [00:02<01:38,  1.00row/s]\n"


def test_a_log_gets_few_lines_and_all_of_them_true(capsys, clock):
    with progress_bar(3599, "Rows", "row", verbose=1) as bar:
        for clock.now in range(1, 3600):
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert 60 < len(lines) < 70
    for line in lines[1:]:
        n, minutes, seconds = map(int, re.search(r"(\d+)/3599 \[(\d+):(\d+)<", line).groups())
        assert n == 60 * minutes + seconds
    assert "100%, 3599/3599" in lines[-1]


def test_a_screen_gets_a_bar_that_is_redrawn(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar(2, "Rows", "row", verbose=1) as bar:
        bar.update(2)
    assert "\rRows: 100%|" in screen.getvalue()


_SHOW = """
from cipherlearn._progress import progress_bar, stage
with stage("Compiling", 1, expected=2.0):
    pass
with progress_bar(2, "Rows", "row", 1) as bar:
    bar.update(2)
"""


@pytest.mark.parametrize("size", [(24, 80), (0, 0)], ids=["sized", "of no size"])
def test_a_terminal_shows_a_bar_and_times_whether_or_not_it_tells_its_size(size):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run([sys.executable, "-c", _SHOW], stderr=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert re.search(r"Compiling, about 2\.0 s\.\.\. 0\.\d s\r\n", shown)
    assert re.search(r"\rRows: 100%\|█+\| 2/2 \[00:00<00:00", shown)


def test_a_screen_whose_size_cannot_be_asked_gets_a_bar(monkeypatch):
    def unknown(*_):
        raise OSError

    screen = Screen()
    screen.fileno = lambda: 2
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(os, "get_terminal_size", unknown)
    with progress_bar(2, "Rows", "row", verbose=1) as bar:
        bar.update(2)
    last = screen.getvalue().split("\r")[-1]
    assert re.fullmatch(r"Rows: 100%\|#+\| 2/2 \[.*\]\n", last)
    assert len(last) == 80


def test_a_stage_in_a_log_leaves_the_lines_of_others_whole(capsys):
    with stage("Compiling", verbose=1, expected=3.21):
        print("a line of another library", file=sys.stderr)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"Compiling, about 3\.2 s\.\.\.\na line of another library\nCompiling: 0\.\d s\n", err
    )


@pytest.mark.parametrize(
    ("stream", "shown"),
    [(io.StringIO, "Compiling...\nCompiling: failed\n"), (Screen, "Compiling... failed\n")],
    ids=["log", "screen"],
)
def test_a_stage_that_fails_ends_its_line(monkeypatch, stream, shown):
    stream = stream()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(ValueError, match="no"), stage("Compiling", verbose=1):
        raise ValueError("no")
    assert stream.getvalue() == shown


def test_training_shows_what_it_does_from_the_start(capsys):
    X, y = blobs()
    NeuralNetClassifier(**LINEAR, module__n_components=2, verbose=1).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    stages = [line for line in err.splitlines() if re.search(r"\.\.\.|: 0%,|: 100%,", line)]
    patterns = [
        r"Merging equal rows\.\.\.",
        r"Placing thresholds: 0%, 0/6 \[.*feature/s\]",
        r"Placing thresholds: 100%, 6/6 \[.*feature/s\]",
        r"Float warm-up: 0%, 0\.0/2 \[.*epoch/s\]",
        r"Float warm-up: 100%, 2\.0/2 \[.*epoch/s\], train_loss=0\.\d{4}",
        r"Fine-tuning: 0%, 0\.0/3 \[.*epoch/s\]",
        r"Fine-tuning: 100%, 3\.0/3 \[.*epoch/s\], train_loss=0\.\d{4}",
    ]
    for line, pattern in zip(stages, patterns, strict=True):
        assert re.fullmatch(pattern, line)


class _Watcher(Callback):
    """Remember how far the bar is after each batch."""

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        if training:
            net.seen_.append(dict(net.callbacks_)["progress_bar"].bar_.n)


def test_a_bar_moves_within_an_epoch_and_is_whole_at_its_end():
    X, y = blobs()
    clf = NeuralNetClassifier(**LINEAR, verbose=1, batch_size=25, callbacks=[_Watcher()])
    clf.seen_ = []
    clf.fit(X, y)
    # The last batch is counted when the epoch has ended, with its losses.
    parts = [25 / 60, 50 / 60, 50 / 60]
    warmup = [epoch + part for epoch in range(2) for part in parts]
    tuning = [epoch + part for epoch in range(3) for part in parts]
    np.testing.assert_allclose(clf.seen_, warmup + tuning)


def test_verbose_training_shows_each_epoch_too(capsys):
    X, y = blobs()
    NeuralNetClassifier(**LINEAR, verbose=2).fit(X, y)
    assert "train_loss" in capsys.readouterr().out


def test_everything_is_quiet_by_default(capfd):
    X, y = blobs()
    search = EncryptedSearchCV(NeuralNetClassifier(**LINEAR), {"lr": [0.03]}, cv=2).fit(X, y)
    search.predict(X[:2], execute_in_fhe=True)
    assert capfd.readouterr() == ("", "")


def test_a_search_shows_its_candidates_when_asked(capsys):
    X, y = blobs()
    grid = {"module__n_w_bits": [2, 3], "lr": [0.03]}
    clf = NeuralNetClassifier(**LINEAR)
    search = EncryptedSearchCV(clf, grid, cv=2, verbose=1).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if re.search(r": (0|100)%,|\.\.\.", line)]
    assert lines[0].startswith("Fits of 2 candidates: 0%, 0/4 [")
    assert lines[1].startswith("Fits of 2 candidates: 100%, 4/4 [")
    assert lines[2] == "Compiling..."
    wins = f"Candidate {search.best_index_ + 1} of 2 wins: score {search.best_score_:.4g}, about "
    assert wins in err
    assert len(search.cv_results_["params"]) == 2
    EncryptedSearchCV(clf, {"lr": [0.03]}, cv=2, verbose=2).fit(X, y)
    assert "totalling 2 fits" in capsys.readouterr().out


def test_an_estimate_says_how_long_it_takes_when_asked(capsys, monkeypatch):
    monkeypatch.setattr(_cost, "_estimates", {})
    clf = NeuralNetClassifier(**LINEAR).fit(*blobs())
    clf.estimate(verbose=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Estimating..."
    assert lines[-1].startswith("Estimating: ")
    # What is known needs no time. None takes the estimator's own.
    clf.set_params(verbose=1).estimate()
    assert capsys.readouterr() == ("", "")
    clf.estimate(p_error=0.001)
    assert "Estimating" in capsys.readouterr().err
    clf.estimate(p_error=0.002, verbose=0)
    assert capsys.readouterr() == ("", "")


def test_keys_say_how_long_they_take_once_equal_ones_were_made(capsys, monkeypatch):
    monkeypatch.setattr(_circuit_keys, "_seconds", {})
    clf = NeuralNetClassifier(**LINEAR).fit(*blobs())
    # Quiet when compiled, as the estimator then was.
    clf.compile()
    clf.set_params(verbose=1).predict(blobs()[0][:1], execute_in_fhe=True)
    assert capsys.readouterr().err.startswith("Generating keys...\nGenerating keys: ")
    clf.circuit_.keygen(force=True, verbose=1)
    assert re.match(r"Generating keys, about \d+\.\d s\.\.\.\n", capsys.readouterr().err)
    clf.circuit_.keygen(force=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("counted_by", ["the scorer", "the search"])
def test_every_fit_is_counted_once(capsys, monkeypatch, counted_by):
    if counted_by == "the search":
        # As in another process, where the bar is not.
        score = _search._Scores.__call__
        monkeypatch.setattr(
            _search._Scores, "__call__", lambda self, *a, **k: score(pickled(self), *a, **k)
        )
    grid = {"lr": [0.02, 0.03]}
    EncryptedSearchCV(NeuralNetClassifier(**LINEAR), grid, cv=2, verbose=1).fit(*blobs())
    counts = re.findall(r"Fits of 2 candidates: .*?, (\d)/4 ", capsys.readouterr().err)
    assert (counts[0], counts[-1]) == ("0", "4")


def pickled(value):
    return pickle.loads(pickle.dumps(value))


def test_a_verbose_estimator_pickles_in_training_and_after(tmp_path):
    X, y = blobs()
    file = tmp_path / "net.pkl"
    callback = Checkpoint(monitor=None, f_pickle=file, f_params=None, f_optimizer=None)
    callback.set_params(f_criterion=None, f_history=None)
    clf = NeuralNetClassifier(**LINEAR, verbose=1, callbacks=[callback]).fit(X, y)
    with open(file, "rb") as stream:
        assert pickle.load(stream).module_ is not None
    assert (copy.deepcopy(clf).predict(X) == clf.predict(X)).all()


def test_a_kernel_that_is_only_imported_makes_no_notebook(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    with progress_bar(1, "Rows", "row", verbose=1) as bar:
        bar.update()
    assert "\r" not in capsys.readouterr().err
