"""Where no GPU is, Triton kernels run in Triton's interpreter: that is decided at import. Beside
another worker (`pytest -n 2`) each has one thread, and so has what it starts: more would fight."""
import os

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
torch.set_num_threads(min(2, torch.get_num_threads()))
settings.register_profile("steady")  # a busy machine is no bug
settings.load_profile("steady")
