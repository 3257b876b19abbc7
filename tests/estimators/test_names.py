"""Names that estimators lack: errors that name what to type instead."""

from __future__ import annotations

import re
from inspect import signature

import pandas as pd
import pytest
import skorch
import torch
from cases import blobs
from scipy.sparse import csr_matrix
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping, LRScheduler

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor

X, Y = blobs(2, n_rows=20)

# Names that exist nowhere, and the first that the message has to suggest.
NEAREST = {
    "n_hidden_neurons": "module__n_hidden_neurons",
    "module__n_hiden_neurons": "module__n_hidden_neurons",
    "modul__n_layers": "module__n_layers",
    "module_n_layers": "module__n_layers",
    "n_w_bits": "module__n_w_bits",
    "n_accum_bits": "module__n_accum_bits",
    "max_epoch": "max_epochs",
    "batchsize": "batch_size",
    "iterator_train_shuffle": "iterator_train__shuffle",
    "iterator_train__drop_lst": "iterator_train__drop_last",
    "weight_decay": "optimizer__weight_decay",
    "optimizer__weigth_decay": "optimizer__weight_decay",
    "criterion__label_smooth": "criterion__label_smoothing",
    "warmup": "callbacks__quantization__warmup",
    "callbacks__quantization__warmupp": "callbacks__quantization__warmup",
    "callbacks__quantisation__warmup": "callbacks__quantization__warmup",
}


@pytest.mark.parametrize(("name", "nearest"), NEAREST.items())
def test_an_unknown_parameter_is_refused_with_the_nearest_names(name, nearest):
    message = f"Invalid parameter {name!r} for estimator NeuralNetClassifier. "
    message = f"{re.escape(message)}Did you mean {nearest}( or|\\?)"
    with pytest.raises(ValueError, match=message):
        NeuralNetClassifier(**{name: 1}).fit(X, Y)
    clf = NeuralNetClassifier()
    with pytest.raises(ValueError, match=message):
        clf.set_params(**{name: 1})
    assert not hasattr(clf, name)


def test_a_parameter_without_a_neighbour_is_refused_with_all_names():
    with pytest.raises(ValueError, match=r"Invalid parameter 'bogus'.*'batch_size', 'callbacks'"):
        NeuralNetRegressor(bogus=1).fit(X, Y)
    with pytest.raises(ValueError, match=r"Invalid parameter 'bogus'.*'batch_size', 'callbacks'"):
        NeuralNetRegressor().set_params(bogus=1)


def test_all_unknown_parameters_are_named_at_once():
    with pytest.raises(ValueError, match=r"(?s)'epochs'.*'layers'"):
        NeuralNetClassifier(epochs=3, layers=2).fit(X, Y)


@pytest.mark.parametrize("prefix", ["module", "criterion", "optimizer", "callbacks"])
def test_an_unknown_argument_of_a_part_is_refused_before_the_part_is_made(prefix):
    with pytest.raises(ValueError, match=f"Invalid parameter '{prefix}__qqq' for estimator"):
        NeuralNetClassifier(**{f"{prefix}__qqq": 1}).fit(X, Y)


def test_arguments_of_given_parts_are_known():
    clf = NeuralNetClassifier(
        optimizer=torch.optim.SGD,
        criterion=torch.nn.MultiMarginLoss,
        callbacks=[("stop", EarlyStopping()), LRScheduler, EarlyStopping(), EarlyStopping()],
    )
    clf.set_params(
        optimizer__momentum=0.5,
        optimizer__param_groups=[("*bias", {"lr": 0.1})],
        criterion__margin=2.0,
        callbacks__stop__patience=9,
        callbacks__LRScheduler__step_size=2,
        callbacks__EarlyStopping_2__patience=7,
        callbacks__lr_decay=None,
    )
    with pytest.raises(ValueError, match="'optimizer__betas'"):
        clf.set_params(optimizer__betas=(0.9, 0.99))
    with pytest.raises(ValueError, match="'criterion__label_smoothing'"):
        clf.set_params(criterion__label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"'callbacks__stop__patient'.*callbacks__stop__patience"):
        clf.set_params(callbacks__stop__patient=1)


def test_a_part_may_be_set_together_with_its_arguments_in_any_order():
    clf = NeuralNetClassifier().set_params(
        callbacks__stop__patience=3,
        callbacks=[("stop", EarlyStopping())],
        optimizer__momentum=0.9,
        optimizer=torch.optim.SGD,
    )
    assert clf.get_params()["callbacks__stop__patience"] == 3


def test_a_part_that_a_subclass_adds_may_have_any_arguments():
    class WithHelper(NeuralNetClassifier):
        def initialize_module(self):
            super().initialize_module()
            self.helper_ = torch.nn.Linear(1, 1, **self.get_params_for("helper"))
            return self

    clf = WithHelper(module__n_layers=1, max_epochs=2, helper__bias=False).fit(X, Y)
    assert clf.helper_.bias is None


# ---------------------------------------------------------------------- scikit-learn's MLP

OURS = {*NeuralNetClassifier().get_params()}
THEIRS = {*MLPClassifier().get_params(), *MLPRegressor().get_params(), "loss"}


@pytest.mark.parametrize("name", sorted(THEIRS - OURS))
@pytest.mark.parametrize("estimator", [NeuralNetClassifier, NeuralNetRegressor])
def test_a_parameter_of_scikit_learns_mlp_is_refused_with_ours(estimator, name):
    message = rf"{name!r} for estimator {estimator.__name__} \(scikit-learn's MLP has it\). Use "
    with pytest.raises(ValueError, match=message) as raised:
        estimator(**{name: 1}).fit(X, Y)
    with pytest.raises(ValueError, match=message):
        estimator().set_params(**{name: 1})
    remedy = str(raised.value).partition(" has it). ")[2]
    advised = re.findall(
        r"\b(?:[a-z]\w+__\w+|lr|max_epochs|callbacks|optimizer|criterion)\b", remedy
    )
    assert advised
    # What is advised exists.
    optimizer = torch.optim.SGD if "SGD" in remedy else torch.optim.Adam
    estimator(optimizer=optimizer).set_params(**dict.fromkeys(set(advised) - {"optimizer"}))


def test_early_stopping_as_advised_works():
    stop = EarlyStopping(patience=1, threshold=0.5)
    split = skorch.dataset.ValidSplit(2)
    clf = NeuralNetClassifier(callbacks=[stop], train_split=split, max_epochs=30, random_state=0)
    assert len(clf.fit(X, Y).history) < 30


# ---------------------------------------------------------------------- Concrete-ML


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("n_bits", "Use module__n_w_bits"),
        ("module__n_prune_neurons_percentage", r"Call prune\(X, y, n_prune"),
        ("module__power_of_two_scaling", "Use module__rounding_bits"),
        ("module__quant_narrow", "Leave it out"),
        ("module__input_dim", "Leave it out: fit finds it"),
    ],
)
def test_a_parameter_of_concrete_ml_is_refused_with_ours(name, remedy):
    with pytest.raises(ValueError, match=rf"{name!r}.*\(Concrete-ML has it\). {remedy}"):
        NeuralNetClassifier(**{name: 1}).fit(X, Y)


@pytest.fixture(scope="module")
def fitted():
    return NeuralNetClassifier(module__n_layers=1, max_epochs=2, random_state=0).fit(X, Y)


@pytest.mark.parametrize("mode", ["execute", "simulate", "disable"])
def test_fhe_of_predict_is_called_execute_in_fhe(fitted, mode):
    with pytest.raises(TypeError, match=r"predict\(\) has no argument 'fhe'.*execute_in_fhe=True"):
        fitted.predict(X, fhe=mode)
    with pytest.raises(TypeError, match=r"predict_proba\(\) has no argument 'fhe'"):
        fitted.predict_proba(X, fhe=mode)
    pipe = make_pipeline(StandardScaler(), fitted).fit(X, Y)
    with pytest.raises(TypeError, match=r"predict\(\) has no argument 'fhe'.*execute_in_fhe=True"):
        pipe.predict(X, fhe=mode)
    regressor = NeuralNetRegressor(module__n_layers=1, max_epochs=2).fit(X, Y)
    with pytest.raises(TypeError, match=r"predict\(\) has no argument 'fhe'.*execute_in_fhe=True"):
        regressor.predict(X, fhe=mode)


@pytest.mark.parametrize("data", [X, X.tolist(), pd.DataFrame(X), csr_matrix(X), torch.tensor(X)])
def test_compile_needs_no_data(fitted, data):
    with pytest.raises(TypeError, match=r"compile\(\) needs no data.*Call compile\(\)"):
        fitted.compile(data)
    with pytest.raises(TypeError, match=r"compile\(\) has no argument 'X'.*needs no data"):
        fitted.compile(X=data)
    assert not hasattr(fitted, "circuit_")


def test_attributes_of_concrete_ml_are_absent_and_ours_named(fitted):
    assert not hasattr(fitted, "fhe_circuit")
    with pytest.raises(AttributeError, match=r"no attribute 'fhe_circuit'.*Use circuit_"):
        _ = fitted.fhe_circuit
    with pytest.raises(AttributeError, match=r"no attribute 'quantized_module_'.*Use program_"):
        _ = fitted.quantized_module_
    with pytest.raises(AttributeError, match="'NeuralNetClassifier' object has no attribute 'bogu"):
        _ = fitted.bogus
    with pytest.raises(AttributeError, match="NeuralNetRegressor has no predict_proba"):
        _ = NeuralNetRegressor().predict_proba


def test_arguments_are_shown_as_they_are(fitted):
    assert [*signature(fitted.predict).parameters] == ["X", "execute_in_fhe", "n_jobs"]
    assert "p_error" in signature(fitted.compile).parameters
