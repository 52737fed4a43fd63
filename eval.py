"""Score test sets with a checkpoint and compare with people: PLCC, SRCC and their kin.

    python eval.py                     the toy's four test sets with the model of train_rapo.py
    python eval.py --model FOLDER --test_in ava:data/AVA --test_ood para:data/PARA
    python eval.py --help              all options

Greedy by default. Sets are never pooled; in-domain and out-of-domain means are kept apart. The
training script looks at held-out pictures and compares its stages with the same functions.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from nanoaes.checkpoint import append_row, publish, write_json
from nanoaes.config import EvalConfig, OptionError, RAPOConfig
from nanoaes.data import Example, load_image, read_all
from nanoaes.errors import at
from nanoaes.graphs import Graphs
from nanoaes.metrics import domain_means, evaluate, format_table, short, unreadable
from nanoaes.models import load_whole
from nanoaes.parallel import by_first, everyone, first, share
from nanoaes.progress import progress, say
from nanoaes.prompt import parse_score
from nanoaes.rollout import Answer, cached, rollout
from nanoaes.runs import keep_going
from nanoaes.sampler import by_dataset, hold_out
from nanoaes.sampling import uniforms
from nanoaes.script import run_script
from nanoaes.toy import road as toy
from nanoaes.vlm import VLM

RECORD = "heldout.json"  # beside the best checkpoint: its step, its score
Sets = dict[str, tuple[str, list[Example]]]  # name -> ("in" or "ood", examples)


def main(cfg: EvalConfig) -> dict:
    """Evaluate, write the result, print the table."""
    model = Path(cfg.model) if cfg.model else Path(cfg.run) / "rapo"
    vlm = load_whole(model, cfg)
    test_in, test_ood = cfg.test_in, cfg.test_ood
    if not (test_in or test_ood):
        _, test_in, test_ood = by_first(lambda: toy.sets(Path(cfg.run) / "world", None))
    sets = by_first(lambda: read_sets(test_in, test_ood, cfg.bad_images))
    result = {"checkpoint": str(model), **evaluate_sets(
        vlm, sets, label=f"evaluating {model}", temperature=cfg.temperature, seed=cfg.seed,
        tokens=cfg.tokens_per_micro_batch)}
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
              f"KRCC {short(m['krcc'])}, RMSE {short(m['rmse'])}, MAE {short(m['mae'])}, "
              f"PLCC 95 % {m['plcc_ci']}, SRCC 95 % {m['srcc_ci']}")
    if unreadable(result) > 0.5:
        print(f"{unreadable(result):.0%} of the answers are unreadable: is the model cold-started, "
              "and asked as it was trained (--prompt)?")
    print(f"written: {out}")


def evaluate_sets(vlm: VLM, sets: Sets, *, label: str, temperature: float = 0.0, seed: int = 0,
                  tokens: int = 2048, graphs: Graphs | None = None, keep_bar: bool = True) -> dict:
    """The result that the table, the report and `eval.json` are made of.

    Args:
        temperature: 0 is greedy.
        seed: of sampling and of the bootstrap intervals.
        tokens: per forward; bounds the memory and changes no number.
        graphs: what an earlier rollout has recorded; on CUDA without, new ones for this call.
    """
    if graphs is None and vlm.device.type == "cuda":
        graphs = Graphs()
    per_set = {}
    n = sum(len(share(len(e))) for _, e in sets.values())
    with progress(None, label, n, keep_bar) as bar:
        for name, (domain, examples) in sets.items():
            with at(label):
                told = everyone(list(answers(vlm, examples, share(len(examples)), seed=seed,
                                             temperature=temperature, tokens=tokens, graphs=graphs,
                                             tick=bar.update)))
            pred = [parse_score(a.text) for a in told]
            items = [{"image": str(e.image), "truth": e.score, "pred": p, "text": a.text,
                      "cut": a.cut} for e, p, a in zip(examples, pred, told, strict=True)]
            metrics = evaluate(pred, [e.score for e in examples], examples[0].scale, seed,
                               cut=[a.cut for a in told])
            per_set[name] = {"domain": domain, "metrics": metrics, "items": items}
    means = domain_means({n: s["metrics"] for n, s in per_set.items()},
                         {n: s["domain"] for n, s in per_set.items()})
    return {"decoding": vlm.described(temperature), "sets": per_set, "mean": means}


def answers(vlm: VLM, examples: list[Example], places: range, *, temperature: float, seed: int,
            tokens: int, graphs: Graphs | None, tick: Callable[[int], object]) -> Iterator[Answer]:
    """The answer to each of some examples, in order.

    Args:
        places: of the examples that are asked for; a place has its own random numbers.
        tick: told how many more are done.
    """
    limit = vlm.asking.max_new_tokens
    for some, images in batches(vlm, examples, places, tokens):
        rolls = rollout(vlm, vlm.prompts(images), k=1, max_new_tokens=limit,
                        temperature=temperature, uniform=uniforms(seed, 0, some, 1, limit),
                        tokens=tokens, graphs=graphs)
        yield from (one for (one,) in rolls.answers(vlm))
        tick(len(images))


def batches(vlm: VLM, examples: list[Example], places: range, tokens: int
            ) -> Iterator[tuple[range, list[Image.Image]]]:
    """Places and their pictures, in order, as many at once as a rollout keeps in one cache."""
    start, batch, longest = places.start, [], 0
    for place in places:
        image = load_image(examples[place].image)
        longest = max(longest, vlm.prompt_length(image))
        if batch and (len(batch) + 1) * (longest + vlm.asking.max_new_tokens) > cached(tokens):
            yield range(start, place), batch
            start, batch, longest = place, [], vlm.prompt_length(image)
        batch.append(image)
    if batch:
        yield range(start, places.stop), batch


@dataclass
class Best:
    """The checkpoint that did best on the held-out pictures, and how long looking took.

    Best is the largest PLCC + SRCC, mean over the held-out sets, in which an unreadable answer
    counts as the worst score there is (`metrics.evaluate`, strict): three readable answers in the
    right order beat nobody. Of equal ones the later.
    """

    path: Path  # the folder that is handed out
    history: Path  # metrics.jsonl
    held: Sets
    cfg: RAPOConfig
    graphs: Graphs | None
    score: float = -math.inf
    step: int = 0  # that the best was seen at; 0 is the cold start
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def begin(self, policy: VLM) -> None:
        """The cold start is the first candidate: nothing worse is ever handed out.

        Raises:
            OSError: the disk fails. The run ends before anything is lost.
        """
        row, self.score = self._look(policy, 0)
        if first():
            self._hand_out(policy, 0, self.score)
            append_row(self.history, {"step": 0, **row})

    def go_on(self) -> None:
        """In a run that is resumed: the folder knows what it holds.

        It may hold a step that comes again; the same look then gives the same folder.
        """
        record = by_first(lambda: json.loads((self.path / RECORD).read_text(encoding="utf-8")))
        self.score, self.step = record["score"], record["step"]

    def _hand_out(self, policy: VLM, step: int, score: float) -> None:
        with publish(self.path) as folder:
            policy.save(folder)
            write_json(folder / RECORD, {"step": step, "score": score})

    def consider(self, policy: VLM, step: int) -> dict[str, float]:
        """Evaluate; keep the policy if it is the best so far. Returns numbers for the row."""
        row, score = self._look(policy, step)
        if score >= self.score and first():
            with keep_going(f"the checkpoint of step {step}", say) as saving:
                self._hand_out(policy, step, score)
            if saving.done:
                self.score, self.step = score, step
        return row | {"eval_share": self.share()}

    def _look(self, policy: VLM, step: int) -> tuple[dict[str, float], float]:
        begun = time.perf_counter()
        mean = evaluate_sets(policy, self.held, label=f"held out, step {step}", seed=self.cfg.seed,
                             tokens=self.cfg.tokens_per_micro_batch, graphs=self.graphs,
                             keep_bar=False)["mean"]["in"]
        score = mean["strict_plcc"] + mean["strict_srcc"]
        self.seconds += time.perf_counter() - begun
        return {"eval_plcc": mean["plcc"], "eval_srcc": mean["srcc"], "eval_score": score}, score

    def share(self) -> float:
        """Of the time since the run began, what looking at held-out pictures took."""
        return self.seconds / (time.perf_counter() - self.started)


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


def read_sets(test_in: str, test_ood: str, bad_images: str) -> Sets:
    """Two lists of specs -> the test sets, in-domain ones first.

    Raises:
        UserError: a set of the same name in both lists, or no set at all.
    """
    sets: Sets = {}
    for domain, specs in (("in", test_in), ("ood", test_ood)):
        for name, examples in by_dataset(read_all(specs, "test", bad_images)).items():
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
    examples, held = hold_out(read_all(train, "train", cfg.bad_images), cfg.heldout)
    return (examples, {name: ("in", part) for name, part in by_dataset(held).items()},
            read_sets(test_in, test_ood, cfg.bad_images))


if __name__ == "__main__":
    run_script(main, EvalConfig)
