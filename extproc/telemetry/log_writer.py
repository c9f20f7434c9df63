"""Log lines written by a separate thread, so that the thread that logs never waits for their reader.

A pipe that is no longer read, because a collector hangs or its disk is full, blocks its writer forever, and the
thread that logs is the one that decides requests. So lines wait in a queue; lines that do not fit are dropped and
counted, and their number is logged when there is room again.

Rejected: O_NONBLOCK, which affects all processes that share the pipe and cuts lines in half; calling poll() first,
because other workers write to the same pipe between the poll and the write; and a queue with a lock, which the
thread holds while it logs: a destructor that runs there and fails is logged, too (stray_lines.py), and would wait
for its own thread.
"""

import contextlib
import logging
import os
import select
import threading
from queue import SimpleQueue
from typing import Final

__all__ = ["LineWriter"]

MAX_WAITING: Final = 1000  # lines: a few hundred bytes each, a few thousand with a traceback
FLUSHED_WITHIN_S: Final = 1.0


class LineWriter(logging.Handler):
    """Writes each record as a line to a file descriptor, which it leaves open; `emit` does not wait for it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)
        # A line, an event to set when all before it are written, or None: the end.
        self._waiting: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line; called by logging with the handler's lock held."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001  (as in the standard library: no caller expects logging to raise)
            self.handleError(record)
            return
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(line)
        else:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all lines are written, at most FLUSHED_WITHIN_S."""
        if self._thread.is_alive():
            written = threading.Event()
            self._waiting.put(written)
            written.wait(FLUSHED_WITHIN_S)

    def close(self) -> None:
        """Flush, and end the thread."""
        self.flush()
        self._waiting.put(None)
        super().close()

    def _write_all(self) -> None:
        while (each := self._waiting.get()) is not None:
            if isinstance(each, threading.Event):
                each.set()
                continue
            self._write(each)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._write(self.format(_notice_of(dropped)).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # the reader has closed the pipe
            while line:
                try:
                    line = line[os.write(self._descriptor, line) :]
                except BlockingIOError:  # another process that has the pipe open has set O_NONBLOCK
                    self._writable.poll()


def _notice_of(dropped: int) -> logging.LogRecord:
    message = "log lines were dropped: stderr was not read fast enough"
    record = logging.LogRecord("dualpool", logging.WARNING, __file__, 0, message, None, None)
    record.fields = {"dropped": dropped}
    return record
