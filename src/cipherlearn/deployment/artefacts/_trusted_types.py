"""Types in preprocessing that a client loads without being asked to trust them.

A ``client.zip`` may come from anyone. What its preprocessing names is imported, may be called with
arguments from the file while it is loaded, and with the client's rows afterwards. Its estimators
have whatever attributes the file gives them. So each name is listed here because somebody looked
at what it does with hostile attributes: it computes or holds values, and reads no file, opens no
connection, runs no code that it is given, and calls nothing by a name or function from the file but
the functions below. Neither "all of ``sklearn``" nor what skops trusts by default is safe:
``StackingRegressor`` calls any method by its name, and ``CountVectorizer`` reads files.

A name is accepted from the loader of skops that it is listed for, as another one would call it with
what the file says. ``_fitted_values`` looks at values that compiled code follows unchecked, and at
where functions stand.

Trees, neighbour trees and support vector machines with kernels are left out on purpose. Their
compiled code follows indices from the file without looking where they lead. So are transformers of
text, hashes and dictionaries, which may read files, or write outside of their arrays.
"""

from __future__ import annotations

__all__ = [
    "FUNCTIONS_OF_ATTRIBUTES",
    "FUNCTION_TRANSFORMER",
    "LOADERS_WITHOUT_NAMES",
    "PREDICTORS",
    "TREE",
    "TYPES_OF_LOADERS",
]

# Versions of skops differ on whether it needs to be named. Here it does.
TREE = "sklearn.tree._tree.Tree"

FUNCTION_TRANSFORMER = "sklearn.preprocessing._function_transformer.FunctionTransformer"

# Loaders of skops that look up an attribute of what they load, or an object loaded before. Before
# skops 0.12 the former could say that they were of another type than they were (CVE-2025-54412 and
# CVE-2025-54413).
LOADERS_WITHOUT_NAMES = frozenset({"CachedNode", "MethodNode", "OperatorFuncNode"})


def _names(module: str, names: str) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for name in names.split())


# Their predictions are sums of products. IterativeImputer calls them.
PREDICTORS = (
    _names("sklearn.linear_model._base", "LinearRegression")
    | _names("sklearn.linear_model._bayes", "ARDRegression BayesianRidge")
    | _names("sklearn.linear_model._coordinate_descent", "ElasticNet ElasticNetCV Lasso LassoCV")
    | _names("sklearn.linear_model._huber", "HuberRegressor")
    | _names("sklearn.linear_model._least_angle", "LassoLars LassoLarsCV LassoLarsIC")
    | _names("sklearn.linear_model._logistic", "LogisticRegression LogisticRegressionCV")
    | _names("sklearn.linear_model._ridge", "Ridge RidgeCV RidgeClassifier RidgeClassifierCV")
    | _names("sklearn.svm._classes", "LinearSVC LinearSVR")
)

_TRANSFORMERS = (
    _names("sklearn.cluster._agglomerative", "FeatureAgglomeration")
    | _names("sklearn.cluster._kmeans", "KMeans MiniBatchKMeans")
    | _names("sklearn.compose._column_transformer", "ColumnTransformer")
    | _names("sklearn.decomposition._factor_analysis", "FactorAnalysis")
    | _names("sklearn.decomposition._fastica", "FastICA")
    | _names("sklearn.decomposition._incremental_pca", "IncrementalPCA")
    | _names("sklearn.decomposition._kernel_pca", "KernelPCA")
    | _names("sklearn.decomposition._nmf", "NMF")
    | _names("sklearn.decomposition._pca", "PCA")
    | _names("sklearn.decomposition._truncated_svd", "TruncatedSVD")
    | _names("sklearn.discriminant_analysis", "LinearDiscriminantAnalysis")
    | _names("sklearn.feature_selection._from_model", "SelectFromModel")
    | _names("sklearn.feature_selection._rfe", "RFE RFECV")
    | _names("sklearn.feature_selection._sequential", "SequentialFeatureSelector")
    | _names(
        "sklearn.feature_selection._univariate_selection",
        "GenericUnivariateSelect SelectFdr SelectFpr SelectFwe SelectKBest SelectPercentile",
    )
    | _names("sklearn.feature_selection._variance_threshold", "VarianceThreshold")
    | _names("sklearn.impute._base", "MissingIndicator SimpleImputer")
    | _names("sklearn.impute._iterative", "IterativeImputer")
    | _names("sklearn.impute._knn", "KNNImputer")
    | _names("sklearn.kernel_approximation", "Nystroem RBFSampler")
    | _names("sklearn.pipeline", "FeatureUnion Pipeline")
    | _names(
        "sklearn.preprocessing._data",
        "Binarizer KernelCenterer MaxAbsScaler MinMaxScaler Normalizer PowerTransformer "
        "QuantileTransformer RobustScaler StandardScaler",
    )
    | _names("sklearn.preprocessing._discretization", "KBinsDiscretizer")
    | _names("sklearn.preprocessing._encoders", "OneHotEncoder OrdinalEncoder")
    | {FUNCTION_TRANSFORMER}
    | _names("sklearn.preprocessing._polynomial", "PolynomialFeatures SplineTransformer")
    | _names("sklearn.preprocessing._target_encoder", "TargetEncoder")
    | _names("sklearn.random_projection", "GaussianRandomProjection SparseRandomProjection")
)

# Parts of them: columns, folds and splines.
_PARTS = (
    _names("sklearn.compose._column_transformer", "_RemainderColsList make_column_selector")
    | _names("sklearn.model_selection._split", "KFold StratifiedKFold")
    | _names("scipy.interpolate._bsplines", "BSpline")
)

# Of NumPy's functions, those of one array. NumPy has moved them twice.
_UFUNCS = frozenset().union(
    *(
        _names(
            module,
            "absolute arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil cos cosh deg2rad "
            "degrees exp exp2 expm1 fabs floor log log10 log1p log2 negative rad2deg radians "
            "reciprocal rint sign sin sinh sqrt square tan tanh trunc",
        )
        for module in (
            *("numpy", "numpy.core.umath", "numpy.core._multiarray_umath"),
            *("numpy._core.umath", "numpy._core._multiarray_umath"),
        )
    )
)

# Pooling of FeatureAgglomeration. NumPy has renamed two of them.
_POOLING = _names("numpy", "amax amin max mean median min")

_SCORES = _names(
    "sklearn.feature_selection._univariate_selection",
    "chi2 f_classif f_oneway f_regression r_regression",
) | _names("sklearn.feature_selection._mutual_info", "mutual_info_classif mutual_info_regression")

# Functions, and the attributes that may be one. Splines have theirs from SciPy, not from the file.
FUNCTIONS_OF_ATTRIBUTES = {
    "func": _UFUNCS,
    "inverse_func": _UFUNCS,
    "pooling_func": _POOLING,
    "score_func": _SCORES,
}

_NUMBERS = _names(
    "numpy",
    "bool bool_ float16 float32 float64 int16 int32 int64 int8 longlong str_ uint16 uint32 uint64 "
    "uint8 ulonglong",
)

TYPES_OF_LOADERS = {
    "BytesNode": _names("builtins", "bytes"),
    "DTypeNode": _names("numpy", "dtype"),
    "DictNode": _names("builtins", "dict") | _names("collections", "OrderedDict"),
    "FunctionNode": frozenset().union(*FUNCTIONS_OF_ATTRIBUTES.values())
    | _names("scipy._lib.array_api_compat.numpy._aliases", "asarray"),
    "ListNode": _names("builtins", "list"),
    "NdArrayNode": _NUMBERS | _names("numpy", "ndarray"),
    "ObjectNode": _TRANSFORMERS | PREDICTORS | _PARTS,
    "RandomStateNode": _names("numpy.random.mtrand", "RandomState"),
    "SetNode": _names("builtins", "set"),
    "SliceNode": _names("builtins", "slice"),
    "SparseMatrixNode": _names("scipy.sparse._csr", "csr_array csr_matrix")
    | _names("scipy.sparse._csc", "csc_array csc_matrix"),
    "TupleNode": _names("builtins", "tuple")
    | _names("sklearn.impute._iterative", "_ImputerTriplet"),
    "TypeNode": _NUMBERS
    | _names("builtins", "bool float int object str")
    | _names(
        "numpy",
        "character floating generic inexact integer number object_ signedinteger unsignedinteger",
    ),
}
