"""Tokenizer files that are small enough to be made by a test."""

import json
from pathlib import Path
from typing import Any


def byte_level(folder: Path, *words: str) -> str:
    """Write the file of a tokenizer that makes a token of each byte, but of these words one; return its name."""
    alphabet = [chr(byte) for byte in range(0x21, 0x7F)]
    alphabet += [chr(byte) for byte in [*range(0xA1, 0xAD), *range(0xAE, 0x100)]]
    alphabet += [chr(0x100 + number) for number in range(256 - len(alphabet))]  # GPT-2's names of all other bytes
    vocabulary, merges = list(alphabet), []
    for word in words:
        for end in range(1, len(word)):
            merges.append(f"{word[:end]} {word[end]}")
            vocabulary.append(word[: end + 1])
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(vocabulary)},
            "merges": merges,
        },
    }
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(document), "utf-8")
    return str(file)
