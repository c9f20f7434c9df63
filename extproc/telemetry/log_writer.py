"""Writing log lines on a thread of its own, so that nobody waits for whoever takes them.

A pipe that is not read any more, because a collector hangs or the disk behind it is full, keeps its writer for
ever; and those who log are the thread that decides requests. So lines wait in a queue, and what finds no room in
it is counted and told when there is room again.

Rejected: O_NONBLOCK, which holds for all processes that share the pipe, and cuts lines in half; and asking poll()
first, since other workers write into the same pipe between the question and the write.
"""

import contextlib
import logging
import os
import threading
from queue import Full, Queue
from typing import Final

__all__ = ["LineWriter"]

MAX_WAITING: Final = 1000  # lines: a few hundred bytes each, a few thousand with a traceback
FLUSHED_WITHIN_S: Final = 1.0


class LineWriter(logging.Handler):
    """Writes each record as a line to a file descriptor, which it leaves open; `emit` does not wait for that."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: Queue[bytes | None] = Queue(MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging with its lock held: have the line written when its turn comes."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001  (as the standard library's handlers: no caller expects an error of a log)
            self.handleError(record)
            return
        try:
            self._waiting.put_nowait(line)
        except Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all lines are written, or for a second."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, FLUSHED_WITHIN_S)

    def close(self) -> None:
        """Wait as `flush` does, and end."""
        self.flush()
        with contextlib.suppress(Full):
            self._waiting.put_nowait(None)
        super().close()

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._write(line)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._write(self.format(_told(dropped)).encode() + b"\n")
            self._waiting.task_done()

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever read it has gone
            while line:
                line = line[os.write(self._descriptor, line) :]


def _told(dropped: int) -> logging.LogRecord:
    message = "log lines were dropped: nobody took them"
    record = logging.LogRecord("dualpool", logging.WARNING, __file__, 0, message, None, None)
    record.fields = {"dropped": dropped}
    return record
