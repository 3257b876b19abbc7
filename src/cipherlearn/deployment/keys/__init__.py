"""Keys on disk: a client's secret ones, and the evaluation keys of a service's clients."""
