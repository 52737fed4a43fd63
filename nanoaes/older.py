"""A model's folder for those who still read it with transformers 4, as most servers do.

transformers 5 writes new names only and reads both, so the older ones are added.
"""

import json
from pathlib import Path

from nanoaes.checks import json_object


def older_config(path: Path) -> None:
    """What servers still run reads of rotary positions by their older names.

    Without, transformers 4.57 and what builds on it turn the positions at another speed, drop
    M-RoPE, and tie the head or not by a default. transformers 5 reads both.
    """
    config = json_object(path, "config.json")
    text = config["text_config"]
    text["rope_scaling"] = dict(text["rope_parameters"])
    text["rope_theta"] = text["rope_scaling"].pop("rope_theta")
    text["tie_word_embeddings"] = config["tie_word_embeddings"]
    write_object(path / "config.json", config)


def older_words(path: Path) -> None:
    """And of special tokens; without, it finds no tokenizer."""
    words = json_object(path, "tokenizer_config.json")
    if words["tokenizer_class"] == "TokenizersBackend":
        words["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(words.get("extra_special_tokens"), list):
        words["additional_special_tokens"] = words.pop("extra_special_tokens")
    write_object(path / "tokenizer_config.json", words)


def write_object(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
