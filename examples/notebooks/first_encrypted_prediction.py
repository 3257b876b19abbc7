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
# # A first encrypted prediction
#
# From a table to a prediction that nobody but its owner can read. The table says of 569 tumours
# how their cells look. The model learns in the clear which are malignant. Then it predicts rows
# that it cannot read.
#
# You need `pip install '.[plot]' pandas` in a checkout, and half a minute.

# %%
import os
import platform
import time
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier
from cipherlearn.inspection import NetworkDisplay, TrainingHistoryDisplay

# %% [markdown]
# ## Data
#
# Any table of numbers will do. Your own would be `frame = pd.read_csv("my.csv")`. Features need
# no scaling, and labels may be strings.

# %%
data = load_breast_cancer(as_frame=True)
frame = data.data.assign(diagnosis=data.target_names[data.target])
frame.iloc[:5, [0, 1, 2, -1]]

# %%
X, y = frame.drop(columns="diagnosis"), frame["diagnosis"]
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
len(X_train), len(X_test)

# %% [markdown]
# ## Fit, in the clear
#
# Whoever trains sees the training data. The network is small, so that an encrypted row takes a
# fraction of a second: 8 hidden neurons, whose sums fit 4 bits. The notebook *Accuracy and
# latency* is about choosing these numbers.

# %%
clf = NeuralNetClassifier(
    module__n_hidden_neurons=8,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=100,
    random_state=0,
)
clf.fit(X_train, y_train)
print(f"Accuracy on the training rows: {clf.score(X_train, y_train):.3f}")
print(f"Accuracy on the test rows:     {clf.score(X_test, y_test):.3f}")

# %% [markdown]
# ## Look
#
# A float network is trained first. In the second phase its weights are integers of 3 bits and its
# activations have 2 bits. The losses of the two phases are of different targets, so the step
# between them says nothing.

# %%
TrainingHistoryDisplay.from_estimator(clf)
plt.show()

# %% [markdown]
# What was learnt is a program of small integers. Most weights are zero. A neuron may have few,
# since its sum must fit its bits for *every* input. Blue raises a neuron, red lowers it.

# %%
NetworkDisplay.from_estimator(clf, max_features=12)
plt.show()

# %% [markdown]
# ## Compile
#
# It needs no data: from the integers it is proven that no sum can overflow. The result is a
# circuit that computes on ciphertexts.

# %%
circuit = clf.compile()
report = clf.report(X_test)
display(report)

# %% [markdown]
# The report says what each layer holds, how many bits its sums could need (proven) and did need
# on the test rows (observed), and where the time of an encrypted row goes:

# %%
report.plot()
plt.show()

# %% [markdown]
# ## Simulate
#
# The simulation has the noise of encryption but none of its cost, so it is quick enough for all
# test rows. It must predict what the clear network predicts.

# %%
clear = clf.predict(X_test)
simulated = clf.predict(X_test, execute_in_fhe="simulate")
print(f"Simulated = clear: {np.sum(simulated == clear)} of {len(clear)} rows")
if not np.array_equal(simulated, clear):
    raise RuntimeError("Simulated and clear predictions differ.")

# %% [markdown]
# ## Encrypt
#
# Now for real: make keys, encrypt ten rows, compute on the ciphertexts, decrypt the results.

# %%
start = time.perf_counter()
circuit.keygen()
print(f"Making the keys: {time.perf_counter() - start:.1f} s")

rows = X_test[:10]
clf.predict(rows[:1], execute_in_fhe=True)  # the first call unpacks the keys
start = time.perf_counter()
encrypted = clf.predict(rows, execute_in_fhe=True)
seconds = (time.perf_counter() - start) / len(rows)

pd.DataFrame({"encrypted": encrypted, "clear": clear[:10], "true": y_test[:10]}).reset_index(
    drop=True
)

# %%
print(f"Encrypted = clear: {np.sum(encrypted == clear[:10])} of {len(rows)} rows")
if not np.array_equal(encrypted, clear[:10]):
    raise RuntimeError("Encrypted and clear predictions differ.")

# %% [markdown]
# ## What it cost
#
# The client sends the evaluation keys once. Each row then is a ciphertext there and one back.

# %%
to_server, to_client = circuit.ciphertext_sizes()
pd.Series(
    {
        "bootstraps a row": f"{circuit.n_bootstraps}",
        "seconds a row": f"{seconds:.2f}",
        "foreseen by report()": f"{report.cost.seconds_per_row:.2f}",
        "evaluation keys": f"{len(circuit.evaluation_keys()) / 1e6:.1f} MB",
        "encrypted row": f"{to_server / 1e3:.1f} kB",
        "encrypted result": f"{to_client / 1e3:.1f} kB",
        "error probability of a bootstrap": f"{circuit.p_error:.1e}",
    }
).to_frame("")

# %
print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
print(f"Circuits by {circuit.engine} {version(circuit.engine)}")

# %% [markdown]
# ## What was protected
#
# Here one process played both parts, so nothing was. In the notebook *Accuracy and latency* the
# model is exported for a server that never sees a row or a prediction, and for a client who keeps
# the secret key. Decrypted results must not go back to the server.
