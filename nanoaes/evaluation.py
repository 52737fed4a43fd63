"""A model on test sets: its answers, their scores, how well these agree with people's.

`evaluate_sets` looks at whole sets, whoever asks: `eval.py`, or a training run that compares its
stages. `Best` is a training run's eye on the held-out pictures. Left out: sets pooled into one.
"""

import gc
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from nanoaes.ahead import ahead
from nanoaes.checkpoint import append_row, publish, write_json
from nanoaes.checks import header
from nanoaes.config import OptionError, RAPOConfig
from nanoaes.datasets import Example, Sets, read_all
from nanoaes.errors import UserError, at
from nanoaes.graphs import Graphs
from nanoaes.index import Index
from nanoaes.metrics import domain_means, evaluate
from nanoaes.models import load_whole
from nanoaes.parallel import by_first, everyone, first, share
from nanoaes.predictions import Item, Log
from nanoaes.progress import progress
from nanoaes.prompt import parse_score
from nanoaes.quality import add_quality, means
from nanoaes.readout import Reading, Score, batches, read
from nanoaes.runs import keep_going
from nanoaes.sampler import by_dataset
from nanoaes.vlm import VLM

RECORD = "heldout.json"  # beside the best checkpoint: its step, its score, CHOSEN_BY
CHOSEN_BY = "expect"  # the readout; three seeds agree better with people so (bench/RESULTS.md)
STAGES_READ = ("scores are the numbers written here, as the paper reads them; the best checkpoint "
               "is chosen by their expectation, which eval.py bench reads")
AHEAD = 32  # pictures that are decoded while the model answers, at most


def evaluate_sets(vlm: VLM, sets: Sets, reading: Reading, *, label: str, keep_bar: bool = True,
                  log: Log | None = None) -> dict:
    """The result that the table, the report and `eval.json` are made of.

    Args:
        reading: its seed is that of the bootstrap intervals, too; without graphs there are new ones
            for this call on CUDA.
        log: takes the answers as they come; what it has is not asked again.
    """
    if reading.graphs is None and vlm.device.type == "cuda":
        reading = replace(reading, graphs=Graphs())
    per_set = {}
    kept = {name: log.kept.get(name, {}) if log else {} for name in sets}
    n = sum(len(share(len(e) - len(kept[name]))) for name, (_, e) in sets.items())
    with progress(None, label, n, keep_bar) as bar:
        for name, (domain, examples) in sets.items():
            with at(label):
                items = ask(vlm, examples, kept[name], reading, tick=bar.update,
                            keep=partial(log.add, name) if log else lambda items: None)
            metrics = evaluate([i["pred"] for i in items], [e.score for e in examples],
                               examples[0].scale, reading.seed, cut=[i["cut"] for i in items])
            per_set[name] = {"domain": domain, "metrics": metrics, "items": items}
    means = domain_means({n: s["metrics"] for n, s in per_set.items()},
                         {n: s["domain"] for n, s in per_set.items()})
    decoding = {**vlm.described(reading.drawn_at), "readout": reading.readout,
                "samples": reading.samples}
    return {"decoding": decoding, "sets": per_set, "mean": means}


def ask(vlm: VLM, examples: list[Example], kept: dict[str, Item], reading: Reading, *,
        tick: Callable[[int], object], keep: Callable[[list[Item]], object]) -> list[Item]:
    """What is written of the answer to each of some examples, in order.

    Args:
        kept: by picture, what need not be asked again.
        tick: told how many more this process has done.
        keep: given each new part of all processes' answers.
    """
    found = dict(kept)
    places = [i for i, e in enumerate(examples) if str(e.image) not in kept]
    with closing(answers(vlm, examples, [places[i] for i in share(len(places))], reading)) as mine:
        # Every process's next batch; who has no more gives none until all have none.
        while items := everyone(own := next(mine, [])):
            tick(len(own))
            keep(items)
            found |= {item["image"]: item for item in items}
    return [found[str(e.image)] for e in examples]


def answers(vlm: VLM, examples: list[Example], places: Sequence[int], reading: Reading
            ) -> Iterator[list[Item]]:
    """The answers to some of the examples, in order, a batch at a time.

    Args:
        places: of the examples that are asked for; a place has its own random numbers.
    """
    with closing(ahead((examples[i].image for i in places), vlm.fit, AHEAD)) as shown:
        for some, images in batches(vlm, zip(places, shown, strict=True), reading):
            yield [item_of(examples[i], score)
                   for i, score in zip(some, read(vlm, images, some, reading), strict=True)]


def item_of(example: Example, score: Score) -> Item:
    """A line of the result; `pred` is None where no score can be read."""
    return {"image": str(example.image), "truth": example.score, "pred": score.score,
            "text": score.text, "cut": score.cut,
            **({} if score.std is None else {"std": score.std})}


def compare_stages(stages: dict[str, Path], tests: Sets, cfg: RAPOConfig, run: Path
                   ) -> dict[str, dict]:
    """Every stage on the test sets, and `eval_STAGE.json` of each; by the number written, as the
    paper reads them."""
    gc.collect()  # FSDP's modules hold each other: a trained model would keep its memory
    evals, reading = {}, Reading(seed=cfg.seed, tokens=cfg.tokens_per_micro_batch)
    for name, path in stages.items():
        vlm = load_whole(path, cfg)
        evals[name] = {"checkpoint": str(path), **evaluate_sets(
            vlm, tests, reading, label=f"test: {name}")}
        add_quality(evals[name], cfg.seed)
        with keep_going(f"the evaluation of {name}"):
            if first():
                write_json(run / f"eval_{name.replace(' ', '_')}.json", evals[name])
        del vlm  # or two are held while the next one is read
    return evals


def read_sets(test_in: str, test_ood: str, bad_images: str, columns: str = "",
              index: Index | None = None, dropped: Counter[str] | None = None) -> Sets:
    """Two lists of specs -> the test sets, in-domain ones first.

    Args:
        dropped: told how many pictures of each set could not be read.
    Raises:
        UserError: a set of the same name in both lists, or no set at all.
    """
    sets: Sets = {}
    for domain, specs in (("in", test_in), ("ood", test_ood)):
        for name, examples in by_dataset(
                read_all(specs, "test", bad_images, columns=columns, index=index,
                         dropped=dropped)).items():
            if name in sets:
                raise OptionError(f"--test_in and --test_ood both hold a set named {name}; "
                                  "rename one of its files")
            sets[name] = domain, examples
    if not sets:
        raise OptionError("no test set; name one with --test_in csv:FILE@LO-HI")
    return sets


def as_written(result: dict) -> dict[str, dict]:
    """`domain_means` of the numbers that the replies state, of a result that is read otherwise."""
    numbers = {name: evaluate([parse_score(i["text"]) for i in part["items"]],
                              [i["truth"] for i in part["items"]])
               for name, part in result["sets"].items()}
    return domain_means(numbers, {name: part["domain"] for name, part in result["sets"].items()})


def recorded(folder: Path) -> dict:
    """The step and the score of the best checkpoint, as a resume needs them.

    Raises:
        UserError: none is there, or it was chosen by another readout: no score compares with its;
            its weights are cut off: nothing better may come, and then they are handed out.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / RECORD}: {error}; without it a resume does not know what the "
                        "best checkpoint was; choose another --run") from None
    readout = record.get("readout", "greedy")  # older ones do not say
    if readout != CHOSEN_BY:
        raise UserError(f"{folder} was chosen by readout {readout}, checkpoints are chosen by "
                        f"{CHOSEN_BY} now and their scores do not compare; end the run with the "
                        "version that began it, or choose another --run")
    for file in sorted(folder.glob("*.safetensors")):
        header(folder, file.name)
    return record


@dataclass
class Best:
    """The checkpoint that did best on the held-out pictures, and how long looking took.

    Best is the largest PLCC + SRCC of the expected scores, mean over the held-out sets, in which
    an unreadable answer counts as the worst score there is (`metrics.evaluate`, strict): three
    readable answers in the right order beat nobody. Of equal ones the later.
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

        Raises:
            UserError: as `recorded`.
        """
        record = by_first(lambda: recorded(self.path))
        self.score, self.step = record["score"], record["step"]

    def _hand_out(self, policy: VLM, step: int, score: float) -> None:
        with publish(self.path) as folder:
            policy.save(folder)
            write_json(folder / RECORD, {"step": step, "score": score, "readout": CHOSEN_BY})

    def consider(self, policy: VLM, step: int) -> dict[str, float]:
        """Evaluate; keep the policy if it is the best so far. Returns numbers for the row."""
        row, score = self._look(policy, step)
        if score >= self.score and first():
            with keep_going(f"the checkpoint of step {step}") as saving:
                self._hand_out(policy, step, score)
            if saving.done:
                self.score, self.step = score, step
        return row | {"eval_share": self.share()}

    def _look(self, policy: VLM, step: int) -> tuple[dict[str, float], float]:
        begun = time.perf_counter()
        reading = Reading(CHOSEN_BY, seed=self.cfg.seed, tokens=self.cfg.tokens_per_micro_batch,
                          graphs=self.graphs)
        found = evaluate_sets(policy, self.held, reading, label=f"held out, step {step}",
                              keep_bar=False)
        mean, numbers = found["mean"]["in"], as_written(found)["in"]
        score = mean["strict_plcc"] + mean["strict_srcc"]
        self.seconds += time.perf_counter() - begun
        return {"eval_plcc": mean["plcc"], "eval_srcc": mean["srcc"],
                "eval_plcc_written": numbers["plcc"], "eval_srcc_written": numbers["srcc"],
                "eval_score": score, **means(found["sets"])}, score

    def share(self) -> float:
        """Of the time since the run began, what looking at held-out pictures took."""
        return self.seconds / (time.perf_counter() - self.started)
