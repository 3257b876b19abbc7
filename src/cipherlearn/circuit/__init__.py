"""A program on ciphertexts of one process: keys, batches, workers and cost."""
