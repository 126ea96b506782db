"""Being asked to end: at once, or later, once or twice, and the handlers that stood before stand again."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from eyas.signals import NUMBERS, Stopped, StopSignals, name


def ask(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_at_once_where_nothing_is_to_be_kept(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals, pytest.raises(Stopped, match="before the work began") as caught:
        ask(number)
    assert caught.value.code == signals.exit_code == 128 + number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("second", NUMBERS)
def test_deferred_once_and_at_once_the_second_time(first: int, second: int) -> None:
    told: list[int] = []
    with StopSignals() as signals:
        with signals.deferred(told.append):
            ask(first)
            assert told == [first] and signals.number == first
            with pytest.raises(Stopped, match="again: stopped at once") as caught:
                ask(second)
        assert caught.value.code == 128 + second
        assert signals.exit_code == 128 + first


def test_telling_may_fail() -> None:
    """The stream was being written to, or its terminal is gone: what was asked for is done all the same."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with StopSignals() as signals, signals.deferred(fail):
        ask(signal.SIGHUP)
    assert signals.number == signal.SIGHUP


def test_what_nohup_switched_off_stays_off() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            ask(signal.SIGHUP)
        assert signals.number == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_changes_nothing() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    seen: list[list[object]] = []

    def work() -> None:
        with StopSignals() as signals, signals.deferred(print):
            seen.append([signal.getsignal(number) for number in NUMBERS])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_it_is_handed_on_to_who_had_it_before() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        with StopSignals() as signals, signals.deferred(lambda _: None):
            ask(signal.SIGTERM)
            assert got == []
        signals.hand_on()
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it switched off
    try:
        with StopSignals() as signals, signals.deferred(lambda _: None):
            ask(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signals.hand_on()
    finally:
        signal.signal(signal.SIGINT, before)


def test_names_for_people() -> None:
    assert [name(number) for number in (signal.SIGINT, signal.SIGTERM)] == ["Ctrl-C", "SIGTERM"]
