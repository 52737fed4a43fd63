"""A multimodal LLM as RAPO needs it: pictures and a prompt in, hidden states of completions out.

    picture -> patches -> vision tower -> image tokens ┐
    prompt  -> ids, 3-D positions      -> embeddings   ┴-> [prompt; completion 1 … K] -> hidden

The K completions of a picture share one row: the vision tower and the prompt are computed once,
each completion sees the prompt and itself, and its positions start again after the prompt. The
vocabulary head is kept apart (`logprob.py`), so that logits of prompt tokens never exist.
transformers' own model classes hold the weights. Left out: video, several pictures in a prompt.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
)

from nanoaes import attention
from nanoaes.attention import PackedRows, SharedKV
from nanoaes.errors import UserError
from nanoaes.inputs import CLIP, HALF, Prompts, image_patches, prompt_positions

PROCESSORS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor",
              "qwen3_vl": "Qwen3VLProcessor"}  # the kinds of model that this code knows
KINDS = tuple(PROCESSORS)

transformers.logging.disable_progress_bar()  # a bar per file would bury the scripts' own


class CheckpointError(UserError):
    """A model folder that cannot be used."""


def _weights(path: Path, config: PreTrainedConfig, dtype: torch.dtype) -> nn.Module:
    """transformers' model, whole: it fills what a folder lacks with random numbers and a warning.

    Raises:
        CheckpointError: no weights, missing ones, a file that cannot be read.
    """
    if not list(path.glob("*.safetensors")):
        raise CheckpointError(f"{path}: no *.safetensors here; the folder has no weights")
    try:
        hf, found = AutoModelForImageTextToText.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation="sdpa", output_loading_info=True)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: broken weights ({error}); copy them again") from error
    if found["missing_keys"]:
        raise CheckpointError(f"{path}: {len(found['missing_keys'])} weights are missing, such as "
                              f"{min(found['missing_keys'])}; copy them again")
    return hf


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
            CheckpointError: no such folder, another kind of model, missing or broken weights, no
                stop token.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path}: no config.json; give a Hugging Face model folder, "
                                  "such as train_rapo.py leaves in RUN/rapo")
        config = AutoConfig.from_pretrained(path)
        if config.model_type not in KINDS:
            raise CheckpointError(f"{path}: a {config.model_type} model; this code knows "
                                  f"{', '.join(KINDS)}")
        # Qwen's stop tokens are two; the generation config knows both, the tokenizer only one.
        tokenizer = AutoTokenizer.from_pretrained(path)
        stop = tokenizer.eos_token_id
        if (path / "generation_config.json").is_file():
            stop = GenerationConfig.from_pretrained(path).eos_token_id or stop
        if stop is None:
            raise CheckpointError(f"{path}: no stop token; add eos_token_id to "
                                  "generation_config.json")
        stop_ids = [stop] if isinstance(stop, int) else stop
        vlm = cls(_weights(path, config, dtype).eval(), tokenizer, stop_ids, max_pixels)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return vlm.to(device)

    def save(self, path: str | Path) -> None:
        """Write the folder that `load`, and anything that reads Hugging Face folders, reads."""
        self.hf.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        p = self.picture
        (Path(path) / "preprocessor_config.json").write_text(json.dumps({
            "image_processor_type": "Qwen2VLImageProcessor", "processor_class": PROCESSORS[
                self.hf.config.model_type], "patch_size": p["patch"], "merge_size": p["merge"],
            "temporal_patch_size": 2, "min_pixels": p["min_pixels"], "max_pixels": p["max_pixels"],
            "image_mean": p["colours"][0], "image_std": p["colours"][1]}, indent=1) + "\n")

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
