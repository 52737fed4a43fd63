"""Two attention calls (prompt; answers over prompt and themselves) against one masked call.

    python bench/attention.py

Forward and backward of one layer's attention, ragged answers of T/2 to T tokens, packed in both
forms. Prints milliseconds; the last line is JSON, the masked call's time over that of the two.
"""

import json

import torch
from models import CUDA, alternate, machine
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from nanoaes.attention import PackedRows

SIZES = {  # N, P, T, K, query heads, key heads, head size
    "3B_k4": (1, 500, 250, 4, 16, 2, 128), "3B_k8": (1, 500, 250, 8, 16, 2, 128),
    "toy_k8": (16, 25, 30, 8, 4, 2, 32),
}


def masked_call(rows: PackedRows, p: int, t: int) -> Tensor:
    """(N, 1, L, L) bool: the prompt is causal, an answer sees it and its own past."""
    answer = pad(rows.slot_of_packed // t, (p, 0), value=-1)  # (N, L), -1: the prompt
    index = torch.arange(answer.shape[1], device=answer.device)
    same = answer[:, :, None] == answer[:, None, :]
    return ((index[:, None] >= index) & (same | (answer == -1)[:, None, :]))[:, None]


def measure(n: int, p: int, t: int, k: int, heads: int, kv_heads: int, d: int) -> dict[str, float]:
    device = "cuda" if CUDA else "cpu"
    dtype = torch.bfloat16 if CUDA else torch.float32
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(t // 2, t + 1, (n, k, 1), generator=generator)
    mask = (torch.arange(t) < lengths).to(device)
    rows = PackedRows(torch.ones(n, p, dtype=torch.bool, device=device), mask, heads // kv_heads)
    allowed = masked_call(rows, p, t)
    q, key, value = (torch.randn(n, h, allowed.shape[-1], d, device=device, dtype=dtype)
                     .requires_grad_() for h in (heads, kv_heads, kv_heads))

    def two() -> None:
        rows(0, q, key, value, d**-0.5).sum().backward()

    def one() -> None:
        keys, values = (x.repeat_interleave(heads // kv_heads, 1) for x in (key, value))
        scaled_dot_product_attention(q, keys, values, attn_mask=allowed).sum().backward()

    return alternate({"two": two, "masked": one}, 10)


def main() -> None:
    print(machine())
    result = {}
    for name, size in SIZES.items():
        took = measure(*size)
        print(name, {who: f"{1e3 * s:.1f} ms" for who, s in took.items()}, flush=True)
        result[f"masked_vs_two_{name}"] = round(took["masked"] / took["two"], 2)
    print(json.dumps({"machine": machine(), **result}))


if __name__ == "__main__":
    main()
