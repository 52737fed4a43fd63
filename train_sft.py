"""Cold start: supervised fine-tuning on AesCoT critiques, explain then score.

    python train_sft.py            the toy world; makes its backbone and critiques if missing
    python train_sft.py --help     all options
"""

import sys
from pathlib import Path

import numpy as np

import build_cot
from nanoaes.checkpoint import append_row, publish, read_rows
from nanoaes.config import CoTConfig, OptionError, SFTConfig, parse, save
from nanoaes.data import DataError, Example, check_images, load_image
from nanoaes.errors import UserError
from nanoaes.prompt import PROMPTS, answer_text
from nanoaes.sft import Lesson, cosine, fit
from nanoaes.toy.school import build_backbone
from nanoaes.vlm import VLM


def read_critiques(cot: Path, bad_images: str) -> list[tuple[Path, str]]:
    """The kept critiques of `build_cot.py`: picture and the answer to learn.

    Raises:
        DataError: a row without a usable field, with file and row; a picture that is not whole.
    """
    examples, answers = [], []
    for number, row in enumerate(read_rows(cot), 1):
        try:
            if row["kept"]:
                image, score = Path(row["image"]), row["score"]
                answers.append((image, answer_text(row["critique"], score)))
                examples.append(Example(image, score, None, row["dataset"], (0.0, 1.0)))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{cot}, line {number}: {error!r}; delete the line, then run "
                            "build_cot.py again") from None
    if not examples:
        raise DataError(f"{cot}: no kept critique; ask for more pictures with --per_level")
    whole = {e.image for e in check_images(examples, bad_images)}
    return [(image, answer) for image, answer in answers if image in whole]


def freeze_vision(vlm: VLM) -> None:
    """Vision tower and projector (in Qwen's classes the projector is the tower's merger)."""
    vlm.hf.model.visual.requires_grad_(False)


def main(cfg: SFTConfig) -> Path:
    """Returns the folder of the cold-started model."""
    run = Path(cfg.run)
    out = Path(cfg.out) if cfg.out else run / "sft"
    save(cfg, run / "train_sft.json")
    if cfg.model and not cfg.cot:
        raise OptionError("--model without --cot: the toy's critiques fit the toy's model only; "
                          "name critiques with --cot")
    vlm = VLM.load(cfg.model or build_backbone(run / "backbone", cfg.seed),
                   max_pixels=cfg.max_pixels, device=cfg.device)
    cot = Path(cfg.cot) if cfg.cot else run / "cot.jsonl"
    if not cot.is_file():
        if cfg.cot:
            raise OptionError(f"--cot {cot}: no such file; build_cot.py makes one")
        build_cot.main(CoTConfig(cfg.run, heldout=cfg.heldout, bad_images=cfg.bad_images,
                                 seed=cfg.seed))
    critiques = read_critiques(cot, cfg.bad_images)
    if not cfg.train_vision:
        freeze_vision(vlm)
    rng = np.random.default_rng(cfg.seed)
    order = np.concatenate([rng.permutation(len(critiques)) for _ in range(cfg.epochs)])
    batches = [order[i : i + cfg.batch] for i in range(0, len(order), cfg.batch)]
    history = run / "sft_metrics.jsonl"
    history.unlink(missing_ok=True)

    def lessons_at(step: int) -> list[Lesson]:
        chosen = [critiques[i] for i in batches[step]]
        return [Lesson(load_image(p), PROMPTS[cfg.prompt], answer) for p, answer in chosen]

    fit(vlm, lessons_at, len(batches), cosine(cfg.lr, len(batches)), cfg.micro_batch,
        cfg.max_grad_norm, cfg.weight_decay, "cold start (SFT)",
        lambda row: append_row(history, row), cfg.backend)
    with publish(out) as folder:
        vlm.save(folder)
    print(f"cold start: {len(critiques)} critiques x {cfg.epochs} epochs, "
          f"token entropy {read_rows(history)[-1]['entropy']:.3f} nats -> {out}")
    return out


if __name__ == "__main__":
    try:
        main(parse(SFTConfig))
    except UserError as error:
        sys.exit(f"train_sft.py: {error}")
