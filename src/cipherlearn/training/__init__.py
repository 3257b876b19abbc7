"""Training of a network: its schedule, skorch callbacks, batches and threads."""
