"""README and bench's pages say nothing that the code does not know: links, options, commands."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from nanoaes.config import CoTConfig, RAPOConfig, SFTConfig
from nanoaes.page.curves import EFFORT
from nanoaes.verbs import EvalConfig, ScoreConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SCRIPTS = {"build_cot.py": CoTConfig, "train_sft.py": SFTConfig, "train_rapo.py": RAPOConfig,
           "eval.py": EvalConfig, "eval.py score": ScoreConfig}
PAGES = ("README.md", "bench/SPEED.md", "bench/TRIED.md", "nanoaes/TOUR.md")
RESULTS = "bench/RESULTS.md"


def numbers(text: str) -> list[str]:
    """As written, without commas between thousands; no dates, commits, links, code."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|\b\d{4}-\d\d-\d\d\b|\b(?=\w*[a-f])[\da-f]{7}\b", " ", text)
    return re.findall(r"\d*\.\d+|\d+", re.sub(r"(?<=\d),(?=\d{3})", "", text))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())
    assert len(links) > 8 and [x for x in links if not (path.parent / x).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, RESULTS])
def test_every_file_that_is_named_is_there(page: str) -> None:
    named = re.findall(r"(?<![\w/.])(?:bench|nanoaes|tests)/[\w/]+\.\w+", (ROOT / page).read_text())
    assert named and [x for x in named if not (ROOT / x).is_file()] == []


@pytest.mark.parametrize("page", [*PAGES, RESULTS])
def test_every_option_exists_in_its_script(page: str) -> None:
    text = (ROOT / page).read_text()
    commands = re.findall(r"python (\w+\.py(?: score)?)((?:[^\n`]|\\\n)*)", text)
    if page == "README.md":
        assert {name for name, _ in commands} >= {"train_rapo.py", "eval.py", "eval.py score"}
    for name, rest in commands:
        known = {f.name for f in dataclasses.fields(SCRIPTS[name])} | {"preset", "help"}
        assert set(re.findall(r"--(\w+)", rest)) <= known, name
    for name, rest in re.findall(r"(bench/\w+\.py)([^\n`&]*)", text):
        script = (ROOT / name).read_text()
        assert [x for x in re.findall(r"--[\w-]+", rest) if f'"{x}"' not in script] == [], name


@pytest.mark.parametrize("page", PAGES[1:])
def test_an_option_named_alone_is_one_of_some_script(page: str) -> None:
    known = {f.name for config in SCRIPTS.values() for f in dataclasses.fields(config)}
    alone = set(re.findall(r"`--(\w+)[^`]*`", (ROOT / page).read_text()))
    assert alone and alone <= known


def test_what_is_said_of_speed_was_printed() -> None:
    """Each number in a table of SPEED.md is one of RESULTS.md, perhaps rounded there or here."""
    rows = re.findall(r"^\|.*", (ROOT / "bench/SPEED.md").read_text(), re.MULTILINE)
    said = [x for row in rows for x in numbers(row)]
    printed = {float(x) for x in numbers((ROOT / RESULTS).read_text().replace("`", ""))}
    assert len(said) > 60
    assert [x for x in said if float(x) not in
            {round(y, len(x.partition(".")[2])) for y in printed}] == []


def test_where_a_run_spends_its_time_is_told(tmp_path: Path, monkeypatch, capsys) -> None:
    """SPEED.md's block, on a run of a cold start and two steps of 3 pictures x 4 answers."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "bench/SPEED.md").read_text(), re.DOTALL)
    keys = re.findall(r'"(s_\w+)"', block)
    assert set(keys) <= {key for curve in EFFORT for key in curve.keys}
    rows = [{"step": 0}, {"step": 1, "length": 10.0, "s_rollout": 2.0, "s_update": 1.0},
            {"step": 2, "length": 20.0, "s_rollout": 4.0, "s_update": 2.0, "s_eval": 5.0}]
    run = tmp_path / "runs" / "toy"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "train_rapo.json").write_text(json.dumps({"images": 3, "k": 4}))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "SPEED.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "s_data 0.0", "s_rollout 3.0", "s_reference 0.0", "s_update 1.5", "s_eval 2.5",
        "rollout, tokens/s 60.0"]


def test_every_claim_has_its_script_and_what_it_printed() -> None:
    results = (ROOT / "bench" / "RESULTS.md").read_text()
    scripts = set(re.findall(r"python (bench/\w+\.py)", README))
    assert len(scripts) > 8
    for script in scripts:
        assert (ROOT / script).is_file() and f"python {script}" in results, script


def test_the_two_commands_are_complete_in_themselves() -> None:
    """What .ci/run takes out of README: each is one line that makes its environment and runs."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    ends = "train_rapo.py", "-m pytest -n 2 --dist loadfile"
    for block, last in zip(blocks, ends, strict=True):
        (line,) = block.strip().splitlines()
        make, install, run = line.split(" && ")
        assert make.endswith("venv .venv") and "pip install -r" in install and run.endswith(last)
        assert (ROOT / install.split()[-1]).is_file()


def test_an_afternoon_has_no_more_than_3500_lines() -> None:
    section = README.split("## Reading it in an afternoon")[1].split("\n## ")[0]
    files = set(re.findall(r"\]\(([\w/]+\.py)\)", section))
    assert len(files) > 12
    assert sum((ROOT / file).read_text().count("\n") for file in files) <= 3500


def test_every_module_of_the_algorithm_is_in_the_reading_list() -> None:
    for name in ("reward", "rapo", "rollout", "vlm", "logprob", "cot", "prompt", "datasets",
                 "images", "metrics", "attention", "kernels"):
        assert f"nanoaes/{name}.py" in README
