"""
=====================
Convert a trained MLP
=====================

A float network that is trained already teaches a sparse quantized one, which predicts on
ciphertexts. No labels are needed: the float network says what each row is, and how sure it is.
"""

# %%
# An MLP of scikit-learn, as one may have it from before. Its labels are words.

import numpy as np
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

X, y = make_moons(600, noise=0.25, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(
    X, np.array(["left", "right"])[y], random_state=0
)
mlp = MLPClassifier((32,), solver="lbfgs", alpha=1.0, max_iter=1000, random_state=0).fit(
    X_train, y_train
)

# %%
# The conversion sees rows alone. Parameters are those of the estimator: 8 hidden neurons, hence at
# most 8 bootstraps a row.

from cipherlearn import from_sklearn, presets

clf = from_sklearn(mlp, X_train, **presets.FAST, max_epochs=80, random_state=0)
agreement = (clf.predict(X_test) == mlp.predict(X_test)).mean()
print(f"accuracy of the MLP {mlp.score(X_test, y_test):.3f}")
print(f"converted {clf.score(X_test, y_test):.3f}, with {clf.program_.n_bootstraps} bootstraps")
print(f"both agree on {100 * agreement:.1f} % of the test rows")

# %%
# What both say of the whole plane. The converted network has steps, since its inputs are codes of a
# few bits, and follows the probabilities of the MLP, not its labels alone.

import matplotlib.pyplot as plt

xs, ys = np.meshgrid(np.linspace(-2, 3, 150), np.linspace(-1.5, 2, 150))
plane = np.column_stack([xs.ravel(), ys.ravel()])
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
for ax, model, title in zip(axes, (mlp, clf), ("MLP, float", "converted, integers"), strict=True):
    right = model.predict_proba(plane)[:, 1].reshape(xs.shape)
    filled = ax.contourf(xs, ys, right, levels=np.linspace(0, 1, 11), cmap="RdBu_r")
    for label, marker in (("left", "o"), ("right", "^")):
        rows = X_test[y_test == label]
        ax.scatter(*rows.T, s=14, marker=marker, color="white", edgecolor="0.2", label=label)
    ax.set(title=title, xlabel="first feature")
axes[0].set_ylabel("second feature")
axes[0].legend(loc="lower left")
fig.colorbar(filled, ax=axes, label='probability of "right"')

# %%
# From here on it is an estimator like any other. A few rows on ciphertexts:

clf.compile()
encrypted = clf.predict(X_test[:5], execute_in_fhe=True)
print("MLP:      ", mlp.predict(X_test[:5]))
print("encrypted:", encrypted)
if not np.array_equal(encrypted, clf.predict(X_test[:5])):
    raise SystemExit("Encrypted and clear labels differ.")
