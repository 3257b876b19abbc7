"""
=======================================
How many bits the sums of a network use
=======================================

The cost of a bootstrap grows quickly with the bits of the sum that it reads. So sums are bounded
before training, proven after it, and can be observed on data. The three are not the same number.
"""

# %%
# Ω is how many products of a weight and a code surely fit a sum, whatever their values. The oldest
# rule keeps a neuron's non-zero weights within a multiple of Ω. It is a cautious rule: by it, a
# sum of 4 bits has room for no product at all.

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier, max_active_neurons

for n_bits in (4, 6, 8):
    print(f"Sums of {n_bits} bits: Ω is {max_active_neurons(n_bits, 3, 2)}")

# %%
# So narrow sums are bounded by their width instead: the distance from the smallest to the largest
# that any input can give. This network has hidden sums of 4 bits and outputs of 6. The wide path
# takes no bootstrap, and may have sums of 16.

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
clf = NeuralNetClassifier(
    module__n_hidden_neurons=8,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    max_epochs=30,
    random_state=0,
)
clf.fit(X_train, y_train)

# %%
# Red lines are what is allowed. Blue bars are proven from the integer weights, for every possible
# input, so compiling needs no data. Orange bars are what the test rows use: they cannot be trusted
# for rows to come, which is why no bit is saved there.

from cipherlearn.inspection import AccumulatorDisplay, WeightBudgetDisplay

AccumulatorDisplay.from_estimator(clf, X_test)

# %%
# Each neuron has two limits. Bars count its non-zero weights, which may be as many as the dashed
# red line says. Dots are the width of its sum. Where sums are narrow, as here, the width is the
# limit that binds: few large weights fill it as well as many small ones. In the wide path only the
# width is limited, so a neuron reads nearly every input.

WeightBudgetDisplay.from_estimator(clf)

# %%
# Without pruning nothing bounds the weights. Compiling such a network is refused, since some row
# could make a sum overflow, and an overflow on ciphertexts would go unseen.

from cipherlearn import AccumulatorOverflowError

unbounded = NeuralNetClassifier(
    module__n_hidden_neurons=8,
    module__n_hidden_accum_bits=4,
    module__n_output_accum_bits=6,
    module__pruning=False,
    max_epochs=5,
    random_state=0,
)
unbounded.fit(X_train, y_train)
try:
    unbounded.compile()
except AccumulatorOverflowError as error:
    print(error)
else:
    raise SystemExit("A network without bounds was compiled.")
