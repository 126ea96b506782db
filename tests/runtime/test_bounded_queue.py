"""The queue between two stages: bounded, in order, ended from either side, dropping only where it may."""

from __future__ import annotations

import threading

import pytest

from eyas.runtime.bounded_queue import Channel, Closed


def test_everything_arrives_in_order_and_never_more_than_the_capacity_waits() -> None:
    channel: Channel[int] = Channel(3)
    most = 0

    def write() -> None:
        for number in range(200):
            channel.put(number)
        channel.finish()

    thread = threading.Thread(target=write)
    thread.start()
    read: list[int] = []
    with pytest.raises(Closed):
        while True:
            most = max(most, channel.waiting())
            read.append(channel.get())
    thread.join()
    assert read == list(range(200)) and most <= 3


def test_what_waits_when_the_writer_finishes_can_still_be_had() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.finish()
    assert channel.get() == 1
    with pytest.raises(Closed):
        channel.get()


def test_cancelling_wakes_a_waiting_writer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    ended = threading.Event()

    def write() -> None:
        with pytest.raises(Closed):
            channel.put(2)
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    channel.cancel()
    thread.join(timeout=60)
    assert ended.is_set()
    with pytest.raises(Closed):
        channel.get()


def test_the_oldest_that_may_go_goes() -> None:
    channel: Channel[int] = Channel(3)
    for number in (1, 2, 3):
        channel.put(number)
    channel.put(4, droppable=lambda old: old % 2 == 0)
    channel.put(5, droppable=lambda old: old % 2 == 0)
    channel.finish()
    assert [channel.get() for _ in range(3)] == [1, 3, 5]


def test_there_is_no_dropping_while_there_is_room() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1, droppable=lambda _: True)
    channel.put(2, droppable=lambda _: True)
    assert channel.waiting() == 2
