"""Steps that a client must not load are refused and named."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import io
import json
import operator
import zipfile

import numpy as np
import pytest
import scipy.sparse
import skops.io
from cases import LINEAR
from sklearn.datasets import load_svmlight_file
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)
from sklearn.random_projection import SparseRandomProjection

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import ArtefactError, UntrustedTypesError, export
from cipherlearn.deployment.artefacts._preprocessing import dump_preprocessing, load_preprocessing

X = np.random.default_rng(0).random((60, 4))
Y = np.where(X[:, 0] > 0.5, "yes", "no")


def double(rows):
    return 2 * rows


class Doubler(StandardScaler):
    """A transformer that is not scikit-learn's."""


@pytest.mark.parametrize(
    ("transformer", "named"),
    [
        (FunctionTransformer(double), f"{__name__}.double"),
        (Doubler(), f"{__name__}.Doubler"),
        (FunctionTransformer(np.nan_to_num), "numpy.nan_to_num"),
        # Nothing checks where their indices lead.
        (
            SelectFromModel(RandomForestClassifier(2, random_state=0)),
            "sklearn.tree._tree.Tree",
        ),
        (KNeighborsTransformer(algorithm="kd_tree"), "sklearn.neighbors._kd_tree.KDTree"),
    ],
    ids=["function", "class", "of NumPy", "tree", "neighbour tree"],
)
def test_other_types_are_named_in_the_words_of_who_asks(transformer, named):
    steps = make_pipeline(transformer).fit(X, Y)
    with pytest.raises(UntrustedTypesError) as error:
        dump_preprocessing(steps, trusted=())
    trusted = error.value.types
    assert named in trusted
    assert f"trusted={trusted}" in str(error.value)
    content = dump_preprocessing(steps, trusted)
    with pytest.raises(UntrustedTypesError):
        load_preprocessing(content, trusted=())
    load_preprocessing(content, trusted)


def test_types_are_checked_before_anything_is_compiled(tmp_path):
    model = make_pipeline(FunctionTransformer(double), NeuralNetClassifier(**LINEAR))
    model.fit(X, Y)
    with pytest.raises(UntrustedTypesError, match="double"):
        export(model, tmp_path)


@pytest.mark.parametrize("function", [load_svmlight_file, operator.itemgetter(0), "".join, eval])
def test_what_could_read_files_or_run_code_is_refused(function):
    steps = make_pipeline(StandardScaler()).fit(X)
    steps.steps.append(("attack", FunctionTransformer(function)))
    with pytest.raises((ArtefactError, TypeError, ValueError)):
        load_preprocessing(skops.io.dumps(steps), trusted=())


def changed_schema(content, change):
    """The file with another schema, as an attacker would write it."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as changed:
        for name in source.namelist():
            member = source.read(name)
            if name == "schema.json":
                member = json.dumps(change(json.loads(member))).encode()
            changed.writestr(name, member)
    return target.getvalue()


@pytest.mark.parametrize("claimed", ["numpy.dtype", "numpy.mean"])
def test_a_method_that_claims_to_be_a_trusted_type_is_refused(claimed):
    content = skops.io.dumps(FunctionTransformer(np.log1p))
    module, name = claimed.split(".")

    def change(schema):
        function = schema["content"]["content"]["func"]
        schema["content"]["content"]["func"] = {
            "__class__": name,
            "__module__": module,
            "__loader__": "MethodNode",
            "content": {"func": "__reduce__", "obj": function},
        }
        return schema

    with pytest.raises(ArtefactError):
        load_preprocessing(changed_schema(content, change), trusted=())


def test_a_sparse_matrix_that_points_outside_is_refused():
    projection = SparseRandomProjection(2, random_state=0).fit(X)
    components = projection.components_
    components.indices = components.indices.copy()
    components.indices[0] = 10**6
    with pytest.raises(ArtefactError, match="must be whole"):
        load_preprocessing(skops.io.dumps(projection), trusted=())


class Disguised:
    """Becomes a sparse matrix without skops's loader for such."""


def test_a_sparse_matrix_of_another_loader_must_be_named_and_is_checked_too():
    projection = TruncatedSVD(2, random_state=0).fit(X)
    matrix = scipy.sparse.csr_matrix(projection.components_)
    matrix.indices[:] = 10**8
    projection.components_ = Disguised()
    vars(projection.components_).update(vars(matrix))

    def change(schema):
        text = json.dumps(schema).replace('"Disguised"', '"csr_matrix"')
        return json.loads(text.replace(f'"{__name__}"', '"scipy.sparse._csr"'))

    content = changed_schema(skops.io.dumps(projection), change)
    with pytest.raises(UntrustedTypesError):
        load_preprocessing(content, trusted=())
    with pytest.raises(ArtefactError, match="must be whole"):
        load_preprocessing(content, trusted=["scipy.sparse._csr.csr_matrix"])


@pytest.mark.parametrize(
    ("kwargs", "change"),
    [
        ({"drop": "first"}, {"_drop_idx_after_grouping": np.array([-5, 0], dtype=object)}),
        ({"min_frequency": 25}, {"_default_to_infrequent_mappings": [np.array([9] * 3), None]}),
    ],
    ids=["dropped", "grouped"],
)
def test_a_one_hot_encoder_that_points_outside_is_refused(kwargs, change):
    rows = [["a", "x"]] * 30 + [["b", "y"], ["c", "y"]]
    encoder = OneHotEncoder(sparse_output=False, **kwargs).fit(rows)
    loaded = load_preprocessing(skops.io.dumps(encoder), trusted=())
    np.testing.assert_array_equal(loaded.transform(rows), encoder.transform(rows))
    vars(encoder).update(change)
    with pytest.raises(ArtefactError, match="must not point outside"):
        load_preprocessing(skops.io.dumps(encoder), trusted=())


def test_columns_of_a_one_hot_encoder_are_counted_anew():
    encoder = OneHotEncoder(sparse_output=False).fit([[0, 0], [1, 1]])
    encoder._n_features_outs = [10**9, 4 - 10**9]
    loaded = load_preprocessing(skops.io.dumps(encoder), trusted=())
    assert loaded.transform([[0, 1]]).tolist() == [[1, 0, 0, 1]]


@pytest.mark.parametrize("change", [{"k": -1}, {"k": 100}, {"c": np.zeros(1)}], ids=str)
def test_a_spline_whose_arrays_do_not_fit_is_refused(change):
    transformer = SplineTransformer().fit(X)
    stored = vars(transformer.bsplines_[0])
    # SciPy has put an underscore before the names of arrays.
    stored.update({f"_{k}" if f"_{k}" in stored else k: value for k, value in change.items()})
    with pytest.raises(ArtefactError, match="must be whole"):
        load_preprocessing(skops.io.dumps(transformer), trusted=())


def test_a_type_that_is_not_installed_is_named():
    content = skops.io.dumps(StandardScaler())

    def change(schema):
        schema["__class__"] = "ScalerOfTheFuture"
        return schema

    trusted = ["sklearn.preprocessing._data.ScalerOfTheFuture"]
    with pytest.raises(ArtefactError, match="ScalerOfTheFuture"):
        load_preprocessing(changed_schema(content, change), trusted)
