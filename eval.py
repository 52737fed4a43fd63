"""Score test sets with a checkpoint and compare with people: PLCC, SRCC and their kin.

    python eval.py                     the toy's four test sets with the model of train_rapo.py
    python eval.py bench --model FOLDER --test_in ava:data/AVA --test_ood para:data/PARA
    python eval.py compare A/predictions.jsonl B/predictions.jsonl
    python eval.py score photos/ --model FOLDER --out scores.csv     pictures without labels
    python eval.py VERB --help         all options

A critique is the greedy one; a score is the expectation of the number behind it, and the figures
of the numbers written stand beside. Sets are never pooled; in-domain and out-of-domain means are
kept apart. The training script compares its stages with the same functions
(`nanoaes/evaluation.py`), by the number written, as the paper reads them.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

from nanoaes import details, overlap, paired
from nanoaes.ahead import in_threads
from nanoaes.calibration import before_and_after
from nanoaes.checkpoint import write_json
from nanoaes.config import OptionError, RAPOConfig
from nanoaes.datasets import Example, Sets, read_all
from nanoaes.errors import Ended, Stopped, UserError
from nanoaes.evaluation import evaluate_sets, read_sets
from nanoaes.found import Found, find
from nanoaes.graphs import Graphs
from nanoaes.hub import find_folder
from nanoaes.index import Index
from nanoaes.ledger import Ledger
from nanoaes.metrics import format_table, unreadable
from nanoaes.models import load_whole
from nanoaes.page.report import write_report
from nanoaes.page.sheet import MOST, SIGN, sheet, thumbnail
from nanoaes.parallel import by_first, first
from nanoaes.predictions import beside, check_writable, digest, open_log
from nanoaes.progress import progress, say
from nanoaes.readout import Reading
from nanoaes.runs import hold_file, keep_going
from nanoaes.same import fingerprint
from nanoaes.sampler import by_dataset, hold_out
from nanoaes.says import by_dimension
from nanoaes.scoring import Waited, score_all, signature
from nanoaes.script import run_verbs
from nanoaes.standing import Standing, as_csv, borders, choose, standings, table
from nanoaes.stop import stopping
from nanoaes.targets import Targets, targets, write_pieces
from nanoaes.toy import road as toy
from nanoaes.verbs import CompareConfig, EvalConfig, ScoreConfig
from nanoaes.vlm import VLM
from nanoaes.xmp import rate

TOLD = 20  # lines of a list that can be long
AHEAD = 32  # pictures of the sheet that are read ahead
NOT_ASKED_SO = "is the model cold-started, and asked as it was trained (--prompt)?"


def bench(cfg: EvalConfig) -> dict:
    """Evaluate, write the result and its page, print the table.

    Raises:
        UserError: as `test_sets`, `load_whole`, `open_log`. Stopped: by a signal.
    """
    model = Path(cfg.model) if cfg.model else Path(cfg.run) / "rapo"
    out = Path(cfg.out or (model if model.is_dir() else Path(cfg.run) / model.name) / "eval.json")
    sets, few, dropped = by_first(lambda: test_sets(cfg, out))
    vlm = load_whole(model, cfg)
    reading = Reading(cfg.readout, cfg.samples, cfg.temperature, cfg.seed,
                      cfg.tokens_per_micro_batch)
    with ExitStack() as claimed:
        about = by_first(lambda: what_answers(cfg, model, vlm, sets, reading.drawn_at))
        log = by_first(lambda: open_log(out, about, claimed))
        with stopping() as log.stop:
            result = {"checkpoint": str(model), "model": about["model"], **evaluate_sets(
                vlm, sets, reading, label=f"evaluating {model}", log=log)}
            told = few and evaluate_sets(vlm, few, reading, label="labelled pictures",
                                         log=log)["sets"]
        expected = cfg.readout == "expect" and not cfg.samples
        details.add_details(result, sets, dropped, cfg.seed,
                            vlm.asking.score_range if expected else None)
        for name, (_, examples) in few.items():
            result["calibration"] = before_and_after(examples, told[name]["items"],
                                                     result["sets"], cfg.seed)
        if first():
            if not (cfg.test_in or cfg.test_ood):
                toy.remark(result, Path(cfg.run) / "world")
            tell(cfg, out, model, result)
    return result


def test_sets(cfg: EvalConfig, out: Path) -> tuple[Sets, Sets, Counter[str]]:
    """(sets, the one of --calibrate if any, unreadable pictures of each), or what is wrong."""
    check_writable(out)
    named = cfg.test_in, cfg.test_ood
    if not any(named):
        _, *named = toy.sets(Path(cfg.run) / "world", None)
    dropped: Counter[str] = Counter()
    index = Index(Path(cfg.run))
    sets = read_sets(*named, cfg.bad_images, cfg.columns, index, dropped)
    return sets, labelled(cfg, sets, index), dropped


def labelled(cfg: EvalConfig, sets: Sets, index: Index) -> Sets:
    """The pictures of --calibrate as a set; none without. A bare file is on the sets' own scale."""
    if not cfg.calibrate:
        return {}
    spec, scales = cfg.calibrate, {examples[0].scale for _, examples in sets.values()}
    if ":" not in spec:
        if len(scales) > 1:
            raise OptionError(f"--calibrate {spec}: the test sets have several scales; say its "
                              f"own, csv:{spec}@LO-HI")
        spec = "csv:{}@{:g}-{:g}".format(spec, *scales.pop())
    few = read_all(spec, "test", cfg.bad_images, columns=cfg.columns, index=index)
    # A name that says which pictures: with others the test sets' evaluation goes on all the same.
    return {f"--calibrate {digest(few)}": ("in", few)}


def what_answers(cfg: EvalConfig, model: Path, vlm: VLM, sets: Sets, drawn_at: float) -> dict:
    """All that changes an answer: with the same an evaluation goes on."""
    return {"model": fingerprint(find_folder(model)), "decoding": vlm.described(drawn_at),
            "readout": cfg.readout, "samples": cfg.samples, "dtype": cfg.dtype,
            "seed": cfg.seed if drawn_at else None,
            "sets": {name: digest(examples) for name, (_, examples) in sets.items()}}


def tell(cfg: EvalConfig, out: Path, model: Path, result: dict) -> None:
    """The result as a file, as a page and as a table."""
    predictions, report = beside(out)
    print(format_table({model.name: result}))
    for name, part in result["sets"].items():
        print(*details.lines(name, part), sep="\n")
    if "calibration" in result:
        print(*details.calibrated(result["calibration"]), sep="\n")
    if unreadable(result) > 0.5:
        print(f"{unreadable(result):.0%} of the answers are unreadable: {NOT_ASKED_SO}")
    try:
        write_json(out, result)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); make room, then the same "
                        "command goes on where it was") from error
    with keep_going("the report"):
        write_report(report, f"{model.name} on {len(result['sets'])} test sets", [],
                     {model.name: result}, vars(cfg), [])
    print(f"written: {out}, {predictions.name}, {report.name}")


def score(cfg: ScoreConfig) -> None:
    """Score pictures, each once, and show the best.

    Raises:
        UserError: options, files or a model that cannot be used.
        Stopped: by a signal. Ended: all is done, but some pictures have no score.
    """
    model = Path(cfg.model) if cfg.model else Path(cfg.run) / "rapo"
    ledger: list[Ledger] = []  # the first process's
    with ExitStack() as until:
        def begin() -> tuple[Targets, Found]:
            files, found = targets(cfg, SIGN), find(cfg.paths, sys.stdin.buffer)
            until.enter_context(hold_file(files.ledger, "--out"))
            return files, found

        def still_to_do() -> list[Path]:
            ledger.append(Ledger(files.ledger, signature(model, vlm, cfg.dtype, reading)))
            ledger[0].refuse(found.refused)
            with progress(None, "looking for what is known", len(found.pictures), False) as bar:
                return ledger[0].missing(found.pictures, bar.update)

        files, found = by_first(begin)
        vlm = load_whole(model, cfg)
        reading = Reading(cfg.readout, cfg.samples, tokens=cfg.tokens_per_micro_batch,
                          graphs=Graphs() if vlm.device.type == "cuda" else None)
        todo = by_first(still_to_do)
        waited, start = Waited(), time.perf_counter()
        with stopping() as stop, progress(None, "scoring", len(todo)) as bar:
            for rows in score_all(vlm, todo, reading, waited):
                by_first(lambda rows=rows: ledger[0].add(rows))
                bar.update(len(rows))
                if number := stop.asked():
                    raise Stopped(number, "the same command goes on where this one stopped")
        if todo:
            took = time.perf_counter() - start
            say(f"{len(todo):,} pictures in {took:.1f} s: {len(todo) / took:.2f} a second, "
                f"{waited.seconds / took:.1%} of the time waiting for pictures")
        if lost := by_first(lambda: show(cfg, files, ledger[0], found)):
            raise Ended(3, f"{lost:,} of {len(found.pictures) + len(found.refused):,} have no "
                           f"score; {files.ledger} has each with its \"error\"")


def show(cfg: ScoreConfig, files: Targets, ledger: Ledger, found: Found) -> int:
    """What the scores are looked at through; returns how many pictures have none."""
    paths = [*found.pictures, *found.refused]
    best = standings(paths, [ledger.lines[str(path)] for path in paths], borders(cfg.stars),
                     cfg.bursts)
    chosen = choose(best, top=cfg.top, least=cfg.min, keep=cfg.keep)
    lost = [one.path for one in best if one.score is None]
    for path in lost[:TOLD]:
        say(f"{path}: {ledger.lines[str(path)].error}")
    say(f"\n{len(best) - len(lost):,} scored, {len(chosen):,} chosen{table(chosen, TOLD)}")
    if 2 * sum(ledger.lines[str(path)].answered for path in lost) > len(best):
        say(f"most answers state no score: {NOT_ASKED_SO}")
    if files.csv:
        more = by_dimension if cfg.dimensions else lambda critique: {}
        write_pieces(files.csv, as_csv(best, ledger.row, more))
    if files.html:
        write_sheet(files.html, cfg, chosen, ledger, len(best))
    if cfg.xmp:
        written, there = rate(((one.path, one.stars) for one in chosen), cfg.xmp, cfg.dry_run)
        say(f"sidecars: {written:,} {'would be written' if cfg.dry_run else 'written'}, "
            f"{len(there):,} were there and stay" + "".join(f"\n  {p}" for p in there[:TOLD]))
    say("written: " + ", ".join(str(path) for path in files if path))
    return len(lost)


def write_sheet(path: Path, cfg: ScoreConfig, chosen: list[Standing], ledger: Ledger, n: int
                ) -> None:
    """The contact sheet of the best, as many as fit on it; n were asked for."""
    some = chosen[:MOST]
    note = (f"{len(some):,} of {n:,} pictures, the best first, "
            f"scored by {ledger.by.rpartition('@')[0]}.")
    title = " ".join(Path(word).name or word for word in cfg.paths if word != "-")
    if len(chosen) > MOST:
        say(f"{path}: the best {MOST:,} of {len(chosen):,}; --top or --min choose others")
    shots = ((one, ledger.row(one.path)["critique"]) for one in some)
    with closing(in_threads(lambda one: thumbnail(one.path, len(some)), some, AHEAD)) as images:
        bar = progress(images, "contact sheet", len(some), False)
        write_pieces(path, sheet(title[:80] or "Pictures", note, shots, bar))


def compare(cfg: CompareConfig) -> None:
    """Two evaluations of the same pictures, figure by figure."""
    if len(cfg.files) != 2:
        raise OptionError(f"compare needs two files of predictions, not {len(cfg.files)}: "
                          "eval.py compare A/predictions.jsonl B/predictions.jsonl")
    if cfg.out:
        check_writable(Path(cfg.out))
    result = paired.compared(*map(Path, cfg.files), cfg.seed)
    if first():
        print(*paired.lines(result), sep="\n")
        if cfg.out:
            write_json(Path(cfg.out), result)


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
    held = {name: ("in", part) for name, part in by_dataset(held).items()}
    if cfg.model:
        named = {**{f"{name}, held out": part for name, part in held.items()}, **tests}
        overlap.warn_of_learned(Path(cfg.model), {
            name: [e.image for e in part] for name, (_, part) in named.items()})
    return examples, held, tests


if __name__ == "__main__":
    run_verbs({"bench": (bench, EvalConfig), "score": (score, ScoreConfig),
               "compare": (compare, CompareConfig)})
