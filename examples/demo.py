"""Train on the breast-cancer data, compile, and predict encrypted rows.

Run it with ``make demo``. It prints what it measures.
"""

import time

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier

N_ENCRYPTED_ROWS = 10

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

float_network = make_pipeline(StandardScaler(), MLPClassifier(max_iter=1000, random_state=0))
float_network.fit(X_train, y_train)
print(f"Accuracy of a float MLP:          {float_network.score(X_test, y_test):.1%}")

model = make_pipeline(StandardScaler(), NeuralNetClassifier(random_state=0))
model.fit(X_train, y_train)
print(f"Accuracy of cipherlearn, clear:   {model.score(X_test, y_test):.1%}")

circuit = model[-1].compile(verbose=1)
circuit.keygen()
print(f"Bootstraps per row:               {model[-1].program_.n_bootstraps}")
print(f"Error probability per bootstrap:  {circuit.p_error:.1e}")
print(f"Evaluation keys, compressed:      {len(circuit.evaluation_keys()) / 1e6:.1f} MB")

rows = X_test[:N_ENCRYPTED_ROWS]
model.predict(rows[:1], execute_in_fhe=True)  # the first call unpacks the keys
seconds, encrypted = [], []
for row in rows:
    start = time.perf_counter()
    encrypted.append(model.predict(row[None, :], execute_in_fhe=True)[0])
    seconds.append(time.perf_counter() - start)
clear = model.predict(rows)
print(f"Encrypted = clear:                {np.sum(encrypted == clear)} of {len(rows)} rows")
print(f"Seconds per encrypted row:        {np.median(seconds):.2f} (median)")
print(f"Accuracy on the encrypted rows:   {np.mean(encrypted == y_test[: len(rows)]):.0%}")
if not np.array_equal(encrypted, clear):
    raise SystemExit("Encrypted and clear predictions differ.")
