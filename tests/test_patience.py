"""One step that is not finite is skipped, three in a row end the run and say what is known."""

from pathlib import Path

import pytest
import torch

from nanoaes.datasets import Example
from nanoaes.errors import NotFinite, UserError
from nanoaes.judge import Judged
from nanoaes.patience import Patience, diagnosis
from nanoaes.reward import Rewards, Truth

N, K = 5, 2
BATCH = [Example(Path(f"{i}.png"), i / 4, None, "a", (0.0, 1.0)) for i in range(N)]


def judged() -> Judged:
    parts = [torch.full((N, K), x, dtype=torch.float64) for x in (0.3, 1.0, 0.0, 1.3)]
    return Judged([], torch.zeros(N, K), torch.ones(N, K, dtype=torch.bool), Rewards(*parts),
                  Truth(torch.zeros(N), None, torch.zeros(N)))


@pytest.fixture
def patience() -> Patience:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), torch.nan)
    return Patience(torch.optim.AdamW([weight]))


def bad_step(patience: Patience) -> dict[str, float]:
    with patience.bear(judged(), BATCH) as numbers:
        raise NotFinite("step 7: loss (the first such gradient: w) is")
    return numbers


def good_step(patience: Patience) -> dict[str, float]:
    with patience.bear(judged(), BATCH) as numbers:
        numbers |= {"loss": 0.5}
    return numbers


def test_a_bad_step_is_skipped_counted_and_forgotten(patience: Patience, capsys) -> None:
    weight = patience.optimizer.param_groups[0]["params"][0]
    assert bad_step(patience) == {"skipped": 1}
    assert weight.grad is None
    assert bad_step(patience) == {"skipped": 1}
    assert good_step(patience) == {"skipped": 0, "loss": 0.5}
    assert bad_step(patience) == {"skipped": 1}
    assert capsys.readouterr().out.splitlines()[1] == (
        "step 7: loss (the first such gradient: w) is not finite: this step is skipped (2 in a "
        "row)")


def test_the_third_in_a_row_ends_the_run(patience: Patience) -> None:
    bad_step(patience), bad_step(patience)
    with pytest.raises(UserError, match=r"^3 steps in a row are not finite: step 7: loss .*first "
                                        r"such gradient: w.* is; all rewards are within 0 and 1; "
                                        r"the pictures: 0.png 1.png 2.png and 2 more; lower --lr"):
        bad_step(patience)


def test_other_errors_pass(patience: Patience) -> None:
    with pytest.raises(ZeroDivisionError), patience.bear(judged(), BATCH):
        raise ZeroDivisionError


@pytest.mark.parametrize("part", ["relative", "absolute", "format"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -0.01, 1.01])
def test_a_reward_that_is_none_is_named_with_its_picture(part: str, value: float) -> None:
    one = judged()
    getattr(one.rewards, part)[3, 1] = value
    assert diagnosis(one, BATCH) == f"the {part} reward of 3.png is {value:.3g}"
    getattr(one.rewards, part)[:] = value
    assert diagnosis(one, BATCH).endswith(f"of 1.png is {value:.3g} and 7 more")
