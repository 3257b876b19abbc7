"""
====================
Find rare classes
====================

One row in twenty is of the class that matters, as with frauds or defects. A network that is trained
for accuracy overlooks many of them. Class weights and a threshold of its own change that, and
neither changes what an encrypted prediction costs.
"""

# %%
# Rows to train on, to choose a threshold on, and to test on.

from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier

X, y = make_classification(4000, 20, n_informative=8, weights=[0.95], random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
X_train, X_valid, y_train, y_valid = train_test_split(
    X_train, y_train, test_size=0.4, stratify=y_train, random_state=0
)

# %%
# The same network, without weights and with the classes balanced. ``class_weight`` is that of
# scikit-learn's classifiers.

options = {
    "module__n_hidden_neurons": 8,
    "module__n_hidden_accum_bits": 4,
    "module__n_output_accum_bits": 6,
    "max_epochs": 30,
    "random_state": 0,
}
networks = {
    name: NeuralNetClassifier(class_weight=class_weight, **options).fit(X_train, y_train)
    for name, class_weight in {"no weights": None, "balanced": "balanced"}.items()
}

# %%
# A classifier predicts the rare class where its probability exceeds one half. scikit-learn moves
# this threshold to where a score of your choice is best, on rows that training did not see. Here it
# is the F1 score, for which finding and false alarms count alike.

from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import TunedThresholdClassifierCV

tuned = {
    name: TunedThresholdClassifierCV(
        FrozenEstimator(net), scoring="f1", cv="prefit", refit=False, store_cv_results=True
    ).fit(X_valid, y_valid)
    for name, net in networks.items()
}
for name, model in tuned.items():
    print(f"{name}: threshold {model.best_threshold_:.2f}")

# %%
# Weights move the probabilities, and the threshold moves the decision. Both find more of the rare
# rows, and raise more false alarms. Which of the two is worse is for you to say.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import precision_score, recall_score

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for name, model in tuned.items():
    results = model.cv_results_
    (line,) = left.plot(results["thresholds"], results["scores"], label=name)
    left.plot(model.best_threshold_, model.best_score_, "o", color=line.get_color())
left.axvline(0.5, color="0.6", linestyle=":", linewidth=1)
left.set(xlabel="threshold", ylabel="F1 score, validation rows", xlim=(0, 1))
left.legend()

predictions = {}
for name, net in networks.items():
    predictions[f"{name},\n0.5"] = net.predict(X_test)
    predictions[f"{name},\ntuned"] = tuned[name].predict(X_test)
at = np.arange(len(predictions))
for i, (title, score) in enumerate(
    {"found (recall)": recall_score, "of the alarms, true (precision)": precision_score}.items()
):
    values = [score(y_test, labels) for labels in predictions.values()]
    bars = right.bar(at + 0.4 * (i - 0.5), values, 0.38, label=title)
    right.bar_label(bars, fmt="%.2f", fontsize=8)
right.set(xticks=at, ylim=(0, 1.25), ylabel="rare class, test rows")
right.set_xticklabels(predictions, fontsize=8)
right.legend(loc="upper center", ncols=2, fontsize=8)

# %%
# On ciphertexts the network gives its outputs. Whoever holds the key decrypts them to
# probabilities and applies the threshold, so a server learns neither. A few rare rows and a few
# others:

net, threshold = networks["balanced"], tuned["balanced"].best_threshold_
net.compile()
rows = np.concatenate([np.flatnonzero(y_test == 1)[:3], np.flatnonzero(y_test == 0)[:3]])
encrypted = net.predict_proba(X_test[rows], execute_in_fhe=True)[:, 1]
print("rare:     ", y_test[rows] == 1)
print("encrypted:", encrypted >= threshold)
if not np.array_equal(encrypted, net.predict_proba(X_test[rows])[:, 1]):
    raise SystemExit("Encrypted and clear probabilities differ.")
