"""What a step's numbers warn of, before hours are lost: rows in, sentences out.

Left out: stopping a run. A reader of the log decides; numbers that are not finite stop it anyway.
"""

from nanoaes.progress import say


def warn_of_collapse(row: dict, said: set[str]) -> set[str]:
    """Name what no reward can mend, each cause by itself and once, until it is gone.

    Args:
        said: the causes of the step before. Returns this step's.
    """
    causes = {
        "cut": (row["truncated"] > 0.5,
                f"{row['truncated']:.0%} of the answers were cut at the length limit; does the "
                "model know its stop token, and is --max_new_tokens large enough?"),
        "unreadable": (row["parse_rate"] < 0.5,
                       f"only {row['parse_rate']:.0%} of the answers were read; is the model "
                       "cold-started, and --prompt the one it was trained with?"),
        "formless": (row["format_rate"] == 0 and row["parse_rate"] >= 0.5,
                     "scores are read, but no answer has the form <think>…</think><answer>…"
                     "</answer>; is the model cold-started?"),
        "one score": (row["parse_rate"] >= 0.5 and row["pred_std"] < 0.3 * row["truth_std"],
                      f"collapse? the predictions spread {row['pred_std']:.3f}, the truth "
                      f"{row['truth_std']:.3f}; lower --lr, raise --beta"),
        "flat": (row["flat_groups"] > 0.5,
                 f"{row['flat_groups']:.0%} of the groups have no spread and teach nothing; raise "
                 "--temperature or --beta"),
    }
    found = {name for name, (holds, _) in causes.items() if holds}
    for name in sorted(found - said):
        say(f"step {row['step']}: {causes[name][1]}")
    return found
