"""The ablation's rows change what they say, and nothing is left changed behind them here."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train_rapo
from nanoaes import reward
from nanoaes.config import RAPOConfig
from nanoaes.reward import Truth

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))
import ablation  # noqa: E402
import ablation_rows as rows  # noqa: E402


@pytest.fixture(autouse=True)
def put_back(monkeypatch) -> None:
    for module, names in ((reward, ("absolute_reward", "relative_reward")),
                          (train_rapo, ("update", "judge", "advantages", "token_weights"))):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))


def step(n: int = 16, k: int = 4) -> tuple[torch.Tensor, torch.Tensor, Truth]:
    """Scores, validity (some not), truths of two sets."""
    g = torch.Generator().manual_seed(0)
    scores = torch.rand(n, k, generator=g, dtype=torch.float64)
    truth = torch.rand(n, generator=g, dtype=torch.float64)
    return scores, torch.rand(n, k, generator=g) < 0.9, Truth(truth, None, torch.arange(n) % 2)


def test_every_row_sets_options_that_there_are() -> None:
    known = {f.name for f in dataclasses.fields(RAPOConfig)}
    assert all(row.options.keys() <= known and row.why for row in rows.ROWS.values())
    assert rows.ROWS["base"] == rows.Row(rows.ROWS["base"].why)
    same = [name for name, row in rows.ROWS.items() if name != "base" and
            (row.options, row.change, row.epochs) == ({}, None, None)]
    assert same == []


def test_a_seed_is_started_once_before_its_rows_which_are_run_once(tmp_path: Path,
                                                                    monkeypatch) -> None:
    """And again only what is missing; a row that fails is said."""
    ran = []

    def child(root: Path, steps: int, seed: int, _: str, name: str) -> None:
        ran.append((seed, name))
        place = root / f"seed{seed}" / "sft" / "nanoaes.json"
        if name != "start":
            assert (seed, "start") in ran and place.is_file()
            place = ablation.folder(root, name, seed) / "result.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        if (seed, name) != (1, "relative") or ran.count((1, "relative")) == 2:
            place.write_text('{"steps": 2, "plcc_all": 0.5}')

    monkeypatch.setattr(ablation, "child", child)
    for _ in range(2):
        ablation.run_all(tmp_path, ["base", "relative"], [0, 1, 2], 2)
    wanted = [(seed, name) for seed in range(3) for name in ("start", "base", "relative")]
    assert sorted(ran) == sorted([*wanted, (1, "relative")])


def test_binary_is_near_or_not() -> None:
    rows.binary()
    got = reward.absolute_reward(torch.tensor([[0.5, 0.59, 0.61, 0.5]]),
                                 torch.tensor([[True, True, True, False]]), torch.tensor([0.5]))
    assert got.tolist() == [[1, 1, 0, 0]]


def test_margin_is_a_mean_over_the_other_pictures_of_the_set() -> None:
    scores, valid, truth = step(6, 3)
    rows.margin()
    got = reward.relative_reward(scores, valid, truth)
    for i in range(6):
        for k in range(3):
            fits = []
            for j in range(6):
                if j != i and truth.group[j] == truth.group[i] and valid[j].any():
                    off = scores[i, k] - scores[j][valid[j]].mean() - truth.score[i] + (
                        truth.score[j])
                    fits.append(torch.exp(-0.5 * (off / 0.1) ** 2))
            assert got[i, k] == pytest.approx(float(sum(fits) / len(fits)) * float(valid[i, k]))


def test_a_pool_sees_its_own_pictures_only() -> None:
    scores, valid, truth = step()
    alone = [reward.relative_reward(scores[s], valid[s],
                                    Truth(truth.score[s], None, truth.group[s]))
             for s in (slice(0, rows.POOL), slice(rows.POOL, 2 * rows.POOL))]
    rows.pool()
    torch.testing.assert_close(reward.relative_reward(scores, valid, truth), torch.cat(alone))


def test_per_token_counts_each_token_alike() -> None:
    rows.per_token()
    mask = torch.arange(6) < torch.tensor([[6, 2], [1, 3]])[..., None]
    counted = torch.tensor([[True, True], [False, True]])
    weight = train_rapo.token_weights(mask, counted, torch.tensor(3))
    assert torch.equal(weight > 0, mask & counted[..., None])
    assert weight[weight > 0].tolist() == pytest.approx([1 / 11] * 11)


@pytest.mark.parametrize("answer, expected", [(True, [[0, 0, 2, 2], [0, 3, 3, 3]]),
                                              (False, [[2, 2, 0, 0], [3, 0, 0, 0]])])
def test_one_part_of_an_answer_is_paid(monkeypatch, answer: bool, expected: list) -> None:
    paid = []
    monkeypatch.setattr(train_rapo, "update",
                        lambda cfg, policy, *, rolls, advantage: paid.append(advantage))
    rows.paid(answer)()
    tokens = SimpleNamespace(convert_tokens_to_ids={"<answer>": 7}.get)
    train_rapo.update(None, SimpleNamespace(tokenizer=tokens),
                      rolls=SimpleNamespace(ids=torch.tensor([[[1, 2, 7, 4], [1, 7, 3, 9]]])),
                      advantage=torch.tensor([[2, 3]]))
    assert paid[0].tolist() == [expected]


def test_a_picture_counts_by_the_spread_of_its_scores(monkeypatch) -> None:
    scores = torch.tensor([[0.2, 0.4], [0.1, 0.7]])
    monkeypatch.setattr(train_rapo, "judge", lambda *words: SimpleNamespace(scores=scores))
    rows.by_spread()
    train_rapo.judge(None, None, None)
    total = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    weighed, flat = train_rapo.advantages(total, "std")
    assert not flat.any() and (weighed[1] / weighed[0]).tolist() == pytest.approx([3.0, 3.0])
    assert weighed.abs().mean().item() == pytest.approx(2 ** -0.5, rel=1e-3)
