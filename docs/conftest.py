"""Settings of the doctests in these pages."""

import torch

# Networks this small only lose by threads, and badly on a busy machine.
torch.set_num_threads(1)
