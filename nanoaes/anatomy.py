"""What a model is made of, as numbers: from its config alone, without a weight.

    config.json -> transformers' class on `meta` -> parameters by part, widths of both towers

Everything that says beforehand what a run needs (`memory.py`, `roofline.py`) is arithmetic on these
numbers. Left out: other models than the kinds that `checks.py` knows.
"""

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from nanoaes.lora import is_meant

VISION, WORDS, HEAD = "model.visual.", "model.language_model.embed_tokens.", "lm_head."
# M-RoPE and special tokens change no size; they are here because a config needs them.
TEXT = dict(rms_norm_eps=1e-6, max_position_embeddings=128_000, rope_parameters={
    "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]})
EYES = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, patch_size=14,
            window_size=112, fullatt_block_indexes=[7, 15, 23, 31])
# Of models whose folder is not at hand; from config.json of the hub's folder of that name.
BUILT_IN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": dict(
        text_config=dict(vocab_size=151_936, hidden_size=2048, intermediate_size=11_008,
                         num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
                         **TEXT),
        vision_config=dict(**EYES, out_hidden_size=2048), tie_word_embeddings=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": dict(
        text_config=dict(vocab_size=152_064, hidden_size=3584, intermediate_size=18_944,
                         num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
                         **TEXT),
        vision_config=dict(**EYES, out_hidden_size=3584), tie_word_embeddings=False),
}


@dataclass(frozen=True)
class Tower:
    """The widths of one tower's layers."""

    layers: int
    hidden: int
    inner: int  # of the feed-forward
    heads: int
    query: int  # heads · width of one
    key: int  # key heads · width of one
    gated: bool  # SwiGLU and RMSNorm; else GELU and LayerNorm
    head_norm: bool  # queries and keys are normed too (Qwen3)
    largest: int  # parameters of its largest layer


@dataclass(frozen=True)
class Anatomy:
    """Parameters by part, and what the arithmetic of memory and speed needs besides."""

    vision: int  # parameters of the vision tower with its mergers
    embedding: int
    layers: int  # of the language model, with its last norm
    head: int  # 0 where it is the embedding
    outside: int  # of all these, what is in no layer: FSDP's root
    text: Tower
    eyes: Tower
    words: int  # V
    merge: int  # patches per image token
    patch: int  # numbers of one patch
    full: int  # vision layers that see the whole picture; the others see windows
    window: int  # patches of a window
    linears: tuple[tuple[str, bool, int, int], ...]  # name, in the vision tower?, in, out

    @property
    def total(self) -> int:
        return self.vision + self.embedding + self.layers + self.head

    @property
    def largest(self) -> int:
        """Parameters of the largest layer of either tower."""
        return max(self.text.largest, self.eyes.largest)

    def trained(self, vision: bool) -> int:
        """Parameters with a gradient in full training."""
        return self.total - (0 if vision else self.vision)

    def adapters(self, rank: int, targets: tuple[str, ...], vision: bool) -> int:
        """LoRA's parameters: A (rank, in) and B (out, rank) beside each target's layer.

        Args:
            targets: as in `lora.LoRA`.
            vision: in the vision tower too.
        """
        return sum(rank * (n_in + n_out) for name, seen, n_in, n_out in self.linears
                   if is_meant(name, targets) and (vision or not seen))


def anatomy(config: PreTrainedConfig) -> Anatomy:
    """A model's numbers, exact for Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(copy.deepcopy(config),
                                                        attn_implementation="sdpa")
    parts, outside = Counter(), 0
    for name, p in model.named_parameters():  # a tied head is not named twice
        part = {VISION: "vision", WORDS: "embedding", HEAD: "head"}
        parts[next((part[x] for x in part if name.startswith(x)), "layers")] += p.numel()
        outside += 0 if ".layers." in name or ".blocks." in name else p.numel()
    text, eyes = config.text_config, config.vision_config
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    blocks, layers = model.model.visual.blocks, model.model.language_model.layers
    seen = blocks[0].attn.qkv.in_features
    inner = next(x for x in blocks[0].mlp.modules() if isinstance(x, nn.Linear)).out_features
    gated = config.model_type == "qwen2_5_vl"
    side = getattr(eyes, "window_size", 0) // eyes.patch_size
    return Anatomy(
        vision=parts["vision"], embedding=parts["embedding"], layers=parts["layers"],
        head=parts["head"], outside=outside, words=text.vocab_size,
        text=Tower(len(layers), text.hidden_size, text.intermediate_size, text.num_attention_heads,
                   text.num_attention_heads * width, text.num_key_value_heads * width, True,
                   hasattr(layers[0].self_attn, "q_norm"), _largest(layers)),
        eyes=Tower(len(blocks), seen, inner, eyes.num_heads, seen, seen, gated, False,
                   _largest(blocks)),
        merge=eyes.spatial_merge_size**2,
        patch=3 * eyes.temporal_patch_size * eyes.patch_size**2,
        full=len(eyes.fullatt_block_indexes) if gated else len(blocks), window=side**2,
        linears=tuple((name, name.startswith(VISION), x.in_features, x.out_features)
                      for name, x in model.named_modules() if isinstance(x, nn.Linear)))


def _largest(layers: nn.ModuleList) -> int:
    return max(sum(p.numel() for p in layer.parameters()) for layer in layers)
