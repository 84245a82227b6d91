"""Many senders at once: each alert once, by one worker, and none is left behind as that ends.

Needs strace.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from conftest import COMMAND, Sentinel, at_once, until
from fake_x import Answer, FakeX
from test_crashes import alerts_in, pending, texts, word

Homes = Callable[[], Sentinel]
CROWD = 200
HELD = 0.25  # seconds X takes to answer


def test_of_200_sends_at_once_each_returns_0_and_is_quoted_and_counted_once_by_one_worker(
    busy_x: FakeX, homes: Homes
) -> None:
    busy_x.answer(Answer(delay=HELD), times=None)
    sentinel = homes()
    senders = [
        sentinel.start("send", "--no-wait", "--", word(n), stderr=subprocess.PIPE)
        for n in range(CROWD)
    ]
    said = {sender.communicate(timeout=120)[1] for sender in senders}
    until(lambda: sum(alerts_in(dm.text) for dm in busy_x.dms) >= CROWD, 60)
    sentinel.wait_idle(60)
    assert [sender.returncode for sender in senders] == [0] * CROWD
    assert said == {b""}
    assert [texts(busy_x).count(word(n)) for n in range(CROWD)] == [1] * CROWD
    assert sum(alerts_in(dm.text) for dm in busy_x.dms) == CROWD
    times = [request.at for request in busy_x.requests]
    # two workers would ask while X still holds its answer to the other
    assert [b - a for a, b in zip(times, times[1:]) if b - a < HELD] == []


def test_no_alert_is_left_behind_by_a_worker_that_ends_while_senders_come(
    busy_x: FakeX, homes: Homes
) -> None:
    sentinel, streams, each = homes(), 4, 12

    def stream(number: int) -> None:
        dice = random.Random(number)
        for which in range(each):
            assert sentinel.run("send", "--no-wait", "--", word(number, which)).code == 0
            time.sleep(dice.uniform(0.0, 0.25))  # a worker lives for a quarter of a second

    at_once(stream, [(number,) for number in range(streams)])
    sentinel.wait_idle(30)  # and nobody flushes
    assert pending(sentinel) == []
    came = [texts(busy_x).count(word(n, i)) for n in range(streams) for i in range(each)]
    assert came == [1] * streams * each


@contextmanager
def slow(sentinel: Sentinel, call: str, when: str, seconds: float) -> Iterator[None]:
    """A worker whose calls of one kind on its trigger, or at its end, take so long."""
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
               "-e", f"inject={call}:delay_{when}={seconds * 1e6:.0f}"]  # fmt: skip
    if call == "close":
        command += ["-P", str(sentinel.queue / "trigger")]
    with subprocess.Popen([*command, "--", str(COMMAND), "send", "--no-wait", "--", "first"],
                          env=sentinel.env, stdin=subprocess.DEVNULL) as process:  # fmt: skip
        yield
        process.wait(60)


def test_an_alert_that_comes_in_the_very_moment_in_which_a_worker_ends_is_delivered(
    busy_x: FakeX, homes: Homes
) -> None:
    # the moment made long: before and after the trigger is closed, and before the lock is free
    ways = [("close", "enter"), ("close", "exit"), ("exit_group", "enter")]
    sentinels = [homes() for _ in ways]
    lock = threading.Lock()

    def attempt(number: int) -> None:
        sentinel = sentinels[number]
        (sentinel.queue).mkdir(mode=0o700)
        with slow(sentinel, *ways[number], seconds=1.0):
            time.sleep(0.8)  # until it has delivered the first, and is about to end
            for which in range(3):
                result = sentinel.run("send", "--no-wait", "--", word(number, which))
                with lock:
                    assert result.code == 0
                time.sleep(0.25)

    at_once(attempt, [(number,) for number in range(len(ways))])
    for sentinel in sentinels:
        sentinel.wait_idle(30)
    came = [texts(busy_x).count(word(n, i)) for n in range(len(ways)) for i in range(3)]
    assert came == [1] * 9


def test_sending_while_a_worker_delivers_never_waits_for_the_network(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(Answer(mode="stall"), times=None)
    assert sentinel.run("send", "--no-wait", "first").code == 0
    x.wait_for(lambda: x.requests)
    results = [sentinel.run("send", "--no-wait", word(n)) for n in range(5)]
    assert [result.code for result in results] == [0] * 5
    assert max(result.seconds for result in results) < 5, "X holds its answer for 25 seconds"
    assert len(x.requests) == 1
