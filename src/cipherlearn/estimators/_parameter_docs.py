"""Documentation of the parameters that both estimators share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["OTHER_PARAMETERS_DOC", "PARAMETERS_DOC", "with_parameter"]

PARAMETERS_DOC = """
    The basic parameters come first, the advanced ones under *Other Parameters*.

    Parameters
    ----------
    module : torch module or class, default=SparseQuantNeuralNetImpl
        The network, or one of your own of Brevitas layers (see the user guide), which is trained
        as skorch does and lowered. It gets those of the following arguments that it names, and
        ``input_dim`` and ``n_outputs`` if it names them. An instance is copied.
    module__n_layers : int, default=2
        Number of linear layers. 1 is a linear model, which needs no bootstrap at all: the wide path
        alone, if there is one.
    module__n_hidden_neurons : "auto", int or sequence of int, default="auto"
        Neurons of each hidden layer, or one number per hidden layer. Each hidden neuron
        costs one bootstrap per encrypted row. "auto" takes one for 64 rows of the training data,
        at least 24 and at most 64. Those that turn out to change nothing are left out.
    module__n_w_bits : int, default=3
        Bit-width of a weight, from 2 to 8.
    module__n_a_bits : int, default=2
        Bit-width of an input or activation, from 1 to 8.
    module__n_accum_bits : int, default=8
        Bit-width of an accumulator. ``compile`` refuses a network that some
        input could drive beyond it.
    module__n_hidden_accum_bits : int or None, default=4
        Bit-width of the accumulators of hidden layers. The cost of a bootstrap
        grows steeply with it. It is guaranteed by a bound on the span of each neuron.
        With ``None``, or without pruning, ``module__n_accum_bits`` applies.{own}
    lr : float, default=0.015
        Learning rate at the start of each phase.
    max_epochs : int or None, default=None
        Epochs of one ``fit``, or of one ``partial_fit``. ``None`` chooses between 10
        and 500, to make about 1000 steps.
    batch_size : int or None, default=None
        Rows of a training batch. ``None`` takes 64, and up to 512 for more than 5000 rows. -1 takes
        all rows at once.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights and of the order of the batches.
    verbose : int, default=0
        With 1 the progress of training, compilation, key generation and encrypted prediction is
        shown, as bars on a screen and as lines in a log. With 2 also skorch's line per epoch.
"""

OTHER_PARAMETERS_DOC = """
    Other Parameters
    ----------------
    module__rounding_bits : int or None, default=None
        Most significant bits of a hidden accumulator that its lookup table sees, so that sums may
        be wider than tables. ``compile(rounding=...)`` says how they are rounded. With
        ``None`` it sees all.
    module__n_output_accum_bits : int or None, default=6
        Bit-width of the accumulators of the last layer. 6 makes every bootstrap cheaper than 8
        do. With ``None``, or without pruning, ``module__n_accum_bits`` applies. The wide
        path's have 16 bits.
    module__n_hidden_neurons_multiplier : float, default=2.3
        A neuron keeps at most ``floor(multiplier * Ω)`` non-zero weights, with Ω from
        :func:`~cipherlearn.max_active_neurons`. Weights are signed, so 2.3 is safe for bit-widths
        of 2 and 3.
    module__budget : {{"omega", "l1"}}, default="omega"
        Whether ``module__n_accum_bits`` bounds the number of each neuron's non-zero weights, or
        the sum of their magnitudes.
    module__n_input_bits : int or None, default=1
        Bit-width of the codes that the first hidden layer reads, in place of ``module__n_a_bits``.
        A sum holds more inputs of 1 bit. The wide path has codes of ``module__n_a_bits``.
    module__n_components : int or "auto", default="auto"
        Principal components of the standardized features that are encoded beside them, which is
        free too: the client computes them in the clear. They help where many features say little
        each and much together. "auto" takes up to 32 where they lower the error of ridge regression
        on rows that are left out, and none elsewhere, nor of more than 2000 features.
    module__n_codes_per_feature : int or "auto", default="auto"
        Codes that the client makes of each feature, which is free. "auto" takes more for few
        features than for many. Fewer make training faster.
    module__threshold_placement : {{"mixed", "uniform", "quantile"}}, default="mixed"
        Whether the thresholds between codes are evenly spaced, have equally many values between
        them, or are the means of both.
    module__activation_function : callable, default=torch.nn.ReLU
        Class of an element-wise torch activation. It becomes a lookup table.
    module__pruning : bool, default=True
        Whether to keep each neuron within its budget of weights.
    module__wide_path : bool, default=True
        Whether the input codes also lead straight to the outputs, by sums of 16 bits that need no
        bootstrap. The client decrypts them too, and adds them to what the layers give.
    criterion : torch loss class or None, default=None
        Loss. ``None`` takes {criterion}. ``criterion__*`` are its arguments.
    optimizer : torch optimizer class, default=torch.optim.Adam
        Optimizer. ``optimizer__*`` are its arguments.
    iterator_train : data loader class, default=torch.utils.data.DataLoader
        Loader of the training batches. ``iterator_train__*`` are its arguments.
    iterator_train__shuffle : bool, default=True
        Whether each epoch has an order of its own.
    iterator_valid : data loader class, default=torch.utils.data.DataLoader
        Loader of the validation batches. ``iterator_valid__*`` are its arguments.
    train_split : callable or None, default=None
        How skorch sets rows aside for validation, such as ``skorch.dataset.ValidSplit(5)``.
        ``None`` trains on all rows. Early stopping needs a split.
    callbacks : list or None, default=None
        More skorch callbacks. ``callbacks__pruning__*`` and ``callbacks__weight_decay__*``
        configure those of this library, and ``callbacks__lr_decay=None`` removes its learning-rate
        schedule.
    callbacks__quantization__warmup : float, default=0.4
        Fraction of the epochs of a first ``fit`` that train the float network.
    callbacks__quantization__percentile : float, default=95.0
        Codes span each neuron's activation between percentiles ``100 - percentile`` and
        ``percentile`` of the training data.
    callbacks__quantization__distillation : float, default=0.9
        Share of the float network's outputs in the targets of the fine-tuning.
    callbacks__quantization__augment : bool, default=True
        Whether to train a larger float network first. Where it is better than a float copy of this
        one, on rows held out, it labels noisy copies of the rows, and its outputs are half of
        the targets. Data of fewer than 500 rows or sparse features are not augmented, nor
        is it done with a criterion of your own.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the present network, whatever parameters of the module have
        been set since.
    device : str, default="cpu"
        Torch device to train on. Prediction always runs on the CPU.
    warn_on_loss : bool, default=True
        Whether to warn if quantization and pruning cost more than 2 points of the training score.
        Training of fewer than 300 steps after the warm-up never warns.
    **kwargs
        Further parameters with skorch's prefixes, such as ``optimizer__weight_decay``.
"""


def with_parameter(init: Callable, name: str, default: Any) -> inspect.Signature:
    """Add a keyword argument to the signature of a constructor that ends in ``**kwargs``."""
    signature = inspect.signature(init)
    *named, others = signature.parameters.values()
    added = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    return signature.replace(parameters=[*named, added, others])
