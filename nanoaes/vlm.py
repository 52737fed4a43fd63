"""A multimodal LLM as RAPO needs it: pictures and a prompt in, hidden states of completions out.

    picture -> patches -> vision tower -> image tokens ┐
    prompt  -> ids, 3-D positions      -> embeddings   ┴-> [prompt; completion 1 … K] -> hidden

The K completions of a picture share one row: the vision tower and the prompt are computed once,
each completion sees the prompt and itself, and its positions start again after the prompt. The
vocabulary head is kept apart (`logprob.py`), so that logits of prompt tokens never exist.
transformers' own model classes hold the weights; positions are made here, in one place, and passed
everywhere, because the model's own state for them (`rope_deltas`) goes stale between calls.
Left out: video, several pictures in a prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, GenerationConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from nanoaes import attention
from nanoaes.attention import PackedRows, SharedKV

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean, std
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass
class Prompts:
    """N prompts with one picture each; padded on the right, padding is masked everywhere."""

    ids: Tensor  # (N, P) int64
    mask: Tensor  # (N, P) bool, True on real tokens
    positions: Tensor  # (3, N, P) int64: time, height, width
    next_position: Tensor  # (N,) the position of a completion's first token
    pixels: Tensor  # (patches of all pictures, 3 * 2 * patch * patch) float32
    grid: Tensor  # (N, 3) patches per picture: time, height, width

    @property
    def last(self) -> Tensor:
        """(N,) index of each prompt's last real token; it predicts every completion's first."""
        return self.mask.sum(1) - 1

    def to(self, device: torch.device | str) -> "Prompts":
        return Prompts(**{k: v.to(device) for k, v in vars(self).items()})

    def select(self, rows: Tensor) -> "Prompts":
        """The prompts `rows` (n,) int64, in that order, padded to the longest of them."""
        p = int(self.mask[rows].sum(1).max())
        patches = self.pixels.split(self.grid.prod(1).tolist())
        return Prompts(self.ids[rows, :p], self.mask[rows, :p], self.positions[:, rows, :p],
                       self.next_position[rows], torch.cat([patches[i] for i in rows.tolist()]),
                       self.grid[rows])


def image_patches(image: Image.Image, max_pixels: int, patch: int = 14, merge: int = 2,
                  min_pixels: int = 56 * 56, colours: Sequence[Sequence[float]] = CLIP
                  ) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Qwen's picture preparation: resize, normalise, cut into patches. Defaults: Qwen2(.5)-VL's.

    Args:
        image: RGB.
        max_pixels: the picture is shrunk to at most this area, both sides multiples of
            patch · merge.
        colours: mean and standard deviation of red, green, blue.
    Returns:
        patches (h·w, 3·2·patch·patch) float32 in the order in which `merge` x `merge` neighbours
        follow each other, the picture repeated for the two frames that the vision tower expects;
        and the grid (1, h, w) in patches.
    Raises:
        ValueError: a side ratio beyond 200 (from `smart_resize`).
    """
    height, width = smart_resize(image.height, image.width, patch * merge, min_pixels, max_pixels)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    x = np.asarray(image, dtype=np.float32) / 255
    mean, std = np.array(colours, dtype=np.float32)
    x = (x - mean) / std
    h, w = height // patch, width // patch
    x = x.reshape(h // merge, merge, patch, w // merge, merge, patch, 3)
    x = x.transpose(0, 3, 1, 4, 6, 2, 5)  # (h/m, w/m, m, m, 3, patch, patch)
    x = np.repeat(x.reshape(h * w, 3, 1, patch, patch), 2, axis=2)  # two equal frames
    return x.reshape(h * w, -1), (1, h, w)


def prompt_positions(ids: Tensor, image_id: int, grid: Sequence[int], merge: int) -> Tensor:
    """M-RoPE positions of one prompt: text counts on in all three axes, a picture spreads over two.

    Args:
        ids: (P,) with one run of `image_id`, h/merge · w/merge tokens long.
    Returns:
        (3, P); the token after the picture continues at the picture's start + its longer side
        (transformers' `get_rope_index`; tested equal).
    """
    is_image = ids == image_id
    start, n = int(is_image.int().argmax()), int(is_image.sum())
    h, w = int(grid[1]) // merge, int(grid[2]) // merge
    if n != h * w:
        raise ValueError(f"the prompt has {n} image tokens, the picture has {h * w}")
    index = torch.arange(n)
    image = torch.stack([torch.zeros_like(index), index // w, index % w]) + start
    after = torch.arange(len(ids) - start - n) + start + max(h, w)
    return torch.cat([torch.arange(start).expand(3, -1), image, after.expand(3, -1)], dim=1)


class VLM(nn.Module):
    """A Qwen2.5-VL (or one of its kin) with its tokenizer and picture settings."""

    def __init__(self, hf: nn.Module, tokenizer, stop_ids: Sequence[int], max_pixels: int):
        super().__init__()
        self.hf, self.tokenizer = hf, tokenizer
        config = hf.config
        self.image_id = config.image_token_id
        vision, is_qwen3 = config.vision_config, config.model_type.startswith("qwen3_vl")
        self.merge = vision.spatial_merge_size
        self.picture = {"max_pixels": max_pixels, "patch": vision.patch_size, "merge": self.merge,
                        "min_pixels": 256 * 256 if is_qwen3 else 56 * 56,
                        "colours": HALF if is_qwen3 else CLIP}
        text = config.text_config
        self.groups = text.num_attention_heads // text.num_key_value_heads
        hf.set_attn_implementation({"text_config": attention.NAME})
        self.stop_ids = list(stop_ids)
        self.pad_id = self.stop_ids[0]  # never read: masks are positional
        # Never sampled: the training forward would look for pixels behind a sampled image token,
        # and rows of the head past the tokenizer's words are padding.
        forbidden = torch.zeros(text.vocab_size, dtype=torch.bool)
        forbidden[len(tokenizer):] = True
        for name in ("image_token_id", "video_token_id", "vision_start_token_id",
                     "vision_end_token_id"):
            forbidden[getattr(config, name)] = True
        self.register_buffer("forbidden", forbidden, persistent=False)

    @classmethod
    def load(cls, path: str | Path, dtype: torch.dtype = torch.float32,
             max_pixels: int = 262_144, device: str = "auto") -> "VLM":
        """Read an ordinary Hugging Face folder.

        Args:
            device: "auto" takes the first CUDA device where there is one, else the CPU.
        Raises:
            FileNotFoundError: no such folder, or one without config.json or without weights.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path}: no config.json; give a Hugging Face model folder")
        if not list(path.glob("*.safetensors")):
            raise FileNotFoundError(f"{path}: no *.safetensors here; the folder has no weights")
        # Qwen's stop tokens are two; the generation config knows both, the tokenizer only one.
        stop = GenerationConfig.from_pretrained(path).eos_token_id
        hf = AutoModelForImageTextToText.from_pretrained(
            path, config=AutoConfig.from_pretrained(path), dtype=dtype, attn_implementation="sdpa")
        stop_ids = [stop] if isinstance(stop, int) else stop
        vlm = cls(hf.eval(), AutoTokenizer.from_pretrained(path), stop_ids, max_pixels)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return vlm.to(device)

    def save(self, path: str | Path) -> None:
        """Write the folder that `load` reads."""
        self.hf.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    @property
    def device(self) -> torch.device:
        return self.forbidden.device

    @property
    def head(self) -> Tensor:
        """(V, H) the vocabulary head; the same tensor as the embedding where they are tied."""
        return self.hf.get_output_embeddings().weight

    def chat(self, text: str) -> str:
        """The user's turn with a picture, in the model's own template, up to the answer."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)

    def prompts(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Prompts:
        """N pictures and N questions -> padded ids, positions, patches, on the model's device."""
        patches, grids, ids, positions = [], [], [], []
        pad = self.tokenizer.convert_ids_to_tokens(self.image_id)
        for image, text in zip(images, texts, strict=True):
            pixels, grid = image_patches(image, **self.picture)
            n = grid[1] * grid[2] // self.merge**2
            row = self.tokenizer(self.chat(text).replace(pad, pad * n), return_tensors="pt",
                                 add_special_tokens=False)["input_ids"][0]
            patches.append(pixels)
            grids.append(grid)
            ids.append(row)
            positions.append(prompt_positions(row, self.image_id, grid, self.merge))
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(r, dtype=torch.bool) for r in ids], True)
        padded = nn.utils.rnn.pad_sequence(ids, True, padding_value=self.pad_id)
        places = nn.utils.rnn.pad_sequence([p.T for p in positions], True).permute(2, 0, 1)
        after = torch.stack([p.max() + 1 for p in positions])
        pixels = torch.from_numpy(np.concatenate(patches))
        return Prompts(padded, mask, places, after, pixels, torch.tensor(grids)).to(self.device)

    def embed(self, prompts: Prompts, words: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Embeddings of prompts and of the words (N, C) behind them, with the pictures in place.

        Returns:
            (N, P + C, H), and what else of the pictures the language model takes: Qwen3-VL adds
            features of three depths of its vision tower behind its first three layers.
        """
        x = self.hf.get_input_embeddings()(torch.cat([prompts.ids, words], dim=1))
        is_image = nn.functional.pad(prompts.ids == self.image_id, (0, words.shape[1]))
        vision = self.hf.model.visual(prompts.pixels.to(x.dtype), grid_thw=prompts.grid)
        x = x.masked_scatter(is_image[..., None], vision.pooler_output.to(x.dtype))
        if not hasattr(vision, "deepstack_features"):
            return x, {}
        return x, {"visual_pos_masks": is_image,
                   "deepstack_visual_embeds": vision.deepstack_features}

    def decode_layers(self, x: Tensor, positions: Tensor, shared: PackedRows | SharedKV,
                      **deepstack: Any) -> Tensor:
        """The language model without head: (B, L, H) in, (B, L, H) out.

        Args:
            positions: (3, B, L).
            shared: who sees whom.
            deepstack: from `embed`.
        """
        ready = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=x.device)  # 4-D: make no mask
        return self.hf.model.language_model(
            inputs_embeds=x, position_ids=positions, attention_mask=ready, use_cache=False,
            shared=shared, **deepstack).last_hidden_state

    def forward(self, prompts: Prompts, completions: Tensor, mask: Tensor) -> Tensor:
        """Hidden states that predict the completions' tokens.

        Args:
            completions: (N, K, T) token ids; mask: (N, K, T) bool, True up to and including EOS.
        Returns:
            (M, H) with M = mask.sum(), in the order of completions[mask].
        """
        mask = mask[:, :, : int(mask.sum(2).max())]
        t = mask.shape[2]
        rows = PackedRows(prompts.mask, mask, self.groups)
        words = completions[:, :, :t].flatten(1).gather(1, rows.pack)  # (N, C)
        step = rows.pack % t  # a word's place in its completion
        positions = (prompts.next_position[:, None] + step).expand(3, -1, -1)
        positions = torch.cat([prompts.positions, positions], dim=2)
        x, deepstack = self.embed(prompts, words)
        hidden = self.decode_layers(x, positions, rows, **deepstack)
        # The last prompt token predicts each completion's first token, then each token its next.
        before = prompts.ids.shape[1] + torch.arange(words.shape[1], device=x.device) - 1
        source = torch.where(step == 0, prompts.last[:, None], before)
        image = torch.arange(len(words), device=x.device)[:, None]
        return hidden[image, source][mask.flatten(1).gather(1, rows.pack)]
