"""
===================================
From measurements to small integers
===================================

Ciphertexts hold small integers, and only those. This example shows which: how a feature becomes
codes, and what levels the weights take.
"""

# %%
# A network for three kinds of iris flowers.

from sklearn.datasets import load_iris

from cipherlearn import NeuralNetClassifier

iris = load_iris(as_frame=True)
X, y = iris.data, iris.target_names[iris.target]
clf = NeuralNetClassifier(
    module__n_hidden_neurons=6,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=60,
    random_state=0,
)
clf.fit(X, y)

# %%
# A weight is one of seven levels, -3 to 3, and most are 0. Those of the wide path, which takes no
# bootstrap, are one of 255. A code is one of four. Levels without a bar are bits that a layer does
# not use.

from cipherlearn.inspection import IntegerLevelsDisplay

IntegerLevelsDisplay.from_estimator(clf, X)

# %%
# Four values would be few for a measurement. So a feature is a *thermometer* of several codes: as
# it rises, the first fills up, then the next. Each counts how many of its thresholds the feature
# reaches. These are the codes that hidden neurons read. The wide path reads others, too.

import matplotlib.pyplot as plt
import numpy as np

name = "petal length (cm)"
quantizer = clf.program_.quantizer
read = clf.program_.inputs[0]
is_of_feature = quantizer.feature[read] == X.columns.get_loc(name)
values = np.linspace(X[name].min(), X[name].max(), 500)
rows = np.tile(X.mean().to_numpy(), (len(values), 1))
rows[:, X.columns.get_loc(name)] = values
codes = quantizer(rows)[:, read[is_of_feature]]

fig, (top, bottom) = plt.subplots(
    2, 1, figsize=(7, 5), sharex=True, layout="constrained", height_ratios=[2, 1]
)
for i, code in enumerate(codes.T):
    top.step(values, 4.5 * i + code, where="post", color=f"C{i % 10}")
    top.axhline(4.5 * i, color="0.85", linewidth=0.8, zorder=0)
top.set_yticks(4.5 * np.arange(len(codes.T)), [f"code {i}" for i in read[is_of_feature]])
top.set_title("The codes of one feature, each from 0 to 3")
for label, group in X[name].groupby(y):
    bottom.hist(group, bins=30, range=(values[0], values[-1]), alpha=0.6, label=label)
bottom.set(xlabel=name, ylabel="flowers")
bottom.legend()

# %%
# A hidden neuron sums weights times codes. Those of one feature make a step function of it, which
# is what the neuron sees of a petal's length. Nothing here is a matter of scale: the features were
# never standardized.

weights = clf.program_.layers[0].weights[:, is_of_feature]
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for i, total in enumerate((codes @ weights.T).T):
    if total.any():
        ax.step(values, total, where="post", label=f"neuron {i}")
ax.axhline(0, color="0.8", zorder=0)
ax.set(xlabel=name, ylabel="part of the neuron's sum")
fig.legend(loc="outside right upper", fontsize=8)
