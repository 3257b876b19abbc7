"""Settings of every test run."""

import torch
from hypothesis import settings

# The same examples on every machine.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("fixed")

# Networks this small only lose by threads, and badly on a busy machine.
torch.set_num_threads(1)
