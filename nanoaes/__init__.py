"""nanoaes: Aes-R1 / RAPO in readable PyTorch.

The scripts import this before torch, for one setting that must stand when OpenMP starts: threads
that wait for each other shall sleep. By default they spin, and when another program wants one of
the cores, a step of the toy takes 20 times as long (seen on 2 cores: 36 s instead of 1.7 s).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
