"""Time to tokenize a text with each installed library that can read a tokenizer.json.

`python bench/exact.py FOLDER/tokenizer.json`; the conclusions are in extproc/exact/tokenizers.py. Each library
runs in its own process. Texts are from Python's documentation and source; *new* is a text that was not seen
before, *again* the same text a second time.
"""

import base64
import importlib
import importlib.util
import os
import pydoc_data.topics
import random
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

Count = Callable[[str], int]

LIBRARIES: dict[str, Callable[[Any, str], Count]] = {
    "tokenizers": lambda lib, file: _of(lib.Tokenizer.from_file(file).encode, add_special_tokens=False),
    "kitoken": lambda lib, file: _of(lib.Kitoken.from_tokenizers_file(file).encode),
    "gigatoken": lambda lib, file: _of(lib.Tokenizer(file).encode),
    "fastokens": lambda lib, file: _of(lib.Tokenizer.from_file(file).encode_ordinary),
}
SIZES = {4 << 10: 40, 64 << 10: 12, 1 << 20: 3}  # bytes: number of texts of this size
RANDOM_TEXTS, RANDOM_BYTES = 2_000, 32 << 10
WORST_BYTES = 16 << 10
WORDS = bytes(b"abcdefghijklmnopqrstuvwxyz      "[byte % 32] for byte in range(256))


def _of(encode: Callable[..., Any], **options: bool) -> Count:
    return lambda text: len(encode(text, **options))


def measure(library: str, file: str) -> None:
    """Print the table row of one library."""
    before = _resident_mb()
    began_s = time.perf_counter()
    count = LIBRARIES[library](importlib.import_module(library), file)
    count("Builds what is created on first use.")
    loaded = f"{time.perf_counter() - began_s:.1f} s, {_resident_mb() - before:.0f} MB"
    rng = random.Random(1)  # noqa: S311  (texts, not secrets)
    cells = []
    prose = "\n".join(pydoc_data.topics.topics.values())
    for text in (prose * 3, _source()):  # prose alone is shorter than 1 MB
        for size, texts in SIZES.items():
            cuts = [_cut(text, size, rng) for _ in range(texts)]
            new = [_us(count, cut) for cut in cuts]
            again = [_us(count, cut) for cut in cuts]
            cells.append(f"{median(new):,.0f} / {median(again):,.0f}")
    worst = {
        "one letter": "a" * WORST_BYTES,
        "letters": "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=WORST_BYTES)),
        "blanks": " " * WORST_BYTES,
        "base64": base64.b64encode(rng.randbytes(WORST_BYTES * 3 // 4)).decode(),
    }
    slowest = max(_us(count, text) for text in worst.values())
    before = _resident_mb()
    if library != "tokenizers":  # it would take minutes, and its cache is bounded
        for _ in range(RANDOM_TEXTS):
            count(rng.randbytes(RANDOM_BYTES).translate(WORDS).decode())
    grown = _resident_mb() - before
    print(f"| {library} | {loaded} | {' | '.join(cells)} | {slowest:,.0f} | {grown:.0f} MB |", flush=True)


def _source() -> str:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return "\n".join(file.read_text("utf-8", errors="ignore") for file in files)


def _cut(text: str, size: int, rng: random.Random) -> str:
    start = rng.randrange(len(text) - size)
    return text[start : start + size]


def _us(count: Count, text: str) -> float:
    began_ns = time.perf_counter_ns()
    count(text)
    return (time.perf_counter_ns() - began_ns) / 1e3


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the table; each row is measured in its own process."""
    file = sys.argv[1]
    if len(sys.argv) > 2:
        measure(sys.argv[2], file)
        return
    sizes = [f"{text} {size >> 10:,} KB" for text in ("prose", "source") for size in SIZES]
    print(f"| us, new / again | loaded | {' | '.join(sizes)} | worst 16 KB | grown by 64 MB |")
    print("|---" * (len(sizes) + 4) + "|")
    for library in LIBRARIES:
        if importlib.util.find_spec(library):
            subprocess.run([sys.executable, __file__, file, library], check=True)


if __name__ == "__main__":
    main()
