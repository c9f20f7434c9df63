"""`make site`: builds the documents as a website with MkDocs, in build/site; a warning fails the build.

MkDocs requires all pages in one folder, but ours are located next to what they describe: so they are copied with
their relative paths, together with the files that they link to. Links to folders only make sense in the
repository, and are replaced by their text.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["build"]

ROOT: Final = Path(__file__).parents[1]
LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
PAGES: Final = ("*.md", "docs/**/*.md", "deploy/*.md", "deploy/helm/dualpool/*.md", "bench/*.md")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site in `folder`/site from pages in `folder`/pages. Raises FileNotFoundError for a dead link."""
    staged = folder / "pages"
    shutil.rmtree(staged, ignore_errors=True)
    for pattern in PAGES:
        for page in ROOT.glob(pattern):
            _stage(page, staged)
    configuration = (ROOT / "mkdocs.yml").read_text("utf-8")
    (folder / "mkdocs.yml").write_text(configuration, "utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(folder / "mkdocs.yml")]
    # The theme's warning about its successor does not concern our pages.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


def _stage(page: Path, staged: Path) -> None:
    def follow(link: re.Match[str]) -> str:
        _, text, target = link.groups()
        path = target.partition("#")[0]
        if not path or "://" in path or path.startswith("mailto:"):
            return link[0]
        found = (page.parent / path).resolve()
        if not found.exists():
            raise FileNotFoundError(f"{page.relative_to(ROOT)}: {target} does not exist")
        if found.is_dir():
            return text
        if found.suffix != ".md":
            copy = staged / found.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, copy)
        return link[0]

    # Code blocks contain no links.
    pieces = re.split(r"(^ *```.*?^ *```$)", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = "".join(piece if number % 2 else LINK.sub(follow, piece) for number, piece in enumerate(pieces))
    copy = staged / page.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text, "utf-8")


if __name__ == "__main__":
    BUILD = ROOT / "build"
    BUILD.mkdir(exist_ok=True)
    ran = build(BUILD)
    sys.stderr.write(ran.stdout + ran.stderr)
    sys.exit(ran.returncode)
