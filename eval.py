"""Score test sets with a checkpoint and compare with people: PLCC, SRCC and their kin.

    python eval.py                     the toy's four test sets with the model of train_rapo.py
    python eval.py --model FOLDER --test_in ava:data/AVA --test_ood para:data/PARA
    python eval.py --help              all options

Greedy by default. Sets are never pooled; in-domain and out-of-domain means are kept apart. The
training script compares its stages with the same functions (`nanoaes/evaluation.py`).
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
from pathlib import Path

from nanoaes import overlap
from nanoaes.checkpoint import write_json
from nanoaes.config import EvalConfig, OptionError, RAPOConfig
from nanoaes.datasets import Example, read_all
from nanoaes.evaluation import Sets, evaluate_sets
from nanoaes.index import Index
from nanoaes.metrics import format_table, percent, short, unreadable
from nanoaes.models import load_whole
from nanoaes.parallel import by_first, first
from nanoaes.progress import say
from nanoaes.runs import keep_going
from nanoaes.sampler import by_dataset, hold_out
from nanoaes.script import run_verbs
from nanoaes.toy import road as toy


def bench(cfg: EvalConfig) -> dict:
    """Evaluate, write the result, print the table."""
    model = Path(cfg.model) if cfg.model else Path(cfg.run) / "rapo"
    vlm = load_whole(model, cfg)
    test_in, test_ood = cfg.test_in, cfg.test_ood
    if not (test_in or test_ood):
        _, test_in, test_ood = by_first(lambda: toy.sets(Path(cfg.run) / "world", None))
    sets = by_first(lambda: read_sets(test_in, test_ood, cfg.bad_images, cfg.columns,
                                      Index(Path(cfg.run))))
    result = {"checkpoint": str(model), **evaluate_sets(
        vlm, sets, label=f"evaluating {model}", readout=cfg.readout, samples=cfg.samples,
        temperature=cfg.temperature, seed=cfg.seed, tokens=cfg.tokens_per_micro_batch)}
    if first():
        tell(cfg, model, result)
    return result


def tell(cfg: EvalConfig, model: Path, result: dict) -> None:
    """The result as a file and as a table."""
    home = model if model.is_dir() else Path(cfg.run)  # a hub's model has no folder here
    out = Path(cfg.out) if cfg.out else home / "eval.json"
    write_json(out, result)
    print(format_table({model.name: result}))
    for name, part in result["sets"].items():
        m = part["metrics"]
        print(f"{name}: n {m['n']}, unreadable {m['parse_fail']}, cut {m['cut']}, "
              f"{m['distinct']} distinct scores, {percent(m['ties'])} of pairs tied, "
              f"KRCC {short(m['krcc'])}, RMSE {short(m['rmse'])}, MAE {short(m['mae'])}, "
              f"PLCC 95 % {m['plcc_ci']}, SRCC 95 % {m['srcc_ci']}")
    if unreadable(result) > 0.5:
        print(f"{unreadable(result):.0%} of the answers are unreadable: is the model cold-started, "
              "and asked as it was trained (--prompt)?")
    print(f"written: {out}")


def compare(stages: dict[str, Path], tests: Sets, cfg: RAPOConfig, run: Path) -> dict[str, dict]:
    """Every stage on the test sets, and `eval_STAGE.json` of each."""
    evals = {}
    for name, path in stages.items():
        vlm = load_whole(path, cfg)
        evals[name] = {"checkpoint": str(path), **evaluate_sets(
            vlm, tests, label=f"test: {name}", seed=cfg.seed, tokens=cfg.tokens_per_micro_batch)}
        with keep_going(f"the evaluation of {name}", say):
            if first():
                write_json(run / f"eval_{name.replace(' ', '_')}.json", evals[name])
        del vlm  # or two are held while the next one is read
    return evals


def read_sets(test_in: str, test_ood: str, bad_images: str, columns: str = "",
              index: Index | None = None) -> Sets:
    """Two lists of specs -> the test sets, in-domain ones first.

    Raises:
        UserError: a set of the same name in both lists, or no set at all.
    """
    sets: Sets = {}
    for domain, specs in (("in", test_in), ("ood", test_ood)):
        for name, examples in by_dataset(
                read_all(specs, "test", bad_images, columns=columns, index=index)).items():
            if name in sets:
                raise OptionError(f"--test_in and --test_ood both hold a set named {name}; "
                                  "rename one of its files")
            sets[name] = domain, examples
    if not sets:
        raise OptionError("no test set; name one with --test_in csv:FILE@LO-HI")
    return sets


def pictures(cfg: RAPOConfig, run: Path) -> tuple[list[Example], Sets, Sets]:
    """(training pictures, held-out sets, test sets): all of the toy world, or all one's own."""
    named = cfg.train, cfg.test_in, cfg.test_ood
    if not any(named):
        named = toy.sets(run / "world", cfg.seed)
    elif not (cfg.train and cfg.model and (cfg.test_in or cfg.test_ood)):
        raise OptionError("one's own pictures need --train, --model and --test_in or --test_ood; "
                          "none of them: the toy world")
    train, test_in, test_ood = named
    index = Index(run)
    seen = read_all(train, "train", cfg.bad_images, columns=cfg.columns, limit=cfg.limit,
                    index=index)
    tests = read_sets(test_in, test_ood, cfg.bad_images, cfg.columns, index)
    overlap.warn([e.image for e in seen],
                 {name: [e.image for e in part] for name, (_, part) in tests.items()}, cfg.overlap)
    examples, held = hold_out(seen, cfg.heldout)
    return examples, {name: ("in", part) for name, part in by_dataset(held).items()}, tests


if __name__ == "__main__":
    run_verbs({"bench": (bench, EvalConfig)})
