"""Steps before the network travel to clients."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from cases import LINEAR
from sklearn.cluster import FeatureAgglomeration, KMeans
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import NMF, PCA, FactorAnalysis, FastICA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
    chi2,
    f_regression,
    mutual_info_classif,
    mutual_info_regression,
    r_regression,
)
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import LassoCV, LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import FHEClient, FHEServer, export
from cipherlearn.deployment.artefacts._preprocessing import dump_preprocessing, load_preprocessing

NUMBERS, HOLES, CATEGORIES = ["a", "b", "c", "d"], ["a", "hole"], ["sort", "colour"]


def messy_frame():
    """Columns of every kind, and a target that depends on them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((60, 4)), columns=NUMBERS)
    frame["hole"] = frame["a"].where(frame["b"] > 0.2)
    frame["sort"] = pd.Categorical(rng.choice(["x", "y"], 60))
    frame["colour"] = pd.Series(rng.choice(["red", "blue", None], 60), dtype=object)
    return frame, np.where(frame["a"] + 0.5 * (frame["sort"] == "x") > 0.75, "yes", "no")


FRAME, Y = messy_frame()

# Transformers, and the columns that they are for.
CASES = [
    *(
        (transformer, NUMBERS)
        for transformer in (
            StandardScaler(),
            MinMaxScaler((-1, 1), clip=True),
            MaxAbsScaler(),
            RobustScaler(quantile_range=(10, 90)),
            Normalizer("max"),
            Binarizer(threshold=0.5),
            PowerTransformer(),
            PowerTransformer("box-cox"),
            QuantileTransformer(n_quantiles=20, output_distribution="normal"),
            KBinsDiscretizer(3, encode="ordinal", strategy="uniform"),
            KBinsDiscretizer(3, encode="onehot-dense", dtype=np.float32, strategy="uniform"),
            SplineTransformer(),
            SplineTransformer(n_knots=3, degree=2, extrapolation="periodic"),
            PolynomialFeatures(3, interaction_only=True),
            FunctionTransformer(),
            FunctionTransformer(np.log1p, np.expm1, feature_names_out="one-to-one"),
            PCA(2, whiten=True, random_state=0),
            KernelPCA(2, kernel="rbf"),
            TruncatedSVD(2, random_state=np.random.RandomState(0)),
            FastICA(2, random_state=0),
            NMF(2, random_state=0, max_iter=1000),
            FactorAnalysis(2),
            Nystroem(n_components=5, random_state=0),
            RBFSampler(n_components=5, random_state=0),
            GaussianRandomProjection(2, random_state=0),
            SparseRandomProjection(2, random_state=0),
            LinearDiscriminantAnalysis(),
            KMeans(3, n_init=1, random_state=0),
            FeatureAgglomeration(2),
            FeatureAgglomeration(2, pooling_func=np.max),
            VarianceThreshold(0.01),
            SelectKBest(k=2),
            SelectKBest(chi2, k=2),
            SelectKBest(mutual_info_classif, k=2),
            SelectPercentile(percentile=50),
            SelectFpr(),
            SelectFdr(),
            SelectFwe(),
            GenericUnivariateSelect(mode="k_best", param=1),
            RFE(LogisticRegression()),
            RFECV(LogisticRegression(), cv=StratifiedKFold(2)),
            SelectFromModel(LogisticRegression(C=10)),
            SequentialFeatureSelector(LogisticRegression(), cv=KFold(2)),
        )
    ),
    *(
        (transformer, HOLES)
        for transformer in (
            SimpleImputer(),
            SimpleImputer(strategy="median", add_indicator=True),
            SimpleImputer(strategy="constant", fill_value=-1),
            KNNImputer(n_neighbors=2),
            IterativeImputer(max_iter=3),
            MissingIndicator(),
            make_pipeline(SimpleImputer(), SelectKBest(k=1)),
        )
    ),
    *(
        (transformer, CATEGORIES)
        for transformer in (
            OrdinalEncoder(encoded_missing_value=-1),
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.int64),
            OneHotEncoder(sparse_output=False),
            OneHotEncoder(sparse_output=False, drop="if_binary", dtype=np.float32),
            OneHotEncoder(
                sparse_output=False, min_frequency=25, handle_unknown="infrequent_if_exist"
            ),
            TargetEncoder(cv=3, random_state=0),
            make_pipeline(
                SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False)
            ),
        )
    ),
]

# These need a target of numbers.
OF_NUMBERS = [
    SelectKBest(f_regression, k=2),
    SelectKBest(r_regression, k=2),
    SelectKBest(mutual_info_regression, k=2),
    SelectFromModel(LassoCV(cv=2)),
]


def kind(value):
    """Name a case. The whole text would have addresses, which differ between processes."""
    return str(value).split("(")[0]


def assert_travels(steps, X, y):
    steps.fit(X, y)
    loaded = load_preprocessing(dump_preprocessing(steps, trusted=()), trusted=())
    expected, got = steps.transform(X), loaded.transform(X)
    if scipy.sparse.issparse(expected):
        expected, got = expected.toarray(), got.toarray()
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


@pytest.mark.parametrize(("transformer", "columns"), CASES, ids=kind)
def test_transformers_travel_without_being_named(transformer, columns):
    with warnings.catch_warnings():
        # NumPy's and SciPy's own, which depend on their versions.
        warnings.simplefilter("ignore", category=FutureWarning)
        warnings.simplefilter("ignore", category=RuntimeWarning)
        assert_travels(make_pipeline(transformer), FRAME[columns], Y)
        assert_travels(make_pipeline(make_union(transformer, transformer)), FRAME[columns], Y)
        columns_alone = make_column_transformer(
            (transformer, columns), remainder="drop", sparse_threshold=0
        )
        assert_travels(make_pipeline(columns_alone), FRAME, Y)


@pytest.mark.parametrize("transformer", OF_NUMBERS, ids=kind)
def test_selectors_for_regression_travel_too(transformer):
    assert_travels(make_pipeline(transformer), FRAME[NUMBERS], FRAME["a"])


def mixed_columns(**kwargs):
    return make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include=np.number)),
        (OneHotEncoder(sparse_output=False), make_column_selector(dtype_include="category")),
        (OrdinalEncoder(encoded_missing_value=-1), ["colour"]),
        sparse_threshold=0,
        **kwargs,
    )


@pytest.mark.parametrize("remainder", ["drop", StandardScaler()], ids=str)
def test_columns_that_are_selected_by_type_travel(remainder):
    assert_travels(make_pipeline(mixed_columns(remainder=remainder)), FRAME, Y)


def test_steps_that_pass_frames_on_travel():
    steps = make_pipeline(SimpleImputer(), StandardScaler()).set_output(transform="pandas")
    assert_travels(steps, FRAME[HOLES], Y)


@pytest.mark.parametrize(
    ("steps", "columns"),
    [
        (make_pipeline(mixed_columns()), list(FRAME)),
        (make_pipeline(SimpleImputer(), SelectKBest(k=1)), HOLES),
        (make_pipeline(SplineTransformer(n_knots=3), SparseRandomProjection(3)), NUMBERS),
        (make_pipeline(make_union(KBinsDiscretizer(2, encode="ordinal"), PCA(2))), NUMBERS),
    ],
    ids=["columns", "imputed", "splines", "union"],
)
@pytest.mark.filterwarnings("ignore:The current default behavior, quantile_method:FutureWarning")
def test_a_pipeline_predicts_encrypted_rows_with_no_type_named(tmp_path, steps, columns):
    X = FRAME[columns]
    model = make_pipeline(*[step for _, step in steps.steps], NeuralNetClassifier(**LINEAR))
    model.fit(X, Y)[-1].compile(batch_size=4)
    export(model, tmp_path, n_test_rows=1)
    client, server = FHEClient(tmp_path / "client.zip"), FHEServer(tmp_path / "server.zip")
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    np.testing.assert_array_equal(client.predict(X[:8], server.evaluate), model.predict(X[:8]))
    # Whatever frame the model takes, its client takes.
    if isinstance(steps.steps[0][1], ColumnTransformer):
        other = X[X.columns[::-1]].assign(further=0)[:4]
        np.testing.assert_array_equal(client.predict(other, server.evaluate), model.predict(other))
