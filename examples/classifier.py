"""
Classify encrypted rows
=======================

A classifier for three classes, with string labels and a DataFrame. The labels and the
probabilities computed on encrypted rows are compared with those computed in the clear.

Needs pandas.
"""

# %%
# Load the wine data and give the classes names.

import time

import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier

N_ENCRYPTED_ROWS = 3

wine = load_wine(as_frame=True)
X = wine.data
y = np.array(["Barolo", "Grignolino", "Barbera"])[wine.target]
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# Train in the clear. The features need no scaling: each has thresholds of its own.

clf = NeuralNetClassifier(module__n_hidden_neurons=12, max_epochs=40, random_state=0)
clf.fit(X_train, y_train)
print(f"Classes:                      {', '.join(clf.classes_)}")
print(f"Features:                     {clf.n_features_in_}, first {clf.feature_names_in_[0]!r}")
print(f"Accuracy in the clear:        {clf.score(X_test, y_test):.3f}")

# %%
# Look at what the encrypted circuit will compute. A hidden neuron's sum has a limited range, so
# that it has few bits.

hidden, output = clf.program_.layers
print(f"Non-zero weights per neuron:  {np.count_nonzero(hidden.weights, axis=1)}")
print(f"Widths of their sums:         {np.abs(hidden.weights) @ hidden.input_high}")
print(f"Limit of these widths:        {clf.module_.max_widths[0]}")
print(f"Bits of the sums:             {hidden.n_accum_bits} hidden, {output.n_accum_bits} output")

# %%
# Compile. The simulation is fast enough for all test rows.

circuit = clf.compile()
clear = clf.predict(X_test)
simulated = clf.predict(X_test, execute_in_fhe="simulate")
print(f"Simulated = clear:            {np.sum(simulated == clear)} of {len(clear)} rows")

# %%
# Predict encrypted rows. Labels and probabilities are the same as in the clear.

circuit.keygen()
rows = X_test[:N_ENCRYPTED_ROWS]
start = time.perf_counter()
encrypted_proba = clf.predict_proba(rows, execute_in_fhe=True)
seconds = time.perf_counter() - start
encrypted = clf.classes_[encrypted_proba.argmax(axis=1)]
largest_difference = np.abs(encrypted_proba - clf.predict_proba(rows)).max()
print(f"Seconds per encrypted row:    {seconds / len(rows):.2f}")
print(f"Largest difference in proba:  {largest_difference}")
for i, label in enumerate(encrypted):
    print(
        f"Row {i}: encrypted {label:<10} ({encrypted_proba[i].max():.2f})  "
        f"clear {clear[i]:<10}  true {y_test[i]}"
    )
if largest_difference > 0:
    raise SystemExit("Encrypted and clear predictions differ.")
