"""Several processes for searches, which end at once when the planner is interrupted."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from signal import SIG_DFL, SIGINT, signal

__all__ = ["processes"]


@contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield an executor; an exception in the block ends its processes, whose searches could take many minutes."""
    # Forking a process that has threads (the progress bar's) can deadlock the child.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_at_ctrl_c) as pool:
        try:
            yield pool
        except BaseException:
            for child in active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _end_at_ctrl_c() -> None:
    """Let SIGINT end this process: as an exception it would end one search, and the next would begin."""
    signal(SIGINT, SIG_DFL)
