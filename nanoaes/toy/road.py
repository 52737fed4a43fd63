"""What the scripts take from the made world where no pictures of one's own are named."""

from pathlib import Path

from nanoaes.toy.world import WORDS, build_world, read_attributes, read_critique, toy_specs


def sets(world: Path, seed: int | None) -> tuple[str, str, str]:
    """(training, in-domain test, out-of-domain test) sets as specs; the world is made if missing.

    Args:
        seed: None takes the world that is there.
    Raises:
        UserError: the world that is there was made from another seed.
    """
    specs = toy_specs(build_world(world, seed))
    return specs["train"], specs["test_in"], specs["test_ood"]


def remark(result: dict, world: Path) -> str:
    """Of one stage's evaluation: how many dimensions its critiques name, and how many rightly.

    Adds "right", the share of the latter, to each set's figures of its critiques and their mean.
    """
    notes, parts = read_attributes(world), list(result["sets"].values())
    for part in parts:
        if part["critiques"]:
            part["critiques"]["right"] = quality_of(part["items"], notes)[1]
    if rights := [part["critiques"]["right"] for part in parts if part["critiques"]]:
        result["critiques"]["right"] = sum(rights) / len(rights)
    named, right = quality_of([item for part in parts for item in part["items"]], notes)
    return f"critiques name {named:.1f} of 5 dimensions, {right:.0%} of them rightly"


def quality_of(items: list[dict], notes: dict[Path, list[int]]) -> tuple[float, float]:
    """Of an evaluation's items: how many dimensions a critique names (mean, 0..5), and the share
    of those that is named rightly (0..1)."""
    named = right = 0
    for item in items:
        truth = dict(zip(WORDS, notes[Path(item["image"]).resolve()], strict=True))
        said = read_critique(item["text"])
        named += len(said)
        right += sum(truth[name] == level for name, level in said.items())
    return named / max(len(items), 1), right / max(named, 1)
