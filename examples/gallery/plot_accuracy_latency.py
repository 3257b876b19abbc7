"""
==========================
Trade accuracy for latency
==========================

Each hidden neuron is a bootstrap in every encrypted row, and bootstraps are what takes the time. A
search that weighs accuracy against latency says how many neurons are worth it.
"""

# %%
# ``EncryptedSearchCV`` is a grid search. It scores each candidate in the clear, estimates the time
# of an encrypted row on this machine, and takes the fastest whose score is within ``tolerance`` of
# the best. The winner is trained on all rows and compiled. One split is enough here. Use more
# where candidates are close.

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import ShuffleSplit, train_test_split

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
clf = NeuralNetClassifier(
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=40,
    random_state=0,
)
grid = {"module__n_hidden_neurons": [2, 4, 16]}
split = ShuffleSplit(1, test_size=0.4, random_state=0)
search = EncryptedSearchCV(clf, grid, tolerance=0.015, cv=split)
search.fit(X_train, y_train)
print(f"Chosen: {search.best_params_}, score {search.best_score_:.2f}")

# %%
# A candidate is on the frontier if no faster one scores as well. The star is the winner.

from cipherlearn.inspection import LatencyDisplay

display = LatencyDisplay.from_search(search)
for n_neurons, x, score in zip(
    grid["module__n_hidden_neurons"], display.seconds, display.scores, strict=True
):
    display.ax_.annotate(
        f"{n_neurons} neurons", (x, score), (9, -12), textcoords="offset points", fontsize=8
    )
display.ax_.margins(0.2)

# %%
# No search is complete without a model of one layer. It has no hidden neuron, so it needs no
# bootstrap, and wide sums cost it little: it is the wide path that the other networks have besides.

one_layer = NeuralNetClassifier(module__n_layers=1, max_epochs=40, random_state=0)
one_layer.fit(X_train, y_train)
one_layer.compile()

# %%
# Time both on ciphertexts. The first call makes the keys, so it is not timed. Both predict what
# they predict in the clear.

import time

import numpy as np

rows = X_test[:5]
models = {"chosen network": search, "one layer": one_layer}
measured = {}
for name, model in models.items():
    model.predict(rows[:1], execute_in_fhe=True)
    start = time.perf_counter()
    encrypted = model.predict(rows, execute_in_fhe=True)
    measured[name] = (time.perf_counter() - start) / len(rows)
    if not np.array_equal(encrypted, model.predict(rows)):
        raise SystemExit(f"Encrypted and clear predictions of the {name} differ.")

# %%
# Their scores on the test rows, against what was measured. Where features need not act together,
# the one layer is hard to beat. Try it first.

LatencyDisplay.from_estimators(models, X_test, y_test, seconds=measured)
