"""Where no GPU is, Triton kernels run in Triton's interpreter: that is decided at import."""
import os

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(min(2, torch.get_num_threads()))
