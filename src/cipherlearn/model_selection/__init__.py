"""Scores on ciphertexts, and the search for the fastest network."""
