"""Questions and answers between supervisor and worker."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import pytest

from extproc.core.errors import ConfigurationError
from extproc.workers.channel import Channel, ChannelClosed, Question, answer_all


@contextmanager
def channel(answer: Callable[[Question, bytes], bytes]) -> Iterator[tuple[Channel, Connection]]:
    """Yield a channel whose other end answers with this function, and that end."""
    ours, its = (Connection(each.detach()) for each in socket.socketpair())
    worker = threading.Thread(target=answer_all, args=(its, answer))
    worker.start()
    asking = Channel(ours)
    try:
        yield asking, its
    finally:
        asking.close()
        worker.join()
        its.close()


def test_questions_are_answered() -> None:
    """Each question gets its own answer."""
    with channel(lambda question, content: content + question.encode()) as (asking, _):
        assert b"1alive" == asking.ask(Question.ALIVE, b"1", within_s=10)
        assert b"2state" == asking.ask(Question.STATE, b"2", within_s=10)


def test_a_late_answer_is_not_taken_for_another() -> None:
    """The answer to a question that timed out is dropped."""
    released = threading.Event()

    def answer(_: Question, content: bytes) -> bytes:
        if content == b"slow":
            released.wait(10)
        return content

    with channel(answer) as (asking, _):
        with pytest.raises(TimeoutError):
            asking.ask(Question.STATE, b"slow", within_s=0.01)
        released.set()
        assert b"fast" == asking.ask(Question.STATE, b"fast", within_s=10)


def test_faults_and_silence_of_a_loop_are_raised() -> None:
    """A worker's configuration errors, and a loop that does not answer, are raised to the caller."""

    def answer(question: Question, _: bytes) -> bytes:
        if question is Question.APPLY:
            raise ConfigurationError("mode: wrong", "pools: wrong")
        raise TimeoutError

    with channel(answer) as (asking, _):
        with pytest.raises(ConfigurationError) as caught:
            asking.ask(Question.APPLY, within_s=10)
        assert ("mode: wrong", "pools: wrong") == caught.value.sentences
        with pytest.raises(TimeoutError):
            asking.ask(Question.ALIVE, within_s=10)


def receive_and_end(its: Connection) -> None:
    """Receive one question, and end without an answer."""
    its.recv_bytes()
    its.close()


def test_a_worker_that_ends_is_noticed() -> None:
    """A caller that waits for an answer gets an error, and so does one that asks afterwards."""
    ours, its = (Connection(each.detach()) for each in socket.socketpair())
    asking = Channel(ours)
    threading.Thread(target=receive_and_end, args=(its,)).start()
    with pytest.raises(ChannelClosed):
        asking.ask(Question.ALIVE, within_s=10)
    assert asking.closed.wait(10)
    with pytest.raises(ChannelClosed):
        asking.ask(Question.ALIVE, within_s=10)


def test_an_exception_is_logged_and_does_not_end_the_answers(caplog: pytest.LogCaptureFixture) -> None:
    """The supervisor does not wait in vain for the answer, and the worker goes on answering."""

    def answer(_: Question, content: bytes) -> bytes:
        return b"%d" % (1 // int(content))

    with channel(answer) as (asking, _):
        with pytest.raises(TimeoutError):
            asking.ask(Question.START, b"0", within_s=60)
        assert b"1" == asking.ask(Question.START, b"1", within_s=60)
    assert "ZeroDivisionError" in caplog.text


def test_a_slow_answer_does_not_hide_that_a_worker_is_alive() -> None:
    """While a worker adds a large state, which takes many seconds, it still answers the other questions."""
    released = threading.Event()

    def answer(question: Question, _: bytes) -> bytes:
        if question is Question.ADD:
            released.wait(10)
        return question.encode()

    with channel(answer) as (asking, _):
        added: list[bytes] = []
        adding = threading.Thread(target=lambda: added.append(asking.ask(Question.ADD, within_s=10)))
        adding.start()
        assert b"alive" == asking.ask(Question.ALIVE, within_s=10)
        assert [] == added
        released.set()
        adding.join()
    assert [b"add"] == added


def test_a_message_that_nobody_reads_does_not_hold_up_other_questions() -> None:
    """A worker that was stopped while a large message is sent to it is noticed: the next question times out."""
    ours, its = (Connection(each.detach()) for each in socket.socketpair())
    asking = Channel(ours)
    failed: list[type] = []

    def send() -> None:
        with pytest.raises(ChannelClosed) as caught:
            asking.ask(Question.ADD, bytes(16 << 20), within_s=10)
        failed.append(caught.type)

    sending = threading.Thread(target=send)
    sending.start()
    while not its.poll(0.01):
        pass
    with pytest.raises(TimeoutError):
        asking.ask(Question.ALIVE, within_s=0.05)
    its.close()  # the supervisor kills it
    sending.join()
    assert [ChannelClosed] == failed


def test_a_question_that_nobody_reads_times_out() -> None:
    """A worker that hangs before it reads a large configuration does not hold up its supervisor: neither that
    question nor the next one nor the end of the channel, which gives up the unsent rest.
    """
    ours, its = (Connection(each.detach()) for each in socket.socketpair())
    asking = Channel(ours)
    with pytest.raises(TimeoutError, match="'start'"):
        asking.ask(Question.START, bytes(16 << 20), within_s=0.1)
    with pytest.raises(TimeoutError, match="'alive'"):
        asking.ask(Question.ALIVE, within_s=0.1)
    asking.close()
    assert asking.closed.wait(10)
    with pytest.raises(ChannelClosed):
        asking.ask(Question.ALIVE, within_s=10)
    its.close()


def test_a_worker_that_reads_late_gets_whole_questions() -> None:
    """The rest of a question that timed out is still sent, so that the worker can read the next one; those that
    timed out before their turn are not sent.
    """
    ours, its = (Connection(each.detach()) for each in socket.socketpair())
    asking = Channel(ours)
    for question, content in ((Question.ADD, bytes(16 << 20)), (Question.FORGET, b"m")):
        with pytest.raises(TimeoutError):
            asking.ask(question, content, within_s=0.1)
    asked: list[Question] = []

    def answer(question: Question, _: bytes) -> bytes:
        asked.append(question)
        return question.encode()

    worker = threading.Thread(target=answer_all, args=(its, answer))
    worker.start()
    assert b"undo" == asking.ask(Question.UNDO, within_s=60)
    assert [Question.ADD, Question.UNDO] == asked
    asking.close()
    worker.join()
    its.close()
