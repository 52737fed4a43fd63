"""The toy MLLM: transformers' own Qwen2.5-VL at about a million parameters, and its tokenizer.

It is written to disk as an ordinary Hugging Face folder and read by the code that reads a real
checkpoint. `school.py` teaches it. Left out: any word that the toy world does not need.
"""

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from nanoaes.folder import Asking
from nanoaes.prompt import TOY_PROMPT
from nanoaes.vlm import VLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")  # Qwen's names, in Qwen's order
CHAT_WORDS = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")  # one token each, as in Qwen3
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `texts`; digits stay single, as in Qwen's tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\p{N}| ?\p{L}+|\s+| ?[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=640, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>",
                                   pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE)


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> VLM:
    """A fresh tiny Qwen2.5-VL.

    rope_theta is 30, not 1e6: with heads this small the width part of M-RoPE would turn so slowly
    that the model could not tell left from right.
    """
    torch.manual_seed(seed)
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=-(-len(tokenizer) // 64) * 64, hidden_size=128, intermediate_size=320,
            num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
            max_position_embeddings=2048, bos_token_id=token("<|endoftext|>"),
            eos_token_id=token("<|im_end|>"), pad_token_id=token("<|endoftext|>"),
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 30.0,
                             "mrope_section": [4, 6, 6]}),
        vision_config=dict(
            depth=3, hidden_size=96, intermediate_size=256, num_heads=4, out_hidden_size=128,
            patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=112,
            fullatt_block_indexes=[0, 1, 2]),
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"), tie_word_embeddings=True)
    config._attn_implementation = "sdpa"
    hf = Qwen2_5_VLForConditionalGeneration(config)
    stop = [token("<|im_end|>"), token("<|endoftext|>")]
    return VLM(hf, tokenizer, stop, Asking(prompt=TOY_PROMPT, max_new_tokens=48))
