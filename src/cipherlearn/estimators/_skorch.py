"""skorch and scikit-learn as the estimators use them: every private or fragile name is here.

Tested with skorch 1.4.0 and scikit-learn 1.6.1 to 1.9. Read this file again, and run all tests,
before the range of skorch in ``pyproject.toml`` grows. What searches override of scikit-learn, too,
is in ``cipherlearn._html``.
"""

from __future__ import annotations

import copyreg
import inspect
from types import NoneType
from typing import Any

import numpy as np
import skorch
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, validate_data
from skorch.callbacks import EarlyStopping, EpochScoring, PassthroughScoring
from skorch.utils import get_map_location, to_tensor
from torch.utils.data import DataLoader

from cipherlearn._features import as_csr, is_sparse, refusing_overflow
from cipherlearn._progress import stage
from cipherlearn._samples import merge_duplicates
from cipherlearn.estimators._modules import apply_module, is_own
from cipherlearn.estimators._names import check_names
from cipherlearn.nn._network import SparseQuantNeuralNetImpl
from cipherlearn.training._batches import RowDataset, TensorBatches, holds_arrays
from cipherlearn.training._callbacks import (
    CosineDecay,
    EpochLog,
    PruningCallback,
    TrainingProgress,
    WeightDecay,
)
from cipherlearn.training._schedule import choose_batch_size

__all__ = ["SkorchNet", "check_sample_weight", "forget_best_scores", "is_skorch_state"]

# torch has a fused Adam for the CPU since 2.4.
_FUSED_ADAM = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4)


class SkorchNet(skorch.NeuralNet):
    """skorch net whose constructor stores parameters and which has a method ``compile``.

    skorch's own constructor is not called: it sets an attribute ``compile``, and others that are no
    parameters.
    """

    device: Any
    criterion: Any
    _default_criterion: type[torch.nn.Module]

    # skorch collects these while it initializes. Here they are known beforehand, which keeps
    # ``__init__`` free of anything but parameters. There is no ``compile`` prefix, since that
    # name is a method here and not skorch's flag for torch.compile.
    prefixes_ = [
        "module",
        "criterion",
        "optimizer",
        "iterator_train",
        "iterator_valid",
        "callbacks",
        "dataset",
    ]
    _modules = ["module"]
    _criteria = ["criterion"]
    _optimizers = ["optimizer"]
    cuda_dependent_attributes_ = ["module_", "criterion_", "optimizer_"]
    history_ = None
    initialized_ = False
    virtual_params_: dict[str, Any] = {}

    # skorch arguments that have one sensible value here.
    dataset = RowDataset
    use_caching = "auto"
    torch_load_kwargs = None
    predict_nonlinearity = "auto"

    # As scikit-learn shows estimators. skorch's shows all that the module holds.
    __repr__ = BaseEstimator.__repr__

    # ------------------------------------------------------------------ parameters

    def _get_param_names(self) -> list[str]:
        # skorch counts every attribute; only constructor arguments are parameters.
        return sorted({*self._signature_parameters(), *self._params_to_validate})

    @classmethod
    def _signature_parameters(cls) -> list[str]:
        return BaseEstimator._get_param_names.__func__(cls)

    def _module_parameters(self) -> list[str]:
        """Names of arguments of modules among the net's own parameters."""
        prefix = "module__"
        return [n[len(prefix) :] for n in self._signature_parameters() if n.startswith(prefix)]

    @property
    def _params_to_validate(self) -> set[str]:
        """Arguments given as ``**kwargs``, whose names skorch checks in ``initialize``."""
        given = {k for k in vars(self) if not (k.startswith("_") or k.endswith("_"))}
        return given.difference(self._signature_parameters())

    def get_params(self, deep=True):
        """Get the parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include those of the callbacks.

        Returns
        -------
        dict
        """
        # skorch reports a callback's defaults over what was set for it.
        params = super().get_params(deep=deep)
        return params | {name: getattr(self, name) for name in self._get_param_names()}

    def set_params(self, **params):
        """Set parameters, which take effect at the next ``fit``.

        Parameters
        ----------
        **params
            Parameters by name, with skorch's prefixes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such parameter. The nearest names are in the message.
        """
        # skorch would re-create a trained module as soon as one of its parameters is set. A part
        # sorts before its arguments. A wrong name that the constructor was given is for fit.
        for name in sorted(params):
            if name not in self._get_param_names():
                check_names(self, [name])
            setattr(self, name, params[name])
        # The learning rate and its kin also change a live optimizer, for partial_fit.
        self._apply_virtual_params({k: v for k, v in params.items() if self._is_virtual_param(k)})
        return self

    def _named_callbacks(self) -> dict[str, Any] | None:
        """Callbacks by name, or None where ``callbacks`` is not a list that ``fit`` accepts."""
        try:
            return dict(self._uniquely_named_callbacks())
        except (TypeError, ValueError):
            return None

    @property
    def _default_callbacks(self):
        return [
            ("pruning", PruningCallback()),
            ("weight_decay", WeightDecay()),
            ("lr_decay", CosineDecay()),
            *((name, c) for name, c in super()._default_callbacks if name != "print_log"),
            ("progress_bar", TrainingProgress()),
            ("print_log", EpochLog()),
        ]

    # ------------------------------------------------------------------ parts of the net

    def initialize(self):
        """Create the module, the optimizer and the other parts, as ``fit`` does."""
        # Before the parts refuse arguments in words of their own. Some may add prefixes: skorch
        # checks those afterwards.
        check_names(self, (name for name in self._params_to_validate if self._is_settled(name)))
        return super().initialize()

    def _is_settled(self, name: str) -> bool:
        prefix, delimiter, _ = name.partition("__")
        return not delimiter or prefix in self.prefixes_

    def _validate_params(self):
        check_names(self, self._params_to_validate)
        super()._validate_params()

    def initialize_criterion(self):
        """Create the loss, per sample so that samples can be weighted."""
        criterion = self._default_criterion if self.criterion is None else self.criterion
        kwargs = self._criterion_arguments()
        if "reduction" in inspect.signature(criterion).parameters:
            kwargs = {"reduction": "none", **kwargs}
        self.criterion_ = criterion(**kwargs)
        return self

    def _criterion_arguments(self) -> dict[str, Any]:
        return self.get_params_for("criterion")

    def infer(self, x, **fit_params):
        """Compute outputs of a batch. Modules get what their ``forward`` names, besides rows."""
        if isinstance(self.module_, SparseQuantNeuralNetImpl):
            return super().infer(x, **fit_params)
        return apply_module(self.module_, to_tensor(x, device=self.device), **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Average the losses of a batch, weighted if its samples are."""
        losses = super().get_loss(y_pred, y_true, X=X, training=training)
        if losses.ndim > 1:
            losses = losses.flatten(start_dim=1).mean(dim=1)
        if not isinstance(X, dict):
            return losses.mean()
        if losses.ndim == 0:
            raise ValueError(
                "Weighted rows need a loss per row (weights of classes make them, and equal rows, "
                f"which are merged). {type(self.criterion_).__name__} gives one number per batch. "
                "Use a criterion that takes reduction='none', or distinct rows without weights."
            )
        return (losses * X["sample_weight"].to(losses)).mean()

    def torch_compile(self, module, name):
        """Leave modules as they are: ``compile`` here means compilation to a circuit."""
        return module

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Choose torch's fused kernel for Adam, where there is one and no other is asked for.

        On a small network an unfused step takes as long as the backward pass.
        """
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        chosen = kwargs.keys() & {"fused", "foreach", "capturable", "differentiable"}
        if _FUSED_ADAM and getattr(self, prefix) in (torch.optim.Adam, torch.optim.AdamW):
            kwargs = kwargs if chosen else {**kwargs, "fused": True}
        return args, kwargs

    def get_iterator(self, dataset, training=False):
        """Index whole batches of tensors, where the loader's options allow it."""
        loader = self.iterator_train if training else self.iterator_valid
        options = self.get_params_for("iterator_train" if training else "iterator_valid")
        batch_size = options.get("batch_size", self.batch_size)
        options["batch_size"] = choose_batch_size(batch_size, len(dataset))
        is_plain = options.keys() <= {"batch_size", "shuffle", "drop_last"}
        if loader is not DataLoader or not is_plain or not holds_arrays(dataset):
            return loader(dataset, **options)
        return TensorBatches(dataset, **options)

    def _check_features(self, X: Any) -> Any:
        """Return features as floats, dense or in CSR, or raise ValueError."""
        return self._validated(X, reset=False)

    def _validated(self, X: Any, *y: Any, **options: Any) -> Any:
        # Entries that are stored twice are one value, which is what has to be finite.
        X = as_csr(X) if is_sparse(X) else X
        with refusing_overflow():
            return validate_data(self, X, *y, dtype=np.float64, accept_sparse="csr", **options)

    def _merged(self, X: Any, y: NDArray, weights: NDArray) -> tuple[Any, NDArray, NDArray]:
        """Merge equal rows, for our own network."""
        if not is_own(self.module):
            return X, y, weights
        with stage("Merging equal rows", self.verbose):
            return merge_duplicates(X, y, weights)

    def check_data(self, X, y=None) -> None:
        """Do nothing: ``fit`` has validated its arguments."""

    def _is_training_dataset(self, X, execute_in_fhe: bool | str) -> bool:
        """Whether ``X`` is what skorch's scoring callbacks pass: the dataset, for the module."""
        if not skorch.utils.is_dataset(X):
            return False
        if execute_in_fhe is not False:
            raise ValueError(
                "Encrypted prediction needs an array of features. Got a dataset. Pass its X."
            )
        return True

    def _probability_rule(self) -> str | None:
        """How outputs become probabilities, as a LabelDecoder names it; None if in another way."""
        rows = torch.tensor([[0.5, -1.0, 2.0], [30.0, 0.0, -20.0]], dtype=torch.float64)
        made = self._get_predict_nonlinearity()(rows)
        if made.shape == rows.shape and torch.allclose(made, rows.softmax(dim=1), atol=0):
            return "softmax"
        return "identity" if torch.equal(made, rows) else None

    def _probabilities(self, outputs: NDArray) -> NDArray[np.float64]:
        """Apply the nonlinearity that follows from the criterion, such as softmax."""
        return self._get_predict_nonlinearity()(torch.from_numpy(outputs).double()).numpy()

    # ------------------------------------------------------------------ persistence

    def __reduce_ex__(self, protocol):
        # pickle and copy: skorch's state, with the optimizer's moments.
        if not isinstance(vars(self).get("module_"), SparseQuantNeuralNetImpl | NoneType):
            # Quantizers of Brevitas do not pickle.
            return copyreg.__newobj__, (type(self),), self.__getstate__()
        return copyreg.__newobj__, (type(self),), super().__getstate__()

    def _choose_available_device(self) -> None:
        """Take the CPU, with a warning, where there is no such device as ``device``."""
        # As skorch does with a pickle.
        self.device = self._check_device(self.device, get_map_location(self.device))


def is_skorch_state(state: dict[str, Any]) -> bool:
    """Whether this state of a net is what skorch pickles."""
    return "__cuda_dependent_attributes__" in state


def forget_best_scores(net: skorch.NeuralNet) -> None:
    """Let callbacks forget the best score so far, and the weights that reached it."""
    for _, callback in net.callbacks_:
        if isinstance(callback, EarlyStopping):
            callback.on_train_begin(net)
        elif isinstance(callback, EpochScoring | PassthroughScoring):
            callback.initialize()


def check_sample_weight(X: Any, sample_weight: ArrayLike | None) -> NDArray[np.float64]:
    """Return a weight for each row of ``X``, or raise ValueError."""
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():
        raise ValueError("At least one sample weight must be positive. Got only zeros.")
    return weights
