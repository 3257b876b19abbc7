# ---
# jupyter:
#   jupytext:
#     formats: ipynb,notebooks//py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Accuracy and latency
#
# An encrypted row costs a fixed time, and one *bootstrap* for each hidden neuron. Fewer neurons
# with narrower sums are faster, and at some point less accurate. This notebook chooses a network,
# makes it smaller, and exports it for a server.
#
# You need `pip install '.[plot]'` in a checkout, and a minute.

# %%
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import StratifiedShuffleSplit, train_test_split

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier
from cipherlearn.deployment import FHEClient, FHEServer, export
from cipherlearn.inspection import LatencyDisplay

wine = load_wine()
X, y = wine.data, np.array(["Barolo", "Grignolino", "Barbera"])[wine.target]
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)

# %% [markdown]
# ## Foresee the cost
#
# A network of 16 hidden neurons, whose sums fit 4 bits. `estimate` compiles and times circuits of a
# few neurons of the same bits, on this machine. The network itself need not be compiled.

# %%
full = NeuralNetClassifier(
    module__n_hidden_neurons=16,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=100,
    random_state=0,
).fit(X_train, y_train)
cost = full.estimate()
print(f"Accuracy:        {full.score(X_test, y_test):.3f}")
print(f"Bootstraps:      {cost.n_bootstraps}")
print(
    f"Estimated:       {cost.seconds_per_row:.2f} s a row, {cost.fixed_seconds:.2f} s of it fixed"
)
print(f"Evaluation keys: {cost.key_bytes / 1e6:.0f} MB")

# %% [markdown]
# ## Let a search choose
#
# `EncryptedSearchCV` is scikit-learn's grid search with latency as a second score. The fastest
# network wins whose accuracy is within `tolerance` of the best one's. A model of one layer has no
# hidden neuron, hence no bootstrap, and is always worth a try.
#
# One split keeps this notebook short. Without `cv` there are five folds.

# %%
grid = [
    {"module__n_layers": [1]},
    {"module__n_layers": [2], "module__n_hidden_neurons": [4, 16]},
]
split = StratifiedShuffleSplit(n_splits=1, test_size=0.4, random_state=0)
search = EncryptedSearchCV(full, grid, cv=split).fit(X_train, y_train)
print(f"Chosen:            {search.best_params_}")
print(f"Mean accuracy:     {search.best_score_:.3f}")
print(f"Estimated latency: {search.best_seconds_:.3f} s a row")

# %%
LatencyDisplay.from_search(search)
plt.show()

# %% [markdown]
# ## Prune
#
# `prune` makes a copy without the neurons that change the outputs least, and fine-tunes it. Half of
# the neurons are half of the bootstraps.

# %%
half = full.prune(X_train, y_train, n_prune_neurons_percentage=0.5)
for name, network in (("full", full), ("half", half)):
    print(
        f"{name}: {network.program_.n_bootstraps} bootstraps, "
        f"accuracy {network.score(X_test, y_test):.3f}"
    )

# %% [markdown]
# ## Batches
#
# The rows of a batch share the fixed part of a call. A single row takes longer then, and many rows
# take less time each.

# %%
rows = X_test[:8]
clear = half.predict(rows)
for batch_size in (8, 1):
    half.compile(batch_size=batch_size).keygen()
    half.predict(rows[:1], execute_in_fhe=True)  # the first call unpacks the keys
    start = time.perf_counter()
    encrypted = half.predict(rows, execute_in_fhe=True)
    seconds = time.perf_counter() - start
    print(f"Batches of {batch_size}: {seconds / len(rows):.3f} s a row")
    if not np.array_equal(encrypted, clear):
        raise RuntimeError("Encrypted and clear predictions differ.")
print(f"Encrypted = clear: {np.sum(encrypted == clear)} of {len(rows)} rows")

# %% [markdown]
# ## Export for a server
#
# Two files. The server gets one, and never sees data. The client gets the other, makes the keys and
# keeps the secret one. Before the files get their names, they predict encrypted rows as a test.

# %%
directory = Path(tempfile.mkdtemp())
for path in export(half, directory):
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")

# %% [markdown]
# Both parts, as two machines would play them. What passes from one to the other is bytes.

# %%
client = FHEClient(directory / "client.zip")
client.generate_keys()
server = FHEServer(directory / "server.zip")
server.add_keys(client.evaluation_keys())

encrypted = client.predict(rows[:3], server.evaluate)
print(f"From the server: {encrypted}")
print(f"In the clear:    {clear[:3]}")
if not np.array_equal(encrypted, clear[:3]):
    raise RuntimeError("The deployed model predicts something else.")

# %
print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
print(f"Circuits by {cost.engine} {version(cost.engine)}")

# %% [markdown]
# `cipherlearn serve server.zip` is that server over HTTP, and `RemoteModel` its client.
