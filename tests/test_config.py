"""Options are typed, unknown ones fail with the nearest name, presets hold the paper's values."""

import json
from pathlib import Path

import pytest

from nanoaes import config
from nanoaes.config import CoTConfig, EvalConfig, OptionError, RAPOConfig, SFTConfig, parse


def test_values_are_converted_to_their_types() -> None:
    cfg = parse(RAPOConfig, ["--k", "3", "--lr=2e-4", "--train-vision", "False", "--run", "x"])
    assert (cfg.k, cfg.lr, cfg.train_vision, cfg.run) == (3, 2e-4, False, "x")
    assert parse(RAPOConfig, []) == RAPOConfig()


@pytest.mark.parametrize("argv, message", [
    (["--imagse", "4"], "did you mean --images"),
    (["--k"], "--k needs a value"),
    (["--k", "--lr", "1"], "--k needs a value"),
    (["--k", "four"], "needs a value of type int"),
    (["--soft_truth", "maybe"], "say true or false"),
    (["8"], "stands alone"),
    (["--preset", "huge"], "choose one of toy, paper"),
    (["--ties", "both"], "choose one of half, paper"),
    (["--beta", "-1"], "use 0 or more"),
    (["--lr", "inf"], "use more than 0"),
    (["--device", "tpu"], "choose auto, cpu, cuda"),
])
def test_bad_command_lines_name_the_remedy(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(RAPOConfig, argv)


def test_paper_preset_and_options_beside_it() -> None:
    cfg = parse(RAPOConfig, ["--k", "8", "--preset", "paper"])
    assert (cfg.k, cfg.lr, cfg.beta, cfg.sigma) == (8, 1e-6, 0.01, 0.1)
    assert (cfg.eps_low, cfg.eps_high, cfg.max_pixels) == (0.2, 0.28, 262144)
    assert parse(SFTConfig, ["--preset", "paper"]).lr == 1e-5


@pytest.mark.parametrize("cls", [CoTConfig, SFTConfig, RAPOConfig, EvalConfig])
def test_help_names_every_option(cls: type, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(cls, ["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"--{name} " in text for name in vars(cls()))


def test_presets_name_only_fields_that_exist() -> None:
    for values in config.PRESETS.values():
        for cls, given in values.items():
            cls(**given)


def test_saved_with_the_run(tmp_path: Path) -> None:
    config.save(SFTConfig(lr=0.5), tmp_path / "run" / "c.json")
    assert json.loads((tmp_path / "run" / "c.json").read_text())["lr"] == 0.5


@pytest.mark.parametrize("cls, scripts", [
    (CoTConfig, ["build_cot"]), (SFTConfig, ["train_sft"]),
    (RAPOConfig, ["train_rapo", "eval"]), (EvalConfig, ["eval"])])
def test_every_field_is_used(cls: type, scripts: list[str]) -> None:
    """RAPO's evaluation settings are read by `eval.evaluate_sets`."""
    root = Path(__file__).parent.parent
    code = "".join((root / f"{name}.py").read_text() for name in scripts)
    assert [name for name in vars(cls()) if f"cfg.{name}" not in code] == []
