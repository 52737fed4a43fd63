"""Score test sets with a checkpoint and compare with people: PLCC, SRCC and their kin.

    python eval.py                     the toy's four test sets with the model of train_rapo.py
    python eval.py --model FOLDER --test_in ava:data/AVA --test_ood para:data/PARA
    python eval.py --help              all options

Greedy by default. Sets are never pooled; in-domain and out-of-domain means are kept apart.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from nanoaes.checkpoint import write_json
from nanoaes.config import EvalConfig, OptionError, RAPOConfig, parse
from nanoaes.data import Example, load_image, read_all
from nanoaes.errors import UserError
from nanoaes.metrics import domain_means, evaluate, format_table, short
from nanoaes.prompt import PROMPTS, parse_score
from nanoaes.rollout import rollout
from nanoaes.sampler import by_dataset
from nanoaes.toy.world import build_world, toy_specs
from nanoaes.vlm import VLM

Sets = dict[str, tuple[str, list[Example]]]  # name -> ("in" or "ood", examples)


def answers(vlm: VLM, examples: list[Example], question: str, max_new_tokens: int,
            temperature: float = 0.0, batch: int = 64, seed: int = 0,
            tick: Callable[[int], object] = lambda n: None) -> list[str]:
    """One answer per example; `tick` is told how many more are done."""
    generator = torch.Generator(vlm.device).manual_seed(seed)
    texts = []
    for i in range(0, len(examples), batch):
        part = examples[i : i + batch]
        prompts = vlm.prompts([load_image(e.image) for e in part], [question] * len(part))
        rolls = rollout(vlm, prompts, 1, max_new_tokens, temperature, generator)
        texts += rolls.texts(vlm.tokenizer)
        tick(len(part))
    return texts


def evaluate_sets(vlm: VLM, sets: Sets, cfg: EvalConfig | RAPOConfig, label: str,
                  temperature: float = 0.0, keep_bar: bool = True) -> dict:
    """The result that the table, the report and `eval.json` are made of.

    Args:
        cfg: its prompt, max_new_tokens, eval_batch and seed are used.
        temperature: 0 is greedy.
    """
    per_set = {}
    with tqdm(total=sum(len(e) for _, e in sets.values()), desc=label, mininterval=1,
              leave=keep_bar) as bar:
        for name, (domain, examples) in sets.items():
            texts = answers(vlm, examples, PROMPTS[cfg.prompt], cfg.max_new_tokens, temperature,
                            cfg.eval_batch, cfg.seed, bar.update)
            pred = [parse_score(text) for text in texts]
            truth = [e.score for e in examples]
            items = [{"image": str(e.image), "truth": e.score, "pred": p, "text": t}
                     for e, p, t in zip(examples, pred, texts, strict=True)]
            metrics = evaluate(pred, truth, examples[0].scale, cfg.seed)
            per_set[name] = {"domain": domain, "metrics": metrics, "items": items}
    means = domain_means({n: s["metrics"] for n, s in per_set.items()},
                         {n: s["domain"] for n, s in per_set.items()})
    decoding = {"temperature": temperature, "max_new_tokens": cfg.max_new_tokens}
    return {"decoding": decoding, "sets": per_set, "mean": means}


def read_sets(test_in: str, test_ood: str, bad_images: str) -> Sets:
    """Two lists of specs -> the test sets, in-domain ones first.

    Raises:
        UserError: a set of the same name in both lists, or no set at all.
    """
    sets: Sets = {}
    for domain, specs in (("in", test_in), ("ood", test_ood)):
        for name, examples in by_dataset(read_all(specs, "test", bad_images)).items():
            if name in sets:
                raise OptionError(f"--test_in and --test_ood both hold a set named {name}; "
                                  "rename one of its files")
            sets[name] = domain, examples
    if not sets:
        raise OptionError("no test set; name one with --test_in csv:FILE@LO-HI")
    return sets


def main(cfg: EvalConfig) -> dict:
    """Evaluate, print the table, write the result."""
    vlm = VLM.load(cfg.model, max_pixels=cfg.max_pixels, device=cfg.device)
    test_in, test_ood = cfg.test_in, cfg.test_ood
    if not (test_in or test_ood):
        toy = toy_specs(build_world(Path(cfg.run) / "world", None))
        test_in, test_ood = toy["test_in"], toy["test_ood"]
    sets = read_sets(test_in, test_ood, cfg.bad_images)
    result = {"checkpoint": cfg.model,
              **evaluate_sets(vlm, sets, cfg, f"evaluating {cfg.model}", cfg.temperature)}
    out = Path(cfg.out) if cfg.out else Path(cfg.model) / "eval.json"
    write_json(out, result)
    print(format_table({Path(cfg.model).name: result}))
    for name, part in result["sets"].items():
        m = part["metrics"]
        print(f"{name}: n {m['n']}, unreadable {m['parse_fail']}, KRCC {short(m['krcc'])}, "
              f"RMSE {short(m['rmse'])}, MAE {short(m['mae'])}, "
              f"PLCC 95 % {m['plcc_ci']}, SRCC 95 % {m['srcc_ci']}")
    print(f"written: {out}")
    return result


if __name__ == "__main__":
    try:
        main(parse(EvalConfig))
    except UserError as error:
        sys.exit(f"eval.py: {error}")
