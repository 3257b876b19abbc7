"""
Search for parameters in a pipeline
===================================

A grid search over the width of the network and the learning rate, with two processes. The best
pipeline is then compiled and predicts encrypted rows. Its scaler runs on the client, in the
clear.
"""

import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier

N_ENCRYPTED_ROWS = 5


def main():
    """Search, compile the best pipeline, and predict encrypted rows."""
    X, y = load_iris(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

    # %%
    # Search in the clear. No candidate is compiled: clear and encrypted predictions are equal.

    pipe = Pipeline(
        [
            ("scale", StandardScaler()),
            ("net", NeuralNetClassifier(max_epochs=30, random_state=0)),
        ]
    )
    grid = {"net__module__n_hidden_neurons": [4, 8], "net__lr": [0.01, 0.03]}
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=2)
    search.fit(X_train, y_train)
    for parameters, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(f"{score:.3f}  {parameters}")
    print(f"Best:                    {search.best_params_}")
    print(f"Accuracy, test rows:     {search.score(X_test, y_test):.3f}")

    # %%
    # Compile the last step of the best pipeline, and predict encrypted rows through all of it.

    best = search.best_estimator_
    best[-1].compile()
    rows = X_test[:N_ENCRYPTED_ROWS]
    clear = best.predict(rows)
    encrypted = best.predict(rows, execute_in_fhe=True)
    print(f"Bootstraps per row:      {best[-1].program_.n_bootstraps}")
    print(f"Encrypted predictions:   {encrypted}")
    print(f"Clear predictions:       {clear}")
    if not np.array_equal(encrypted, clear):
        raise SystemExit("Encrypted and clear predictions differ.")


if __name__ == "__main__":
    main()
