"""skorch's callbacks, validation split and history."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import blobs, classifier, plane, quick, regressor
from sklearn.metrics import get_scorer
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring
from skorch.dataset import ValidSplit


def test_early_stopping_with_a_validation_split_and_names_of_classes():
    X, y = blobs(2)
    stopping = EarlyStopping(patience=3, threshold=1.0)
    clf = classifier(max_epochs=100, train_split=ValidSplit(4), callbacks=[stopping])
    clf.fit(X, np.array(["no", "yes"])[y])
    # Each phase ends on its own, long before its 40 or 60 epochs.
    assert len(clf.history) <= 10
    assert set(clf.history[-1]) >= {"train_loss", "valid_loss", "valid_acc"}
    assert set(clf.predict(X)) <= {"no", "yes"}


class KeepSplit(Callback):
    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.train, self.valid = dataset_train.indices, dataset_valid.indices


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "roc_auc"])
def test_scores_of_an_epoch_are_those_of_the_trained_network(scoring):
    X, y = blobs(2, 80)
    y = np.where(np.arange(80) % 5 < 2, 1 - y, y)
    keep = KeepSplit()
    score = EpochScoring(scoring, lower_is_better=False, name="score")
    clf = classifier(max_epochs=6, train_split=ValidSplit(4), callbacks=[keep, score]).fit(X, y)
    assert len(keep.valid) == 20
    assert len(set(keep.valid) | set(keep.train)) == 80
    expected = get_scorer(scoring)(clf, X[keep.valid], y[keep.valid])
    assert clf.history[-1, "score"] == pytest.approx(expected)
    assert expected < 1.0


def test_a_regressors_scores_are_on_standardized_targets():
    X, y = plane()
    score = EpochScoring("r2", lower_is_better=False, name="r2")
    keep = KeepSplit()
    reg = regressor(max_epochs=6, train_split=ValidSplit(4), callbacks=[score, keep])
    reg.fit(X, 1000 + 50 * y)
    # R² does not change with the units.
    assert reg.history[-1, "r2"] == pytest.approx(
        reg.score(X[keep.valid], 1000 + 50 * y[keep.valid]), abs=1e-4
    )


def test_scores_work_with_sample_weights():
    X, y = blobs(2)
    score = EpochScoring("accuracy", lower_is_better=False, name="score")
    clf = classifier(train_split=ValidSplit(4), callbacks=[score])
    clf.fit(X, y, sample_weight=np.arange(60) + 1.0)
    assert clf.history[-1, "score"] > 0.9


def test_checkpoints_are_written(tmp_path):
    X, y = blobs(2)
    checkpoint = Checkpoint(dirname=tmp_path, monitor="train_loss_best")
    clf = classifier(callbacks=[checkpoint]).fit(X, y)
    assert {path.name for path in tmp_path.iterdir()} >= {"params.pt", "optimizer.pt"}
    state = torch.load(tmp_path / "params.pt")
    assert set(state) == set(clf.module_.state_dict())


@pytest.mark.skipif(
    torch.__version__.startswith("1."), reason="torch 1 refuses the floats of an optimizer's state"
)
def test_a_checkpoint_loads_the_best_quantized_network(tmp_path):
    X, y = blobs(3)
    checkpoint = Checkpoint(dirname=tmp_path, monitor="train_loss_best", load_best=True)
    clf = classifier(callbacks=[checkpoint]).fit(X, y)
    assert clf.module_.quantized
    assert clf.score(X, y) > 0.8


def test_validation_loss_is_reported():
    X, y = blobs(3)
    clf = quick(train_split=ValidSplit(4)).fit(X, y)
    assert all(np.isfinite(row["valid_loss"]) for row in clf.history)
    assert "valid_loss" not in quick().fit(X, y).history[-1]


def test_training_is_quiet_unless_asked(capsys):
    X, y = blobs(2)
    clf = quick().fit(X, y)
    clf.predict(X)
    assert capsys.readouterr() == ("", "")
    quick(verbose=2).fit(X, y)
    assert "train_loss" in capsys.readouterr().out
