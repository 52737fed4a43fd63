"""Answers on a test set: in order, each picture's own, however many run at once."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import pictures, tiny_vlm

from nanoaes import evaluation
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.images import load_image
from nanoaes.metrics import domain_means, evaluate
from nanoaes.prompt import parse_score
from nanoaes.quality import add_quality
from nanoaes.readout import Reading, Score
from nanoaes.rollout import cached, rollout
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM

ROOM = 6


@pytest.fixture(scope="module")
def vlm() -> VLM:
    """Stops by chance, so that some answers are cut and some are not."""
    vlm = tiny_vlm()
    vlm.stop_ids = [vlm.stop_ids[0], *range(100, 200)]
    vlm.asking = dataclasses.replace(vlm.asking, max_new_tokens=ROOM)
    return vlm


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> list[Example]:
    root = tmp_path_factory.mktemp("album")
    for i, picture in enumerate(pictures(7)):
        picture.save(root / f"{i}.png")
    return [Example(root / f"{i}.png", i / 6, None, "a", (1.0, 10.0)) for i in range(7)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("tokens", [1, 4, 10_000])  # one picture at once, a few, all
def test_answers_are_those_of_each_picture_alone(vlm: VLM, album: list[Example], tokens: int,
                                                 temperature: float) -> None:
    """Picture number i of the set has the random numbers of place i."""
    want = []
    for i, example in enumerate(album):
        rolls = rollout(vlm, vlm.prompts([load_image(example.image)]), k=1, max_new_tokens=ROOM,
                        temperature=temperature, uniform=uniforms(5, 0, [i], 1, ROOM))
        answer = rolls.answers(vlm)[0][0]
        want.append(evaluation.item_of(example, Score(parse_score(answer.text), answer.text,
                                                      cut=answer.cut)))
    reading = Reading(temperature=temperature, seed=5, tokens=tokens)
    parts = list(evaluation.answers(vlm, album, range(7), reading))
    assert sum(parts, []) == want and len({item["cut"] for item in want}) == 2
    some = [5, 2, 3]  # in any order
    assert sum(evaluation.answers(vlm, album, some, reading), []) == [want[i] for i in some]
    sizes = list(map(len, parts))
    assert (max(sizes) == 1, 1 < max(sizes) < 7, sizes == [7]) == (
        tokens == 1, tokens == 4, tokens == 10_000)
    longest = max(vlm.prompt_length(load_image(e.image)) for e in album)
    assert max(sizes) == 1 or max(sizes) * (longest + ROOM) <= cached(tokens)


def test_a_result_holds_every_answer_and_its_figures(vlm: VLM, album: list[Example],
                                                     monkeypatch) -> None:
    told = {"a": [Score(score, f"says {score}", cut=i in (1, 2))
                  for i, score in enumerate((0.3, None, 0.1, 0.9, 1.0, None, 0.5))]}
    told["b"] = told["a"][:4]
    def answers(vlm, examples, places, reading):
        yield [evaluation.item_of(examples[i], told["a"][i]) for i in places]

    monkeypatch.setattr(evaluation, "answers", answers)
    sets = {"a": ("in", album), "b": ("ood", album[:4])}
    result = evaluation.evaluate_sets(vlm, sets, Reading(seed=2), label="test")
    assert result["decoding"]["temperature"] == result["decoding"]["samples"] == 0
    assert result["decoding"]["readout"] == "greedy"
    for name, pred in (("a", [0.3, None, 0.1, 0.9, 1.0, None, 0.5]), ("b", [0.3, None, 0.1, 0.9])):
        domain, examples = sets[name]
        part, truth = result["sets"][name], [e.score for e in examples]
        cut = [answer.cut for answer in told[name]]
        assert part["domain"] == domain
        assert part["metrics"] == evaluate(pred, truth, (1.0, 10.0), 2, cut=cut)
        assert part["metrics"]["cut"] == 2 and part["metrics"]["accuracy"] is not None
        assert [(i["pred"], i["truth"], Path(i["image"]), i["text"], i["cut"])
                for i in part["items"]] == [(p, e.score, e.image, a.text, a.cut)
                                            for p, e, a in zip(
                                                pred, examples, told[name], strict=True)]
    metrics = {name: part["metrics"] for name, part in result["sets"].items()}
    assert result["mean"] == domain_means(metrics, {"a": "in", "b": "ood"})


def test_greedy_answers_do_not_depend_on_the_seed(vlm: VLM, album: list[Example]) -> None:
    texts = {}
    for seed, temperature in ((0, 0.0), (1, 0.0), (0, 1.0), (1, 1.0)):
        reading = Reading(seed=seed, temperature=temperature)
        result = evaluation.evaluate_sets(vlm, {"a": ("in", album)}, reading, label="test")
        texts[seed, temperature] = [i["text"] for i in result["sets"]["a"]["items"]]
    assert texts[0, 0.0] == texts[1, 0.0] and texts[0, 1.0] != texts[1, 1.0]


def test_sets_are_of_the_domain_in_whose_list_they_stand(album: list[Example]) -> None:
    folder = album[0].image.parent
    for name, rows in (("near", "0.png,0.1\n1.png,0.2\n"), ("far", "2.png,0.3\n")):
        (folder / f"{name}.csv").write_text("image,score\n" + rows)
    sets = evaluation.read_sets(f"csv:{folder / 'near.csv'}@0-1", f"csv:{folder / 'far.csv'}@0-1",
                                 "refuse")
    assert {name: (domain, len(part)) for name, (domain, part) in sets.items()} == {
        "near": ("in", 2), "far": ("ood", 1)}


def test_every_stage_gives_its_own_answers(album: list[Example], tmp_path: Path) -> None:
    """Greedily; what the table shows is what lies in the files."""
    sets, stages, want = {"a": ("in", album[:3])}, {}, {}
    for name, seed in (("cold start", 0), ("RAPO", 1)):
        model = tiny_vlm(seed)
        model.asking = dataclasses.replace(model.asking, max_new_tokens=ROOM)
        stages[name] = tmp_path / str(seed)
        model.save(stages[name])
        result = evaluation.evaluate_sets(model, sets, Reading(), label="test")
        add_quality(result, 0)
        want[name] = result["sets"]
    got = evaluation.compare_stages(stages, sets, RAPOConfig(device="cpu"), tmp_path)
    assert {name: result["sets"] for name, result in got.items()} == want
    assert want["cold start"] != want["RAPO"]
    for name, file in (("cold start", "eval_cold_start.json"), ("RAPO", "eval_RAPO.json")):
        written = json.loads((tmp_path / file).read_text())
        assert written["sets"] == want[name] and written["checkpoint"] == str(stages[name])
        assert written["mean"] == got[name]["mean"] and written["decoding"]["temperature"] == 0
