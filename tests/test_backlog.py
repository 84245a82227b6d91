"""A long backlog, as when X is away for hours: memory and disk stay bounded, no alert uncounted.

The ordinary run takes 3,000 lines of 10 KB; BIRD_SENTINEL_ROUNDS=350 takes 20,000.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX
from test_crashes import ROUNDS, alerts_in, texts, word

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


def put_all(sentinel: Sentinel, texts: Iterator[str] | list[str], to: str = "") -> None:
    """Accept many alerts, as fast as files can be written."""
    for name in ("tmp", "new", "to", "refused"):
        (sentinel.queue / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    head = "host: web1\n" + (f"to: {to}\n" if to else "")
    for text in texts:
        path = sentinel.queue / "new" / f"{time.time_ns():019d}.1.web1"
        path.write_bytes(f"{head}\n{text}".encode())


def distributed(sentinel: Sentinel) -> bool:
    """Whether a worker has taken in, and folded, all that was accepted."""
    return not any((sentinel.queue / "new").iterdir()) and not any(
        len(list(path.iterdir())) > 1_001 for path in (sentinel.queue / "to").iterdir()
    )


def size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*"))


def count(x: FakeX, recipient: str = "2002") -> int:
    return sum(alerts_in(dm.text) for dm in x.dms if dm.recipient_id == recipient)


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
    assert size(away.queue) > LINES * 9_000
    assert away.run("send", "--no-wait", "--", "and one more").code == 0
    peak = 0

    def folded() -> bool:
        nonlocal peak
        for pid in away.processes():
            try:
                status = Path("/proc", str(pid), "status").read_text()
            except OSError:
                continue
            peak = max(peak, *map(int, re.findall(r"VmHWM:\s+(\d+) kB", status)), 0)
        return distributed(away)

    until(folded, 200)
    assert 0 < peak < 80_000
    assert size(away.queue) < 20_000_000
    status = away.status()
    assert (status["pending"], status["worker"]) == (LINES + 1, True)
    busy_x.clear_answers()
    back = time.time()
    assert away.run("flush").code == 0
    assert busy_x.dms[0].at - back < 6, "two seconds, on a machine that does nothing else"
    assert RARE in busy_x.dms[0].text
    assert count(busy_x) == LINES + 1
    assert len(busy_x.dms[0].text) <= 10_000


def test_of_a_folded_backlog_each_recipient_is_told_of_all_that_is_for_it_and_no_more(
    away: Sentinel, busy_x: FakeX
) -> None:
    put_all(away, [f"kernel: eth0: fault of port {word(n)}" for n in range(1_050)])
    put_all(away, [f"kernel: eth1: fault of port {word(n)}" for n in range(60)], "second")
    assert away.run("send", "--no-wait", "--", RARE).code == 0
    until(lambda: distributed(away), 60)
    assert away.status()["pending"] == 1_111
    put_all(away, [f"after that: {word(n)}" for n in range(10)], "oncall nobody")
    busy_x.clear_answers()
    assert away.run("flush").code == 0
    assert (count(busy_x, "2002"), count(busy_x, "2003")) == (1_061, 1_111)
    assert RARE in texts(busy_x, "2002") and RARE in texts(busy_x, "2003")
    assert "eth1" not in texts(busy_x, "2002")
    away.wait_idle()
    assert away.status()["pending"] == 0


# ---- a recipient is taken out of the config ----


def wait_for_x(sentinel: Sentinel, number: int, to: str = "") -> None:
    """Leave so many alerts to a worker that has worked before, and for which X is now away."""
    assert sentinel.x
    sentinel.x.clear_answers()
    assert sentinel.run("send", "all is well").code == 0
    sentinel.wait_idle()
    sentinel.x.dms.clear()
    sentinel.x.answer(ERRORS["503-empty"], times=None)
    put_all(sentinel, [f"disk: {word(n)}" for n in range(number)], to)
    if number:
        sentinel.start("flush", stderr=subprocess.DEVNULL)
        until(lambda: sentinel.status()["last_error"] and distributed(sentinel), 60)


def take_out(sentinel: Sentinel, recipients: dict[str, str]) -> None:
    """Give it other recipients while its worker is gone, and X is back."""
    sentinel.kill()
    sentinel.wait_idle()
    sentinel.configure(recipients, interval="0.01")
    assert sentinel.x
    sentinel.x.clear_answers()


few_or_many = pytest.mark.parametrize("number", [3, 1_100], ids=["alerts", "folded"])


@few_or_many
def test_alerts_for_somebody_who_is_replaced_in_the_config_go_to_the_new_one(
    away: Sentinel, busy_x: FakeX, number: int
) -> None:
    away.configure({"oncall": "2002"}, interval="0.01")
    wait_for_x(away, number)
    take_out(away, {"second": "2003"})
    away.run("flush")
    away.wait_idle()
    assert (count(busy_x, "2002"), count(busy_x, "2003")) == (0, number)


@few_or_many
def test_alerts_for_one_alone_who_is_taken_out_of_the_config_go_to_the_others(
    away: Sentinel, busy_x: FakeX, number: int
) -> None:
    wait_for_x(away, number, to="second")
    take_out(away, {"oncall": "2002"})
    away.run("flush")
    away.wait_idle()
    assert (count(busy_x, "2002"), count(busy_x, "2003")) == (number, 0)


def test_flush_does_not_call_delivered_what_still_lies_with_one_who_was_taken_out(
    away: Sentinel, busy_x: FakeX
) -> None:
    wait_for_x(away, 3, to="second")
    take_out(away, {"oncall": "2002"})
    busy_x.answer(ERRORS["503-empty"], times=None)
    assert away.run("flush").code == 75
    assert away.status()["pending"] == 3


@few_or_many
def test_alerts_of_somebody_taken_out_are_not_sent_again_to_those_who_had_them(
    away: Sentinel, busy_x: FakeX, number: int
) -> None:
    wait_for_x(away, 0)
    busy_x.clear_answers()
    busy_x.answer(ERRORS["503-empty"], times=None, when=lambda r: r.recipient_id == "2003")
    put_all(away, [f"disk: {word(n)}" for n in range(number)])
    away.start("flush", stderr=subprocess.DEVNULL)
    busy_x.wait_for(lambda: count(busy_x) == number, 30)
    until(lambda: away.status()["last_error"], 30)
    take_out(away, {"oncall": "2002"})
    away.run("flush")
    assert away.run("send", "something else").code == 0
    assert (count(busy_x, "2002"), count(busy_x, "2003")) == (number + 1, 0)
    assert not (away.queue / "to" / "2003").exists()


def test_more_than_a_worker_takes_at_once_of_which_a_killed_one_had_linked_all_it_took_goes_out(
    away: Sentinel, busy_x: FakeX
) -> None:
    busy_x.clear_answers()
    put_all(away, [f"disk: {word(n)}" for n in range(1_005)])
    for recipient in ("2002", "2003"):
        (away.queue / "to" / recipient).mkdir(mode=0o700)
    for path in sorted((away.queue / "new").iterdir())[:1_000]:
        os.link(path, away.queue / "to" / "2002" / path.name)
    away.configure({"oncall": "2002"}, interval="0.01")
    away.run("flush")
    away.wait_idle()
    assert (count(busy_x), away.status()["pending"]) == (1_005, 0)


# ---- a backlog that does not go ----


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
    put_all(away, [f"{word(n % 40)}: {word(n % 40)} of its own kind" for n in range(1_100)])
    let_the_search_meet(away, busy_x, "429-v2")
    done = away.run("flush")
    assert (done.code, done.out, away.status()["pending"]) == (75, "", 1_100), done


def test_the_folded_backlog_of_one_recipient_is_not_told_as_anothers(
    away: Sentinel, busy_x: FakeX
) -> None:
    busy_x.clear_answers()
    busy_x.answer(ERRORS["403-349"], times=None, when=lambda r: r.recipient_id == "2002")
    put_all(away, [f"disk: {word(n)}" for n in range(1_100)], "oncall")
    assert away.run("flush").code == 77
    done = away.run("send", "--to", "second", "fan stopped")
    assert (done.code, done.out, count(busy_x, "2003")) == (0, "delivered to @second\n", 1), done


def test_who_was_taken_out_and_is_put_back_gets_what_came_for_another_meanwhile(
    away: Sentinel, busy_x: FakeX
) -> None:
    away.configure({"oncall": "2002"}, interval="0.01")
    busy_x.clear_answers()
    assert away.run("send", "all is well").code == 0
    away.wait_idle()
    take_out(away, {"second": "2003"})
    busy_x.answer(ERRORS["503-empty"], times=None)
    assert away.run("send", "intrusion").code == 75
    take_out(away, {"oncall": "2002"})
    away.run("flush")
    away.wait_idle()
    assert [dm.text.endswith("intrusion") for dm in busy_x.dms] == [False, True]


@pytest.mark.parametrize(("trouble", "aside"), [("503-empty", 0), ("403-about-blank", 1)])
def test_when_x_takes_nothing_any_more_no_text_is_to_blame(
    away: Sentinel, busy_x: FakeX, trouble: str, aside: int
) -> None:
    """Also in the midst of the search for a refused one, of which by then one may be put aside."""
    put_all(away, [f"{word(n)}: fan {word(n)} stopped" for n in range(31)])
    let_the_search_meet(away, busy_x, trouble)
    assert away.run("flush").code in (75, 77)
    time.sleep(4)
    status = away.status()
    assert status["refused"] <= aside and status["pending"] + status["refused"] == 31


def test_an_alert_for_a_handle_whose_id_is_looked_up_again_goes_to_the_new_id(
    away: Sentinel, busy_x: FakeX
) -> None:
    busy_x.add_user("third", "2004")
    wait_for_x(away, 3, to="second")
    put_all(away, ["for all: is down"])
    take_out(away, {"oncall": "2002", "second": "2004"})
    assert away.run("flush").code == 0
    away.wait_idle()
    assert [count(busy_x, who) for who in ("2002", "2003", "2004")] == [1, 0, 4]


@few_or_many
def test_alerts_of_a_clock_that_was_ahead_go_to_whoever_takes_the_others_place(
    away: Sentinel, busy_x: FakeX, number: int
) -> None:
    away.configure({"oncall": "2002"}, interval="0.01")
    wait_for_x(away, 0)
    ahead = time.time_ns() + 3600 * 10**9
    for n in range(number):
        path = away.queue / "new" / f"{ahead + n * 10**6}.{n}.web1"
        path.write_text(f"host: web1\n\ndisk: {word(n)}")
    away.start("flush", stderr=subprocess.DEVNULL)
    until(lambda: away.status()["last_error"] and distributed(away), 60)
    take_out(away, {"second": "2003"})
    away.run("flush")
    away.wait_idle()
    assert count(busy_x, "2003") == number


def test_nothing_goes_to_who_is_configured_no_more_though_nothing_can_be_distributed(
    away: Sentinel, busy_x: FakeX
) -> None:
    away.configure({"oncall": "2002"}, interval="0.01")
    wait_for_x(away, 3)
    (away.queue / "to").chmod(0o770)
    take_out(away, {"second": "2003"})
    assert away.run("flush").code == 78
    (away.queue / "to").chmod(0o700)
    assert away.run("flush").code == 0
    assert (count(busy_x, "2002"), count(busy_x, "2003")) == (0, 3)


def test_who_came_while_nothing_was_pending_is_not_given_again_what_it_had(
    away: Sentinel, busy_x: FakeX
) -> None:
    away.configure({"oncall": "2002"}, interval="0.01")
    wait_for_x(away, 0)
    take_out(away, {"oncall": "2002", "second": "2003"})
    busy_x.answer(ERRORS["403-349"], times=None, when=lambda r: r.recipient_id == "2002")
    assert away.run("send", "disk full").code == 77
    take_out(away, {"second": "2003"})
    assert away.run("flush").code == 0
    away.wait_idle()
    assert count(busy_x, "2003") == 1


@pytest.mark.parametrize("to", ["second", ""])
def test_what_cannot_be_taken_from_who_is_configured_no_more_is_not_sent_again_and_again(
    away: Sentinel, busy_x: FakeX, to: str
) -> None:
    wait_for_x(away, 1, to)
    take_out(away, {"oncall": "2002"})
    as_user = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] * (os.geteuid() == 0)
    (away.queue / "to" / "2003").chmod(0o500)
    flush = [*as_user, str(COMMAND), "flush"]
    process = subprocess.Popen(flush, env=away.env, stderr=subprocess.DEVNULL)
    time.sleep(4)
    assert count(busy_x) <= 1
    (worker,) = [pid for pid in away.processes() if pid != process.pid]
    used = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[11:13]
    assert sum(map(int, used)) / os.sysconf("SC_CLK_TCK") < 2
    (away.queue / "to" / "2003").chmod(0o700)
    process.kill()
    process.wait()
