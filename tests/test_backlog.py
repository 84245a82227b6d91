"""A long backlog, as when X is away for hours: memory and disk stay bounded, no alert uncounted.

The ordinary run takes 3,000 lines of 10 KB; BIRD_SENTINEL_ROUNDS=350 takes 20,000.
"""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import Sentinel, until
from fake_x import ERRORS, Answer, FakeX
from test_crashes import ROUNDS, alerts_in, pending, texts, word

LINES = 20_000 if ROUNDS >= 300 else 3_000
RARE = "sshd[4242]: Accepted password for root from 203.0.113.9 port 4022 ssh2"


@pytest.fixture
def away(busy_x: FakeX, sentinel: Sentinel) -> Iterator[Sentinel]:
    """The command, for two recipients, while X answers nothing but 503."""
    sentinel.x = busy_x
    sentinel.env.update(busy_x.env)
    sentinel.configure({"oncall": "2002", "second": "2003"}, interval="0.01")
    busy_x.answer(ERRORS["503-empty"], times=None)
    yield sentinel


def put_all(sentinel: Sentinel, texts: Iterable[str], queue: Path | None = None) -> None:
    """Accept many alerts, as fast as files can be written."""
    queue = queue or sentinel.queue
    for name in ("tmp", "new", "refused"):
        (queue / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    for text in texts:
        path = queue / "new" / f"{time.time_ns():019d}.1.web1"
        path.write_bytes(f"host: web1\n\n{text}".encode())


def folded(sentinel: Sentinel) -> bool:
    """Whether a worker has written down all that was accepted, and removed the files of it."""
    return (sentinel.queue / "folded").exists() and not any((sentinel.queue / "new").iterdir())


def counts(x: FakeX) -> tuple[int, int]:
    """How many alerts the DMs to each of the two stand for."""
    first, second = (
        sum(alerts_in(dm.text) for dm in x.dms if dm.recipient_id == recipient)
        for recipient in ("2002", "2003")
    )
    return first, second


def test_thousands_of_long_lines_of_random_words_stay_within_80_mb_and_the_rare_line_is_seen(
    away: Sentinel, busy_x: FakeX
) -> None:
    away.configure({"oncall": "2002"}, interval="0.01")
    dice = random.Random(LINES)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(5_000)]

    def lines() -> Iterator[str]:
        for number in range(LINES):
            text = " ".join(dice.choices(words, k=1_000))
            yield RARE if number == LINES // 3 else f"app{number % 7}: {text}"

    put_all(away, lines())
    assert away.run("send", "--no-wait", "--", "and one more").code == 0
    peak = 0

    def done() -> bool:
        nonlocal peak
        for pid in away.processes():
            try:
                status = Path("/proc", str(pid), "status").read_text()
            except OSError:
                continue
            peak = max(peak, *map(int, re.findall(r"VmHWM:\s+(\d+) kB", status)), 0)
        return folded(away)

    until(done, 200)
    until(lambda: away.status()["last_error"])
    assert done() and 0 < peak < 80_000
    assert sum(path.lstat().st_size for path in away.queue.rglob("*")) < 20_000_000
    assert away.status()["pending"] == LINES + 1
    busy_x.clear_answers()
    back = time.time()
    assert away.run("flush").code == 0
    assert busy_x.dms[0].at - back < 6, "two seconds, on a machine that does nothing else"
    assert RARE in busy_x.dms[0].text
    assert counts(busy_x) == (LINES + 1, 0)
    assert len(busy_x.dms[0].text) <= 10_000


def test_2400_that_gathered_while_x_was_away_reach_each_recipient_in_few_dms(
    away: Sentinel, busy_x: FakeX
) -> None:
    for part in range(2):
        put_all(away, (f"eth{part}: fault of port {word(n)}" for n in range(1_200)))
        waiting = away.run("send", RARE)
        assert (waiting.code, waiting.out) == (75, ""), waiting
        until(lambda: folded(away), 60)
        assert away.status()["pending"] == 1_201 * (part + 1)
        away.kill()  # the next one begins with what is on the disk
        away.wait_idle()
    busy_x.clear_answers()
    assert away.run("flush").code == 0
    assert counts(busy_x) == (2_402, 2_402)
    assert RARE in texts(busy_x, "2002") and RARE in texts(busy_x, "2003")
    assert len(busy_x.dms) <= 6
    away.wait_idle()
    assert (away.status()["pending"], pending(away)) == (0, [])


def test_what_gathers_in_memory_is_counted_exactly_too_and_goes_in_few_dms(
    away: Sentinel, busy_x: FakeX
) -> None:
    put_all(away, (f"eth0: fault of port {word(n)}" for n in range(1_200)), away.memory)
    put_all(away, (f"eth1: fault of port {word(n)}" for n in range(1_200)))
    assert away.run("send", RARE).code == 75
    until(lambda: folded(away), 60)
    assert away.status()["pending"] == 2_401
    busy_x.clear_answers()
    assert away.run("flush").code == 0
    assert counts(busy_x) == (2_401, 2_401)
    assert len(busy_x.dms) <= 6 and RARE in texts(busy_x)
    away.wait_idle()
    assert pending(away) == []


# ---- other recipients ----

few_or_many = pytest.mark.parametrize("number", [3, 1_100], ids=["alerts", "folded"])


def wait_for_x(sentinel: Sentinel, number: int) -> None:
    """Leave so many alerts to a worker for which X is away."""
    put_all(sentinel, (f"disk: {word(n)}" for n in range(number)))
    sentinel.start("flush", stderr=subprocess.DEVNULL)
    until(lambda: sentinel.status()["last_error"] and (number < 1_000 or folded(sentinel)), 60)


@few_or_many
@pytest.mark.parametrize("worker", ["alive", "gone"])
def test_whoever_is_in_the_config_when_x_is_back_gets_all_that_waited(
    away: Sentinel, busy_x: FakeX, number: int, worker: str
) -> None:
    away.configure({"oncall": "2002"}, interval="0.01")
    wait_for_x(away, number)
    if worker == "gone":
        away.kill()
        away.wait_idle()
    away.configure({"second": "2003"}, interval="0.01")
    busy_x.clear_answers()
    away.run("flush")
    away.wait_idle()
    assert counts(busy_x) == (0, number)


@few_or_many
def test_who_is_taken_out_of_the_config_holds_nothing_up_and_nobody_is_told_twice(
    away: Sentinel, busy_x: FakeX, number: int
) -> None:
    wait_for_x(away, number)
    busy_x.clear_answers()
    busy_x.answer(ERRORS["503-empty"], times=None, when=lambda r: r.recipient_id == "2003")
    away.start("flush", stderr=subprocess.DEVNULL)
    busy_x.wait_for(lambda: counts(busy_x)[0] == number, 30)
    assert away.status()["pending"] == number  # second has none of it
    away.configure({"oncall": "2002"}, interval="0.01")
    away.run("flush")
    away.wait_idle()
    assert away.run("send", "something else").code == 0
    assert counts(busy_x) == (number + 1, 0)


# ---- a backlog of which X does not take the text ----


def let_the_search_meet(sentinel: Sentinel, x: FakeX, trouble: str) -> None:
    """Have X refuse a text, take the notice in its place, and then have nothing but a trouble."""
    sentinel.configure({"oncall": "2002"}, interval="0.01")
    x.clear_answers()
    x.answer(ERRORS["403-about-blank"])
    x.answer(Answer())
    x.answer(ERRORS[trouble], times=None)


def test_flush_does_not_call_delivered_a_folded_backlog_that_was_halved_and_meets_the_limit(
    away: Sentinel, busy_x: FakeX
) -> None:
    put_all(away, (f"{word(n % 40)}: {word(n % 40)} of its own kind" for n in range(1_100)))
    let_the_search_meet(away, busy_x, "429-v2")
    done = away.run("flush")
    assert (done.code, done.out, away.status()["pending"]) == (75, "", 1_100), done
