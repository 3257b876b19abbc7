"""Lowering of a trained network to its integer program."""
