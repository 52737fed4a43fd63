"""A multimodal LLM as RAPO needs it: pictures and a prompt in, log-probs of completions out.

    picture -> patches -> vision tower -> image tokens ┐
    prompt  -> ids, 3-D positions      -> embeddings   ┴-> [prompt; completion 1 … K] -> hidden
    hidden of completions, vocabulary head -> log-prob, entropy

The K completions of a picture share one row: the vision tower and the prompt are computed once,
each completion sees the prompt and itself, and its positions start again after the prompt. Logits
of prompt tokens never exist (`logprob.py`). All of it is one `forward`, since sharded weights
(`sharding.py`) are whole only within one.
transformers' own model classes hold the weights. Left out: video, several pictures in a prompt.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig

from nanoaes import attention, windows
from nanoaes.attention import PackedRows, SharedKV
from nanoaes.errors import UserError
from nanoaes.folder import Asking, Folder, read_folder, write_folder
from nanoaes.inputs import Prompts, fitted, image_patches, picture_grid, prompt_positions
from nanoaes.logprob import token_logprob
from nanoaes.lora import LoRA, attach, spec_of
from nanoaes.prompt import opened_by
from nanoaes.template import chat


class VLM(nn.Module):
    """A Qwen2.5-VL (or one of its kin) with its tokenizer and the way it is asked."""

    def __init__(self, hf: nn.Module, tokenizer, stop_ids: Sequence[int], asking: Asking,
                 source: str = "", stored: torch.dtype | None = None):
        """source, stored: as in `Folder`; of a model that was made here there are none."""
        super().__init__()
        self.hf, self.tokenizer, self.asking = hf, tokenizer, asking
        self.source, self.stored = source, stored
        config = hf.config
        self.image_id = config.image_token_id
        self.patch, self.merge = (config.vision_config.patch_size,
                                  config.vision_config.spatial_merge_size)
        text = config.text_config
        self.groups = text.num_attention_heads // text.num_key_value_heads
        hf.set_attn_implementation({"text_config": attention.NAME, "vision_config": windows.NAME})
        self.stop_ids = list(stop_ids)
        self.pad_id = self.stop_ids[0]  # never read: masks are positional
        self.opened = opened_by(self.chat(asking.prompt))  # a thinking model's own "<think>"
        # Never sampled: the training forward would look for pixels behind a sampled image token,
        # and rows of the head past the tokenizer's words are padding.
        forbidden = torch.zeros(text.vocab_size, dtype=torch.bool)
        forbidden[len(tokenizer):] = True
        for name in ("image_token_id", "video_token_id", "vision_start_token_id",
                     "vision_end_token_id"):
            forbidden[getattr(config, name)] = True
        self.register_buffer("forbidden", forbidden, persistent=False)

    @classmethod
    def load(cls, path: str | Path, dtype: torch.dtype = torch.float32, device: str = "auto",
             **options: Any) -> "VLM":
        """Read an ordinary Hugging Face folder, or one of adapters and the model they belong to.

        Args:
            device: "auto" takes the first CUDA device where there is one, else the CPU.
            options: what `Asking.but` takes, to ask otherwise than the folder says; each change
                is printed.
        Raises:
            CheckpointError: as `read_folder`.
            UserError: a question that holds one of the tokenizer's own marks.
        """
        folder = read_folder(Path(path), dtype)
        asking, changes = folder.asking.but(**options)
        for line in changes:
            print(f"{path}: {line}")
        marks = [t.content for t in folder.tokenizer.added_tokens_decoder.values()
                 if t.special and t.content in asking.prompt]
        if marks:
            raise UserError(f"{path}: the question holds {marks[0]}, a mark of the model's own; "
                            "leave it out (the picture stands before the question)")
        vlm = cls(folder.hf.eval(), folder.tokenizer, folder.stop_ids, asking, folder.source,
                  folder.stored)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return vlm.to(device)

    def save(self, path: str | Path, merged: bool = False) -> None:
        """Write the folder that `load`, and anything that reads Hugging Face folders, reads.

        Args:
            merged: a whole model where otherwise only its adapters were written.
        """
        folder = Folder(self.hf, self.tokenizer, self.stop_ids, self.asking, self.source,
                        self.stored)
        write_folder(Path(path), folder, self.forbidden.nonzero().flatten().tolist(), merged)

    def described(self, temperature: float) -> dict[str, Any]:
        """Whatever changes an answer beside the weights, for a result file."""
        return {**asdict(self.asking), "stop_ids": self.stop_ids, "temperature": temperature}

    @property
    def device(self) -> torch.device:
        return self.forbidden.device

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of both towers: what sharded weights are gathered by, one after another."""
        return [*self.hf.model.visual.blocks, *self.hf.model.language_model.layers]

    def checkpoint(self) -> None:
        """Keep one activation per layer, compute the rest again in the backward pass.

        transformers' layers do so in training mode only; here that changes nothing else.
        """
        for block in self.blocks:
            block.gradient_checkpointing = True
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        self.train()

    @property
    def recipe(self) -> tuple:
        """For `blank`: all but the weights."""
        return (type(self.hf), self.hf.config, spec_of(self.hf), self.tokenizer, self.stop_ids,
                self.asking, self.source, self.stored)

    @classmethod
    def blank(cls, kind: type[nn.Module], config: PreTrainedConfig, lora: LoRA | None, *more: Any
              ) -> "VLM":
        """A model without memory for its weights (on `meta`), from the `recipe` of one."""
        with torch.device("meta"):
            hf = kind._from_config(copy.deepcopy(config), attn_implementation="sdpa")
            if lora:
                attach(hf, lora)
        return cls(hf.eval(), *more)

    @property
    def head(self) -> Tensor:
        """(V, H) the vocabulary head; the same tensor as the embedding where they are tied."""
        return self.hf.get_output_embeddings().weight

    def chat(self, text: str, picture: bool = True) -> str:
        """The user's turn, with a picture or without, in the model's own template, up to the
        answer."""
        return chat(self.tokenizer, text, picture)

    def grid(self, image: Image.Image) -> tuple[int, int, int]:
        """What `picture_grid` makes of a picture here."""
        return picture_grid(image, patch=self.patch, merge=self.merge,
                            min_pixels=self.asking.min_pixels, max_pixels=self.asking.max_pixels)

    def fit(self, image: Image.Image) -> Image.Image:
        """As large as the model sees it: `prompts` gives the same, to the bit, for less memory."""
        grid = self.grid(image)
        small = fitted(image, grid, self.patch)
        with suppress(ValueError):  # rounded sides can be more than 200 times each other
            if self.grid(small) == grid:
                return small
        return image

    def prompts(self, images: Sequence[Image.Image | None], texts: Sequence[str] | None = None
                ) -> Prompts:
        """N pictures -> padded ids, positions, patches, on the model's device.

        Args:
            images: None in a picture's place: the question is asked without one.
            texts: N questions; None asks each what the model was trained to be asked.
        """
        asked = texts or [self.asking.prompt] * len(images)
        grids = [(0, 0, 0) if image is None else self.grid(image) for image in images]
        ids, positions, start = [], [], 0
        # One array for all, filled in place: the patches are a step's largest input.
        pixels = torch.empty(sum(h * w for _, h, w in grids), 3 * 2 * self.patch**2)
        pad = self.tokenizer.convert_ids_to_tokens(self.image_id)
        for image, text, grid in zip(images, asked, grids, strict=True):
            n = grid[1] * grid[2] // self.merge**2 or 1  # a mark without a picture stays: an error
            words = self.chat(text, image is not None).replace(pad, pad * n)
            row = self.tokenizer(words, return_tensors="pt", add_special_tokens=False)
            ids.append(row["input_ids"][0])
            positions.append(prompt_positions(ids[-1], self.image_id, grid, self.merge))
            if image is None:
                continue
            patches = image_patches(image, grid, patch=self.patch, merge=self.merge,
                                    mean=self.asking.mean, std=self.asking.std)
            pixels[start : start + len(patches)] = torch.from_numpy(patches)
            start += len(patches)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(r, dtype=torch.bool) for r in ids], True)
        padded = nn.utils.rnn.pad_sequence(ids, True, padding_value=self.pad_id)
        places = nn.utils.rnn.pad_sequence([p.T for p in positions], True).permute(2, 0, 1)
        after = torch.stack([p.max() + 1 for p in positions])
        return Prompts(padded, mask, places, after, pixels, torch.tensor(grids)).to(self.device)

    def prompt_length(self, image: Image.Image, text: str | None = None) -> int:
        """Tokens of one prompt, without making it."""
        words = self.tokenizer(self.chat(text or self.asking.prompt), add_special_tokens=False)
        _, h, w = self.grid(image)
        return len(words["input_ids"]) - 1 + h * w // self.merge**2

    def embed(self, prompts: Prompts, words: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Embeddings of prompts and of the words (N, C) behind them, with the pictures in place.

        Returns:
            (N, P + C, H), and what else of the pictures the language model takes: Qwen3-VL adds
            features of three depths of its vision tower behind its first three layers.
        """
        x = self.hf.get_input_embeddings()(torch.cat([prompts.ids, words], dim=1))
        if not len(prompts.pixels):
            return x, {}
        is_image = nn.functional.pad(prompts.ids == self.image_id, (0, words.shape[1]))
        shown = prompts.grid[prompts.grid[:, 0] > 0]
        vision = self.hf.model.visual(prompts.pixels.to(x.dtype), grid_thw=shown,
                                      windows=windows.Windows())
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

    def forward(self, prompts: Prompts, completions: Tensor, mask: Tensor,
                temperature: float = 1.0, backend: str = "auto") -> tuple[Tensor, Tensor]:
        """Log-prob and entropy (nats) of the completions' tokens; see `token_logprob`.

        Args:
            completions: (N, K, T) token ids; mask: (N, K, T) bool, True up to and including EOS.
        Returns:
            logp, which carries a gradient, and entropy, which does not; both (M,) fp32 or better,
            M = mask.sum(), in the order of completions[mask].
        """
        return token_logprob(self.hidden(prompts, completions, mask), self.head, completions[mask],
                             temperature, self.forbidden, backend=backend)

    def hidden(self, prompts: Prompts, completions: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (M, H) that predict the completions' tokens; arguments as in `forward`."""
        rows = PackedRows(prompts.mask, mask, self.groups)
        positions = (prompts.next_position[:, None] + rows.step).expand(3, -1, -1)
        positions = torch.cat([prompts.positions, positions], dim=2)
        x, deepstack = self.embed(prompts, rows.words(completions))
        hidden = self.decode_layers(x, positions, rows, **deepstack)
        # An embedding: the K answers' first tokens share a place, and an index's backward would
        # add their gradients in the order of threads.
        return nn.functional.embedding(rows.predictor, hidden.flatten(0, 1))
