"""How a network is trained: skorch callbacks, batches and weights."""
