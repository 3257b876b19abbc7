"""Seeds, and fits that go on from earlier ones or forget them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from cases import blobs, classifier, plane, quick, regressor, same_network
from sklearn.exceptions import NotFittedError
from skorch.dataset import ValidSplit

# ---------------------------------------------------------------------- randomness


def test_a_seed_reproduces_the_network():
    X, y = blobs(3)
    first, again = quick().fit(X, y), quick().fit(X, y)
    assert same_network(first, again)
    assert same_network(first, again.fit(X, y))
    assert not same_network(first, quick(random_state=1).fit(X, y))


def test_a_random_state_instance_is_used_up():
    X, y = blobs(3)
    first = quick(random_state=np.random.RandomState(5)).fit(X, y)
    shared = np.random.RandomState(5)
    assert same_network(first, quick(random_state=shared).fit(X, y))
    assert not same_network(first, quick(random_state=shared).fit(X, y))


def test_without_a_seed_fits_differ():
    X, y = blobs(3)
    assert not same_network(quick(random_state=None).fit(X, y), quick(random_state=None).fit(X, y))


def test_the_global_generators_are_left_alone():
    X, y = blobs(3)
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    clf = quick(train_split=ValidSplit(3)).fit(X, y)
    clf.partial_fit(X, y)
    clf.predict(X)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))],
    ids=["deepcopy", "pickle"],
)
def test_copies_leave_the_global_generator_alone(duplicate):
    X, y = blobs(3)
    clf = quick().fit(X, y)
    state = torch.get_rng_state()
    duplicate(clf)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_global_seed_does_not_matter():
    X, y = blobs(3)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = quick().fit(X, y)
        torch.manual_seed(2)
        assert same_network(first, quick().fit(X, y))


# ---------------------------------------------------------------------- further fits


def test_partial_fit_goes_on_from_the_present_weights():
    X, y = blobs(3)
    clf = quick().partial_fit(X, y)
    weight = clf.module_.linears[0].weight
    clf.partial_fit(X, y)
    assert clf.module_.linears[0].weight is weight
    assert len(clf.history) == 4
    assert [row["epoch"] for row in clf.history] == [1, 2, 3, 4]


def test_partial_fit_learns_in_small_portions():
    X, y = blobs(3, 120)
    clf = classifier(max_epochs=15)
    for start in range(0, 120, 30):
        clf.partial_fit(X[start : start + 30], y[start : start + 30], classes=[0, 1, 2])
    assert clf.score(X, y) > 0.9


def test_partial_fit_knows_classes_before_it_sees_them():
    X, y = blobs(2)
    names = np.array(["no", "yes"])[y]
    clf = quick().partial_fit(X, names, classes=["yes", "maybe", "no"])
    assert clf.classes_.tolist() == ["maybe", "no", "yes"]
    assert clf.predict_proba(X).shape == (60, 3)
    clf.partial_fit(X[:2], ["maybe", "maybe"])
    assert clf.classes_.tolist() == ["maybe", "no", "yes"]


def test_partial_fit_refuses_an_unknown_label():
    X, y = blobs(2)
    clf = quick().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"only the classes known since the first fit, \[0 1\]"):
        clf.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match=r"Got also \[2\]. Pass all of them as classes"):
        clf.partial_fit(X, y + 1)
    assert clf.predict(X).shape == (60,)


def test_partial_fit_refuses_a_label_that_is_not_among_the_classes():
    X, y = blobs(3)
    with pytest.raises(ValueError, match=r"Got also \[2\]"):
        quick().partial_fit(X, y, classes=[0, 1])


def test_partial_fit_refuses_another_number_of_features():
    X, y = blobs(2)
    clf = quick().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4"):
        clf.partial_fit(X[:, :3], y)


def test_partial_fit_refuses_another_number_of_targets():
    X, y = plane()
    reg = regressor(max_epochs=2).partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y must have the 1 target\(s\) of the first fit. Got 2"):
        reg.partial_fit(X, np.column_stack([y, y]))


def test_partial_fit_keeps_the_scale_of_the_targets():
    X, y = plane()
    reg = regressor(max_epochs=2).partial_fit(X, y)
    mean = reg.target_mean_.copy()
    reg.partial_fit(X, y + 100)
    assert reg.target_mean_.tolist() == mean.tolist()


def test_a_warm_start_goes_on_and_a_cold_one_does_not():
    X, y = blobs(3)
    warm = quick(warm_start=True).fit(X, y).fit(X, y)
    cold = quick().fit(X, y).fit(X, y)
    assert (len(warm.history), len(cold.history)) == (4, 2)
    assert same_network(warm, quick().partial_fit(X, y).partial_fit(X, y))
    assert not same_network(warm, cold)


def test_a_cold_fit_forgets_everything():
    X, y = blobs(2)
    clf = quick().fit(X, y)
    clf.fit(X[:, :2], np.array(["a", "b"])[y])
    assert (clf.n_features_in_, clf.classes_.tolist()) == (2, ["a", "b"])
    assert clf.predict(X[:, :2]).shape == (60,)


@pytest.mark.parametrize("mode", [True, "simulate"])
def test_a_dataset_is_not_taken_for_encrypted_rows(mode):
    X, y = blobs(2)
    clf = quick().fit(X, y)
    with pytest.raises(ValueError, match=r"Got a dataset\. Pass its X"):
        clf.predict(clf.get_dataset(X), execute_in_fhe=mode)


def test_a_failed_refit_leaves_nothing_that_predicts():
    X, y = blobs(2)
    clf = quick().fit(X, y)
    with pytest.raises(ValueError, match=r"non-zero|only zeros"):
        clf.fit(X, np.array(["a", "b"])[y], sample_weight=np.zeros(len(y)))
    with pytest.raises(NotFittedError):
        clf.predict(X)


def test_loaded_parameters_are_the_ones_that_predict(tmp_path):
    X, y = blobs(2)
    first = quick(max_epochs=10).fit(X, y)
    first.save_params(f_params=tmp_path / "parameters.pt")
    second = quick(max_epochs=10, random_state=1).fit(X, 1 - y)
    assert not np.array_equal(second.predict_proba(X), first.predict_proba(X))
    second.load_params(f_params=tmp_path / "parameters.pt")
    np.testing.assert_array_equal(second.predict_proba(X), first.predict_proba(X))


def test_parameters_of_callbacks_are_reported_as_set():
    clf = quick(callbacks__pruning__end=0.6)
    assert clf.get_params()["callbacks__pruning__end"] == 0.6
    assert quick().get_params()["callbacks__pruning__end"] == 0.8


def test_a_refused_fit_is_no_fit():
    X, y = blobs(2)
    clf = quick()
    with pytest.raises(ValueError, match="n_w_bits must be"):
        clf.set_params(module__n_w_bits=99).fit(X, y)
    assert not hasattr(clf, "program_")
