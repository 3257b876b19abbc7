"""
=============================================
Predict a continuous target on encrypted rows
=============================================

A regressor for the progression of diabetes, as a network and as a model without hidden neurons.
The target is scaled inside, so predictions come in the units of the data.
"""

# %%
# Train both in the clear. Without a hidden layer there is no bootstrap, so encrypted prediction
# takes milliseconds. With it, features can act together.

from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetRegressor

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

network = NeuralNetRegressor(
    module__n_hidden_neurons=8,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=60,
    random_state=0,
)
one_layer = NeuralNetRegressor(module__n_layers=1, max_epochs=60, random_state=0)
models = {"8 hidden neurons": network, "no hidden layer": one_layer}
for name, model in models.items():
    model.fit(X_train, y_train)
    print(f"{name}: R2 {model.score(X_test, y_test):.2f} in the clear")

# %%
# Compile both, and predict the same rows encrypted and in the clear.

N_ROWS = 12
encrypted, clear = {}, {}
for name, model in models.items():
    circuit = model.compile()
    encrypted[name] = model.predict(X_test[:N_ROWS], execute_in_fhe=True)
    clear[name] = model.predict(X_test)
    print(f"{name}: {circuit.n_bootstraps} bootstraps a row")

# %%
# Every test row in the clear, and the encrypted ones as circles on top. The distance to the
# diagonal is the model's error. The distance of a circle to its point would be that of encryption:
# it is zero.

import matplotlib.pyplot as plt
import numpy as np

fig, axes = plt.subplots(1, 2, figsize=(7, 3.5), sharex=True, sharey=True, layout="constrained")
for ax, name in zip(axes, models, strict=True):
    ax.axline((150, 150), slope=1, color="0.8", zorder=0)
    ax.plot(y_test, clear[name], ".", alpha=0.6, label="clear")
    ax.plot(y_test[:N_ROWS], encrypted[name], "o", color="C3", fillstyle="none", label="encrypted")
    ax.set(title=name, xlabel="true progression")
axes[0].set_ylabel("predicted progression")
axes[0].legend()

# %%

for name in models:
    if not np.array_equal(encrypted[name], clear[name][:N_ROWS]):
        raise SystemExit(f"Encrypted and clear predictions of the model with {name} differ.")
