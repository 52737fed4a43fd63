"""What can be wrong, file by file: the tables of `bench/mutants.py`."""

from mutations.algorithm import ALGORITHM
from mutations.asking import ASKING
from mutations.data import DATA
from mutations.measures import MEASURES
from mutations.says import SAYS
from mutations.training import TRAINING

TABLE = ALGORITHM | ASKING | DATA | MEASURES | SAYS | TRAINING
