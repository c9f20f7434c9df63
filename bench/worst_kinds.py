"""The units that a hostile client can repeat in a body, each with the text around it.

A unit is something that costs time however few bytes it has: elements, escapes, keys, token ids, images with many
segments, numbers, tool calls whose arguments are JSON themselves; also text, which the estimator counts. A unit
that turns out to cost more than these is added to the list.
"""

import base64
from typing import Final, NamedTuple

from extproc.core.facts import Api

__all__ = ["KINDS", "Kind", "nested_documents"]


class Kind(NamedTuple):
    """One kind of body: `head`, any number of `unit`, `last`, and `tail`."""

    name: str
    api: Api
    head: bytes
    unit: bytes
    last: bytes
    tail: bytes

    def of(self, units: int) -> bytes:
        """Return a body with this many units."""
        return self.head + self.unit * units + self.last + self.tail


# A JPEG of many short segments without a frame header: the search for its size has to step over all of them.
_JPEG: Final = base64.b64encode(b"\xff\xd8" + b"\xff\xe0\x00\x07\x00\x00\x00\x00\x00" * 20)
_IMAGE: Final = b'{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,%b"}},' % _JPEG
_USER: Final = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],'
_PARTS: Final = b'{"model":"m","messages":[{"role":"user","content":['
_TOOL: Final = b'{"type":"function","function":{"name":"f"}},'
_CALL: Final = b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"'

_TEXTS: Final = b'{"messages":[{"content":"'
_ESCAPED_IMAGE: Final = _IMAGE.replace(_JPEG, _JPEG.replace(b"/", b"\\/")).replace(b"image/jpeg", b"image\\/jpeg")
_PNG: Final = b"iVBORw0KGgoAAAANSUhEUgAACAAAAAgA"  # 2048 x 2048
_ARGUMENTS: Final = rb'{"function":{"name":"f","arguments":"[\"\\u00e9\",{\"a\":1}]"}},'
_FULL_MESSAGE: Final = (
    b'{"role":"a","content":[{"text":"b"}],"name":"c","refusal":"d","reasoning":"e","tool_calls":'
    b'[{"function":{"name":"f","arguments":"g"},"custom":{"name":"h","input":"i"}}],"function_call":{"name":"j"}},'
)
_FULL_PART: Final = (
    b'{"type":"","refusal":"b","thinking":"c","image_url":null,"image_pil":null,"image_embeds":null,'
    b'"audio_embeds":null,"prompt_embeds":null,"audio_url":null,"input_audio":null,"video_url":{"url":"h"}},'
)
_FULL_BLOCK: Final = (
    b'{"type":"tool_result","text":"a","thinking":"b","name":"c","tool_name":"d","title":"e","context":"f",'
    b'"input":"g","source":"h","content":[{"type":"text","text":"i"}]},'
)
_NO_SETTINGS: Final = b'{"image_url":{%b}},' % b",".join([b'"fps":null'] * 46)
_BLANK_SETTINGS: Final = b'{"video_url":{%b}},' % b",".join([b'"fps":%bnull' % (b" " * 240)] * 2)
_FOUND: Final = rb'{"type":"search_result","title":"a","source":"\u0041","content":[{"text":"b"}]},'
_ADDED: Final = rb'{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"a":"\u0041"}}},'
_FULL_ITEM: Final = (
    b'{"type":"reasoning","role":"b","content":[{"text":"c"}],"name":"d","arguments":"e","input":"f",'
    b'"output":[{"text":"g"}],"summary":[{"text":"h"}],"encrypted_content":"i"},'
)
_DIGITS: Final = b"7" * 4000
_FLOAT: Final = b"9.9999999999999997e-315"  # 8 us

_BODIES: Final = (
    ("numbers as tools", Api.CHAT, _USER + b'"tools":[', b"1,", b"1", b"]}"),
    ("empty objects as tools", Api.CHAT, _USER + b'"tools":[', b"{},", b"{}", b"]}"),
    ("tools", Api.CHAT, _USER + b'"tools":[', _TOOL, _TOOL[:-1], b"]}"),
    ("numbers in one tool", Api.CHAT, _USER + b'"tools":[{"a":[', b"1,", b"1", b"]}]}"),
    ("keys in one tool", Api.CHAT, _USER + b'"tools":[{', b'"a":1,', b'"a":1', b"}]}"),
    ("escapes in one tool", Api.CHAT, _USER + b'"tools":["', b"\\u0041", b"", b'"]}'),
    ("floats in one tool", Api.CHAT, _USER + rb'"tools":[{"x":"\u0041","y":[', _FLOAT + b",", _FLOAT, b"]}]}"),
    ("repeated floats", Api.CHAT, b"{", b'"n":%b,' % _FLOAT, b'"n":1,', b'"messages":[{"content":"Hi"}]}'),
    ("repeated floats of a completion", Api.COMPLETIONS, b"{", b'"n":%b,' % _FLOAT, b'"n":1,', b'"prompt":"Hi"}'),
    ("nested tools", Api.CHAT, _USER + b'"tools":[', b"[", b"", b"]}"),
    ("escaped keys in one tool", Api.CHAT, _USER + b'"tools":[{', b'"\\u00e9":1,', b'"a":1', b"}]}"),
    ("numbers as documents", Api.CHAT, _USER + b'"documents":[', b"1,", b"1", b"]}"),
    ("empty parts", Api.CHAT, _PARTS, b"{},", b"{}", b"]}]}"),
    ("empty strings as parts", Api.CHAT, _PARTS, b'"",', b'""', b"]}]}"),
    ("short parts", Api.CHAT, _PARTS, b'{"text":"a"},', b"{}", b"]}]}"),
    ("parts without a kind", Api.CHAT, _PARTS, b'{"image_url":""},', b"{}", b"]}]}"),
    ("tiny images", Api.CHAT, _PARTS, _IMAGE, _IMAGE[:-1], b"]}]}"),
    ("images of no bytes", Api.CHAT, _PARTS, b'{"image_url":"data:;base64,"},', b"{}", b"]}]}"),
    ("images without settings", Api.CHAT, _PARTS, _NO_SETTINGS, b"{}", b"]}]}"),
    ("videos without settings, in blanks", Api.CHAT, _PARTS, _BLANK_SETTINGS, b"{}", b"]}]}"),
    ("empty messages", Api.CHAT, b'{"model":"m","messages":[', b"{},", b"{}", b"]}"),
    ("short messages", Api.CHAT, b'{"model":"m","messages":[', b'{"content":"a"},', b"{}", b"]}"),
    ("named messages", Api.CHAT, b'{"model":"m","messages":[', b'{"name":"a","reasoning":"b"},', b"{}", b"]}"),
    (
        "empty tool calls",
        Api.CHAT,
        b'{"model":"m","messages":[{"tool_calls":[',
        b'{"function":{}},',
        b"{}",
        b"]}]}",
    ),
    ("numbers in arguments", Api.CHAT, _CALL + b"\\\\u0041[", b"1,", b"1", b']"}}]}]}'),
    ("objects in arguments", Api.CHAT, _CALL + b'[\\"\\\\u0041\\",', b"{},", b"{}", b']"}}]}]}'),
    ("escapes in text", Api.CHAT, b'{"messages":[{"content":"', b"\\u0041", b"", b'"}]}'),
    ("line ends in text", Api.CHAT, b'{"messages":[{"content":"', b"\\n", b"", b'"}]}'),
    ("braces in text", Api.CHAT, b'{"messages":[{"content":"', b"{", b"", b'"}]}'),
    ("text", Api.CHAT, b'{"messages":[{"content":"', b"word ", b"", b'"}]}'),
    ("foreign text", Api.CHAT, b'{"messages":[{"content":"', "\u8bcd\u00e9\u0436".encode(), b"", b'"}]}'),
    ("unknown keys", Api.CHAT, _USER, b'"zz":1,', b'"zz":1', b"}"),
    ("the same key", Api.CHAT, _USER, b'"model":"",', b'"model":""', b"}"),
    ("lists of messages", Api.CHAT, b"{", b'"messages":[],', b'"messages":[]', b"}"),
    ("nothing but brackets", Api.CHAT, b"", b"[", b"", b""),
    ("white space", Api.CHAT, b'{"messages":[{"content":"a"}]', b" ", b"", b"}"),
    ("token ids", Api.COMPLETIONS, b'{"model":"m","prompt":[', b"1,", b"1", b"]}"),
    ("lists of token ids", Api.COMPLETIONS, b'{"model":"m","prompt":[', b"[1],", b"[1]", b"]}"),
    ("empty prompts", Api.COMPLETIONS, b'{"model":"m","prompt":[', b'"",', b'""', b"]}"),
    ("short prompts", Api.COMPLETIONS, b'{"model":"m","prompt":[', b'"a",', b'""', b"]}"),
    ("a long prompt", Api.COMPLETIONS, b'{"model":"m","prompt":"', b"word ", b"", b'"}'),
    ("token ids to embed", Api.EMBEDDINGS, b'{"model":"m","input":[', b"1,", b"1", b"]}"),
    ("a long text to embed", Api.EMBEDDINGS, b'{"model":"m","input":"', b"word ", b"", b'"}'),
    ("documents to rerank", Api.RERANK, b'{"query":"a","documents":[', b'"b",', b'"b"', b"]}"),
    ("objects to rerank", Api.RERANK, b'{"query":"a","documents":[', b'{"text":"b"},', b"{}", b"]}"),
    ("texts to score", Api.SCORE, b'{"text_1":"a","text_2":[', b'"b",', b'"b"', b"]}"),
    ("token ids to go on from", Api.GENERATE, b'{"token_ids":[', b"1,", b"1", b"]}"),
    ("ways to sample", Api.GENERATE, b'{"text":"a","sampling_params":[', b"{},", b"{}", b"]}"),
    ("empty items", Api.RESPONSES, b'{"model":"m","input":[', b"{},", b"{}", b"]}"),
    ("strings as items", Api.RESPONSES, b'{"model":"m","input":[', b'"",', b'""', b"]}"),
    ("parts of items", Api.RESPONSES, b'{"model":"m","input":[{"content":[', b"{},", b"{}", b"]}]}"),
    ("summaries", Api.RESPONSES, b'{"input":[{"type":"reasoning","summary":[', b"{},", b"{}", b"]}]}"),
    ("empty blocks", Api.MESSAGES, b'{"model":"m","messages":[{"content":[', b"{},", b"{}", b"]}]}"),
    ("system blocks", Api.MESSAGES, b'{"messages":[],"system":[', b"{},", b"{}", b"]}"),
    (
        "tool inputs",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"type":"tool_use","input":{}},',
        b"{}",
        b"]}]}",
    ),
    (
        "documents",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"type":"document","source":{}},',
        b"{}",
        b"]}]}",
    ),
    (
        "numbers in one input",
        Api.MESSAGES,
        b'{"messages":[{"content":[{"type":"tool_use","input":[',
        b"1,",
        b"1",
        b"]}]}]}",
    ),
    # Strings.
    ("escaped foreign text", Api.CHAT, _TEXTS, b"\\u8bcd\\u00e9\\u0436", b"", b'"}]}'),
    ("surrogates in text", Api.CHAT, _TEXTS, b"\\ud83d\\ude00", b"", b'"}]}'),
    ("emoji", Api.CHAT, _TEXTS, "\U0001f600".encode(), b"", b'"}]}'),
    ("foreign letters and line ends", Api.CHAT, _TEXTS, b"\\n" + "\u00e9".encode(), b"", b'"}]}'),
    ("quotes in text", Api.CHAT, _TEXTS, b'\\"', b"", b'"}]}'),
    ("digits in text", Api.CHAT, _TEXTS, b"7", b"", b'"}]}'),
    ("letters of no pattern", Api.CHAT, _TEXTS, bytes(range(35, 91)), b"", b'"}]}'),
    (
        "a long thought",
        Api.CHAT,
        b'{"messages":[{"reasoning":"',
        b"word ",
        b"",
        b'"},{"role":"user","content":"a"}]}',
    ),
    ("a long name of a model", Api.CHAT, b'{"messages":[],"model":"', b"a", b"", b'"}'),
    ("a long role", Api.CHAT, b'{"messages":[{"role":"', b"a", b"", b'"}]}'),
    ("blanks in one tool", Api.CHAT, _USER + b'"tools":[{"type":"function"', b" ", b"", b"}]}"),
    ("line ends in one tool", Api.CHAT, _USER + b'"tools":[{"type":"function"', b"\n", b"", b"}]}"),
    ("text in one tool", Api.CHAT, _USER + b'"tools":[{"type":"function","a":"', b"word ", b"", b'"}]}'),
    ("escapes in the text of one tool", Api.CHAT, _USER + b'"tools":[{"a":"', b"\\u00e9", b"", b'"}]}'),
    ("blanks", Api.CHAT, b'{"messages":[{"content":"a"}', b" ", b"", b"]}"),
    # Numbers.
    ("one number", Api.CHAT, _USER + b'"max_tokens":', b"7", b"", b"}"),
    ("one number that is skipped", Api.CHAT, _USER + b'"zz":0.', b"7", b"", b"}"),
    ("long numbers", Api.CHAT, _USER, b'"n":%b,' % _DIGITS, b"", b'"model":"m"}'),
    ("numbers of 30 digits", Api.CHAT, _USER, b'"n":%b,' % _DIGITS[:30], b"", b'"model":"m"}'),
    ("numbers of 15 digits", Api.CHAT, _USER, b'"n":%b,' % _DIGITS[:15], b"", b'"model":"m"}'),
    ("long fractions", Api.CHAT, _USER, b'"n":0.%b,' % _DIGITS[:400], b"", b'"model":"m"}'),
    ("long token ids", Api.COMPLETIONS, b'{"prompt":[', b"%b," % _DIGITS, b"1", b"]}"),
    ("token ids of 20 digits", Api.COMPLETIONS, b'{"prompt":[', b"%b," % _DIGITS[:20], b"1", b"]}"),
    ("token ids of 10 digits", Api.COMPLETIONS, b'{"prompt":[', b"1000000000,", b"1", b"]}"),
    ("long numbers in arguments", Api.CHAT, _CALL + b'[\\"\\\\u0041\\",', b"%b," % _DIGITS, b"1", b']"}}]}]}'),
    ("long numbers in one tool", Api.CHAT, _USER + b'"tools":[{"a":["\\u0041",', b"%b," % _DIGITS, b"1", b"]}]}"),
    # Messages, parts and calls.
    ("messages with all keys", Api.CHAT, b'{"messages":[', _FULL_MESSAGE, b"{}", b"]}"),
    ("parts with all keys", Api.CHAT, _PARTS, _FULL_PART, b"{}", b"]}]}"),
    ("messages of one part", Api.CHAT, b'{"messages":[', b'{"content":[{"text":"a"}]},', b"{}", b"]}"),
    ("thoughts", Api.CHAT, b'{"messages":[', b'{"role":"assistant","content":"<think></think>a"},', b"{}", b"]}"),
    ("questions", Api.CHAT, b'{"messages":[', b'{"role":"user","content":"\xc3\xa9"},', b"{}", b"]}"),
    ("the same content", Api.CHAT, b'{"messages":[{', b'"content":["a"],', b'"role":""', b"}]}"),
    ("calls with escapes", Api.CHAT, b'{"messages":[{"tool_calls":[', _ARGUMENTS, b"{}", b"]}]}"),
    ("images with escapes", Api.CHAT, _PARTS, _ESCAPED_IMAGE, _ESCAPED_IMAGE[:-1], b"]}]}"),
    (
        "images of some size",
        Api.CHAT,
        _PARTS,
        b'{"image_url":{"url":"data:image/png;base64,%b"}},' % (_PNG + b"A" * 30_000),
        b"{}",
        b"]}]}",
    ),
    ("audio", Api.CHAT, _PARTS, b'{"input_audio":{"data":"AAAA"}},', b"{}", b"]}]}"),
    ("kinds of tools", Api.CHAT, _USER + b'"tools":[', b'{"type":"mcp"},', b"{}", b"]}"),
    ("messages with tools", Api.CHAT, b'{"messages":[', b'{"tools":[{"type":"mcp"}]},', b"{}", b"]}"),
    ("messages to embed", Api.EMBEDDINGS, b'{"messages":[', b'{"content":["\xc3\xa9"]},', b"{}", b"]}"),
    ("lists of many token ids", Api.COMPLETIONS, b'{"prompt":[', b"[%b1]," % (b"1," * 500), b"[1]", b"]}"),
    ("foreign prompts", Api.COMPLETIONS, b'{"prompt":[', b'"\xc3\xa9",', b'""', b"]}"),
    (
        "a query with each document",
        Api.RERANK,
        b'{"query":"%b","documents":[' % ("\u0436".encode() * 120),
        b'"b",',
        b'"b"',
        b"]}",
    ),
    ("items with all keys", Api.RESPONSES, b'{"input":[', _FULL_ITEM, b"{}", b"]}"),
    ("outputs", Api.RESPONSES, b'{"input":[', b'{"type":"function_call_output","output":[{}]},', b"{}", b"]}"),
    (
        "calls with escapes as items",
        Api.RESPONSES,
        b'{"input":[',
        rb'{"type":"function_call","arguments":"[\"\\u00e9\",1]"},',
        b"{}",
        b"]}",
    ),
    (
        "images as items",
        Api.RESPONSES,
        b'{"input":[{"content":[',
        _IMAGE.replace(b"image_url", b"input_image", 1),
        b"{}",
        b"]}]}",
    ),
    ("results of searches", Api.MESSAGES, b'{"messages":[{"content":[', _FOUND, b"{}", b"]}]}"),
    ("tools that are added", Api.MESSAGES, b'{"messages":[{"content":[', _ADDED, b"{}", b"]}]}"),
    ("blocks with all keys", Api.MESSAGES, b'{"messages":[{"content":[', _FULL_BLOCK, b"{}", b"]}]}"),
    (
        "results of tools",
        Api.MESSAGES,
        b'{"messages":[',
        b'{"role":"user","content":[{"type":"tool_result","content":[{"type":"text","text":"a"}]}]},',
        b"{}",
        b"]}",
    ),
    (
        "blocks in blocks",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"content":{"content":{}}},',
        b"{}",
        b"]}]}",
    ),
    (
        "inputs with escapes",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"type":"tool_use","input":["\\u00e9",{"a":1}]},',
        b"{}",
        b"]}]}",
    ),
    (
        "documents of text",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"type":"document","source":{"type":"text","data":"a"}},',
        b"{}",
        b"]}]}",
    ),
    (
        "blanks in a document",
        Api.MESSAGES,
        b'{"messages":[{"content":[{"type":"document","source":{"type":"text","data":"a"',
        b" ",
        b"",
        b"}}]}]}",
    ),
    (
        "images as blocks",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"type":"image","source":{"type":"base64","data":"%b"}},' % _JPEG,
        b"{}",
        b"]}]}",
    ),
)
KINDS: Final = tuple(Kind(*body) for body in _BODIES)


def nested_documents(depth: int, text_bytes: int) -> bytes:
    """Return a message with nested documents and text in the innermost one."""
    block = b'{"type":"text","text":"%b"}' % (b"a" * text_bytes)
    for _ in range(depth):
        block = b'{"type":"document","source":{"type":"content","content":[%b]}}' % block
    return b'{"messages":[{"content":[%b]}]}' % block
