"""The first alert goes at once, a storm becomes a few DMs inside X's limits, and 429 is obeyed.

Where an hour, a day or a week has to pass, the functions that set the pace are run on a clock of
the test's own, against a model of X's limit.  What is run for real has windows of a few seconds.
"""

from __future__ import annotations

import collections
import datetime
import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Result, Sentinel, until
from fake_x import ERRORS, Answer, FakeX, Request
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_sentinel import RETRY, allowances, back_off, limit_wait, own_count, round_wait

DELIVERED, KEPT, REFUSED = 0, 75, 77
DAY, NOW = 86_400.0, 1_800_000_000.0
JITTER = 2.0  # seconds that may be added to what X says
profile = settings(max_examples=200, deadline=None, database=None)


def seconds_ahead(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp() - time.time()


# ---- whatever X says of its limits ----

NAMES = [
    f"{limit}-{value}"
    for limit in ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")
    for value in ("limit", "remaining", "reset")
]
VALUES = st.one_of(
    st.integers(-(10**3), 10**3).map(str),
    st.integers(int(NOW) - 10**6, int(NOW) + 10**6).map(str),
    st.integers(-(10**400), 10**400).map(str),
    st.floats().map(str),
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "0", "-0", "00", "+5", "1_000", "٣", "²", "1e9", "inf", "nan", "0x10",
         "9" * 400, "9" * 5000, "-" + "9" * 400, "Mon, 23 Nov 2026 14:30:00 GMT",
         "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 +9999"]
    ),
)  # fmt: skip
PLAUSIBLE = st.fixed_dictionaries(
    {name: st.integers(0, 200).map(str) if "reset" not in name else
     st.integers(int(NOW), int(NOW) + 90_000).map(str) for name in NAMES}
)  # fmt: skip
NONSENSE = st.dictionaries(st.sampled_from([*NAMES, "date", "retry-after"]), VALUES)
HEADERS = st.one_of(NONSENSE, st.builds(lambda good, bad: {**good, **bad}, PLAUSIBLE, NONSENSE))
MOMENTS = st.lists(st.floats(NOW - 2 * DAY, NOW + DAY), max_size=60)
SENT = MOMENTS.map(lambda moments: sorted(moments * 10))


@given(HEADERS)
@profile
def test_no_headers_make_a_429_last_longer_than_a_day_or_no_time(headers: dict[str, str]) -> None:
    assert 0 < limit_wait(headers, NOW) <= DAY + JITTER


@given(HEADERS, SENT, st.integers(1, 10**6), st.integers(1, 50), st.floats(0.01, DAY))
@profile
def test_no_headers_and_no_past_make_the_pace_slower_than_a_day(
    headers: dict[str, str], sent: list[float], burst: int, dms: int, interval: float
) -> None:
    told = allowances(headers, NOW)
    limits = told + own_count(sent, NOW, told=bool(told))
    for quick, left, seconds in limits:
        assert math.isfinite(quick) and left >= 0 and 0 <= seconds <= DAY
    assert 0 < round_wait(burst, dms, interval, limits)[0] <= DAY + JITTER


@pytest.mark.parametrize(
    "nonsense",
    [
        {"x-rate-limit-reset": "soon", "x-rate-limit-remaining": "0"},
        {"x-rate-limit-reset": str(int(NOW) - 100), "x-rate-limit-remaining": "0"},
        {"x-rate-limit-reset": "1800000900000", "x-rate-limit-remaining": "5"},
        {"x-rate-limit-reset": "9" * 400, "x-rate-limit-remaining": "0"},
        {"x-rate-limit-reset": str(int(NOW) + 60), "x-rate-limit-remaining": "-1"},
        {"x-rate-limit-reset": str(int(NOW) + 60), "x-rate-limit-remaining": "1e9"},
        {"x-rate-limit-reset": str(int(NOW) + 60)},
        {"retry-after": "-5"},
        {"retry-after": "1e400"},
        {"retry-after": "9" * 400},
    ],
    ids=lambda headers: "; ".join(f"{name}: {value[:14]}" for name, value in headers.items()),
)
def test_what_makes_no_sense_is_passed_over(nonsense: dict[str, str]) -> None:
    assert allowances(nonsense, NOW) == []
    # a minute where the reset is over, or else the length of X's window
    assert 55 <= limit_wait(nonsense, NOW) <= 900 + JITTER
    day = {"x-user-limit-24hour-reset": str(int(NOW) + 300), "x-user-limit-24hour-remaining": "0"}
    assert len(allowances({**nonsense, **day}, NOW)) == 1
    assert limit_wait({**nonsense, **day}, NOW) == pytest.approx(300, abs=JITTER)


def headers_of(
    left: int, seconds: float, name: str = "x-rate-limit", limit: int = 15
) -> dict[str, str]:
    return {
        f"{name}-limit": str(limit),
        f"{name}-remaining": str(left),
        f"{name}-reset": str(math.ceil(NOW + seconds)),
    }


WINDOW_LEFT = {**headers_of(0, 600), **headers_of(9, 7200, "x-user-limit-24hour", 1440)}
USER_DAY_LEFT = {**headers_of(5, 60), **headers_of(0, 7200, "x-user-limit-24hour", 1440)}
APP_DAY_LEFT = {**headers_of(5, 60), **headers_of(0, 7200, "x-app-limit-24hour", 1440)}


@pytest.mark.parametrize(
    "headers, seconds",
    [
        (headers_of(0, 700), 700),
        (WINDOW_LEFT, 600),
        (USER_DAY_LEFT, 7200),
        (APP_DAY_LEFT, 7200),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "7", **headers_of(0, 600)}, 600),
        # by X's clock, which is five minutes ahead of ours
        ({**headers_of(0, 600), "date": "Fri, 15 Jan 2027 08:05:00 GMT"}, 300),
        ({}, 900),
    ],
    ids=["window", "not the day", "the day", "the app's day", "retry-after", "both",
         "its clock", "nothing"],
)  # fmt: skip
def test_a_429_waits_for_the_reset_of_what_is_used_up(
    headers: dict[str, str], seconds: float
) -> None:
    assert seconds <= limit_wait(headers, NOW) <= seconds + JITTER


def test_a_back_off_doubles_from_a_second_to_five_minutes_with_jitter() -> None:
    for failures, seconds in enumerate([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300], 1):
        assert back_off(RETRY, failures) == pytest.approx(seconds, rel=0.25)
    assert back_off(RETRY, 10**9) == pytest.approx(300, rel=0.25)
    assert len({back_off(RETRY, 3) for _ in range(9)}) > 1


# ---- the rounds of a storm ----


def test_the_waits_of_a_burst_double_while_two_thirds_are_left() -> None:
    waits = [
        round_wait(k, 1, 60, allowances(headers_of(99 - k, 900, limit=99), NOW))
        for k in range(1, 9)
    ]
    assert [round(wait) for wait, _ in waits] == [1, 3, 7, 15, 31, 60, 60, 60]


@pytest.mark.parametrize("dms, seconds", [(1, 84), (2, 168), (3, 252)])
def test_from_then_on_a_round_waits_for_its_fair_share(dms: int, seconds: int) -> None:
    wait, why = round_wait(5, dms, 60, allowances(headers_of(10, 840), NOW))
    assert wait == pytest.approx(seconds, abs=2) and "X" not in why


def test_a_round_for_which_not_enough_is_left_waits_for_the_reset() -> None:
    wait, why = round_wait(5, 3, 60, allowances(headers_of(2, 840), NOW))
    assert wait == pytest.approx(840, abs=JITTER) and why == "X's limit"


def test_a_share_that_others_have_begun_on_is_used_no_faster_than_the_interval() -> None:
    assert round_wait(2, 1, 60, allowances(headers_of(90, 900, limit=200), NOW))[0] == 60


def test_the_tightest_of_several_limits_sets_the_pace() -> None:
    headers = {**headers_of(90, 900, limit=99), **headers_of(24, DAY, "x-app-limit-24hour", 1440)}
    assert round_wait(5, 1, 60, allowances(headers, NOW))[0] == pytest.approx(3600, abs=2)


class Storm(NamedTuple):
    """What became of a storm: when each DM went, how old its oldest alert was, and 429s."""

    times: list[float]
    ages: list[float]
    refused: int


def storm(
    seconds: float, recipients: int = 1, limit: int = 15, interval: float = 60, tells: bool = True
) -> Storm:
    """Alerts without a pause, under `limit` DMs in 15 minutes, in rounds as they are paced."""
    window_ends, used, refused, burst, now, due = 0.0, 0, 0, 0, NOW, NOW
    times: list[float] = []
    ages: list[float] = []
    while now < NOW + seconds:
        for _ in range(recipients):
            if now >= window_ends:
                window_ends, used = now + 900, 0
            used += 1
            refused += used > limit
            times.append(now)
        ages.append(now - due)
        due, burst = now, burst + 1  # what comes from now on waits for the next round
        headers = {
            "x-rate-limit-limit": str(limit),
            "x-rate-limit-remaining": str(max(0, limit - used)),
            "x-rate-limit-reset": str(math.ceil(window_ends)),
        }
        told = allowances(headers, now) if tells else []
        limits = told + own_count(times[-500:], now, told=bool(told))
        now += round_wait(burst, recipients, interval, limits)[0]
    return Storm(times, ages, refused)


@pytest.mark.parametrize("tells", [True, False], ids=["X tells its limit", "X tells nothing"])
@pytest.mark.parametrize("recipients, age", [(1, 87), (2, 163), (3, 225)])
def test_in_an_hour_of_storm_no_alert_waits_long_and_nothing_is_refused(
    recipients: int, age: float, tells: bool
) -> None:
    seen = storm(3600, recipients, tells=tells)
    assert seen.refused == 0
    assert max(seen.ages) <= age + 5
    assert len(seen.times) >= 0.8 * 4 * 15


def test_a_storm_begins_with_a_few_quick_dms() -> None:
    assert [round(t - NOW) for t in storm(30).times] == [0, 1, 4, 11, 26]


def test_a_large_limit_is_used_no_faster_than_the_interval() -> None:
    """Each DM costs money."""
    for limit, interval in ((200, 60), (99, 60), (200, 20)):
        seen = storm(3600, limit=limit, interval=interval)
        gaps = [after - before for before, after in zip(seen.times, seen.times[1:])]
        assert seen.refused == 0 and max(gaps) <= interval + 2
        assert min(gaps[6:]) >= interval


@pytest.mark.parametrize("recipients", [1, 3])
def test_a_week_of_storm_sends_no_more_than_500_dms_in_any_day_and_never_falls_silent(
    recipients: int,
) -> None:
    seen = storm(7 * DAY, recipients, limit=200, interval=30)
    worst = max(
        number - sum(moment <= last - DAY for moment in seen.times[:number])
        for number, last in enumerate(seen.times, 1)
        if number % 10 == 0
    )
    assert 480 <= worst <= 500
    gaps = [after - before for before, after in zip(seen.times, seen.times[1:])]
    assert max(gaps) < recipients * 600  # the second half of them is spread over the day
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


class TestTheFirstAlert:
    def test_goes_at_once_and_so_does_the_second(self, sentinel: Sentinel, x: FakeX) -> None:
        burst(sentinel, 2)
        assert [len(r.text) for r in x.requests] == [len(dm.text) for dm in x.dms]
        assert x.dms[1].at - x.dms[0].at < 5

    def test_goes_at_once_also_where_x_tells_no_limit(self, sentinel: Sentinel, x: FakeX) -> None:
        x.rate_limit_headers = False
        burst(sentinel, 2)

    def test_of_a_quiet_hour_and_those_after_it_go_at_once_in_spite_of_a_burst_before(
        self, sentinel: Sentinel, ahead: Clock
    ) -> None:
        burst(sentinel, 2)
        sentinel.wait_idle()
        for word in ("foxtrot", "golf"):  # as further ones they would wait 3 s and 7 s
            done = ahead.run(3600, "send", word)
            assert done.code == DELIVERED and done.seconds < 6


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
    CASES: Mapping[str, tuple[Mapping[str, float | str], float]] = {
        # what X's headers say (of a time: in so many seconds), and the wait in seconds
        "with a reset": ({"x_rate_limit_reset": 700.0, "x_rate_limit_remaining": "0"}, 700),
        "without a reset": ({}, 900),
        "with retry-after": ({"retry_after": "120"}, 120),
        "of the app's day": (
            {
                "x_rate_limit_reset": 60.0,
                "x_rate_limit_remaining": "5",
                "x_app_limit_24hour_reset": 7200.0,
                "x_app_limit_24hour_remaining": "0",
            },
            7200,
        ),
    }

    @pytest.mark.parametrize("case", CASES)
    def test_is_told_and_waited_for(self, sentinel: Sentinel, x: FakeX, case: str) -> None:
        values, seconds = self.CASES[case]
        headers = {k: in_seconds(v) if isinstance(v, float) else v for k, v in values.items()}
        x.answer(Answer(429, headers=limit_headers(**headers)), times=None)
        done = sentinel.run("send", "disk full")
        assert done.code == KEPT and "rate limit" in done.err, done.err
        status = sentinel.status()
        assert seconds - 15 < seconds_ahead(status["next_attempt"]) < seconds + 5
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

    def test_is_foreseen_where_x_says_that_nothing_is_left(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.limit, x.window = 1, 2.0
        sentinel.run("send", "alpha")
        for word in ("bravo", "charlie"):
            sentinel.run("send", "--no-wait", word)
        x.wait_for(lambda: len(x.dms) == 2, 30)
        assert x.refused_429 == []
        assert "bravo" in x.dms[1].text and "charlie" in x.dms[1].text

    def test_is_foreseen_for_the_second_of_two_recipients(self, fresh: Sentinel, x: FakeX) -> None:
        fresh.configure({"oncall": "2002", "second": "2003"})
        x.limit, x.window = 1, 2.0
        fresh.run("send", "--no-wait", "alpha")
        x.wait_for(lambda: len(x.dms) == 2, 30)
        assert x.refused_429 == []

    def test_of_the_day_is_foreseen_too(self, sentinel: Sentinel, x: FakeX) -> None:
        x.daily_limit = 1
        sentinel.run("send", "alpha")
        assert sentinel.run("send", "bravo").code == KEPT
        assert seconds_ahead(sentinel.status()["next_attempt"]) > DAY - 600
        assert len(x.requests) == 1

    def test_for_one_recipient_is_not_asked_about_for_the_other(
        self, fresh: Sentinel, x: FakeX
    ) -> None:
        fresh.configure({"oncall": "2002", "second": "2003"})
        x.answer(ERRORS["429-88"], times=None)
        done = fresh.run("send", "alpha")
        assert done.code == KEPT and "@oncall" in done.err and "@second" in done.err
        time.sleep(1)
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

    def test_delivers_where_a_person_raised_the_cap_or_the_limit_was_foreseen(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.daily_limit = 1
        sentinel.run("send", "alpha")
        assert sentinel.run("send", "bravo").code == KEPT
        x.daily_limit = 1000
        assert sentinel.run("flush").code == DELIVERED
        assert "bravo" in x.dms[1].text

    def test_ends_a_wait_for_the_sake_of_pace(self, sentinel: Sentinel, x: FakeX) -> None:
        x.limit = 3  # of which a third is used up at once
        sentinel.run("send", "alpha")
        assert sentinel.run("send", "bravo").code == KEPT
        assert sentinel.run("flush").code == DELIVERED


@pytest.mark.parametrize(
    "limit, error, words, code",
    [
        (1, None, "X's limit", KEPT),
        (3, None, "our own pace", KEPT),
        (15, ERRORS["402-credits"], "credits", REFUSED),
        (15, ERRORS["429-88"], "limit", KEPT),
    ],
    ids=["X's limit, foreseen", "our pace", "a person", "X's limit"],
)
def test_status_and_send_say_what_is_waited_for(
    sentinel: Sentinel, x: FakeX, limit: int, error: Answer | None, words: str, code: int
) -> None:
    x.limit = limit
    sentinel.run("send", "alpha")
    if error:
        x.answer(error, times=None)
        time.sleep(1.2)  # the pace
    done = sentinel.run("send", "bravo")
    assert done.code == code and words in done.err, done.err
    until(lambda: words in sentinel.run("status").out.splitlines()[0], 5)
    assert sentinel.run("status").code == code


# ---- for real: the clock jumps ----


class TestAClockThatJumped:
    @pytest.mark.parametrize("name", ["429-empty", "402-credits", "503-v2"])
    def test_back_leaves_no_wait_for_x_behind(
        self, sentinel: Sentinel, x: FakeX, ahead: Clock, name: str
    ) -> None:
        x.answer(ERRORS[name])
        assert ahead.run(30 * DAY, "send", "alpha").code in (KEPT, REFUSED)
        sentinel.kill()
        assert ahead.run(0, "send", "bravo").code == DELIVERED
        assert "alpha" in x.dms[0].text and "bravo" in x.dms[0].text

    def test_back_does_not_hold_up_an_alert_for_the_sake_of_pace(
        self, sentinel: Sentinel, x: FakeX, ahead: Clock
    ) -> None:
        x.limit = 3
        assert ahead.run(7200, "send", "alpha").code == DELIVERED
        sentinel.wait_idle()
        assert ahead.run(0, "send", "bravo").code == DELIVERED

    def test_ahead_ends_a_429_whose_reset_has_passed(
        self, sentinel: Sentinel, x: FakeX, ahead: Clock
    ) -> None:
        x.answer(ERRORS["429-empty"])
        assert sentinel.run("send", "alpha").code == KEPT
        sentinel.kill()
        assert ahead.run(1000, "send", "bravo").code == DELIVERED


# ---- for real: many hosts, one account ----


def host_of(text: str) -> str:
    return text[1:].split()[0]


def test_a_fleet_that_shares_an_account_shares_its_limit_and_no_host_starves(
    tmp_path: Path, x: FakeX
) -> None:
    fleet = [Sentinel(tmp_path / f"home{number}", x) for number in range(6)]
    x.limit, x.window = 0, 2.0  # others have used it up, until each has been told so
    try:
        for number, one in enumerate(fleet):
            one.configure(host=f"host{number}")
            assert one.run("send", "--no-wait", "disk full").code == DELIVERED
        x.wait_for(lambda: len({host_of(r.text) for r in x.requests}) == len(fleet), 30)
        x.limit = 4
        x.wait_for(lambda: len({host_of(dm.text) for dm in x.dms}) == len(fleet), 40)
        assert len(x.dms) == len(fleet)
        # six need two windows; whoever is refused asks once in each
        refused = collections.Counter(host_of(r.text) for r in x.requests if r.status == 429)
        assert max(refused.values()) <= 4, refused
    finally:
        for one in fleet:
            one.kill()


@pytest.mark.parametrize("told, seconds", [({"retry-after": "30"}, 30), ({}, 800)])
def test_a_429_while_something_is_left_of_each_limit_lasts_no_longer_than_the_shortest(
    told: dict[str, str], seconds: float
) -> None:
    headers = {**headers_of(14, 800), **headers_of(1300, 80_000, "x-user-limit-24hour", 1440)}
    assert limit_wait({**headers, **told}, NOW) == pytest.approx(seconds, abs=JITTER)


@pytest.mark.parametrize(
    "headers, seconds",
    [({"x-rate-limit-reset": str(int(NOW) + 600)}, 600), ({"retry-after": "40.5"}, 40.5)],
)
def test_a_429_that_tells_only_its_end_lasts_until_then(
    headers: dict[str, str], seconds: float
) -> None:
    assert limit_wait(headers, NOW) == pytest.approx(seconds, abs=JITTER)
