"""AesCoT: scored pictures -> critiques that explain the score, filtered and balanced.

    python build_cot.py            the toy world, its rule-based teacher
    python build_cot.py --preset paper --run runs/mine --train csv:photos.csv@1-5 \\
        --teacher http://localhost:8000/v1 --teacher_model NAME
    python build_cot.py --help     all options

Every critique is written to disk as soon as it is there, kept or rejected; run again to go on.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch

from nanoaes.answering import as_they_come
from nanoaes.card import card, lines
from nanoaes.chat import Chat
from nanoaes.checkpoint import append_row, append_rows, read_rows, write_json
from nanoaes.config import CoTConfig, OptionError
from nanoaes.cot import EXTRA, Checked, Draw, Judge, Teacher, balance, check, score_level
from nanoaes.critiques import current, item
from nanoaes.datasets import Example, read_all
from nanoaes.endpoint import Endpoint
from nanoaes.errors import NoAnswer, Refused, Stopped, UserError
from nanoaes.filters import repeats
from nanoaes.index import Index
from nanoaes.local import Local
from nanoaes.page.critiques import write_page
from nanoaes.progress import progress, say
from nanoaes.runs import claim, keep_going
from nanoaes.sampler import hold_out
from nanoaes.script import run_script
from nanoaes.sharegpt import write_sharegpt
from nanoaes.stop import Stopping, stopping
from nanoaes.teachers import ChatJudge, ChatTeacher
from nanoaes.toy import road as toy
from nanoaes.toy.teacher import ToyJudge, ToyTeacher
from nanoaes.toy.world import read_attributes
from nanoaes.unfit import REFUSED

NOBODY = 20  # first questions that all have no answer: whoever is asked is not there
# Less than this share kept of so many: more pictures would cost more of the same.
HOPELESS, ENOUGH = 0.02, 200
TOKENS = 8192  # per forward of a model that runs here


@dataclass
class Desk:
    """Who works on a picture, with which filters beyond the paper's."""

    teacher: Teacher
    judge: Judge
    extra: Sequence[str] = ()
    chats: Sequence[Chat] = ()  # the models behind both; none in the toy
    threads: int = 1
    halt: Event = field(default_factory=Event)  # set: whoever waits for an answer gives up


def main(cfg: CoTConfig) -> Path:
    """Returns the file of critiques.

    Raises:
        UserError: options, pictures or a teacher that cannot be used. Stopped: by a signal.
    """
    run = Path(cfg.run)
    out = Path(cfg.out) if cfg.out else run / "cot.jsonl"
    with ExitStack() as claimed:
        claimed.enter_context(claim(run, "build_cot.py"))
        claimed.enter_context(claim(out.parent, "build_cot.py", "--out"))
        examples = once(pictures(cfg, run))
        desk = desk_of(cfg, run)
        write_json(run / "build_cot.json", asdict(cfg))
        with stopping() as stop:
            ended = gather(cfg, examples, desk, out, stop)
        tell(cfg, run, out, desk, ended)
    return out


def gather(cfg: CoTConfig, examples: list[Example], desk: Desk, out: Path, stop: Stopping) -> str:
    """Critiques of as many pictures as are asked for, or needed; returns what is short, if any."""
    scores = [e.score for e in examples]
    if not cfg.target:
        chosen = balance(examples, scores, cfg.per_level, cfg.seed)
        lost = collect(chosen, desk, out, stop)
        mark_repeats(chosen, desk, out)
        return missed(lost)
    draw = Draw(examples, scores, [e.dataset for e in examples], cfg.target, cfg.seed)
    asked, have, lost = [], [0, 0, 0], 0
    while more := draw.more(have):
        asked += more
        # Who has not answered is asked once more before others are drawn instead.
        lost += collect(more, desk, out, stop) and collect(more, desk, out, stop)
        mark_repeats(asked, desk, out)
        have = kept(asked, desk, out)
        if len(asked) >= ENOUGH and sum(have) < HOPELESS * len(asked):
            return f"of the first {len(asked):,} hardly any is kept: see why, then go on"
    short = ", ".join(draw.short(have))
    return "; ".join(filter(None, [short and f"no more pictures: {short}", missed(lost)]))


def missed(lost: int) -> str:
    return f"{lost:,} without an answer; run again to ask them again" if lost else ""


def collect(examples: list[Example], desk: Desk, out: Path, stop: Stopping | None = None) -> int:
    """A row for each example in `out`; those that are there are left alone.

    A picture with another score than in the file, or for another teacher, gets a new critique; one
    that another judge, or none, has read is read again. Returns how many have got no answer.

    Raises:
        UserError: nobody answers. Stopped: by a signal.
    """
    earlier, todo, lost = rows_of(out), [], 0
    for example in once(examples):
        row = earlier.get(item(out, head_of(example, desk)))
        if row is None or not is_done(row, desk):
            todo.append((example, row))

    def look() -> None:
        if stop and stop.number:  # not asked(): one process of several may be at work here
            raise Stopped(stop.number, "the same command goes on where this one stopped")

    with progress(None, "AesCoT", len(todo)) as bar:
        for number, found in enumerate(as_they_come(lambda pair: work(*pair, desk), todo,
                                                    desk.threads, desk.halt, look), 1):
            if isinstance(found, NoAnswer):
                lost += 1
                if lost == number == NOBODY:
                    raise UserError(f"none of the first {NOBODY} questions is answered: {found}; "
                                    "see to it and run again")
            else:
                append_row(out, found)
            bar.update(1)
    return lost


def work(example: Example, row: dict[str, Any] | None, desk: Desk) -> dict[str, Any] | NoAnswer:
    """One picture from the first word to the last flag.

    Args:
        row: what is known of it; its critique stays.
    """
    try:
        if row and row["why"].get("unfit") == REFUSED:  # it stays one, whoever judges
            raise Refused(row["critique"])
        critique = row["critique"] if row else desk.teacher.write(example.image, example.score)
        checked = check(critique, example.image, example.score, desk.judge, desk.extra)
    except Refused as error:
        critique, checked = str(error), Checked({"unfit": REFUSED})
    except NoAnswer as error:
        return error
    spent = [chat.spent.take() for chat in desk.chats] + [(row or {}).get("tokens", {})]
    tokens = {"tokens": {name: sum(s.get(name, 0) for s in spent) for name in spent[0]}
              } if desk.chats else {}
    return {**head_of(example, desk), "dataset": example.dataset, "judge": desk.judge.name,
            "critique": critique, **checked.row(desk.extra), **tokens}


def head_of(example: Example, desk: Desk) -> dict[str, Any]:
    """What a row is about (`critiques.item`)."""
    return {"image": str(example.image.resolve()), "score": example.score,
            "teacher": desk.teacher.name}


def is_done(row: dict[str, Any], desk: Desk) -> bool:
    """Has this judge read it, with these filters?"""
    return (row.get("judge", "toy") == desk.judge.name and not row.get("unjudged")
            and {name for name in EXTRA if name in row} == set(desk.extra))


def rows_of(out: Path) -> dict[Any, dict[str, Any]]:
    """What a row is about -> the row that counts."""
    rows = current(out, enumerate(read_rows(out), 1)) if out.is_file() else []
    return {item(out, row): row for _, row in rows}


def once(examples: list[Example]) -> list[Example]:
    """Each picture with its last label."""
    return list({example.image.resolve(): example for example in examples}.values())


def kept(asked: list[Example], desk: Desk, out: Path) -> list[int]:
    """Of each level, how many of these pictures have a critique that is kept."""
    rows, count = rows_of(out), [0, 0, 0]
    for example in asked:
        row = rows.get(item(out, head_of(example, desk)))
        count[score_level(example.score)] += bool(row and row["kept"])
    return count


def mark_repeats(asked: list[Example], desk: Desk, out: Path) -> None:
    """A critique that nearly repeats one of an earlier picture is kept no longer.

    In the order of asking, not of answering: so it does not matter who was slow.
    """
    if "repeat" not in desk.extra:
        return
    rows = rows_of(out)
    mine = [row for example in asked if (row := rows.get(item(out, head_of(example, desk))))
            and row["kept"]]
    again = [(row, mine[first]) for row, first in
             zip(mine, repeats([row["critique"] for row in mine]), strict=True)
             if first is not None]
    append_rows(out, [{**row, "kept": False, "repeat": True, "why": {
        "repeat": f"much the same as of {Path(before['image']).name}"}} for row, before in again])


def pictures(cfg: CoTConfig, run: Path) -> list[Example]:
    """Those that a critique may be asked for: held-out ones are not."""
    specs = cfg.train or toy.sets(run / "world", cfg.seed)[0]
    seen = read_all(specs, "train", cfg.bad_images, columns=cfg.columns, index=Index(run))
    return hold_out(seen, cfg.heldout)[0]


def desk_of(cfg: CoTConfig, run: Path) -> Desk:
    """Who is asked. Raises OptionError: nobody, or filters that there are not."""
    if not cfg.teacher:
        if cfg.train or cfg.judge:
            raise OptionError("pictures of one's own need a teacher: --teacher URL --teacher_model "
                              "NAME, or --teacher FOLDER; neither: the toy world")
        notes = read_attributes(run / "world")
        return Desk(ToyTeacher(notes, cfg.seed), ToyJudge(notes), filters_of(cfg, ()))
    halt = Event()
    teacher = chat_of(cfg, cfg.teacher, cfg.teacher_model, "TEACHER_API_KEY", halt)
    judge, same = teacher, not cfg.judge
    if cfg.judge or cfg.judge_model:
        key = "TEACHER_API_KEY" if same else "JUDGE_API_KEY"  # a key goes to its own server only
        judge = chat_of(cfg, cfg.judge or cfg.teacher, cfg.judge_model, key, halt)
    chats = (teacher,) if judge is teacher else (teacher, judge)
    return Desk(ChatTeacher(teacher), ChatJudge(judge), filters_of(cfg, EXTRA), chats,
                cfg.concurrency, halt)


def filters_of(cfg: CoTConfig, default: Sequence[str]) -> Sequence[str]:
    """Those beyond the paper's. Raises OptionError: a name that is none."""
    if cfg.filters in ("", "none"):
        return () if cfg.filters else default
    names = [name.strip() for name in cfg.filters.split(",")]
    if unknown := [name for name in names if name not in EXTRA]:
        raise OptionError(f"--filters {cfg.filters}: {unknown[0]!r} is none of {', '.join(EXTRA)}")
    return names


def chat_of(cfg: CoTConfig, where: str, model: str, key: str, halt: Event) -> Chat:
    """A model behind an address, or in a folder. key: the environment variable that holds it."""
    asking = dict(max_pixels=cfg.max_pixels, max_new_tokens=cfg.max_new_tokens, seed=cfg.seed,
                  stop=halt.is_set)
    if not where.startswith(("http://", "https://")):
        return Local(where, device=cfg.device, dtype=getattr(torch, cfg.dtype),
                     most=cfg.concurrency, tokens=TOKENS, **asking)
    if not model:
        raise OptionError(f"{where} has to be told which model: --teacher_model, --judge_model")
    return Endpoint(where, model, os.environ.get(key, ""), variable=key, timeout=cfg.timeout,
                    rate=cfg.rate, **asking)


def tell(cfg: CoTConfig, run: Path, out: Path, desk: Desk, short: str) -> None:
    """The data card, the page to look at, the layout of others, and a few lines."""
    rows = list(rows_of(out).values())
    about = card(rows, {"teacher": desk.teacher.name, "judge": desk.judge.name,
                        "short": short, "options": asdict(cfg)})
    write_json(out.with_name(f"{out.stem}_card.json"), about)
    with keep_going("the page of critiques"):
        write_page(out.with_suffix(".html"), f"Critiques of {run.name}", rows, about)
    if cfg.sharegpt:
        write_sharegpt(out.with_name(f"{out.stem}_sharegpt.json"), rows)
    say("\n".join(lines(about)))


if __name__ == "__main__":
    run_script(main, CoTConfig)
