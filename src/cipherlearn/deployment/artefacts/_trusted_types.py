"""Types in the transformers of scikit-learn that a client loads without being asked to trust them.

A ``client.zip`` may come from anyone. What its preprocessing names is imported, may be called with
arguments from the file while it is loaded, and with the client's rows afterwards. So each name is
listed here because somebody looked at what it does with hostile arguments: it computes or holds
values, and reads no file, opens no connection, runs no code that it is given and calls nothing by
name. A rule such as "all of ``sklearn``" would let in loaders of files and of pickles. Estimators
are not listed: skops knows those of scikit-learn itself.

Trees and neighbour trees are left out on purpose. Their compiled code follows indices from the file
without looking where they lead. ``_preprocessing`` looks at those of sparse matrices, splines and
one-hot encoders. Nobody has looked at every fitted attribute of every estimator that skops knows.
"""

from __future__ import annotations

__all__ = ["LOADERS_WITHOUT_NAMES", "TREE", "TRUSTED_TYPES"]

# Versions of skops differ on whether it needs to be named. Here it does.
TREE = "sklearn.tree._tree.Tree"

# Loaders of skops that look up an attribute of what they load. Before skops 0.12 they could say
# that they were of another type than they were (CVE-2025-54412 and CVE-2025-54413).
LOADERS_WITHOUT_NAMES = frozenset({"MethodNode", "OperatorFuncNode"})

_SCORE_FUNCTIONS = (
    *("chi2", "f_classif", "f_oneway", "f_regression", "r_regression"),
    *("mutual_info_classif", "mutual_info_regression"),
)

TRUSTED_TYPES = frozenset(
    {
        # Values and types of values.
        "builtins.object",
        "numpy.dtype",
        *(f"numpy.{name}" for name in ("generic", "number", "integer", "signedinteger")),
        *(f"numpy.{name}" for name in ("unsignedinteger", "inexact", "floating", "character")),
        *(
            f"scipy.sparse._{form}.{form}_{kind}"
            for form in ("csr", "csc")
            for kind in ("matrix", "array")
        ),
        # Pooling of FeatureAgglomeration. NumPy has renamed two of them.
        *(f"numpy.{name}" for name in ("mean", "median", "max", "min", "amax", "amin")),
        # Score functions of SelectKBest and its like.
        *(f"sklearn.feature_selection._univariate_selection.{name}" for name in _SCORE_FUNCTIONS),
        *(f"sklearn.feature_selection._mutual_info.{name}" for name in _SCORE_FUNCTIONS),
        # Folds of RFECV, SequentialFeatureSelector and TargetEncoder.
        *(f"sklearn.model_selection._split.{name}" for name in ("KFold", "StratifiedKFold")),
        # ColumnTransformer.
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.compose._column_transformer.make_column_selector",
        # IterativeImputer, which skops does not know as long as it is experimental.
        "sklearn.impute._iterative.IterativeImputer",
        "sklearn.impute._iterative._ImputerTriplet",
        # SplineTransformer.
        "scipy.interpolate._bsplines.BSpline",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
    }
)
