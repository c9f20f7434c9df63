"""What the values for a chat template (`chat_template_kwargs`) say about the prompt."""

from typing import Final

import msgspec

__all__ = ["adds_to_prompt", "keeps_thoughts"]

MAX_SWITCHES_BYTES: Final = 256


def adds_to_prompt(template_kwargs: msgspec.Raw) -> bool:
    """Return whether the values hold more than switches, such as `enable_thinking`.

    vLLM passes all of them to the template, also documents, tools and another template.
    """
    text = bytes(template_kwargs)
    return len(text) > MAX_SWITCHES_BYTES or b"[" in text or text.count(b"{") > 1 or b"chat_template" in text


def keeps_thoughts(template_kwargs: msgspec.Raw) -> bool:
    """Return whether a switch asks the template to keep the reasoning of earlier turns.

    Without one, most templates drop it. Each maker has another name for the switch: preserve_thinking (Qwen),
    clear_thinking: false (GLM), truncate_history_thinking: false (Nemotron), keep_past_thinking (LFM2). So the
    parts of a name decide; reasoning that counts although the template drops it errs on the safe side. Values
    for which `adds_to_prompt` is true are not looked into.
    """
    if not template_kwargs or adds_to_prompt(template_kwargs):
        return False
    try:
        values = _ANY.decode(template_kwargs)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False  # only the server can say what is wrong with it
    if not isinstance(values, dict):
        return False
    return any(_keeps(name.lower(), is_on=bool(value)) for name, value in values.items())


def _keeps(name: str, *, is_on: bool) -> bool:
    if not any(word in name for word in _THOUGHTS):
        return False
    return any(word in name for word in (_KEEPING if is_on else _DROPPING))


_ANY: Final[msgspec.json.Decoder[object]] = msgspec.json.Decoder()
_THOUGHTS: Final = ("think", "thought", "reason")
_KEEPING: Final = ("preserve", "keep", "retain")
_DROPPING: Final = ("clear", "drop", "truncate", "strip", "remove", "discard")
