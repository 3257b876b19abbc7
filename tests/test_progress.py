"""Whoever asks sees how far things are, and nobody else sees anything."""

from __future__ import annotations

import copy
import io
import pickle
import re
import sys
from types import SimpleNamespace

import pytest
from cases import TINY, blobs
from skorch.callbacks import Checkpoint

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier
from cipherlearn._progress import progress_bar, stage

LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8, "max_epochs": 5}


class Screen(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


def test_a_log_gets_whole_lines_and_no_control_characters(capsys):
    with progress_bar(3, "Rows", "row", verbose=1) as bar:
        bar.set_postfix({"loss": "0.5"}, refresh=False)
        for _ in range(3):
            bar.update()
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"(Rows: 100%, 3/3 \[.*row/s\], loss=0\.5\n)+", err)


def test_a_log_gets_few_lines_and_all_of_them_true(capsys, monkeypatch):
    monkeypatch.setattr("cipherlearn._progress._LOG_SECONDS", 0.05)
    with progress_bar(200, "Rows", "row", verbose=1) as bar:
        for _ in range(200):
            bar.update()
            bar.refresh() if bar.n == 100 else None
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) < 20
    assert any("50%, 100/200" in line for line in lines)
    assert "100%, 200/200" in lines[-1]


def test_a_screen_gets_a_bar_that_is_redrawn(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar(2, "Rows", "row", verbose=1) as bar:
        bar.update(2)
    assert "\rRows: 100%|" in screen.getvalue()


def test_a_stage_that_fails_ends_its_line(capsys):
    with pytest.raises(ValueError, match="no"), stage("Compiling", verbose=1):
        raise ValueError("no")
    assert capsys.readouterr().out == "Compiling... failed\n"


def test_training_shows_both_phases_when_asked(capsys):
    X, y = blobs()
    NeuralNetClassifier(**LINEAR, verbose=1).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"Float warm-up: 100%, 2/2 \[.*train_loss=0\.\d{4}\n", err)
    assert re.search(r"Fine-tuning: 100%, 3/3 \[.*train_loss=0\.\d{4}\n", err)
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
    assert "Candidates: 100%, 2/2" in err
    assert len(search.cv_results_["params"]) == 2
    EncryptedSearchCV(clf, {"lr": [0.03]}, cv=2, verbose=2).fit(X, y)
    assert "totalling 2 fits" in capsys.readouterr().out


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
