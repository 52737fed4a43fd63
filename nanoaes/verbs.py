"""The options of `eval.py`'s verbs: bench, score, compare."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanoaes.config import SETS, ModelConfig, OptionError, SetsConfig, opt, words


@dataclass
class AskConfig(ModelConfig):
    """What every script has that scores pictures, also with a model that was trained elsewhere."""

    prompt_file: str = opt("", "text file with the question, instead of --prompt: for a model "
                               "that was trained elsewhere")
    score_range: str = opt("", "LO-HI, such as 1-5: lowest and highest number that the question "
                               "asks for; empty: as the model's folder says, else 0-1")
    # differs from the paper: it reads the number that is written. Three seeds of the toy were each
    # read better so (bench/RESULTS.md), and no scores tie.
    readout: str = opt("expect", "score: the expectation of the number that is written; the number "
                                 "itself; the expectation without a critique",
                       ("expect", "greedy", "direct"))
    samples: int = opt(0, "critiques per picture, whose scores are averaged; 0: one", low=0)

    def loading(self) -> dict[str, Any]:
        """For `VLM.load`. Raises OptionError: a file that is no question, a range that is none."""
        return super().loading() | {"prompt": self._question(), "score_range": self._range()}

    def _question(self) -> str:
        """Name or text; "" where nothing is given."""
        if not self.prompt_file:
            return self.prompt
        if self.prompt:
            raise OptionError("--prompt and --prompt_file ask two questions; give one")
        try:
            text = Path(self.prompt_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"--prompt_file {self.prompt_file}: {error}; name a text file in "
                              "UTF-8") from None
        if not text:
            raise OptionError(f"--prompt_file {self.prompt_file}: is empty; write the question "
                              "there")
        return text

    def _range(self) -> tuple[float, float] | None:
        found = re.fullmatch(r"(\d*\.?\d+)-(\d*\.?\d+)", self.score_range)
        if not self.score_range:
            return None
        if not found or not 0 <= float(found[1]) < float(found[2]) <= 100:
            raise OptionError(f"--score_range {self.score_range}: write LO-HI with 0 <= LO < HI <= "
                              "100, such as 1-5")
        return float(found[1]), float(found[2])


@dataclass
class EvalConfig(AskConfig, SetsConfig):
    """Score test sets with a checkpoint: agreement with people, choices among pictures, themes.

    By default a score is the expectation of the number that the reply states; the figures of the
    numbers themselves stand beside it.
    An evaluation that was cut off goes on where it was when the same is started again.
    """

    model: str = opt("", "Hugging Face folder or hub name; empty: RUN/rapo")
    test_in: str = opt("", f"in-domain test sets {SETS}; empty: the toy's")
    test_ood: str = opt("", "out-of-domain test sets; empty: the toy's two")
    out: str = opt("", "result as JSON, predictions and report beside it; empty: MODEL/eval.json, "
                       "of a hub name RUN/NAME/eval.json")
    temperature: float = opt(0.0, "of the critique; 0: greedy; else sampled", low=0)
    calibrate: str = opt("", "a few pictures with labels of your own, csv:FILE@LO-HI: also tells "
                             "the figures of scores that are mapped to such labels")


@dataclass
class ScoreConfig(AskConfig):
    """Score pictures of your own, without labels: a critique and a score between 0 and 1 for each.

        eval.py score photos/ --model FOLDER --out scores.csv
        eval.py score photos/ --model FOLDER --html best.html --top 50 --bursts --keep 1
        find ~/photos -name "*.jpg" -newer last | eval.py score - --xmp darktable --dry_run

    Each score is on the disk at once; the same command goes on where it was stopped, and scores
    what is new or has changed. It ends with 0 if every picture has a score, with 3 if some have
    none: they are named, and listed with their "error".
    """

    paths: tuple[str, ...] = words("files, folders (all below them), @LIST (a file of names), or - "
                                   "for names on stdin")
    model: str = opt("", "Hugging Face folder or hub name; empty: RUN/rapo")
    out: str = opt("", "all scores: FILE.jsonl, to which each command adds; or FILE.csv, this "
                       "command's, with a FILE.jsonl beside it; empty: RUN/scores.jsonl")
    top: int = opt(0, "look at the best so many only; 0: all", low=0)
    min: float = opt(0.0, "look at those of this score or a better one only", low=0)
    bursts: bool = opt(False, "find shots of one moment, by capture time and looks, and rank them")
    keep: int = opt(0, "look at the best so many of each burst only (with --bursts); 0: all", low=0)
    stars: str = opt(".2,.4,.6,.8", "scores from which on there are 2, 3, 4 and 5 stars")
    html: str = opt("", "a contact sheet of what is looked at")
    xmp: str = opt("", "a sidecar file with the stars beside each picture that is looked at: "
                       "NAME.jpg.xmp (darktable, digiKam) or NAME.xmp; one that is there stays",
                   ("", "darktable", "lightroom"))
    dry_run: bool = opt(False, "with --xmp: say which sidecars would be written, write none")
    dimensions: bool = opt(False, "a FILE.csv also has what the critique says of each dimension")


@dataclass
class CompareConfig:
    """Two evaluations of the same pictures: every figure's difference, with its interval."""

    files: tuple[str, ...] = words("two predictions.jsonl, of A and of B")
    out: str = opt("", "result as JSON; empty: none")
    seed: int = opt(0, "seed of the bootstrap")
