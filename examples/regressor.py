"""
Predict a continuous target on encrypted rows
=============================================

A regressor for the progression of diabetes. It scales its target itself, so predictions come
in the units of the data. Encrypted predictions are compared with those in the clear.
"""

# %%
# Load the data.

import time

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetRegressor

N_ENCRYPTED_ROWS = 3

X, y = load_diabetes(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

# %%
# Train in the clear, a network and a linear model. The linear model needs no bootstrap when it
# is encrypted, so it is much cheaper.

network = NeuralNetRegressor(module__n_hidden_neurons=8, max_epochs=40, random_state=0)
linear = NeuralNetRegressor(module__n_layers=1, max_epochs=40, random_state=0)
models = {"network": network, "linear": linear}
for name, model in models.items():
    model.fit(X_train, y_train)
    print(f"{name:>8}: R2 in the clear        {model.score(X_test, y_test):.3f}")

# %%
# Compile both and predict encrypted rows.

rows = X_test[:N_ENCRYPTED_ROWS]
agree = True
for name, model in models.items():
    model.compile().keygen()
    start = time.perf_counter()
    encrypted = model.predict(rows, execute_in_fhe=True)
    seconds = time.perf_counter() - start
    clear = model.predict(rows)
    agree &= np.array_equal(encrypted, clear)
    print(f"{name:>8}: bootstraps per row     {model.program_.n_bootstraps}")
    print(f"{name:>8}: seconds per row        {seconds / len(rows):.3f}")
    print(f"{name:>8}: encrypted              {np.round(encrypted, 1)}")
    print(f"{name:>8}: clear                  {np.round(clear, 1)}")
print(f"    true:                        {y_test[:N_ENCRYPTED_ROWS]}")
if not agree:
    raise SystemExit("Encrypted and clear predictions differ.")
