"""
=============================
Watch the two phases of a fit
=============================

Training begins in floating point, while weights are dropped little by little, and ends with
integers. The history of a fit shows both phases.
"""

# %%
# The estimators are skorch nets, so callbacks see every epoch. This one records how many of the
# weights are left. ``train_split`` holds rows out, whose loss is recorded too.

from sklearn.datasets import load_breast_cancer
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit

from cipherlearn import NeuralNetClassifier


class Sparsity(Callback):
    """Record the part of the weights that are not zero."""

    def on_epoch_end(self, net, **kwargs):
        """Count, after each epoch."""
        weights = [linear.effective_weight() for linear in net.module_.linears]
        left = sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
        net.history.record("weights_left", left)


X, y = load_breast_cancer(return_X_y=True)
clf = NeuralNetClassifier(
    module__n_hidden_neurons=8,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=50,
    train_split=ValidSplit(5, stratified=True),
    callbacks=[("sparsity", Sparsity())],
    random_state=0,
)
clf.fit(X, y)

# %%
# In the first phase each neuron loses its smallest weights, until it is within its budget. In the
# second, the weights are integers, the mask is fixed, and the float network is the teacher of the
# quantized one. Where the phases meet the training loss jumps. Its targets change too, so losses
# of the two phases are not to be compared.

from cipherlearn.inspection import TrainingHistoryDisplay

TrainingHistoryDisplay.from_estimator(clf)

# %%
# Sparsity is what keeps sums narrow. Every row of this picture is a hidden neuron, every column a
# code that some hidden neuron reads.

import matplotlib.pyplot as plt
import numpy as np

weights = clf.program_.layers[0].weights
limit = np.abs(weights).max()
fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
image = ax.imshow(weights, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
ax.set(xlabel="code", ylabel="hidden neuron", title=f"{np.mean(weights == 0):.0%} of these are 0")
fig.colorbar(image, label="integer weight")

# %%
# How long the first phase lasts is a parameter of a callback, like any other of skorch's. Here
# three lengths, scored on rows that were held out.

from sklearn.model_selection import cross_val_score

for warmup in (0.1, 0.4, 0.8):
    model = NeuralNetClassifier(
        module__n_hidden_neurons=8,
        module__n_hidden_accum_bits=4,
        module__n_output_accum_bits=6,
        max_epochs=20,
        callbacks__quantization__warmup=warmup,
        random_state=0,
    )
    scores = cross_val_score(model, X, y, cv=3)
    print(f"Warm-up of {warmup:.0%}: accuracy {scores.mean():.3f} ± {scores.std():.3f}")
