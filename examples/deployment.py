"""
Deploy a model to a server that never sees data
===============================================

Three parties, each in a process of its own. Whoever trains exports two files. The server gets
`server.zip` and serves it over HTTP. The client makes keys, sends ciphertexts, and decrypts the
predictions.

Needs ``pip install 'cipherlearn[client,server]'``.
"""

# %%
# Train, compile and export. The scaler travels to the client, which runs it in the clear.

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import RemoteModel, export

N_ENCRYPTED_ROWS = 10


def train(directory, X, y):
    model = make_pipeline(
        StandardScaler(),
        NeuralNetClassifier(
            module__n_hidden_neurons=8,
            module__n_hidden_accum_bits=4,
            module__n_output_accum_bits=6,
            random_state=0,
        ),
    ).fit(X, y)
    model[-1].compile()
    for path in export(model, directory):
        print(f"Exported:                {path.name}, {path.stat().st_size} bytes")
    return model


# %%
# Serve. In production this is a machine of its own, and the command of its container.


def serve(server_zip, data_dir):
    command = [sys.executable, "-m", "cipherlearn", "serve", server_zip, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data-dir", data_dir], stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if found := re.search(r"running on (http://[\d.:]+)", line):
            return process, found[1]
    raise SystemExit("The server did not start.")


# %%
# Predict. All that the client knows is the address. The keys stay in its file.


def predict(url, keys, rows, predictions):
    model = RemoteModel(url, keys=keys)
    np.save(predictions, model.predict(np.load(rows)))
    print(f"Client's keys:           {os.path.getsize(keys)} bytes, id {model.client_.key_id[:8]}")


# %%
# All three, one after the other.


def main():
    data = load_wine()
    X_train, X_test, y_train, _ = train_test_split(
        data.data, data.target_names[data.target], random_state=0
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = train(directory, X_train, y_train)
        rows, predictions = directory / "rows.npy", directory / "predictions.npy"
        np.save(rows, X_test[:N_ENCRYPTED_ROWS])
        server, url = serve(directory / "server.zip", directory / "server-keys")
        try:
            client = multiprocessing.get_context("spawn").Process(
                target=predict, args=(url, directory / "my.keys", rows, predictions)
            )
            client.start()
            client.join()
        finally:
            server.terminate()
            server.communicate()
        encrypted = np.load(predictions)
    clear = model.predict(X_test[:N_ENCRYPTED_ROWS])
    print(f"Encrypted predictions:   {encrypted}")
    print(f"Clear predictions:       {clear}")
    if not np.array_equal(encrypted, clear):
        raise SystemExit("Encrypted and clear predictions differ.")


if __name__ == "__main__":
    main()
