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
    clear_thinking: false (GLM), truncate_history_thinking: false (Nemotron), keep_past_thinking (LFM2); Solar's
    think_render_option is a word, "preserved". So the parts of a name or such a word decide; reasoning that counts
    although the template drops it errs on the safe side. Values for which `adds_to_prompt` is true are not looked
    into.
    """
    if not template_kwargs or adds_to_prompt(template_kwargs):
        return False
    try:
        values = _ANY.decode(template_kwargs)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False  # only the server can say what is wrong with it
    if not isinstance(values, dict):
        return False
    return any(_keeps(name.lower(), value) for name, value in values.items())


def _keeps(name: str, value: object) -> bool:
    if not any(word in name for word in _THOUGHTS):
        return False
    if isinstance(value, str) and ((said := value.lower()) == _ALL or any(word in said for word in _KEEPING)):
        return True
    return any(word in name for word in (_KEEPING if value else _DROPPING))


_ANY: Final[msgspec.json.Decoder[object]] = msgspec.json.Decoder()
_THOUGHTS: Final = ("think", "thought", "reason")
_ALL: Final = "all"
_KEEPING: Final = ("preserve", "keep", "retain")
_DROPPING: Final = ("clear", "drop", "truncate", "strip", "remove", "discard")
