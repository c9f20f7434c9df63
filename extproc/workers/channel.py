"""The messages between supervisor and worker: questions one way, answers the other, over a socket pair.

Each end notices immediately when the other process exits, for whatever reason. Questions are numbered, so that a
late answer is not mistaken for the answer to a later question.
"""

import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from enum import StrEnum
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final

import msgspec

from extproc.core.errors import ConfigurationError, DualpoolError
from extproc.state.changing import NotDone

__all__ = ["Channel", "ChannelClosed", "Question", "Started", "answer_all"]

log = logging.getLogger("dualpool")


class Question(StrEnum):
    """The questions that a worker answers."""

    START = "start"  # with a configuration; answered by Started
    ALIVE = "alive"  # answered on the worker's loop: whether it is ready
    METRICS = "metrics"
    STATE = "state"
    APPLY = "apply"  # with a configuration
    ADD = "add"  # with learned state from elsewhere; answered with a sentence
    FORGET = "forget"  # with a model's name, or nothing for all models; answered with a sentence
    UNDO = "undo"  # with a model's name; answered with a sentence
    END = "end"  # drain, then exit
    HURRY = "hurry"  # exit without draining


class Request(msgspec.Struct, array_like=True):
    """A question as it is sent."""

    number: int
    question: Question
    content: bytes


class Answer(msgspec.Struct, array_like=True):
    """An answer as it is sent. `faults` are those of the content; `late`: the worker could not answer, in time or
    because of an exception in its code.
    """

    number: int
    content: bytes = b""
    faults: tuple[str, ...] = ()
    late: bool = False


class Started(msgspec.Struct):
    """A worker's answer to START: the addresses it serves on."""

    address: str
    health_address: str


class ChannelClosed(DualpoolError):
    """The other process has exited."""

    def __init__(self) -> None:
        super().__init__("its process has exited")


class Channel:
    """The supervisor's end; thread-safe. `closed` is set when the worker has exited, or after `close`."""

    def __init__(self, connection: Connection) -> None:
        self.closed = threading.Event()
        self._connection = connection
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Answer]] = {}
        self._unsent: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self._open = threading.Lock()  # held while the connection is closed, or must not be
        self._listening = threading.Thread(target=self._listen, name="dualpool-channel", daemon=True)
        self._listening.start()
        # Sending takes as long as the worker reads nothing: it may be stopped. So no caller does it.
        threading.Thread(target=self._send, name="dualpool-channel-sending", daemon=True).start()

    def ask(self, question: Question, content: bytes = b"", *, within_s: float) -> bytes:
        """Send a question and return the answer.

        Raises TimeoutError if it does not arrive in time, ChannelClosed if the worker has exited, and
        ConfigurationError with the faults that the worker reports. `within_s` includes the sending. A question
        whose time is over before its turn is not sent; one that is partly sent then is sent to its end.
        """
        future: Future[Answer] = Future()
        number = next(self._numbers)
        encoded = msgspec.msgpack.encode(Request(number, question, content))
        self._waiting[number] = future  # before sending: the answer may arrive immediately
        try:
            if self.closed.is_set():
                raise ChannelClosed
            self._unsent.put((number, encoded))
            answer = future.result(within_s)
        except TimeoutError:
            raise TimeoutError(f"it has not answered '{question}' within {within_s:g} s") from None
        finally:
            self._waiting.pop(number, None)
        if answer.faults:
            raise ConfigurationError(*answer.faults)
        if answer.late:
            raise TimeoutError(f"the worker's loop did not answer {question}")
        return answer.content

    def close(self) -> None:
        """Close the connection: the worker then knows that no more questions will come."""
        with self._open, suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    def _send(self) -> None:
        """Send questions until the connection is shut down, by either end; then close it."""
        with suppress(OSError):
            while (each := self._unsent.get()) is not None:
                number, encoded = each
                if number in self._waiting:
                    self._connection.send_bytes(encoded)
        self.close()
        self._listening.join()
        with self._open:
            self._connection.close()

    def _listen(self) -> None:
        try:
            while True:
                answer = msgspec.msgpack.decode(self._connection.recv_bytes(), type=Answer)
                if (future := self._waiting.pop(answer.number, None)) is not None:
                    future.set_result(answer)
        except (EOFError, OSError):
            self.closed.set()
        for number in list(self._waiting):
            if (left := self._waiting.pop(number, None)) is not None:
                left.set_exception(ChannelClosed())
        self._unsent.put(None)


# These may take many seconds: answered on another thread, they do not keep a worker from saying that it is alive.
_SLOW: Final = frozenset({Question.STATE, Question.APPLY, Question.ADD, Question.FORGET, Question.UNDO})


def answer_all(connection: Connection, answer: Callable[[Question, bytes], bytes]) -> None:
    """Answer the supervisor's questions until it closes the channel or exits. Called in the worker."""
    sending = threading.Lock()
    slow: SimpleQueue[Request | None] = SimpleQueue()

    def reply(request: Request) -> None:
        encoded = msgspec.msgpack.encode(_answer(request, answer))
        with sending, suppress(OSError):  # the supervisor has exited: `recv_bytes` notices
            connection.send_bytes(encoded)

    def reply_slowly() -> None:
        while (request := slow.get()) is not None:
            reply(request)

    threading.Thread(target=reply_slowly, name="dualpool-worker-slow", daemon=True).start()
    try:
        while True:
            request = msgspec.msgpack.decode(connection.recv_bytes(), type=Request)
            if request.question in _SLOW:
                slow.put(request)
            else:
                reply(request)
    except (EOFError, OSError):
        slow.put(None)


def _answer(request: Request, answer: Callable[[Question, bytes], bytes]) -> Answer:
    try:
        return Answer(request.number, answer(request.question, request.content))
    except ConfigurationError as error:
        return Answer(request.number, faults=error.sentences)
    except (TimeoutError, NotDone):
        return Answer(request.number, late=True)
    except Exception:
        log.exception("a question of the supervisor failed", extra={"fields": {"question": request.question}})
        return Answer(request.number, late=True)
