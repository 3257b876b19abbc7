"""
==============================
Round sums, exactly or cheaply
==============================

A table lookup costs more with every bit that it reads. Rounding lets a sum be wider than its
table, so that a neuron has room for more weights. There are two ways to round on ciphertexts.
"""

# %%
# Networks whose tables read 3 bits. Their sums have one to three bits more, which are rounded
# away. Training knows about the rounding.

from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier

TABLE_BITS = 3

X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
networks = {
    n_removed: NeuralNetClassifier(
        module__n_hidden_neurons=6,
        module__n_hidden_accum_bits=TABLE_BITS + n_removed,
        module__rounding_bits=TABLE_BITS,
        module__n_output_accum_bits=5,
        max_epochs=40,
        random_state=0,
    ).fit(X_train, y_train)
    for n_removed in (1, 2, 3)
}
for n_removed, clf in networks.items():
    print(f"{n_removed} removed: accuracy {clf.score(X_test, y_test):.3f} in the clear")

# %%
# Exact rounding takes each bit away by a narrow bootstrap of its own. Approximate rounding takes
# none, and the noise of encryption decides sums near the middle of two steps. ``flip_rate`` is the
# share of 1000 random rows whose result changes by that, in simulation.

modes = ("exact", "approximate")
bootstraps = {mode: [] for mode in modes}
flips = {mode: [] for mode in modes}
for clf in networks.values():
    for mode in modes:
        circuit = clf.compile(rounding=mode)
        bootstraps[mode].append(circuit.n_bootstraps)
        flips[mode].append(100 * circuit.flip_rate)

# %%
# What that means in seconds is estimated for the network that loses two bits, on the machine that
# built this page, whose kernels are timed for the same precisions.

seconds = [networks[2].estimate(rounding=mode).seconds_per_row for mode in modes]

# %%
# Exact rounding pays in time, approximate rounding in certainty. Random rows are a hard case for
# it, because all of their codes are equally likely.

import matplotlib.pyplot as plt
import numpy as np

fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
at = np.array(list(networks))
panels = {"bootstraps a row": bootstraps, "random rows that flip, %": flips}
for ax, (title, values) in zip(axes, panels.items(), strict=False):
    for i, mode in enumerate(modes):
        bars = ax.bar(at + 0.4 * (i - 0.5), values[mode], 0.38, color=f"C{i}", label=mode)
        ax.bar_label(bars, fmt="%.3g", fontsize=8)
    ax.margins(y=0.15)
    ax.set(title=title, xlabel="bits removed", xticks=at)
axes[0].legend(loc="upper left")
bars = axes[2].bar(modes, seconds, color=["C0", "C1"])
axes[2].bar_label(bars, fmt="%.2g", fontsize=8)
axes[2].margins(y=0.15)
axes[2].set(title="estimated seconds a row", xlabel="2 bits removed")

# %%
# With exact rounding, encrypted predictions are the clear ones.

clf = networks[2]
clf.compile(rounding="exact")
encrypted = clf.predict_proba(X_test[:4], execute_in_fhe=True)
print(encrypted.round(3))
if not np.array_equal(encrypted, clf.predict_proba(X_test[:4])):
    raise SystemExit("Encrypted and clear probabilities differ.")
