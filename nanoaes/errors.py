"""What went wrong outside the code: bad data, options, checkpoints. One line with the remedy.

The scripts print a `UserError` as it is and stop; every other exception is a bug and keeps its
traceback.
"""


class UserError(ValueError):
    """One line: the file, the row or the option, and what to do."""
