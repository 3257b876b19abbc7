"""
============================
Recognise encrypted pictures
============================

Handwritten digits of 8×8 pixels, recognised by a machine that never sees a picture. The 64 pixels
are the 64 features of a row.
"""

# %%
# Sixteen hidden neurons are few for digits. They keep this example fast.

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
clf = NeuralNetClassifier(
    module__n_hidden_neurons=16,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    module__n_components=0,  # so that neurons read pixels, and the last picture can show which
    max_epochs=30,
    random_state=0,
)
clf.fit(X_train, y_train)
print(f"Accuracy in the clear: {clf.score(X_test, y_test):.3f}")

# %%
# Recognise ten encrypted pictures.

circuit = clf.compile()
encrypted = clf.predict(X_test[:10], execute_in_fhe=True)
clear = clf.predict(X_test[:10])

# %%
# What the client has is above. What the server gets is below: 32 × 32 bytes from the middle of the
# ciphertexts. They look like noise, and are others each time that the same picture is encrypted.

import matplotlib.pyplot as plt
import numpy as np

fig, axes = plt.subplots(2, 10, figsize=(10, 2.6), layout="constrained")
for i, (above, below) in enumerate(axes.T):
    above.imshow(X_test[i].reshape(8, 8), cmap="gray_r")
    above.set_title(f"{encrypted[i]}", color="k" if encrypted[i] == y_test[i] else "C3")
    sent = b"".join(circuit.encrypt(clf.program_.quantize(X_test[i : i + 1])))
    noise = np.frombuffer(sent, dtype=np.uint8, count=1024, offset=(len(sent) - 1024) // 2)
    below.imshow(noise.reshape(32, 32), cmap="gray")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
fig.suptitle("Decrypted predictions. Wrong ones are red.")

# %%
# Each neuron of the first layer reads few pixels. Blue ones speak for it, red ones against it.

weights = clf.program_.layers[0].weights
pixels = np.zeros((len(weights), 64))
pixel_of_code = clf.program_.quantizer.feature[clf.program_.inputs[0]]
np.add.at(pixels.T, pixel_of_code, weights.T)
limit = np.abs(pixels).max()
fig, axes = plt.subplots(2, 8, figsize=(8, 2.4), layout="constrained")
for ax, neuron in zip(axes.flat, pixels, strict=False):
    ax.imshow(neuron.reshape(8, 8), cmap="RdBu", vmin=-limit, vmax=limit)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
fig.suptitle(f"Pixels that the {len(weights)} hidden neurons read")

# %%

if not np.array_equal(encrypted, clear):
    raise SystemExit("Encrypted and clear predictions differ.")
