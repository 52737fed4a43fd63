"""K sampled answers to each picture, with a KV cache written by hand.

The vision tower and the prompt run once per image; their keys and values are then laid out for the
image's K rows, and every further step computes one token per row. Sampling is from the fp32 softmax
at the given temperature, without top-k, top-p or repetition penalty: the ratio of the update is
only the policy's if its log-probs describe the distribution that was sampled.
Left out: sharing the prompt's keys between the K rows, dropping finished rows, CUDA graphs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nanoaes.logprob import sampling_logits
from nanoaes.vlm import VLM, Prompts


@dataclass
class Rollouts:
    """N images, K answers each, T = the longest answer."""

    ids: Tensor  # (N, K, T) int64
    mask: Tensor  # (N, K, T) bool, True up to and including the first stop token
    logp: Tensor  # (N, K, T) fp32, of the sampled token when it was sampled; 0 where masked
    truncated: Tensor  # (N, K) bool, no stop token within the limit

    def texts(self, tokenizer) -> list[str]:
        """N·K answers as text, image by image, without special tokens."""
        rows = [ids[m].tolist() for ids, m in zip(self.ids.flatten(0, 1), self.mask.flatten(0, 1),
                                                  strict=True)]
        return tokenizer.batch_decode(rows, skip_special_tokens=True)


class KVCache:
    """Keys and values of B = N·K rows: the prompt's first, then one more per step.

    transformers' attention layers call `update` and attend to what it returns.
    """

    def __init__(self, k: int, max_new_tokens: int):
        self.k, self.room, self.length = k, max_new_tokens, 0
        self.keys: list[Tensor] = []  # per layer (B, kv heads, P + room, head dim)
        self.values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, layer: int, *_) -> tuple[Tensor, Tensor]:
        """Prefill: (N, heads, P, D) is stored K times. Step: (B, heads, 1, D) is appended."""
        if layer == len(self.keys):
            for store, x in ((self.keys, keys), (self.values, values)):
                rows = x.repeat_interleave(self.k, dim=0)
                store.append(torch.cat([rows, rows.new_zeros(*rows.shape[:2], self.room,
                                                             rows.shape[3])], dim=2))
            return keys, values
        at = self.length
        self.keys[layer][:, :, at : at + 1] = keys
        self.values[layer][:, :, at : at + 1] = values
        return self.keys[layer][:, :, : at + 1], self.values[layer][:, :, : at + 1]


@torch.no_grad()
def rollout(vlm: VLM, prompts: Prompts, k: int, max_new_tokens: int, temperature: float,
            generator: torch.Generator | None = None) -> Rollouts:
    """Sample K answers per image.

    Args:
        temperature: > 0 samples; 0 takes the likeliest token (greedy).
        generator: on the model's device; the same state gives the same answers.
    """
    was_training = vlm.training
    vlm.eval()  # in train mode gradient checkpointing would drop the cache
    n, p = prompts.ids.shape
    cache = KVCache(k, max_new_tokens)
    eye = torch.eye(p, dtype=torch.bool, device=vlm.device)
    seen = torch.ones_like(eye).tril() & prompts.mask[:, None, None, :] | eye  # (N, 1, P, P)
    hidden = vlm.decode_layers(vlm.embed(prompts), prompts.positions, seen, cache)  # (N, P, H)
    hidden = hidden[torch.arange(n, device=vlm.device), prompts.last].repeat_interleave(k, 0)
    visible = torch.nn.functional.pad(prompts.mask, (0, max_new_tokens), value=True)
    visible = visible.repeat_interleave(k, 0)[:, None, None, :]  # (B, 1, 1, P + room)
    first = prompts.next_position.repeat_interleave(k)
    stop = torch.tensor(vlm.stop_ids, device=vlm.device)
    done = torch.zeros(n * k, dtype=torch.bool, device=vlm.device)
    ids, logps, masks = [], [], []
    for t in range(max_new_tokens):
        token, logp = sample(hidden, vlm, temperature, generator)
        ids.append(token)
        logps.append(torch.where(done, 0, logp))
        masks.append(~done)
        done = done | torch.isin(token, stop)
        if t + 1 == max_new_tokens or bool(done.all()):
            break
        cache.length = p + t
        x = vlm.hf.get_input_embeddings()(token)[:, None]  # (B, 1, H)
        position = (first + t).expand(3, -1)[..., None]
        hidden = vlm.decode_layers(x, position, visible[..., : p + t + 1], cache)[:, 0]
    vlm.train(was_training)
    stack = [torch.stack(x, 1).view(n, k, -1) for x in (ids, masks, logps)]
    return Rollouts(*stack, truncated=~done.view(n, k))


def sample(hidden: Tensor, vlm: VLM, temperature: float, generator: torch.Generator | None
           ) -> tuple[Tensor, Tensor]:
    """One token per row from (B, H) hidden states, and its log-prob in fp32; both (B,)."""
    logits = sampling_logits(hidden, vlm.head, temperature or 1.0, vlm.forbidden)
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        token = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return token, logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
