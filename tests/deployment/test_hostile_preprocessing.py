"""Estimators of scikit-learn with attributes that nobody fitted."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.cluster import FeatureAgglomeration, KMeans
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import KernelPCA, TruncatedSVD
from sklearn.ensemble import StackingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectFromModel, SelectKBest
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVR

from cipherlearn.deployment import ArtefactError, UntrustedTypesError
from cipherlearn.deployment.artefacts import _schema
from cipherlearn.deployment.artefacts._preprocessing import dump_preprocessing, load_preprocessing

X = np.random.default_rng(0).random((20, 4))
Y = X[:, 0] > 0.5
FUNCTION_TRANSFORMER = "sklearn.preprocessing._function_transformer.FunctionTransformer"
WORDS = ["a car", "a bicycle"]


@pytest.mark.parametrize(
    ("transformer", "rows"),
    [
        (CountVectorizer(), WORDS),
        (TfidfVectorizer(stop_words="english", dtype=np.float32), WORDS),
        (HashingVectorizer(n_features=8), WORDS),
        (FeatureHasher(8), [{"a": 1}, {"b": 2}]),
        (DictVectorizer(), [{"a": 1}, {"b": 2}]),
        (TfidfTransformer(), X),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_read_files_or_write_outside_travels_if_it_is_named(transformer, rows):
    transformer.fit(rows)
    with pytest.raises(UntrustedTypesError) as error:
        dump_preprocessing(make_pipeline(transformer), trusted=())
    assert f"{type(transformer).__module__}.{type(transformer).__name__}" in error.value.types
    content = dump_preprocessing(make_pipeline(transformer), error.value.types)
    loaded = load_preprocessing(content, error.value.types)
    assert (loaded.transform(rows) != transformer.transform(rows)).nnz == 0


def test_a_stack_that_calls_a_method_by_its_name_is_refused(tmp_path):
    stack = StackingRegressor([("a", LinearRegression())])
    stack.estimators_, stack.stack_method_ = [np.array([b"#!/bin/sh"])], ["tofile"]
    with pytest.raises(UntrustedTypesError, match="StackingRegressor"):
        load_preprocessing(skops.io.dumps(make_pipeline(stack)), ())


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"func": np.positive}, "numpy"),
        ({"func": np.max}, "numpy.max"),
        ({"func": np.log1p, "kw_args": {"out": np.empty(1)}}, FUNCTION_TRANSFORMER),
        ({"func": np.log1p, "inv_kw_args": {"where": False}}, FUNCTION_TRANSFORMER),
        ({"func": np.int64}, FUNCTION_TRANSFORMER),
        ({"inverse_func": np.str_}, FUNCTION_TRANSFORMER),
        ({"func": np.log1p, "feature_names_out": np.log1p}, "log1p"),
    ],
    ids=["unknown", "of many rows", "writes", "inverse", "type", "type back", "names"],
)
def test_functions_are_those_of_a_short_list_or_named(kwargs, named):
    content = skops.io.dumps(FunctionTransformer(**kwargs))
    with pytest.raises(UntrustedTypesError, match=named) as error:
        load_preprocessing(content, ())
    load_preprocessing(content, error.value.types)


def test_a_listed_function_stands_in_its_own_place_only():
    transformer = KernelPCA(2).fit(X)
    transformer.kernel, transformer.kernel_params = np.mean, {"out": np.empty(1)}
    with pytest.raises(UntrustedTypesError, match=r"numpy\.mean"):
        load_preprocessing(skops.io.dumps(transformer), ())


def test_processes_are_not_started():
    union = make_union(StandardScaler(), KernelPCA(2, n_jobs=3), n_jobs=40).fit(X)
    loaded = load_preprocessing(skops.io.dumps(make_pipeline(union)), ())[0]
    assert loaded.n_jobs is None
    assert loaded.transformer_list[1][1].n_jobs is None


def imputer_of(estimator):
    imputer = IterativeImputer(LinearRegression()).fit(np.where(X < 0.1, np.nan, X))
    first = imputer.imputation_sequence_[0]
    imputer.imputation_sequence_[0] = first._replace(estimator=estimator.fit(X, Y))
    return imputer


@pytest.mark.parametrize("estimator", [KMeans(2, n_init=1), make_pipeline(LinearRegression())])
def test_an_imputer_predicts_by_sums_alone(estimator):
    with pytest.raises(UntrustedTypesError, match=type(estimator).__name__):
        load_preprocessing(skops.io.dumps(imputer_of(estimator)), ())


def test_a_vector_machine_with_a_kernel_must_be_named():
    with pytest.raises(UntrustedTypesError, match="SVR"):
        load_preprocessing(skops.io.dumps(imputer_of(SVR())), ())


def changed(transformer, **attributes):
    transformer.fit(X, Y)
    vars(transformer).update(attributes)
    return transformer


def far_state():
    """A generator whose next word stands outside of its words."""
    state = np.random.RandomState(0)
    values = state.get_state(legacy=False)
    values["state"]["pos"] = 10**6
    state.set_state(values)
    return state


def encoder_of(**attributes):
    """A one-hot encoder of three categories a feature, which groups none of them."""
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=1)
    encoder.fit(np.tile([[1.0], [2.0], [3.0]], (2, 4)))
    vars(encoder).update(attributes)
    return encoder


def each_of(value):
    return [value if value is None else np.array(value)] * 4


@pytest.mark.parametrize(
    "attributes",
    [
        {"_infrequent_indices": each_of([13])},
        {"_infrequent_indices": each_of([3])},
        {"_infrequent_indices": each_of([-1])},
        {"_default_to_infrequent_mappings": each_of([0, 1, 3])},
        {"_default_to_infrequent_mappings": each_of([0.0, 1.0, np.nan])},
        {"_default_to_infrequent_mappings": each_of([0, 1])},
        {"_drop_idx_after_grouping": np.array([5] * 4, dtype=object)},
        {
            "_drop_idx_after_grouping": np.array([5] * 4, dtype=object),
            "_default_to_infrequent_mappings": each_of([0, 0, 0]),
            "_infrequent_enabled": False,
        },
    ],
    ids=["far", "next", "before", "group", "nan", "short", "drop", "group that is not used"],
)
def test_a_one_hot_encoder_points_at_its_columns_alone(attributes):
    load_preprocessing(skops.io.dumps(encoder_of()), ())
    with pytest.raises(ArtefactError, match="must be whole"):
        load_preprocessing(skops.io.dumps(encoder_of(**attributes)), ())


def named_by(naming):
    transformer = ColumnTransformer([("a", StandardScaler(), [0, 1, 2, 3])])
    return changed(transformer, verbose_feature_names_out=naming)


@pytest.mark.parametrize(
    "transformer",
    [
        changed(StandardScaler(), transform=StandardScaler()),
        changed(SelectKBest(k=2), _parameter_constraints={}),
        changed(OneHotEncoder(), categories_=[np.array([1.0, 0.5])] * 4),
        changed(OneHotEncoder(), categories_=[np.array([np.nan, 1.0])] * 4),
        changed(FeatureAgglomeration(2), labels_=np.array([0, 1, 0, 10**9])),
        changed(SelectFromModel(LogisticRegression()), importance_getter="__class__.mro"),
        changed(TruncatedSVD(2), random_state=far_state()),
        changed(SplineTransformer(), n_features_out_=10**8),
        changed(SplineTransformer(), include_bias=1 - 10**8),
        changed(SplineTransformer(), include_bias=10**8, n_features_out_=4 * (6 + 10**8)),
        changed(OneHotEncoder(), feature_name_combiner=make_column_selector()),
        named_by("{feature_name:>500000000}"),
        named_by("{feature_name}" * 1000),
        named_by("{feature_name.__class__}"),
        named_by(make_column_selector()),
    ],
    ids=[
        *("method", "class", "disorder", "nan first", "labels", "getter", "random state"),
        *(
            "columns",
            "bias",
            "names of splines",
            "combiner",
            "width",
            "often",
            "class of",
            "callable",
        ),
    ],
)
def test_attributes_that_are_followed_unchecked_are_checked(transformer):
    with pytest.raises(ArtefactError, match="must be whole"):
        load_preprocessing(skops.io.dumps(transformer), ())


@pytest.mark.parametrize("naming", [True, False, "{feature_name}", "x {transformer_name}_"])
def test_names_may_be_filled_in(naming):
    loaded = load_preprocessing(skops.io.dumps(named_by(naming)), ())
    assert loaded.verbose_feature_names_out == naming


JSON = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "1"}


def node(name, loader, **parts):
    return {"__class__": name, "__module__": "builtins", "__loader__": loader, **parts}


def load_schema(schema, **members):
    head = {"protocol": 2, "_skops_version": "0.16.0"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps({**head, **schema}))
        for name, member in members.items():
            archive.writestr(name, member)
    return load_preprocessing(buffer.getvalue(), ())


def test_a_node_is_written_wherever_it_stands():
    first = node("tuple", "TupleNode", content=[JSON], __id__=1)
    assert load_schema(node("list", "ListNode", content=[first, first])) == [(1,), (1,)]
    # Another one of the same number would take the place of the second.
    second = node("list", "ListNode", content=[JSON], __id__=1)
    assert load_schema(node("list", "ListNode", content=[first, second])) == [(1,), [1]]
    # Of forty such levels, a set computes 2**40 hashes.
    with pytest.raises(ArtefactError, match="must be whole"):
        load_schema(node("list", "ListNode", content=[first, {"__id__": 1}]))


def test_keys_of_a_dictionary_have_types():
    function = {"__class__": "max", "__module__": "numpy", "__loader__": "FunctionNode"}
    keys = node("list", "ListNode", content=[function])
    with pytest.raises(ArtefactError, match="must have types"):
        load_schema(node("dict", "DictNode", content={"a": JSON}, key_types=keys))


def test_objects_and_functions_are_counted(monkeypatch):
    monkeypatch.setattr(_schema, "_MAX_OBJECTS", 3)
    function = {"__class__": "mean", "__module__": "numpy", "__loader__": "FunctionNode"}
    with pytest.raises(ArtefactError, match="at most 3 objects"):
        load_schema(node("list", "ListNode", content=[function] * 4))


def test_arrays_of_objects_take_the_memory_of_objects(monkeypatch):
    monkeypatch.setattr(_schema, "MAX_BYTES", 20_000)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(1000, np.int8))
    array = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode"}
    numbers = {**array, "type": "numpy", "file": "zeros"}
    assert load_schema(numbers, zeros=buffer.getvalue()).shape == (1000,)
    shape = node("tuple", "TupleNode", content=[JSON, JSON])
    boxed = {**array, "type": "json", "content": [numbers], "shape": shape}
    with pytest.raises(ArtefactError, match="more than 20000 bytes"):
        load_schema(boxed, zeros=buffer.getvalue())


@pytest.mark.parametrize("protocol", [0, True, "2"])
def test_the_oldest_format_is_refused(protocol):
    with pytest.raises(ArtefactError, match="protocol"):
        load_schema({**node("list", "ListNode", content=[]), "protocol": protocol})
