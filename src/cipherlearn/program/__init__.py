"""The exact integer form of a network, in NumPy alone."""
