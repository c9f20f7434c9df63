import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def generator() -> ModuleType:
    """Return docs/generate.py, which is not in a package."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()


@pytest.mark.parametrize("name", sorted([*GENERATOR.GENERATED, *GENERATOR.FILES]))
def test_generated_documents_are_up_to_date(name: str) -> None:
    """Every generated part of a document is up to date with `make docs`."""
    assert GENERATOR.generated(name) == (DOCS / name).read_text("utf-8")
