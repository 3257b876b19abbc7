"""
From a messy CSV to a remote encrypted prediction
=================================================

Customers of a shop: their country and plan are strings, some values are missing, and only 6 % of
them leave. `train` reads the file, turns its columns into numbers, trains and exports. A service
predicts on ciphertexts. `predict` is the client: imputers and encoders travelled to it, so that it
sends the columns of the CSV as they are, encrypted.

Needs ``pip install 'cipherlearn[client,server]'``.
"""

import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import RemoteModel, export

N_ROWS = 1000


def write_csv(path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "country": rng.choice(
                ["Austria", "Brazil", "Chad", None], N_ROWS, p=[0.5, 0.3, 0.1, 0.1]
            ),
            "plan": rng.choice(["free", "monthly", "yearly"], N_ROWS),
            "age": rng.integers(18, 80, N_ROWS).astype(float),
            "visits": rng.poisson(5, N_ROWS),
            "spent": rng.lognormal(3, 1, N_ROWS).round(2),
        }
    )
    risk = 2.0 * (table["plan"] == "monthly") - 0.6 * table["visits"] - 0.03 * table["age"]
    risk += rng.normal(0, 0.5, N_ROWS)
    table["leaves"] = np.where(risk > risk.quantile(0.94), "yes", "no")
    table.loc[rng.random(N_ROWS) < 0.15, "age"] = np.nan
    table.loc[rng.random(N_ROWS) < 0.1, "spent"] = np.nan
    table.to_csv(path, index=False)


# %%
# Read, train and export. Class weights make the rare class count as much as the other.


def train(path, directory):
    table = pd.read_csv(path)
    X, y = table.drop(columns="leaves"), table["leaves"]
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
    columns = make_column_transformer(
        (OneHotEncoder(), make_column_selector(dtype_exclude="number")),
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    small = {"module__n_hidden_neurons": 8, "module__n_hidden_accum_bits": 4}
    network = NeuralNetClassifier(**small, class_weight="balanced", random_state=0)
    model = make_pipeline(columns, network).fit(X, y)
    model[-1].compile()
    export(model, directory)
    return model, X_test, y_test


# %%
# Predict, from the columns as they stand in the file.


def predict(url, keys, X):
    return RemoteModel(url, keys=keys).predict(X)


# %%
# Serve. In production this is a machine of its own.


def serve(server_zip, data_dir):
    command = [sys.executable, "-m", "cipherlearn", "serve", server_zip, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data-dir", data_dir], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if found := re.search(r"running on (http://[\d.:]+)", line):
            return process, found[1]
    raise SystemExit("The server did not start.")


def main():
    with tempfile.TemporaryDirectory() as directory:
        write_csv(os.path.join(directory, "customers.csv"))
        model, X_test, y_test = train(os.path.join(directory, "customers.csv"), directory)
        # Rows of both classes.
        leaving = y_test[y_test == "yes"].index[:5]
        rows = leaving.union(y_test[y_test == "no"].index[:5])
        server, url = serve(
            os.path.join(directory, "server.zip"), os.path.join(directory, "server-keys")
        )
        try:
            encrypted = predict(url, os.path.join(directory, "my.keys"), X_test.loc[rows])
        finally:
            server.terminate()
            server.communicate()
    clear = model.predict(X_test.loc[rows])
    score = balanced_accuracy_score(y_test, model.predict(X_test))
    print(f"Rows that leave:                  {(y_test == 'yes').mean():.1%}")
    print(f"Balanced accuracy, in the clear:  {score:.1%} of all test rows")
    print(f"Encrypted predictions:            {(encrypted == 'yes').sum()} of {len(rows)} leave")
    print(f"Encrypted = clear:                {(encrypted == clear).sum()} of {len(rows)} rows")
    if not (encrypted == clear).all() or score < 0.7:
        raise SystemExit("The encrypted predictions must be as good as clear ones.")


if __name__ == "__main__":
    main()
