"""The site built from the documents."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"

pytest.importorskip("mkdocs", reason="no MkDocs here: `make test` installs it")


def site() -> ModuleType:
    """Return docs/site.py as a module; it belongs to no package."""
    spec = importlib.util.spec_from_file_location("site_of_documents", DOCS / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SITE = site()


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every page is in the navigation, and every link and anchor resolves."""
    ran = SITE.build(tmp_path)
    assert 0 == ran.returncode, ran.stdout + ran.stderr
    assert (tmp_path / "site" / "docs" / "operations.html").exists()


@pytest.mark.parametrize(
    ("link", "warns"),
    [("[gone](gone.md)", False), ("[section](operations.md#gone)", True), ("[fine](faq.md)", None)],
)
def test_a_dead_link_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, warns: bool | None) -> None:  # noqa: FBT001
    """A link to a missing page or section fails the build."""
    root = tmp_path / "project"
    (root / "docs").mkdir(parents=True)
    for name in ("operations.md", "faq.md"):
        (root / "docs" / name).write_text(f"# {name}\n", "utf-8")
    (root / "docs" / "page.md").write_text(f"# Page\n\n{link}\n", "utf-8")
    configuration = (DOCS.parent / "mkdocs.yml").read_text("utf-8").partition("nav:\n  - First")[0]
    (root / "mkdocs.yml").write_text(configuration, "utf-8")
    monkeypatch.setattr(SITE, "ROOT", root)
    folder = tmp_path / "build"
    folder.mkdir()
    if warns is False:
        with pytest.raises(FileNotFoundError, match=r"gone\.md does not exist"):
            SITE.build(folder)
    else:
        assert bool(warns) == (SITE.build(folder).returncode != 0)
