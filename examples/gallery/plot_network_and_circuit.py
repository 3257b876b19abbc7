"""
==============================
See a network, and its circuit
==============================

A sparse network is small enough to be drawn whole. So is what becomes of it: a way that each row
takes, from the client to the server and back.
"""

# %%
# Four hidden neurons tell three kinds of iris flowers apart.

from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier

iris = load_iris(as_frame=True)
names = iris.target_names[iris.target]
X_train, X_test, y_train, y_test = train_test_split(
    iris.data, names, stratify=names, random_state=0
)
clf = NeuralNetClassifier(
    module__n_hidden_neurons=4,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=60,
    random_state=0,
)
clf.fit(X_train, y_train)
print(f"Accuracy in the clear: {clf.score(X_test, y_test):.3f}")

# %%
# Lines are the integer weights, as wide as they are large. Blue ones grow with what they read, red
# ones fall. A hidden neuron reads a feature only if there is a line. The wide path reads nearly all
# of them, straight to the outputs, and is not drawn.

from cipherlearn.inspection import CircuitDisplay, NetworkDisplay

NetworkDisplay.from_estimator(clf)

# %%
# The circuit is known as soon as the network is trained, since its bits are proven from the
# integers. The server sums and looks up. It takes time in the box with the thick frame, where each
# neuron is a bootstrap. The wide path has an input and an output of its own, and takes none: the
# client adds both outputs up. All that it does is in the clear, and costs next to nothing.

clf.compile()
CircuitDisplay.from_estimator(clf)

# %%
# The circuit at work, on one flower of each kind.

import numpy as np

rows = X_test.iloc[[int(np.flatnonzero(y_test == name)[0]) for name in clf.classes_]]
encrypted = clf.predict(rows, execute_in_fhe=True)
print(encrypted)
if not np.array_equal(encrypted, clf.predict(rows)):
    raise SystemExit("Encrypted and clear predictions differ.")
