"""A trained network in, its integer program out."""
