"""What benchmarks share: random-weight models from their configurations, a taught one, a clock.

A Qwen2.5-VL of any size can be timed without its weights. Only the tokenizer is the toy's: the
head keeps its full vocabulary, of which the toy's words are sampled.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nanoaes.folder import Asking  # noqa: E402
from nanoaes.inputs import Prompts  # noqa: E402
from nanoaes.prompt import PROMPTS, answer_text  # noqa: E402
from nanoaes.sft import Lesson, fit  # noqa: E402
from nanoaes.toy.model import CHAT_WORDS, make_model, make_tokenizer  # noqa: E402
from nanoaes.toy.render import render  # noqa: E402
from nanoaes.toy.school import lesson  # noqa: E402
from nanoaes.toy.world import draw_qualities  # noqa: E402
from nanoaes.vlm import VLM  # noqa: E402

CUDA = torch.cuda.is_available()
# hidden, feed-forward, layers, heads, key heads, vocabulary, tied
# and of the vision tower: layers, hidden, feed-forward, heads
SIZES = {
    "3B": ((2048, 11008, 36, 16, 2, 151936, True), (32, 1280, 3420, 16)),
    "7B": ((3584, 18944, 28, 28, 4, 152064, False), (32, 1280, 3420, 16)),
    # 3B's width and vocabulary, 2 layers: what only real shapes break
    "wide": ((2048, 11008, 2, 16, 2, 151936, True), (2, 1280, 3420, 16)),
    # a quarter of 3B's depth and vocabulary: every part's share of the work is 3B's
    "quarter": ((2048, 11008, 9, 16, 2, 37984, True), (8, 1280, 3420, 16)),
    # an eighth of 3B's width, for wall-clock on a CPU
    "eighth": ((256, 1376, 6, 4, 1, 2048, True), (5, 160, 428, 4)),
    "toy": ((128, 320, 4, 4, 2, 704, True), (3, 96, 256, 4)),
}


def toy_tokenizer():
    """The toy's vocabulary."""
    rng = np.random.default_rng(0)
    qualities = [draw_qualities(rng, (1 / 3, 1 / 3, 1 / 3)) for _ in range(200)]
    return make_tokenizer([CHAT_WORDS, *(text for q in qualities for text in lesson(q, rng))])


def random_model(size: str, dtype: torch.dtype, seed: int = 0) -> VLM:
    """A Qwen2.5-VL of one of `SIZES` with random weights, on CUDA where there is one."""
    (hidden, ff, layers, heads, kv_heads, vocabulary, tied), vision = SIZES[size]
    tokenizer = toy_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    part = hidden // heads // 8  # M-RoPE's 16 : 24 : 24 of a head of 128
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=ff,
            num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
            rms_norm_eps=1e-6, max_position_embeddings=32768, tie_word_embeddings=tied,
            bos_token_id=token("<|endoftext|>"), eos_token_id=token("<|im_end|>"),
            pad_token_id=token("<|endoftext|>"),
            rope_parameters={"rope_type": "default", "rope_theta": 1e6,
                             "mrope_section": [part, part * 3 // 2, part * 3 // 2]}),
        vision_config=dict(
            depth=vision[0], hidden_size=vision[1], intermediate_size=vision[2],
            num_heads=vision[3], out_hidden_size=hidden, window_size=112,
            fullatt_block_indexes=[i for i in range(vision[0]) if i % 8 == min(7, vision[0] - 1)]),
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"), tie_word_embeddings=tied)
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda" if CUDA else "cpu"):
            hf = Qwen2_5_VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(default)
    stop = [token("<|im_end|>"), token("<|endoftext|>")]
    hf.generation_config.eos_token_id, hf.generation_config.pad_token_id = stop, stop[1]
    vlm = VLM(hf, tokenizer, stop, Asking(max_pixels=10**6)).to("cuda" if CUDA else "cpu")
    vlm.forbidden[stop] = True  # every answer is as long as the benchmark says
    return vlm


def taught(pictures: list[Image.Image], steps: int) -> VLM:
    """The toy's model, which has learnt to say a sentence and a number of pictures like these."""
    vlm, rng = make_model(toy_tokenizer(), 0), np.random.default_rng(0)

    def lessons(step: int) -> list[Lesson]:
        return [Lesson(pictures[rng.integers(len(pictures))], vlm.asking.prompt,
                       answer_text("soft light.", rng.uniform())) for _ in range(8)]

    fit(vlm, lessons, steps=steps, lr_at=lambda step: 2e-3, label="the model learns to answer")
    return vlm


def toy_prompts(vlm: VLM, n: int) -> Prompts:
    """n of the toy world's questions, about 23 tokens."""
    return vlm.prompts(toy_pictures(n), [PROMPTS["short"]] * n)


def toy_pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [render(draw_qualities(rng, (1 / 3, 1 / 3, 1 / 3)), "hills", rng) for _ in range(n)]


def long_questions(vlm: VLM, n: int, p: int = 500) -> tuple[list[Image.Image], str]:
    """n pictures of 336 tokens and a question that makes p: the paper's setting."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 392, 672, 3), np.uint8)
    images = [Image.fromarray(x) for x in pixels]
    question = "7" * (p - vlm.prompts(images[:1], [""]).ids.shape[1])  # digits are never merged
    return images, question


def long_prompts(vlm: VLM, n: int, p: int = 500) -> Prompts:
    """n prompts of p tokens."""
    images, question = long_questions(vlm, n, p)
    prompts = vlm.prompts(images, [question] * n)
    assert prompts.ids.shape[1] == p
    return prompts


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock of one call."""
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, run in turns A B A B …, after one round to warm up."""
    times = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, function in contenders.items():
            took = seconds(function)
            if turn:
                times[name].append(took)
    return {name: statistics.median(t) for name, t in times.items()}


def machine() -> str:
    """What it ran on."""
    if CUDA:
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    return (f"CPU, NOT a GPU: {name}, {os.cpu_count()} cores, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}")
