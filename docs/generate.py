"""`make docs`: writes those parts of the documents that are made from the code; a test holds them equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from extproc.core.exchange.transitions import TRANSITIONS, State, Transition

__all__ = ["GENERATED", "generated"]

DOCS: Final = Path(__file__).parent


def state_table() -> str:
    """Return the exchange's transitions as a table; what holds in all states is one row."""
    rows = ["| state | event | what happens | leads to |", "|---|---|---|---|"]
    for row in TRANSITIONS:
        same = _rows_of(row.event)
        everywhere = len(same) == len(State)
        state = "any" if everywhere else row.state.value
        stays = everywhere and all(other.leads_to == (other.state,) for other in same)
        leads_to = "the same" if stays else ", ".join(row.leads_to)
        rows.append(f"| {state} | {row.event.__name__} | {row.what_happens} | {leads_to} |")
    rows.append(f"| any | any other | let it go on | {State.PASSING} |")
    return "\n".join(dict.fromkeys(rows))


def state_diagram() -> str:
    """Return the exchange's transitions as a Mermaid diagram; what leads to where it was is left out."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.OPEN}"]
    arrows: dict[tuple[State, State], list[str]] = {}
    for row in TRANSITIONS:
        for state in row.leads_to:
            if state is not row.state and len(_rows_of(row.event)) < len(State):
                arrows.setdefault((row.state, state), []).append(row.event.__name__)
    lines += [f"    {start} --> {end}: {', '.join(events)}" for (start, end), events in arrows.items()]
    return "\n".join([*lines, f"    {State.PASSING} --> [*]", "```"])


def _rows_of(event: type) -> list[Transition]:
    return [row for row in TRANSITIONS if row.event is event]


# Document: the parts of it that are generated, by the name in their markers.
GENERATED: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "architecture.md": {"state table": state_table, "state diagram": state_diagram},
}


def generated(name: str) -> str:
    """Return a document with its generated parts as the code has them now. Raises ValueError without markers."""
    text = (DOCS / name).read_text("utf-8")
    for part, make in GENERATED[name].items():
        begin, end = f"<!-- generated: {part} -->\n", f"<!-- end of {part} -->"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"docs/{name} has no markers {begin.strip()} ... {end}")
        text = f"{before}{begin}{make()}\n{end}{after}"
    return text


if __name__ == "__main__":
    for document in GENERATED:
        (DOCS / document).write_text(generated(document), "utf-8")
