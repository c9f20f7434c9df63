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


# Labels that docs/metrics.md explains in a sentence.
OPEN = {"pool", "model", "category", "kind", "worker", "version", "mode", "config_hash"}


def test_the_values_of_every_label_are_listed() -> None:
    """A label with a closed set of values is in the table of labels, by itself or with the metric that has it."""
    listed = {name.partition(",")[0] for name in GENERATOR.CLOSED_LABELS}
    assert [] == [
        f"`{label}` of `{name}`"
        for metric in GENERATOR.series()
        for label in metric.labels
        for name in [GENERATOR.exposed_name(metric)]
        if label not in OPEN and not listed & {f"`{label}`", f"`{label}` of `{name}`"}
    ]
