"""Bodies in which every gap and repetition shows: the prompt's words are the numbers from 0 on, in eight digits.

If Envoy sends a part of a body twice, or not at all, a pool still responds with 200: the model reads another
prompt, and nobody notices. A hash shows that it happened; numbered words also show what happened.
"""

import re

__all__ = ["break_in", "chat_body", "upload_body"]

_WORD_BYTES = 9
_HEAD = b'{"model": "served-model", "max_tokens": 16, "messages": [{"role": "user", "content": "'
_END = b'"}]}'
_WORD = re.compile(rb"\d{8}")


def chat_body(size: int) -> bytes:
    """Return a chat request of at most `size` bytes whose prompt consists of numbered words."""
    return _HEAD + upload_body(size - len(_HEAD) - len(_END)) + _END


def upload_body(size: int) -> bytes:
    """Return at most `size` bytes of numbered words."""
    return b" ".join(b"%08d" % number for number in range(size // _WORD_BYTES))


def break_in(body: bytes) -> str:
    """Describe the first gap or repetition in the numbers of a received body; "" if there is none."""
    start = body.find(b"00000000")
    end = body.rfind(b" ") + _WORD_BYTES
    found = body[start:end]
    if start < 0 or found == upload_body(len(found) + 1):
        return ""
    number = -1
    for word in _WORD.finditer(body, start):
        if int(word[0]) != number + 1:
            return f"{int(word[0])} after {number} at byte {word.start()} of {len(body)}"
        number += 1
    return f"no whole word after {number}"
