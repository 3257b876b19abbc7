"""
=======================================
Search for parameters inside a pipeline
=======================================

A network is the last step of a pipeline like any other estimator. Here a ``ColumnTransformer``
prepares a table of mixed columns and a grid search chooses the network. The best pipeline then
predicts encrypted rows: what precedes the network runs in the clear, on the client.
"""

# %%
# Patients with diabetes, and whether the disease progressed fast within a year. The sex is a
# category, the rest are measurements.

from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from cipherlearn import NeuralNetClassifier

X, progression = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
y = (progression > 150).map({True: "fast", False: "slow"})
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

columns = make_column_transformer(
    (OneHotEncoder(), ["sex"]),
    remainder=StandardScaler(),
)
network = NeuralNetClassifier(
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=20,
    random_state=0,
)
pipe = Pipeline([("columns", columns), ("network", network)])

# %%
# Search in the clear. No candidate is compiled, because the clear score is the encrypted score.

grid = {
    "network__module__n_hidden_neurons": [2, 4, 8],
    "network__lr": [0.003, 0.01, 0.03],
}
search = GridSearchCV(pipe, grid, cv=3, return_train_score=True)
search.fit(X_train, y_train)
print(f"Best: {search.best_params_}")
print(f"Accuracy on test rows: {search.score(X_test, y_test):.3f}")

# %%
# What the search saw. Bars are one standard deviation over the folds. A difference smaller than a
# bar is no reason to pay for more neurons, each of which is a bootstrap in every encrypted row.

import matplotlib.pyplot as plt
import numpy as np

shape = len(grid["network__lr"]), len(grid["network__module__n_hidden_neurons"])
mean = search.cv_results_["mean_test_score"].reshape(shape)
std = search.cv_results_["std_test_score"].reshape(shape)

fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
neurons = np.array(grid["network__module__n_hidden_neurons"])
for i, lr in enumerate(grid["network__lr"]):
    ax.errorbar(neurons + 0.12 * (i - 1), mean[i], std[i], marker="o", capsize=3, label=f"lr={lr}")
ax.set(xlabel="hidden neurons", ylabel="accuracy, 3 folds", xticks=neurons)
ax.legend()

# %%
# Compile the last step. The pipeline passes ``execute_in_fhe`` on to it.

best = search.best_estimator_
best[-1].compile()
encrypted = best.predict(X_test.head(8), execute_in_fhe=True)
clear = best.predict(X_test.head(8))
print(f"Encrypted: {' '.join(encrypted)}")
print(f"Clear:     {' '.join(clear)}")
print(f"True:      {' '.join(y_test.head(8))}")
if not np.array_equal(encrypted, clear):
    raise SystemExit("Encrypted and clear predictions differ.")
