"""Tiny Qwen2-VL, Qwen2.5-VL and Qwen3-VL of transformers' own classes, shared by the tests."""

import sys

import torch
from tiny import tokenizer
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from nanoaes.folder import default_asking
from nanoaes.vlm import VLM

KIN = {
    "qwen2": (Qwen2VLConfig, Qwen2VLForConditionalGeneration,
              dict(depth=2, embed_dim=32, hidden_size=64, num_heads=2, mlp_ratio=2)),
    "qwen2_5": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration,
                dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2,
                     out_hidden_size=64, window_size=112, fullatt_block_indexes=[1])),
    "qwen3": (Qwen3VLConfig, Qwen3VLForConditionalGeneration,
              dict(depth=4, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64,
                   num_position_embeddings=256, deepstack_visual_indexes=[0, 1, 2])),
}


def tiny_kin(name: str, dtype: torch.dtype = torch.float32, seed: int = 0,
             scale: float = 1.5) -> VLM:
    """Untrained, four layers; in fp64 also what transformers would compute in fp32.

    Args:
        scale: of the random weights; the larger, the more do answers differ between pictures.
    """
    config, model, vision = KIN[name]
    ids = tokenizer().convert_tokens_to_ids
    end, stop = ids("<|endoftext|>"), ids("<|im_end|>")
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3],
            **({"mrope_interleaved": True} if name == "qwen3" else {})}
    text = dict(vocab_size=-(-len(tokenizer()) // 64) * 64, hidden_size=64, intermediate_size=96,
                num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                max_position_embeddings=2048, bos_token_id=end, eos_token_id=stop,
                pad_token_id=end, tie_word_embeddings=True, rope_parameters=rope)
    special = {f"{n}_token_id": ids(f"<|{t}|>") for n, t in
               (("image", "image_pad"), ("video", "video_pad"),
                ("vision_start", "vision_start"), ("vision_end", "vision_end"))}
    torch.manual_seed(seed)
    hf = model(config(text_config=text, vision_config=vision, tie_word_embeddings=True, **special))
    vlm = VLM(hf, tokenizer(), [stop, end], default_asking(hf.config.model_type)).to(dtype).eval()
    with torch.no_grad():
        for p in vlm.parameters():
            p.mul_(scale if p.ndim > 1 else 1.0)
    if dtype == torch.float64:
        for module in vlm.modules():
            if "RMSNorm" in type(module).__name__:
                module.forward = exact_norm.__get__(module)
    return vlm


def gradients(vlm: VLM, outs: list[Tensor]) -> dict[str, Tensor]:
    """Each parameter's, of a random weighting of the outputs' numbers."""
    generator = torch.Generator().manual_seed(1)
    sum((x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum()
        for x in outs).backward()
    found = {n: p.grad.clone() for n, p in vlm.named_parameters() if p.grad is not None}
    vlm.zero_grad()
    return found


def exact_norm(self: nn.Module, x: Tensor) -> Tensor:
    """RMSNorm without transformers' detour through fp32."""
    return self.weight * x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()


def exact_rotary(monkeypatch, vlm: VLM) -> None:
    """The vision tower's rotary embedding without its detour through fp32."""
    module = sys.modules[type(vlm.hf).__module__]

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = cos.unsqueeze(-2).to(q.dtype), sin.unsqueeze(-2).to(q.dtype)
        return tuple(x * cos + module.rotate_half(x) * sin for x in (q, k))

    monkeypatch.setattr(module, "apply_rotary_pos_emb_vision", rotate)
