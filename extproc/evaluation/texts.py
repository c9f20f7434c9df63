"""Texts of 22 kinds: one declaration in 15 languages, English documentation, source, documents, and made tables.

All of them come from what any machine with this project has (the standard library, site-packages) and from one
optional folder of plain text files, so a comparison can be repeated anywhere. The texts of the languages are small
(8-28 KB), so prompts drawn from them overlap: an error on them says how well a language's average is learned, and
little about how far texts of one language differ. `halves` splits every text, so that a model can be measured on
words that it never saw.
"""

import json
import pydoc_data.topics
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.evaluation.made import made_texts

__all__ = ["Texts", "all_texts", "folder_texts", "halves", "window"]

Texts = Mapping[str, bytes]  # kind of text to UTF-8

MAX_KIND_BYTES = 2_000_000
MIN_FILE_BYTES = 1_000
MAX_FILE_BYTES = 1_000_000


def all_texts(folder: Path) -> Texts:
    """Return every kind; `folder` holds one UTF-8 .txt file for each language.

    Raises ConfigurationError when the folder holds no .txt file.
    """
    library, packages = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
    sources = (path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    return {
        **folder_texts(folder),
        "prose": "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())).encode(),
        "python": b"\n".join(_spread(sources)),
        "markdown": b"\n".join(_spread([*packages.rglob("*.md"), *packages.rglob("METADATA")])),
        "json": b"\n".join(_both_forms(_spread(packages.rglob("*.json")))),
        **made_texts(np.random.default_rng(20_260_101)),
    }


def folder_texts(folder: Path) -> Texts:
    """Return the .txt files of a folder, each a kind named by its file.

    Raises ConfigurationError when there is none.
    """
    texts = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.txt"))}
    if not texts:
        raise ConfigurationError(f"texts: {folder} holds no .txt file; set DUALPOOL_DATA or give --texts FOLDER")
    for kind, text in texts.items():
        if not text.strip():
            raise ConfigurationError(f"texts: {folder / kind}.txt is empty; each file has to hold text")
    return texts


def halves(texts: Texts) -> tuple[Texts, Texts]:
    """Split each text at the first line end after its middle, or in the middle when there is none."""
    cuts = {kind: text.find(b"\n", len(text) // 2) + 1 or len(text) // 2 for kind, text in texts.items()}
    return {k: t[: cuts[k]] for k, t in texts.items()}, {k: t[cuts[k] :] for k, t in texts.items()}


def window(text: bytes, size_bytes: int, rng: np.random.Generator) -> str:
    """Return about `size_bytes` of a text from a random place on, wrapping around at its end."""
    start = int(rng.integers(len(text)))
    cut = text[start : start + size_bytes]
    while len(cut) < size_bytes:
        cut += text[: size_bytes - len(cut)]
    return cut.decode("utf-8", errors="ignore")


def _spread(paths: Iterable[Path]) -> list[bytes]:
    """Read files of 1 KB and more, evenly spread over all of them, about MAX_KIND_BYTES in all."""
    sizes = {path: path.stat().st_size for path in sorted(paths)}
    usable = [path for path, size in sizes.items() if MIN_FILE_BYTES <= size <= MAX_FILE_BYTES]
    every = max(1, round(sum(sizes[path] for path in usable) / MAX_KIND_BYTES))
    return [path.read_bytes().decode("utf-8", errors="ignore").encode() for path in usable[::every]]


def _both_forms(documents: Iterable[bytes]) -> Iterable[bytes]:
    """Yield JSON documents as they were found, and each again in compact form."""
    for document in documents:
        yield document
        yield json.dumps(json.loads(document), separators=(",", ":"), ensure_ascii=False).encode()
