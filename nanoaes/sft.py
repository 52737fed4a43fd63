"""The cold start's loss: −log π(critique, score | prompt, picture), completion tokens only.

The stop token is part of the completion: a model that is not taught to stop never does. Prompt and
padding carry no loss.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from nanoaes.inputs import Prompts
from nanoaes.logprob import token_logprob
from nanoaes.vlm import VLM


def encode_answers(vlm: VLM, answers: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts -> ids and mask, (N, 1, T): the answer's tokens and one stop token."""
    rows = [torch.tensor(vlm.tokenizer(a, add_special_tokens=False)["input_ids"]
                         + vlm.stop_ids[:1]) for a in answers]
    ids = nn.utils.rnn.pad_sequence(rows, True, padding_value=vlm.pad_id)
    lengths = torch.tensor([len(r) for r in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]  # positional, never id != pad
    return ids[:, None].to(vlm.device), mask[:, None].to(vlm.device)


def completion_loss(vlm: VLM, prompts: Prompts, ids: Tensor, mask: Tensor, n_tokens: int,
                    backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Summed over this micro-batch, divided by the tokens of the whole step.

    Args:
        ids, mask: (N, 1, T) from `encode_answers`.
        n_tokens: completion tokens of the whole step, so that micro-batches just add up.
    Returns:
        loss and mean token entropy (nats), both scalars; the entropy carries no gradient.
    """
    hidden = vlm(prompts, ids, mask)
    logp, entropy = token_logprob(hidden, vlm.head, ids[mask], forbidden=vlm.forbidden,
                                  backend=backend)
    return -logp.sum() / n_tokens, entropy.sum() / n_tokens


@dataclass(frozen=True)
class Lesson:
    """One picture, one question, the answer to learn."""

    image: Image.Image
    question: str
    answer: str


def fit(vlm: VLM, lessons_at: Callable[[int], list[Lesson]], steps: int,
        lr_at: Callable[[int], float], micro_batch: int, max_grad_norm: float, weight_decay: float,
        label: str, log: Callable[[dict], None] = lambda row: None,
        backend: str = "auto") -> None:
    """AdamW on the parameters that require a gradient, with a progress bar; no dropout.

    Args:
        lessons_at: step -> the step's lessons; lr_at: step -> learning rate.
        log: called with one row of numbers per step.
    """
    trained = [p for p in vlm.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.98), weight_decay=weight_decay)
    bar = tqdm(range(steps), label, mininterval=1)
    for step in bar:
        lessons = lessons_at(step)
        ids, mask = encode_answers(vlm, [x.answer for x in lessons])
        totals = torch.zeros(2)
        for i in range(0, len(lessons), micro_batch):
            part = slice(i, i + micro_batch)
            prompts = vlm.prompts([x.image for x in lessons[part]],
                                  [x.question for x in lessons[part]])
            loss, entropy = completion_loss(vlm, prompts, ids[part], mask[part],
                                            int(mask.sum()), backend)
            loss.backward()
            totals += torch.stack([loss.detach(), entropy.detach()]).cpu()
        norm = torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        row = {"loss": float(totals[0]), "entropy": float(totals[1]), "grad_norm": float(norm)}
        log({"step": step + 1, **row, "lr": lr_at(step)})
        bar.set_postfix({k: f"{v:.3f}" for k, v in row.items()})


def cosine(peak: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Step -> learning rate: linear warm-up, then a half cosine to 0."""
    def lr_at(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    return lr_at
