"""Freed memory is returned to the system when the process has grown and no request waits."""

import ctypes
import subprocess
import sys

import pytest

from extproc.server.freed_memory import BUSY_EVERY_S, GROWTH_BYTES, FreedMemory, resident_bytes, trim


class Process:
    """A simulated process, which can return `free_bytes` of its resident memory to the system."""

    def __init__(self) -> None:
        self.resident_bytes = 80 << 20
        self.free_bytes = 0
        self.given = 0
        self.busy = False
        self.memory = FreedMemory(lambda: self.busy, lambda: self.resident_bytes, self.give)

    def give(self) -> None:
        """Return the free memory to the system."""
        self.given += 1
        self.resident_bytes -= self.free_bytes
        self.free_bytes = 0

    def grow(self, more_bytes: int, *, free: bool) -> None:
        """Grow by memory that is in use, or already free."""
        self.resident_bytes += more_bytes
        self.free_bytes += more_bytes if free else 0


def test_free_memory_is_returned_when_the_process_has_grown() -> None:
    """Smaller growth is not worth the time."""
    process = Process()
    process.grow(GROWTH_BYTES, free=True)
    process.memory.look(1.0)
    assert 0 == process.given
    process.grow(1, free=True)
    process.memory.look(2.0)
    assert (1, 80 << 20) == (process.given, process.resident_bytes)


def test_memory_in_use_does_not_cause_repeated_attempts() -> None:
    """Growth is measured from what remained after the last attempt, or from the lowest value since."""
    process = Process()
    process.grow(2 * GROWTH_BYTES, free=False)
    for second in range(5):
        process.memory.look(float(second))
    assert 1 == process.given
    process.grow(-2 * GROWTH_BYTES, free=False)
    process.memory.look(6.0)
    process.grow(GROWTH_BYTES + 1, free=True)
    process.memory.look(7.0)
    assert 2 == process.given


def test_while_requests_would_wait_memory_is_returned_rarely() -> None:
    """It takes a millisecond per 20 MB, which would delay requests."""
    process = Process()
    process.busy = True
    for second in range(1, 4):
        process.grow(2 * GROWTH_BYTES, free=True)
        process.memory.look(float(second))
    assert 1 == process.given
    process.memory.look(1.0 + BUSY_EVERY_S)
    assert 2 == process.given


def test_free_memory_below_memory_in_use_is_returned() -> None:
    """This requires glibc's allocator; with another one nothing is done."""
    if not (resident_bytes() and hasattr(ctypes.CDLL(None), "malloc_trim")):
        pytest.skip("no /proc, or another allocator than glibc's")
    blocks = [b"x" * 9_000 + bytes([number % 256]) for number in range(4_000)]
    kept = blocks[::40]
    del blocks
    grown = resident_bytes()
    trim()
    assert resident_bytes() < grown - 16 * 2**20
    assert 100 == len(kept)


IN_MANY_THREADS = """
import sys
from threading import Barrier, Thread
from extproc.server.freed_memory import resident_bytes, share_arenas

if sys.argv[1] == "shared":
    share_arenas()
met, turns = Barrier(9), [Barrier(2) for _ in range(8)]

def work(turn):
    met.wait()  # by then each thread has its arena
    turn.wait()
    blocks = [b"x" * 9_000 + bytes([number % 256]) for number in range(4_000)]
    kept = blocks[::40]
    del blocks
    turn.wait()
    met.wait()

threads = [Thread(target=work, args=[turn]) for turn in turns]
for thread in threads:
    thread.start()
met.wait()
before = resident_bytes()
for turn in turns:  # one after another
    turn.wait()
    turn.wait()
print(resident_bytes() - before)
met.wait()
"""


def test_what_one_thread_has_freed_the_next_one_uses() -> None:
    """Work that threads do in turns takes the memory of two of them at most. This, too, requires glibc."""
    if not (resident_bytes() and hasattr(ctypes.CDLL(None), "mallopt")):
        pytest.skip("no /proc, or another allocator than glibc's")
    apart, shared = (
        int(
            subprocess.run([sys.executable, "-c", IN_MANY_THREADS, how], stdout=subprocess.PIPE, check=True).stdout
        )
        for how in ("apart", "shared")
    )
    assert shared < apart / 2
