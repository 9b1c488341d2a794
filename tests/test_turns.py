"""Turns: several for the same thing, one thing at a time, nobody kept out for ever."""

from __future__ import annotations

import threading

import pytest

from dspylab.execute.turns import Turns


def test_those_who_come_for_the_same_thing_are_in_together() -> None:
    turns, together = Turns(), threading.Barrier(3)

    def come() -> None:
        with turns.of("a"):
            together.wait(timeout=30)

    threads = [threading.Thread(target=come) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not together.broken


def test_another_thing_waits_and_whoever_comes_after_it_waits_too() -> None:
    turns = Turns()
    order: list[str] = []
    arrived = threading.Semaphore(0)
    leave = threading.Event()

    def come(name: str, thing: str) -> None:
        arrived.release()
        with turns.of(thing):
            order.append(name)
            assert name != "first" or leave.wait(timeout=30)
            if name != "first":
                assert leave.is_set()

    threads = []
    for waiting, (name, thing) in enumerate([("first", "a"), ("second", "b"), ("third", "a")]):
        threads.append(threading.Thread(target=come, args=(name, thing)))
        threads[-1].start()
        arrived.acquire(timeout=30)
        while len(order) + len(turns._waiting) <= waiting:
            threading.Event().wait(0.001)
    leave.set()
    for thread in threads:
        thread.join(timeout=30)
    assert order == ["first", "second", "third"]


def test_whoever_fails_leaves() -> None:
    turns = Turns()
    for thing in ("a", "b"):
        with pytest.raises(ValueError, match=thing), turns.of(thing):
            raise ValueError(thing)
