"""README says nothing that the code does not know: links, options, commands."""

import dataclasses
import re
from pathlib import Path

from nanoaes.config import CoTConfig, RAPOConfig, SFTConfig
from nanoaes.verbs import EvalConfig, ScoreConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SCRIPTS = {"build_cot.py": CoTConfig, "train_sft.py": SFTConfig, "train_rapo.py": RAPOConfig,
           "eval.py": EvalConfig, "eval.py score": ScoreConfig}


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 8 and [x for x in links if not (ROOT / x).exists()] == []


def test_every_option_exists_in_its_script() -> None:
    commands = re.findall(r"python (\w+\.py(?: score)?)((?:[^\n`]|\\\n)*)", README)
    assert {name for name, _ in commands} >= {"train_rapo.py", "eval.py", "eval.py score"}
    for name, rest in commands:
        known = {f.name for f in dataclasses.fields(SCRIPTS[name])} | {"preset", "help"}
        assert set(re.findall(r"--(\w+)", rest)) <= known, name


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
