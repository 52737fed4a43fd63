"""Options are typed, unknown ones fail with the nearest name, presets hold the paper's values."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nanoaes.config import CoTConfig, DataConfig, OptionError, RAPOConfig, SFTConfig, inherit, words
from nanoaes.options import parse
from nanoaes.presets import PRESETS
from nanoaes.script import run_verbs
from nanoaes.verbs import EvalConfig, ScoreConfig

ROOT = Path(__file__).parent.parent


def test_values_are_converted_to_their_types() -> None:
    cfg = parse(RAPOConfig, ["--k", "3", "--lr=2e-4", "--train-vision", "False", "--run", "a-b"])
    assert (cfg.k, cfg.lr, cfg.train_vision, cfg.run) == (3, 2e-4, False, "a-b")
    assert parse(RAPOConfig, []) == RAPOConfig()
    assert parse(RAPOConfig, ["--soft_truth", "--k", "4"]) == RAPOConfig(soft_truth=True, k=4)


@dataclass
class Looked(DataConfig):
    """What is looked at."""

    paths: tuple[str, ...] = words("files")


def test_words_stand_anywhere_and_tildes_are_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    got = parse(Looked, ["a b", "--seed", "3", "~/c", "--run=~/runs"])
    assert got == Looked(paths=("a b", "/home/ada/c"), seed=3, run="/home/ada/runs")
    assert parse(Looked, []) == Looked()
    with pytest.raises(OptionError, match="--sed is no option.*--seed"):
        parse(Looked, ["a", "--sed", "3"])


@pytest.mark.parametrize("argv, on", [
    (["--bursts", "a", "b"], True), (["a", "b", "--bursts"], True), (["a", "--bursts", "b"], True),
    (["--bursts", "false", "a", "b"], False), (["--bursts=no", "a", "b"], False),
    (["a", "--bursts", "--top", "3", "b"], True), (["--bursts", "TRUE", "a", "b"], True)])
def test_a_switch_before_a_word_is_no_trap(argv: list[str], on: bool) -> None:
    cfg = parse(ScoreConfig, argv)
    assert (cfg.paths, cfg.bursts) == (("a", "b"), on)


def test_a_script_of_several_verbs(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    said: list[str] = []
    verbs = {"bench": (lambda cfg: said.append(f"bench {cfg.seed}"), EvalConfig),
             "look": (lambda cfg: said.append(f"look {cfg.paths}"), Looked)}
    for argv in ([], ["--seed", "1"], ["bench", "--seed", "2"], ["look", "x", "y"]):
        monkeypatch.setattr(sys, "argv", ["eval.py", *argv])
        run_verbs(verbs)
    assert said == ["bench 0", "bench 1", "bench 2", "look ('x', 'y')"]
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["eval.py", "lok"])
    with pytest.raises(SystemExit, match="^eval.py: 'lok' is none of bench, look$"):
        run_verbs(verbs)
    monkeypatch.setattr(sys, "argv", ["eval.py", "look", "--help"])
    with pytest.raises(SystemExit):
        run_verbs(verbs)
    assert "eval.py look [PATHS …]" in capsys.readouterr().out


@pytest.mark.parametrize("argv, message", [
    (["--imagse", "4"], "did you mean --images"),
    (["--image", "4"], "did you mean --images"),  # never an abbreviation
    (["--k"], "--k: expected one argument"),
    (["--k", "--lr", "1"], "--k: expected one argument"),
    (["--k", "four"], "--k: 'four' is no value of type int"),
    (["--soft_truth", "maybe"], "say true or false"),
    (["8"], "stands alone"),
    (["--preset", "huge"], "'toy', 'paper'|toy, paper"),
    (["--ties", "both"], "choose one of half, paper"),
    (["--beta", "-1"], "--beta: -1: use 0 or more"),
    (["--beta", "nan"], "use 0 or more"),
    (["--k", "1"], "use 2 or more"),
    (["--lr", "inf"], "use more than 0"),
    (["--lr", "0"], "use more than 0"),
    (["--device", "tpu"], "choose auto, cpu, cuda"),
])
def test_bad_command_lines_name_the_remedy(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(RAPOConfig, argv)


def test_paper_preset_and_options_beside_it() -> None:
    cfg = parse(RAPOConfig, ["--k", "8", "--preset", "paper"])
    assert (cfg.k, cfg.lr, cfg.beta, cfg.sigma, cfg.epochs) == (8, 1e-6, 0.01, 0.1, 10)
    assert (cfg.eps_low, cfg.eps_high, cfg.max_pixels) == (0.2, 0.28, 262144)
    assert parse(SFTConfig, ["--preset", "paper"]).lr == 1e-5
    assert parse(RAPOConfig, ["--preset", "paper", "--steps", "3"]).epochs == 0  # 3 steps it is
    with pytest.raises(OptionError, match="give one"):
        parse(RAPOConfig, ["--steps", "3", "--epochs", "2"])
    few = parse(CoTConfig, ["--preset", "paper", "--per_level", "5"])
    assert (few.per_level, few.target) == (5, 0)
    with pytest.raises(OptionError, match="give one"):
        parse(CoTConfig, ["--per_level", "5", "--target", "30"])


@pytest.mark.parametrize("cls", [CoTConfig, SFTConfig, RAPOConfig, EvalConfig, ScoreConfig])
def test_help_names_every_option(cls: type, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(cls, ["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"--{name} " in text or name == "paths" for name in vars(cls()))


def test_presets_name_only_fields_that_exist() -> None:
    for values in PRESETS.values():
        for cls, given in values.items():
            cls(**given)


def test_a_nested_script_gets_what_both_know_and_nothing_else() -> None:
    cfg = RAPOConfig(run="x", seed=3, heldout=5, device="cpu", prompt="full", backend="torch",
                     max_grad_norm=9.0, lr=7.0, model="m")
    sft = inherit(SFTConfig, cfg, epochs=4)
    assert (sft.run, sft.seed, sft.heldout, sft.device) == ("x", 3, 5, "cpu")
    assert (sft.prompt, sft.backend, sft.epochs) == ("full", "torch", 4)
    same = SFTConfig()  # names that only happen to be equal
    assert (sft.lr, sft.model, sft.max_grad_norm) == (same.lr, same.model, same.max_grad_norm)
    assert inherit(CoTConfig, sft) == CoTConfig(run="x", seed=3, heldout=5)


def test_an_ascii_terminal_ends_no_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from nanoaes.verbs import EvalConfig\n"
                      "from nanoaes.script import run_script\n"
                      "run_script(lambda cfg: print('–', cfg.out), EvalConfig)\n")
    done = subprocess.run([sys.executable, script, "--out", "é.json"], capture_output=True,
                          text=True, env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout.count(" out=") == 1, done.stderr


def test_who_reads_no_further_sees_no_traceback(tmp_path: Path) -> None:
    """eval.py compare A B | head"""
    script = tmp_path / "script.py"
    script.write_text("from nanoaes.verbs import EvalConfig\n"
                      "from nanoaes.script import run_script\n"
                      "def main(cfg):\n    while True: print('line')\n"
                      "run_script(main, EvalConfig)\n")
    words = f"{sys.executable} {script} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60,
                          env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]})
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("cls, scripts", [
    (CoTConfig, ["build_cot"]),
    (SFTConfig, ["train_sft", "nanoaes/models", "nanoaes/dry_run", "nanoaes/config"]),
    (RAPOConfig, ["train_rapo", "eval", "nanoaes/diary", "nanoaes/judge", "nanoaes/models",
                  "nanoaes/schedule", "nanoaes/dry_run", "nanoaes/config"]),
    (EvalConfig, ["eval", "nanoaes/models", "nanoaes/verbs"]),
    (ScoreConfig, ["eval", "nanoaes/models", "nanoaes/targets", "nanoaes/verbs"])])
def test_every_field_is_used(cls: type, scripts: list[str]) -> None:
    """RAPO's evaluation settings are read by eval.py, some by `loading`; SFT hands on heldout."""
    code = "".join((ROOT / f"{name}.py").read_text() for name in scripts)
    code = code.replace("self.", "cfg.")
    used = set(cls().loading()) if hasattr(cls, "loading") else set()
    used |= {"heldout"} if "inherit(CoTConfig, cfg)" in code else set()
    assert [name for name in vars(cls()) if f"cfg.{name}" not in code and name not in used] == []


@pytest.mark.parametrize("where", ["http://me:secret@host/v1", "https://host/v1?key=secret",
                                   "http://host?api-version=1&token=secret"])
@pytest.mark.parametrize("name", ["teacher", "judge"])
def test_a_key_in_an_address_is_refused_before_it_is_printed(name: str, where: str) -> None:
    with pytest.raises(OptionError, match=f"{name.upper()}_API_KEY") as error:
        parse(CoTConfig, [f"--{name}", where])
    assert "secret" not in str(error.value)


def test_other_addresses_are_taken() -> None:
    for where in ("http://localhost:8000/v1", "https://host/x?api-version=2024-10-21", "a@b/model"):
        assert parse(CoTConfig, ["--teacher", where]).teacher == where
