"""A model on test sets: its answers, their scores, how well these agree with people's.

`evaluate_sets` looks at whole sets, whoever asks: `eval.py`, or a training run that compares its
stages. `Best` is a training run's eye on the held-out pictures.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from nanoaes.ahead import ahead
from nanoaes.checkpoint import append_row, publish, write_json
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.errors import at
from nanoaes.graphs import Graphs
from nanoaes.metrics import domain_means, evaluate
from nanoaes.parallel import by_first, everyone, first, share
from nanoaes.progress import progress, say
from nanoaes.readout import Reading, Score, batches, read
from nanoaes.runs import keep_going
from nanoaes.vlm import VLM

RECORD = "heldout.json"  # beside the best checkpoint: its step, its score
AHEAD = 32  # pictures that are decoded while the model answers, at most
Sets = dict[str, tuple[str, list[Example]]]  # name -> ("in" or "ood", examples)


def evaluate_sets(vlm: VLM, sets: Sets, *, label: str, readout: str = "greedy", samples: int = 0,
                  temperature: float = 0.0, seed: int = 0, tokens: int = 2048,
                  graphs: Graphs | None = None, keep_bar: bool = True) -> dict:
    """The result that the table, the report and `eval.json` are made of.

    Args:
        readout, samples, temperature: as in `Reading`.
        seed: of sampling and of the bootstrap intervals.
        tokens: per forward; bounds the memory and changes no number.
        graphs: what an earlier rollout has recorded; on CUDA without, new ones for this call.
    """
    if graphs is None and vlm.device.type == "cuda":
        graphs = Graphs()
    reading = Reading(readout, samples, temperature, seed, tokens, graphs)
    per_set = {}
    n = sum(len(share(len(e))) for _, e in sets.values())
    with progress(None, label, n, keep_bar) as bar:
        for name, (domain, examples) in sets.items():
            with at(label):
                told = everyone(list(answers(vlm, examples, share(len(examples)), reading,
                                             bar.update)))
            items = [{"image": str(e.image), "truth": e.score, "pred": a.score, "text": a.text,
                      "cut": a.cut, **({"std": a.std} if samples else {})}
                     for e, a in zip(examples, told, strict=True)]
            metrics = evaluate([a.score for a in told], [e.score for e in examples],
                               examples[0].scale, seed, cut=[a.cut for a in told])
            per_set[name] = {"domain": domain, "metrics": metrics, "items": items}
    means = domain_means({n: s["metrics"] for n, s in per_set.items()},
                         {n: s["domain"] for n, s in per_set.items()})
    decoding = {**vlm.described(reading.drawn_at), "readout": readout, "samples": samples}
    return {"decoding": decoding, "sets": per_set, "mean": means}


def answers(vlm: VLM, examples: list[Example], places: range, reading: Reading,
            tick: Callable[[int], object]) -> Iterator[Score]:
    """The score of each of some examples, in order.

    Args:
        places: of the examples that are asked for; a place has its own random numbers.
        tick: told how many more are done.
    """
    with closing(ahead((examples[i].image for i in places), vlm.fit, AHEAD)) as shown:
        for some, images in batches(vlm, zip(places, shown, strict=True), reading):
            yield from read(vlm, images, some, reading)
            tick(len(images))


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
