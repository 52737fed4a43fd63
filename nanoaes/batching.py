"""Micro-batches by a budget of tokens: pictures of similar length together, so padding stays low.

Left out: splitting one picture's answers over two micro-batches (they share its prompt).
"""

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split rows into batches of at most `budget` tokens, padding counted.

    Args:
        lengths: tokens of each row.
        budget: longest row of a batch times its number of rows; a row longer than that is alone.
    Returns:
        row numbers, every row in exactly one batch; the longest rows first, so that a step that
        does not fit into memory fails at its start.
    Raises:
        ValueError: a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a micro-batch of {budget} tokens: use 1 or more")
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
