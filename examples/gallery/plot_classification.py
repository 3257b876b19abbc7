"""
=======================
Classify encrypted rows
=======================

A classifier for three kinds of wine, with string labels and a DataFrame. It trains in the clear.
The labels and the probabilities that it computes on encrypted rows are compared with those in the
clear.
"""

# %%
# The features have names and units of all sizes. They need no scaling: each has thresholds of its
# own.

from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier

wine = load_wine(as_frame=True)
X, y = wine.data, wine.target.map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
X_train.head()

# %%
# Sums of 4 bits in the hidden layer, and of 6 bits in the last, make a fast network.

clf = NeuralNetClassifier(
    module__n_hidden_neurons=8,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=60,
    random_state=0,
)
clf.fit(X_train, y_train)
print(f"Accuracy in the clear: {clf.score(X_test, y_test):.3f}")

# %%
# Compile, which needs no data, and encrypt ten rows. The call below plays both parties: as the
# client it generates keys, encrypts and decrypts, as the server it computes on ciphertexts.

clf.compile()
rows = X_test.head(10)
encrypted = clf.predict_proba(rows, execute_in_fhe=True)
clear = clf.predict_proba(rows)
clf.classes_[encrypted.argmax(axis=1)]

# %%
# The same probabilities, row by row. Bars are clear, dots are encrypted.

import matplotlib.pyplot as plt
import numpy as np

fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
positions, bottom = np.arange(len(rows)), np.zeros(len(rows))
for i, label in enumerate(clf.classes_):
    ax.bar(positions, clear[:, i], bottom=bottom, color=f"C{i}", alpha=0.4, label=f"{label}, clear")
    bottom += clear[:, i]
    ends = encrypted[:, : i + 1].sum(axis=1)
    ax.plot(positions, ends, "o", color=f"C{i}", markeredgecolor="k", label=f"{label}, encrypted")
ax.set_xticks(positions, y_test.head(10), rotation=30, ha="right", fontsize=8)
ax.set(xlabel="true label of each row", ylabel="probability, stacked", ylim=(0, 1.05))
fig.legend(loc="outside right upper", fontsize=8)

# %%
# They are the same, not close to the same: both computed the same integers.

if not np.array_equal(encrypted, clear):
    raise SystemExit("Encrypted and clear probabilities differ.")
