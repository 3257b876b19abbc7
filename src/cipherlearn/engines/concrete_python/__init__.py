"""The concrete-python engine: its compiler, a client's side and a server's side."""
