"""Micro-batches by a budget of tokens: pictures of similar length together, so padding stays low.

Left out: splitting one picture's answers over two micro-batches (they share its prompt).
"""

from collections.abc import Sequence


def token_batches(lengths: Sequence[tuple[int, ...]], budget: int) -> list[list[int]]:
    """Split rows into batches of at most `budget` tokens, padding counted.

    Args:
        lengths: tokens of each row, in parts that are padded apart: (prompt, answers), or (prompt,)
            where nothing else is computed.
        budget: rows of a batch times the sum over the parts of the longest such part in it; a row
            longer than that is alone.
    Returns:
        row numbers, every row in exactly one batch; the longest rows first, so that a step that
        does not fit into memory fails at its start.
    Raises:
        ValueError: a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a micro-batch of {budget} tokens: use 1 or more")
    batches: list[list[int]] = []
    longest: tuple[int, ...] = ()  # of the last batch, part by part
    for row in sorted(range(len(lengths)), key=lambda i: -sum(lengths[i])):
        both = tuple(map(max, longest or lengths[row], lengths[row]))
        if batches and (len(batches[-1]) + 1) * sum(both) <= budget:
            batches[-1].append(row)
            longest = both
        else:
            batches.append([row])
            longest = tuple(lengths[row])
    return batches
