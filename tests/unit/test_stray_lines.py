"""Warnings and unhandled exceptions are log lines: they block no thread, and are JSON."""

import json
import subprocess
import sys

SCRIPT = """
import logging
import os
import sys
import threading
import warnings

from extproc.telemetry.log import configure_logging
from extproc.telemetry.stray_lines import log_stray_lines

class Destroyed:
    def __del__(self):
        raise LookupError("destroyed")

def ends():
    raise ArithmeticError("ended")

def exits():
    sys.exit("exited")

def start(target):
    thread = threading.Thread(target=target, name="example")
    thread.start()
    thread.join()

configure_logging("info")
log_stray_lines()
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"\\n")
except BlockingIOError:
    os.set_blocking(2, True)
for number in range(2):
    warnings.warn(f"warned {number}")
warnings.warn("warned elsewhere")
logging.getLogger().setLevel("ERROR")
warnings.warn("not asked for")
logging.getLogger().setLevel("INFO")
Destroyed()
start(exits)
start(ends)
print("went on", flush=True)
"""


def test_what_python_would_write_to_a_pipe_that_is_not_read_is_logged() -> None:
    """Warnings, an exception in a destructor and one that ends a thread hold up nobody; later they are read.

    As other libraries' warnings, each is logged once a minute by the line that it is about, from log_level on.
    """
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert "went on\n" == process.stdout.readline()
            lines = [json.loads(line) for line in process.stderr if line.strip()]
            assert 0 == process.wait(60)
        finally:
            process.kill()
    assert ["warning", "warning", "error", "error"] == [line["level"] for line in lines]
    warned, warned_elsewhere, destroyed, ended = lines
    assert "UserWarning: warned 0" in warned["message"]
    assert "UserWarning: warned elsewhere" in warned_elsewhere["message"]
    assert "LookupError: destroyed" in destroyed["traceback"]
    assert ("an exception has ended a thread", "example") == (ended["message"], ended["thread"])
    assert "ArithmeticError: ended" in ended["traceback"]
