"""A progress bar on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["progress_bar"]


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function of (steps done, total steps, current step). It draws a bar, which is removed at the end; if
    standard error is not a terminal, it writes a line for each step.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what, visible=True)

        yield show


class _Lines:
    """Writes a line whenever another step is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[int, int] | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """Write the progress if it has changed."""
        if (done, total) != self._last and what:
            self._console.print(f"simulating: {done} of {total} done: {what}", highlight=False, soft_wrap=True)
        self._last = done, total
