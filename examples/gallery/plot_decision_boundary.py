"""
===================================================
Decision boundaries, clear, simulated and encrypted
===================================================

On two features the decision of a model can be drawn. A network of few bits has a boundary of
steps, and the boundary does not move when the rows are encrypted.
"""

# %%
# Two measurements of iris flowers, and a network of eight neurons.

from sklearn.datasets import load_iris

from cipherlearn import NeuralNetClassifier

X, y = load_iris(return_X_y=True, as_frame=True)
X = X[["petal length (cm)", "petal width (cm)"]]
clf = NeuralNetClassifier(
    module__n_hidden_neurons=8,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=100,
    random_state=0,
)
clf.fit(X, y)
circuit = clf.compile()

# %%
# Decide every point of a fine grid in the clear, those of a coarse one in simulation, and nine of
# them on ciphertexts. The simulation draws the errors that a bootstrap makes by chance. They are
# too rare to be seen here.

import numpy as np
import pandas as pd


def grid_of(n):
    length, width = np.meshgrid(np.linspace(0.5, 7.5, n), np.linspace(0, 3, n))
    return pd.DataFrame({X.columns[0]: length.ravel(), X.columns[1]: width.ravel()})


N = 32
fine, grid = grid_of(200), grid_of(N)
clear = clf.predict(grid)
simulated = clf.predict(grid, execute_in_fhe="simulate")

few = np.add.outer(N * np.array([6, 16, 26]), [6, 16, 26]).ravel()
encrypted = clf.predict(grid.iloc[few], execute_in_fhe=True)

# %%
# scikit-learn's own network, with as many neurons in floating point, is on the right. Its lines
# are straight where those of the encrypted network follow the thresholds of the features.

import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap

twin = clf.float_twin().set_params(mlpclassifier__max_iter=5000).fit(X, y)
colors = ListedColormap(["C0", "C1", "C2"])
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharex=True, sharey=True, layout="constrained")
panels = {
    "clear": (fine, clf.predict(fine)),
    "simulated, squares encrypted": (grid, simulated),
    "float network": (fine, twin.predict(fine)),
}
for ax, (title, (points, decision)) in zip(axes, panels.items(), strict=True):
    n = int(len(points) ** 0.5)
    mesh = (column.reshape(n, n) for column in (*points.to_numpy().T, decision))
    ax.pcolormesh(*mesh, cmap=colors, alpha=0.3, linewidth=0, rasterized=True)
    ax.scatter(*X.to_numpy().T, c=y, cmap=colors, s=8)
    ax.set(title=title, xlabel=X.columns[0])
axes[0].set_ylabel(X.columns[1])
points = grid.iloc[few].to_numpy().T
axes[1].scatter(*points, c=encrypted, cmap=colors, marker="s", s=60, edgecolor="k")

# %%

if not (np.array_equal(simulated, clear) and np.array_equal(encrypted, clear[few])):
    raise SystemExit("Encrypted and clear predictions differ.")
