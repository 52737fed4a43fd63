"""Pictures, positions and hidden states are the ones that transformers itself would use."""

import numpy as np
import pytest
import torch
from kin import KIN, tiny_kin
from PIL import Image
from tiny import pictures, tiny_prompts, tiny_vlm
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from nanoaes.folder import Asking
from nanoaes.inputs import image_patches, picture_grid, prompt_positions


def patches(image: Image.Image, asking: Asking, patch: int) -> tuple[torch.Tensor, tuple]:
    grid = picture_grid(image, patch=patch, merge=2, min_pixels=asking.min_pixels,
                        max_pixels=asking.max_pixels)
    ours = image_patches(image, grid, patch=patch, merge=2, mean=asking.mean, std=asking.std)
    return torch.from_numpy(ours), grid


@pytest.mark.parametrize("size, max_pixels", [((84, 84), 262144), ((100, 61), 262144),
                                              ((30, 20), 262144), ((1600, 1200), 262144),
                                              ((333, 777), 50176)])
def test_patches_equal_the_processor(size: tuple[int, int], max_pixels: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 56 * 56, "longest_edge": max_pixels})
    theirs = processor(images=[image], return_tensors="pt")
    ours, grid = patches(image, Asking(max_pixels=max_pixels), 14)
    assert list(grid) == theirs["image_grid_thw"][0].tolist()
    torch.testing.assert_close(ours, theirs["pixel_values"], rtol=0, atol=2e-6)
    assert grid[1] * grid[2] * 14 * 14 <= max_pixels  # 1600 x 1200 -> 315 tokens of 4 patches
    if size == (1600, 1200):
        assert grid[1] * grid[2] // 4 == 315


def test_qwen3_has_its_own_patches_and_colours() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8))
    half = [0.5] * 3  # its preprocessor_config.json
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, image_mean=half, image_std=half,
        size={"shortest_edge": 256 * 256, "longest_edge": 262_144})
    theirs = processor(images=[image], return_tensors="pt")
    vlm = tiny_kin("qwen3")
    ours, grid = patches(image, vlm.asking, vlm.patch)
    assert list(grid) == theirs["image_grid_thw"][0].tolist()
    torch.testing.assert_close(ours, theirs["pixel_values"], rtol=0, atol=2e-6)


def test_prompt_length_is_known_before_the_prompt_is_made() -> None:
    vlm = tiny_vlm()
    lengths = [vlm.prompt_length(image, "Judge.") for image in pictures(3)]
    assert lengths == vlm.prompts(pictures(3), ["Judge."] * 3).mask.sum(1).tolist()
    assert len(set(lengths)) > 1


@pytest.mark.parametrize("kin", KIN)
def test_positions_equal_get_rope_index(kin: str) -> None:
    vlm = tiny_kin(kin)
    prompts = tiny_prompts(vlm, 6)
    theirs, deltas = vlm.hf.model.get_rope_index(
        prompts.ids, mm_token_type_ids=(prompts.ids == vlm.image_id).int(),
        image_grid_thw=prompts.grid, attention_mask=prompts.mask.long())
    for i, m in enumerate(prompts.mask):
        assert torch.equal(prompts.positions[:, i, m], theirs[:, i, m])
    lengths = prompts.mask.sum(1)
    assert torch.equal(prompts.next_position, lengths + deltas[:, 0])
    assert len(set(lengths.tolist())) > 2  # ragged


def test_wrong_number_of_image_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="5 image tokens, the picture has 9"):
        prompt_positions(torch.tensor([1, 7, 7, 7, 7, 7, 2]), 7, (1, 6, 6), 2)


def test_forbidden_words() -> None:
    vlm = tiny_vlm()
    names = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    assert vlm.forbidden[vlm.tokenizer.convert_tokens_to_ids(names)].all()
    assert vlm.forbidden[len(vlm.tokenizer):].all() and len(vlm.forbidden) > len(vlm.tokenizer)
    assert not vlm.forbidden[vlm.stop_ids].any()


@pytest.mark.parametrize("rows", [[0], [1, 2], [3, 1], [0, 1, 2, 3], [2, 2]])
def test_selected_prompts_are_those_made_alone_and_neighbours_are_not_copied(rows) -> None:
    vlm = tiny_vlm()
    whole, images = tiny_prompts(vlm, 4), pictures(4)
    questions = ["Judge this photograph.", "Describe this photograph.", "Judge."]
    part = whole.select(torch.tensor(rows))
    alone = vlm.prompts([images[i] for i in rows], [questions[i % 3] for i in rows])
    for name in ("mask", "next_position", "pixels", "grid"):
        assert torch.equal(vars(part)[name], vars(alone)[name]), name
    assert torch.equal(part.ids[part.mask], alone.ids[alone.mask])  # padding may differ
    assert torch.equal(part.positions[:, part.mask], alone.positions[:, alone.mask])
    shared = part.pixels.untyped_storage().data_ptr() == whole.pixels.untyped_storage().data_ptr()
    assert shared == (rows in ([0], [1, 2], [0, 1, 2, 3]))
