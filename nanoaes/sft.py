"""The cold start's loss: −log π(critique, score | prompt, picture), completion tokens only.

The stop token is part of the completion: a model that is not taught to stop never does. Prompt and
padding carry no loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from nanoaes.batching import token_batches
from nanoaes.inputs import Prompts
from nanoaes.optimize import adamw, backward, take_step
from nanoaes.parallel import even, total
from nanoaes.progress import progress
from nanoaes.prompt import rest_of
from nanoaes.vlm import VLM

Trained = dict[str, Tensor]  # name -> parameter


def encode_answers(vlm: VLM, answers: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts -> ids and mask, (N, 1, T): what the model has to write, and one stop token.

    A thinking model's prompt has opened the answer already; the tag is not written twice.
    """
    rows = [torch.tensor(vlm.tokenizer(rest_of(a, vlm.opened), add_special_tokens=False)
                         ["input_ids"] + vlm.stop_ids[:1]) for a in answers]
    ids = nn.utils.rnn.pad_sequence(rows, True, padding_value=vlm.pad_id)
    lengths = torch.tensor([len(r) for r in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]  # positional, never id != pad
    return ids[:, None].to(vlm.device), mask[:, None].to(vlm.device)


def completion_loss(vlm: VLM, prompts: Prompts, ids: Tensor, mask: Tensor, *, n_tokens: int,
                    backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Summed over this micro-batch, divided by the tokens of the whole step.

    Args:
        ids, mask: (N, 1, T) from `encode_answers`.
        n_tokens: completion tokens of the whole step, so that micro-batches just add up.
    Returns:
        loss and mean token entropy (nats), both scalars; the entropy carries no gradient.
    """
    logp, entropy = vlm(prompts, ids, mask, backend=backend)
    return -logp.sum() / n_tokens, entropy.sum() / n_tokens


@dataclass(frozen=True)
class Lesson:
    """One picture, one question, the answer to learn."""

    image: Image.Image
    question: str
    answer: str


def fit(vlm: VLM, lessons_at: Callable[[int], list[Lesson]], *, steps: int,
        lr_at: Callable[[int], float], label: str, tokens_per_micro_batch: int = 4096,
        max_grad_norm: float = 1.0, weight_decay: float = 0.0, backend: str = "auto",
        log: Callable[[dict], None] = lambda row: None,
        begin: Callable[[Trained, Optimizer], int] = lambda trained, optimizer: 0,
        after: Callable[[int, Trained, Optimizer], None] = lambda step, trained, optimizer: None
        ) -> None:
    """AdamW on the parameters that require a gradient, with a progress bar; no dropout.

    Args:
        lessons_at: step -> this process's part of the step's lessons; lr_at: -> learning rate.
        log: called with one row of numbers per step.
        begin: how many steps are done; it may have put a state into weights and optimizer.
        after: called at the end of each step, counted from 1.
    Raises:
        NotFinite: a loss or gradient that is none; names step and tensor.
    """
    trained = {n: p for n, p in vlm.named_parameters() if p.requires_grad}
    optimizer = adamw(trained, weight_decay=weight_decay, betas=(0.9, 0.98))
    for step in (bar := progress(range(begin(trained, optimizer), steps), label)):
        sums = learn(vlm, lessons_at(step), tokens_per_micro_batch, backend)
        row = take_step(optimizer, trained, lr=lr_at(step), max_norm=max_grad_norm, sums=sums,
                        where=f"{label}, step {step + 1}")
        log({"step": step + 1, **row, "lr": lr_at(step)})
        after(step + 1, trained, optimizer)
        bar.set_postfix({k: f"{v:.3f}" for k, v in row.items()})


def learn(vlm: VLM, lessons: Sequence[Lesson], tokens_per_micro_batch: int, backend: str
          ) -> dict[str, Tensor]:
    """Forward and backward of one step, in micro-batches; its loss and mean token entropy, of which
    each process has the part that its lessons make."""
    ids, mask = encode_answers(vlm, [x.answer for x in lessons])
    lengths = [(vlm.prompt_length(x.image, x.question), n)
               for x, n in zip(lessons, mask.sum((1, 2)).tolist(), strict=True)]
    n_tokens, loss, entropy = int(total({"n": mask.sum()})["n"]), 0.0, 0.0
    for rows, counts in even(token_batches(lengths, tokens_per_micro_batch)):
        prompts = vlm.prompts([lessons[i].image for i in rows], [lessons[i].question for i in rows])
        part = [counts * x for x in completion_loss(vlm, prompts, ids[rows], mask[rows],
                                                    n_tokens=n_tokens, backend=backend)]
        backward(part[0])
        loss, entropy = loss + part[0].detach(), entropy + part[1]
    return {"loss": loss, "entropy": entropy}
