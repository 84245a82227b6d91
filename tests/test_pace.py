"""The first alert goes at once, a storm becomes a few DMs inside X's limits, and 429 is obeyed.

Where an hour, a day or a week has to pass, the functions that set the pace are run on a clock of
the test's own, against a model of X's limit.  What is run for real has windows of a few seconds.
"""

from __future__ import annotations

import copy
import datetime
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Result, Sentinel, until
from fake_x import ERRORS, Answer, FakeX, Request
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_sentinel import allowances, limit_wait, round_wait

DELIVERED, KEPT, REFUSED = 0, 75, 77
DAY, NOW = 86_400.0, 1_800_000_000.0
JITTER = 2.0  # seconds that may be added to what X says
profile = settings(max_examples=200, deadline=None, database=None)


class Round(NamedTuple):
    at: float  # seconds since the epoch
    dms: int


def wait_for_round(
    rounds: list[Round], dms: int, interval: float, headers: Mapping[str, str], now: float
) -> tuple[float, str]:
    """The seconds until the next round, of so many DMs, and what they are waited for."""
    past = [one.at for one in rounds if one.at > now - DAY for _ in range(int(one.dms))]
    return round_wait(past, dms, interval, allowances(headers, now), now)


def seconds_ahead(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp() - time.time()


# ---- whatever X says of its limits ----

NAMES = [
    f"{limit}-{value}"
    for limit in ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")
    for value in ("limit", "remaining", "reset")
]
ODD = ["", "0", "-0", "+5", "1_000", "٣", "²", "1e9", "inf", "nan", "9" * 400, "9" * 5000,
       "-" + "9" * 400, "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 +9999"]
NUMBERS = st.integers(-(10**3), 10**3) | st.integers(int(NOW) - 10**6, int(NOW) + 10**6)
VALUES = NUMBERS.map(str) | st.floats().map(str) | st.text(max_size=12) | st.sampled_from(ODD)
NONSENSE = st.dictionaries(st.sampled_from([*NAMES, "date", "retry-after"]), VALUES)
PAST = st.lists(st.builds(Round, st.floats(NOW - DAY, NOW), st.integers(1, 50)), max_size=300)


def headers_of(
    left: int, seconds: float, name: str = "x-rate-limit", limit: int = 15
) -> dict[str, str]:
    return {
        f"{name}-limit": str(limit),
        f"{name}-remaining": str(left),
        f"{name}-reset": str(math.ceil(NOW + seconds)),
    }


WINDOW_OVER, DAY_LEFT = headers_of(0, 600), headers_of(1300, 80_000, "x-user-limit-24hour", 1440)
LEFT = {**headers_of(14, 800), **DAY_LEFT}
OF_429 = {
    "the window": ({**WINDOW_OVER, **DAY_LEFT}, 600),
    "the day": ({**LEFT, **headers_of(0, 7200, "x-user-limit-24hour", 1440)}, 7200),
    "the app's day": ({**LEFT, **headers_of(0, 7200, "x-app-limit-24hour", 1440)}, 7200),
    "retry-after": ({"retry-after": "40.5"}, 40.5),
    "retry-after, though something is left": ({**LEFT, "retry-after": "30"}, 30),
    "both": ({**WINDOW_OVER, "retry-after": "7"}, 600),
    "by X's clock, five minutes ahead of ours":
        ({**WINDOW_OVER, "date": "Fri, 15 Jan 2027 08:05:00 GMT"}, 300),
    "its end alone": ({"x-rate-limit-reset": str(int(NOW) + 600)}, 600),
    "nothing": ({}, 900),
    "no sense": ({"retry-after": "9" * 400, "x-rate-limit-reset": "soon"}, 900),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_429)
def test_a_429_waits_for_the_reset_of_what_is_used_up(case: str) -> None:
    headers, seconds = OF_429[case]
    assert seconds <= limit_wait(headers, NOW) <= seconds + JITTER


HEADERS = st.one_of(NONSENSE, st.builds(lambda bad: {**LEFT, **bad}, NONSENSE))


@given(HEADERS)
@profile
def test_no_headers_make_a_429_last_longer_than_a_day_or_no_time(headers: dict[str, str]) -> None:
    assert 0 < limit_wait(headers, NOW) <= DAY + JITTER


@given(HEADERS, PAST, st.integers(1, 50), st.floats(0.01, DAY))
@profile
def test_no_headers_and_no_past_make_the_pace_slower_than_a_day(
    headers: dict[str, str], past: list[Round], dms: int, interval: float
) -> None:
    rounds = [*sorted(past), Round(NOW, dms)]
    assert 0 < wait_for_round(rounds, dms, interval, headers, NOW)[0] <= DAY + JITTER


# ---- the rounds of a storm ----


def past_rounds(number: int, dms: int = 1) -> list[Round]:
    """So many within 15 minutes, the last one now."""
    return [Round(NOW - 10 * before, dms) for before in reversed(range(number))]


def test_the_waits_double_up_to_the_interval_while_half_is_left() -> None:
    waits = [wait_for_round(past_rounds(k), 1, 60, headers_of(99 - k, 900, limit=99), NOW)[0]
             for k in range(1, 9)]  # fmt: skip
    assert waits == [1, 3, 7, 15, 31, 60, 60, 60]


OLD = [Round(NOW - 901, 1)] * 9
LARGE = headers_of(90, 900, limit=200)
HARD = {**LARGE, **headers_of(24, DAY, "x-app-limit-24hour", 1440)}
OWN, SHARE = "our own pace", "a share of X's limit"
WAITS: Mapping[str, tuple[list[Round], int, Mapping[str, str], float, str]] = {
    # what went; DMs a round; what X says is left; the seconds to wait, and what for
    "after a quiet hour": ([*OLD, *past_rounds(1)], 1, headers_of(14, 900), 1, OWN),
    "after it half would be left": (past_rounds(1, 2), 2, headers_of(10, 840), 1, OWN),
    "after it less than half": (past_rounds(1, 2), 2, headers_of(9, 900), 200, SHARE),
    "one recipient": (past_rounds(3), 1, headers_of(7, 840), 120, SHARE),
    "three recipients": (past_rounds(3, 3), 3, headers_of(7, 840), 360, SHARE),
    "not enough for all": (past_rounds(5, 3), 3, headers_of(2, 840), 840, "X's limit"),
    "much of a large limit": (past_rounds(2), 1, LARGE, 60, SHARE),
    "the tightest of two": (past_rounds(5), 1, HARD, 3600, SHARE),
}  # fmt: skip


@pytest.mark.parametrize("case", WAITS)
def test_the_next_round_waits_for(case: str) -> None:
    rounds, dms, headers, seconds, words = WAITS[case]
    wait, why = wait_for_round(rounds, dms, 60, headers, NOW)
    assert wait == pytest.approx(seconds, abs=JITTER) and words in why


class Storm(NamedTuple):
    """What became of a storm: the rounds, how old each one's oldest alert was, and the 429s."""

    rounds: list[Round]
    ages: list[float]
    refused: int

    def gaps(self) -> list[float]:
        return [after.at - before.at for before, after in zip(self.rounds, self.rounds[1:])]


def simulate(
    alerts: Iterable[float], recipients: int = 1, limit: int = 15, interval: float = 60
) -> Storm:
    """Alerts after so many seconds each, under `limit` DMs in 15 minutes, as they are paced."""
    window_ends, used, refused, allowed = 0.0, 0, 0, NOW
    rounds: list[Round] = []
    ages: list[float] = []
    for alert in alerts:
        if rounds and NOW + alert <= rounds[-1].at:
            continue  # it rode along
        now = max(NOW + alert, allowed)
        if now >= window_ends:
            window_ends, used = now + 900, 0
        used += recipients
        refused += used > limit
        rounds.append(Round(now, recipients))
        ages.append(now - NOW - alert)
        headers = {
            "x-rate-limit-limit": str(limit),
            "x-rate-limit-remaining": str(max(0, limit - used)),
            "x-rate-limit-reset": str(math.ceil(window_ends)),
        }
        past = rounds[-1500:]
        allowed = now + wait_for_round(past, recipients, interval, headers, now)[0]
    return Storm(rounds, ages, refused)


def storm(seconds: float) -> list[float]:
    return [float(second) for second in range(int(seconds))]


@pytest.mark.parametrize("recipients, age", [(1, 98), (2, 199), (3, 300)])
def test_in_an_hour_of_storm_no_alert_waits_long_and_nothing_is_refused(
    recipients: int, age: float
) -> None:
    seen = simulate(storm(3600), recipients)
    assert seen.refused == 0
    assert max(seen.ages) <= age + 3
    assert len(seen.rounds) * recipients >= 0.8 * 4 * 15


@pytest.mark.parametrize(
    "alerts, recipients, age",
    [
        ([0, 1, 2], 1, 2), ([0, 1, 2], 2, 2), ([0, 20, 40], 2, 2), ([0, 30, 59], 2, 2),
        ([0, 24, 48, 72, 96, 120], 1, 31),
    ],
)  # fmt: skip
def test_a_few_alerts_are_out_within_seconds(
    alerts: list[float], recipients: int, age: float
) -> None:
    assert max(simulate(alerts, recipients).ages) <= age


@pytest.mark.parametrize("recipients", [1, 3])
def test_a_week_of_storm_sends_no_more_than_500_dms_in_any_day_and_never_falls_silent(
    recipients: int,
) -> None:
    seen = simulate(storm(7 * DAY), recipients, limit=200, interval=30)
    times = [one.at for one in seen.rounds]
    worst = max(
        number - sum(moment <= last - DAY for moment in times[:number])
        for number, last in enumerate(times, 1)
        if number % 10 == 0
    )
    assert 475 <= worst * recipients <= 500
    assert max(seen.gaps()) < recipients * 700  # the second half of them is spread over the day
    assert seen.refused == 0


# ---- for real: the first alert ----

CLOCK = """
import os, time

ahead = float(os.environ.get("CLOCK_AHEAD", "0"))
true_time, true_time_ns = time.time, time.time_ns
time.time = lambda: true_time() + ahead
time.time_ns = lambda: true_time_ns() + int(ahead * 1e9)
"""


@pytest.fixture
def ahead(tmp_path: Path, sentinel: Sentinel, x: FakeX) -> Iterator[Clock]:
    """Lets the machine's clock jump, and X's with it, for what is started from then on."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    sentinel.env["PYTHONPATH"] = str(tmp_path)
    yield Clock(sentinel, x)


class Clock:
    def __init__(self, sentinel: Sentinel, x: FakeX) -> None:
        self.sentinel, self.x = sentinel, x

    def run(self, seconds: float, *args: str) -> Result:
        self.x.clock_offset = seconds
        return self.sentinel.run(*args, env={"CLOCK_AHEAD": str(seconds)})


def burst(sentinel: Sentinel, number: int) -> None:
    """So many alerts, each delivered before the next comes."""
    for word in ("alpha", "bravo", "charlie", "delta")[:number]:
        assert sentinel.run("send", word).code == DELIVERED


class TestAFewAlerts:
    @pytest.mark.parametrize("tells", [True, False], ids=["X tells its limit", "X tells none"])
    def test_sent_by_hand_in_a_minute_are_each_delivered_before_send_ends(
        self, sentinel: Sentinel, x: FakeX, tells: bool
    ) -> None:
        x.rate_limit_headers = tells
        burst(sentinel, 4)
        assert len(x.dms) == 4 and x.dms[3].at - x.dms[0].at < 40

    def test_reach_two_recipients_within_seconds(self, fresh: Sentinel, x: FakeX) -> None:
        fresh.configure({"oncall": "2002", "second": "2003"})
        for word in ("alpha", "bravo", "charlie"):
            assert fresh.run("send", "--no-wait", "--", word).code == DELIVERED
            time.sleep(1)
        x.wait_for(lambda: {dm.recipient_id for dm in x.dms if "charlie" in dm.text}
                   == {"2002", "2003"}, 15)  # fmt: skip
        for recipient in ("2002", "2003"):
            said = "\n".join(dm.text for dm in x.dms if dm.recipient_id == recipient)
            assert [said.count(word) for word in ("alpha", "bravo", "charlie")] == [1, 1, 1]

    def test_of_a_quiet_hour_go_at_once_in_spite_of_a_burst_before(
        self, sentinel: Sentinel, ahead: Clock
    ) -> None:
        burst(sentinel, 3)
        sentinel.wait_idle()
        for word in ("foxtrot", "golf"):  # as further ones they would wait 7 s and 15 s
            done = ahead.run(3600, "send", word)
            assert done.code == DELIVERED and done.seconds < 6


# ---- for real: what is known of the past makes no sense ----


def numbers_in(data: Any) -> list[tuple[Any, Any]]:
    """Where in a JSON value there is a number: in what, and under which key."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(data, dict):
        pairs = list(data.items())
    elif isinstance(data, list):
        pairs = list(enumerate(data))
    found = [(data, key) for key, value in pairs if isinstance(value, (int, float))]
    return found + [place for _, value in pairs for place in numbers_in(value)]


@pytest.mark.parametrize("value", [math.nan, -1.0, 32503680000.0, "soon", None])
def test_a_state_that_makes_no_sense_holds_up_nothing(
    sentinel: Sentinel, x: FakeX, value: object
) -> None:
    x.limit = 10**6
    sentinel.configure(interval="0.1")
    assert sentinel.run("send", "alpha").code == DELIVERED
    sentinel.wait_idle()
    good = json.loads((sentinel.queue / "state").read_text())
    assert len(numbers_in(good)) > 3
    for number in range(len(numbers_in(good)) + 1):
        odd = [value]  # as a whole
        if number:
            odd = copy.deepcopy(good)
            place, key = numbers_in(odd)[number - 1]
            place[key] = value
        (sentinel.queue / "state").write_text(json.dumps(odd))
        assert sentinel.run("status").code == DELIVERED, odd
        done = sentinel.run("send", f"number {number}")
        assert (done.code, done.seconds < 15) == (DELIVERED, True), (odd, done)
        sentinel.wait_idle()


def test_who_refuses_is_asked_again_after_a_minute_and_then_later_each_time(
    sentinel: Sentinel, x: FakeX, ahead: Clock
) -> None:
    sentinel.configure({"oncall": "2002", "second": "2003"}, interval="0.1")
    x.limit = 10**6
    x.answer(ERRORS["403-349"], None, path="/2/dm_conversations/with/2003/")
    asked = []
    for minutes in (0, 0.5, 1.5, 10, 18, 40, 50):
        assert ahead.run(minutes * 60, "send", f"after {minutes} minutes").code == REFUSED
        sentinel.wait_idle()
        asked.append(len([r for r in x.requests if r.recipient_id == "2003"]))
    assert asked == [1, 1, 2, 2, 3, 3, 4]


# ---- for real: a storm ----


def told(text: str) -> int:
    """How many alerts a DM says it stands for."""
    several = re.match(r"\[.*?\] ([\d,]+) alerts, ", text)
    return int(several[1].replace(",", "")) if several else 1


def test_a_storm_over_two_windows_meets_no_429_and_reaches_all_to_the_last_alert(
    fresh: Sentinel, x: FakeX
) -> None:
    fresh.configure({"oncall": "2002", "second": "2003"}, interval="0.5")
    x.limit, x.window = 16, 4.0  # a round's fair share is some 0.5 seconds
    number, began = 0, time.monotonic()
    while time.monotonic() < began + 9:
        fresh.run("send", "--no-wait", "--", f"Failed password, port {number}")
        number += 1
        time.sleep(0.25)
    until(lambda: not fresh.processes(), 30)
    assert x.refused_429 == []
    for recipient in ("2002", "2003"):
        dms = [dm for dm in x.dms if dm.recipient_id == recipient]
        assert sum(told(dm.text) for dm in dms) == number
        assert len(dms) >= 6


# ---- for real: 429 ----


def limit_headers(**values: object) -> dict[str, str | None]:
    """Headers of a 429 that say this and nothing else."""
    named: dict[str, str | None] = dict.fromkeys(NAMES[:3])
    named.update({name.replace("_", "-"): str(value) for name, value in values.items()})
    return named


def in_seconds(seconds: float) -> int:
    return int(time.time() + seconds)


class TestA429:
    def test_is_told_and_waited_for(self, sentinel: Sentinel, x: FakeX) -> None:
        headers = limit_headers(
            x_rate_limit_reset=in_seconds(60), x_rate_limit_remaining=5,
            x_app_limit_24hour_reset=in_seconds(7200), x_app_limit_24hour_remaining=0,
        )  # fmt: skip
        x.answer(Answer(429, headers=headers), times=None)
        done = sentinel.run("send", "disk full")
        assert done.code == KEPT and "rate limit" in done.err, done.err
        status = sentinel.status()
        assert 7185 < seconds_ahead(status["next_attempt"]) < 7205
        assert status["pending"] == 1 and len(x.requests) == 1

    def test_is_over_when_x_said_and_nothing_is_lost(self, sentinel: Sentinel, x: FakeX) -> None:
        over: list[int] = []

        def refuse(_: Request) -> Answer:
            over.append(in_seconds(3))
            headers = limit_headers(x_rate_limit_reset=over[0], x_rate_limit_remaining=0)
            return Answer(429, headers=headers)

        x.answer(refuse)
        assert sentinel.run("send", "--no-wait", "disk full").code == DELIVERED
        x.wait_for(lambda: x.dms, 30)
        assert [r.status for r in x.requests] == [429, 201]
        assert x.requests[1].at >= over[0]

    def test_of_the_day_is_foreseen_too(self, sentinel: Sentinel, x: FakeX) -> None:
        x.daily_limit = 1
        sentinel.run("send", "alpha")
        done = sentinel.run("send", "bravo")
        assert (done.code, done.seconds < 15) == (KEPT, True), "it is known that it will not go"
        assert re.search("(?<!a share of )X's limit", done.err), done
        assert seconds_ahead(sentinel.status()["next_attempt"]) > DAY - 600
        assert len(x.requests) == 1

    def test_is_not_cut_short_by_another_alert_or_a_new_worker(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.answer(ERRORS["429-88"], times=None)
        sentinel.run("send", "alpha")
        assert sentinel.run("send", "bravo").code == KEPT
        sentinel.kill()
        sentinel.run("send", "--no-wait", "charlie")
        assert sentinel.run("send", "delta").code == KEPT
        assert seconds_ahead(sentinel.status()["next_attempt"]) > 500
        assert len(x.requests) == 1


class TestFlush:
    def test_ends_one_wait_for_xs_limit_with_one_attempt_and_xs_answer_counts_again(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.answer(ERRORS["429-88"], times=None)
        sentinel.run("send", "alpha")
        assert sentinel.run("flush").code == KEPT
        assert len(x.requests) == 2
        assert sentinel.run("send", "bravo").code == KEPT
        assert len(x.requests) == 2
        assert seconds_ahead(sentinel.status()["next_attempt"]) > 500

    def test_ends_a_wait_for_the_sake_of_pace(self, sentinel: Sentinel, x: FakeX) -> None:
        x.limit = 3  # of which less than half would be left
        sentinel.run("send", "alpha")
        sentinel.run("send", "--no-wait", "bravo")
        time.sleep(1)
        assert len(x.requests) == 1 and sentinel.run("flush").code == DELIVERED


def test_what_may_pass_is_tried_again_after_a_second_doubling_to_five_minutes(
    sentinel: Sentinel, x: FakeX, ahead: Clock
) -> None:
    x.answer(ERRORS["503-v2"], times=None)
    for number, seconds in enumerate([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]):
        assert ahead.run(number * 400, "send", "disk full").code == KEPT
        sentinel.kill()  # before it tries again
        status = json.loads(ahead.run(number * 400, "status", "--json").out)
        waits = seconds_ahead(status["next_attempt"]) - number * 400
        assert seconds - 3 < waits < seconds * 1.2 + 2


# ---- for real: the clock jumps ----


@pytest.mark.parametrize("name", ["429-empty", "402-credits"])
def test_a_clock_that_jumped_back_leaves_no_wait_behind(
    sentinel: Sentinel, x: FakeX, ahead: Clock, name: str
) -> None:
    x.limit = 3  # so that what follows the first is slow
    assert ahead.run(30 * DAY, "send", "alpha").code == DELIVERED
    x.answer(ERRORS[name])
    assert ahead.run(31 * DAY, "send", "bravo").code in (KEPT, REFUSED)
    sentinel.kill()
    assert ahead.run(0, "send", "charlie").code == DELIVERED
    assert "bravo" in x.dms[1].text and "charlie" in x.dms[1].text
