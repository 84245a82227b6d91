"""The first alert goes at once, a storm becomes a few DMs inside X's limits, and 429 is obeyed.

X's window of 15 minutes is a few seconds long here: the pace follows what X says of it.  Where half
an hour or a day has to pass, the functions that set the pace are run on a clock of the test's own.
"""

from __future__ import annotations

import collections
import datetime
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Sentinel
from fake_x import ERRORS, Answer, FakeX
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_sentinel import (
    Queue,
    State,
    back_off,
    exhausted,
    fair_share,
    limit_wait,
    limits,
    note_answer,
    note_delivery,
    pace,
)

DELIVERED, KEPT = 0, 75
DAY = 86_400.0
NOW = 1_800_000_000.0
profile = settings(max_examples=300, deadline=None, database=None)


def seconds_ahead(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp() - time.time()


def told(text: str) -> int:
    """How many alerts a DM says it stands for."""
    several = re.match(r"\[.*?\] ([\d,]+) alerts, ", text)
    return int(several[1].replace(",", "")) if several else 1


def oldest(text: str) -> float:
    """When the oldest alert of a DM was sent, to the second."""
    clock = re.match(r"\[.*? (\d\d:\d\d:\d\d)\] |\[.*?\] [\d,]+ alerts, (\d\d:\d\d:\d\d) to", text)
    assert clock, text
    today = time.strftime("%Y-%m-%d ")
    return time.mktime(time.strptime(today + (clock[1] or clock[2]), "%Y-%m-%d %H:%M:%S"))


# ---- the functions that set the pace ----

NAMES = [
    f"{limit}-{value}"
    for limit in ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")
    for value in ("limit", "remaining", "reset")
] + ["date"]
VALUES = st.one_of(
    st.integers(-(10**3), 10**3).map(str),
    st.integers(int(NOW) - 10**6, int(NOW) + 10**6).map(str),
    st.integers(-(10**400), 10**400).map(str),
    st.floats().map(str),
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "0", "-0", "00", "+5", "1_000", "٣", "1e9", "inf", "nan", "0x10", "9" * 5000,
         "-" + "9" * 400, "Mon, 23 Nov 2026 14:30:00 GMT", "Mon, 01 Jan 0001 00:00:00 GMT",
         "Mon, 23 Nov 2026 14:30:00 -0000", "Fri, 31 Dec 9999 23:59:59 +9999"]
    ),
)  # fmt: skip
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES)


@given(HEADERS, st.integers(1, 100))
@profile
def test_no_headers_can_make_a_wait_longer_than_a_day_or_than_nothing(
    headers: dict[str, str], failures: int
) -> None:
    assert 0 < limit_wait(headers, NOW, failures) <= DAY
    assert 0 <= exhausted(headers, NOW) <= DAY
    assert 0 < fair_share(headers, NOW) <= DAY


@given(HEADERS)
@profile
def test_what_is_read_from_any_headers_are_numbers(headers: dict[str, str]) -> None:
    for left, reset in limits(headers, NOW):
        assert (left is None or isinstance(left, int)) and math.isfinite(reset) and reset <= DAY


@given(st.integers(0, 10**6), st.floats(0, DAY))
@profile
def test_the_pace_is_never_slower_than_a_fair_share(burst: int, share: float) -> None:
    assert 0 <= pace(burst, share) <= share


def test_the_waits_of_a_burst_double_up_to_the_fair_share() -> None:
    assert [pace(burst, 60) for burst in range(1, 9)] == [1, 3, 7, 15, 31, 60, 60, 60]


@given(st.integers(1, 10**9))
@profile
def test_a_back_off_stays_within_its_bounds_but_for_its_jitter(failures: int) -> None:
    assert 0.9 <= back_off((1.0, 300.0), failures) <= 330


def test_a_back_off_doubles() -> None:
    for failures, seconds in ((1, 1), (2, 2), (3, 4), (4, 8), (9, 256), (10, 300), (99, 300)):
        assert back_off((1.0, 300.0), failures) == pytest.approx(seconds, rel=0.11)


def headers_of(left: int | str, seconds: float, name: str = "x-rate-limit") -> dict[str, str]:
    return {f"{name}-remaining": str(left), f"{name}-reset": str(int(NOW + seconds))}


def test_a_fair_share_lets_what_is_left_last_until_the_reset() -> None:
    assert fair_share(headers_of(14, 840), NOW) == 60


def test_of_several_limits_the_tightest_sets_the_share() -> None:
    headers = {**headers_of(90, 900), **headers_of(24, 86_400, "x-user-limit-24hour")}
    assert fair_share(headers, NOW) == 3600


@pytest.mark.parametrize("headers", [{}, {"x-rate-limit-reset": "soon"}, headers_of(5, -10)])
def test_where_x_does_not_tell_its_limit_a_share_is_a_minute(headers: dict[str, str]) -> None:
    assert fair_share(headers, NOW) == 60


def test_a_reset_is_taken_by_the_clock_of_x() -> None:
    headers = {**headers_of(0, 600), "date": "Fri, 15 Jan 2027 08:05:00 GMT"}  # NOW + 5 minutes
    assert exhausted(headers, NOW) == limit_wait(headers, NOW, 1) == 300


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0, 1e12))
@profile
def test_no_stored_wait_is_believed_beyond_a_day(at: float, wait: float, now: float) -> None:
    state = State("")
    state.at, state.wait = at, wait
    assert state.due(now) <= now + DAY + 1


def test_a_wait_that_began_in_the_future_is_over() -> None:
    state = State("")
    state.at, state.wait = NOW + 7200, 900
    assert state.due(NOW) <= NOW


# ---- half an hour of storm, on a clock of its own ----


class Clock:
    """The time of day, as the test has it."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    its_own = Clock()
    monkeypatch.setattr(time, "time", its_own.time)
    return its_own


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[Queue]:
    opened = Queue(str(tmp_path / "queue.db"))
    yield opened
    opened.close()


class Storm(NamedTuple):
    """What became of a storm: when each DM went, how old its oldest alert was, and 429s."""

    times: list[float]
    ages: list[float]
    refused: int


def storm(queue: Queue, clock: Clock, seconds: float, limit: int) -> Storm:
    """Ten alerts a second, under `limit` DMs in 15 minutes, sent when the pace lets them."""
    window_ends, used, refused = 0.0, 0, 0
    times: list[float] = []
    ages: list[float] = []
    oldest_waiting = began = clock.now
    while True:
        due = max(queue.state(scope).due(clock.now) for scope in ("", "oncall"))
        clock.now = max(due, oldest_waiting)
        if clock.now > began + seconds:
            break
        if clock.now >= window_ends:
            window_ends, used = clock.now + 900, 0
        used += 1
        refused += used > limit
        headers = {
            "x-rate-limit-limit": str(limit),
            "x-rate-limit-remaining": str(max(0, limit - used)),
            "x-rate-limit-reset": str(math.ceil(window_ends)),
        }
        times.append(clock.now)
        ages.append(clock.now - oldest_waiting)
        oldest_waiting = clock.now + 0.1
        with queue:
            note_answer(queue, headers)
            note_delivery(queue, "oncall", headers, 1)
    return Storm(times, ages, refused)


def test_half_an_hour_of_storm_is_thirty_dms_and_none_is_refused(
    queue: Queue, clock: Clock
) -> None:
    seen = storm(queue, clock, 1800, limit=15)
    assert seen.refused == 0 and 28 <= len(seen.times) <= 30


def test_in_a_storm_no_alert_is_older_than_two_fair_shares(queue: Queue, clock: Clock) -> None:
    assert max(storm(queue, clock, 1800, limit=15).ages) <= 120


def test_a_larger_limit_is_made_use_of(queue: Queue, clock: Clock) -> None:
    seen = storm(queue, clock, 1800, limit=99)
    assert seen.refused == 0 and len(seen.times) > 150 and max(seen.ages) < 30


def test_six_hours_of_storm_meet_no_refusal(queue: Queue, clock: Clock) -> None:
    seen = storm(queue, clock, 6 * 3600, limit=15)
    assert seen.refused == 0 and len(seen.times) <= 24 * 15


def test_a_storm_begins_with_a_few_quick_dms(queue: Queue, clock: Clock) -> None:
    times = storm(queue, clock, 30, limit=15).times
    assert [round(t - NOW) for t in times] == [0, 1, 4, 11, 26]


def test_after_a_quiet_hour_alerts_go_as_quickly_as_ever(queue: Queue, clock: Clock) -> None:
    storm(queue, clock, 900, limit=15)
    clock.now += 3600
    began = clock.now
    times = storm(queue, clock, 30, limit=15).times
    assert [round(t - began) for t in times] == [0, 1, 4, 11, 26]


def test_a_burst_is_not_over_before_a_gap_of_two_shares(queue: Queue, clock: Clock) -> None:
    storm(queue, clock, 300, limit=15)
    clock.now += 80
    began = clock.now
    times = storm(queue, clock, 40, limit=15).times
    assert [round(t - began) for t in times] == [0]


# ---- the first alert ----

SHIFTED = """
import sys
import time

true_time = time.time
time.time = lambda: true_time() + float(sys.argv[1])

import bird_sentinel

sys.exit(bird_sentinel.main(sys.argv[2:]))
"""


def run_shifted(sentinel: Sentinel, seconds: float, *args: str) -> int:
    """Run the command while the clock, X's too, is so many seconds ahead."""
    assert sentinel.x
    sentinel.x.clock_offset = seconds
    words = [sys.executable, "-c", SHIFTED, str(seconds), *args]
    done = subprocess.run(
        words, env=sentinel.env, cwd="/", capture_output=True, timeout=60, check=False
    )
    return done.returncode


class TestTheFirstAlert:
    def test_goes_at_once(self, sentinel: Sentinel, x: FakeX) -> None:
        done = sentinel.run("send", "disk full")
        assert done.code == DELIVERED and done.seconds < 20

    def test_goes_at_once_also_without_anybody_waiting(self, sentinel: Sentinel, x: FakeX) -> None:
        sentinel.run("send", "--no-wait", "disk full")
        x.wait_for(lambda: x.dms, 20)

    def test_goes_at_once_also_where_x_tells_no_limit(self, sentinel: Sentinel, x: FakeX) -> None:
        x.rate_limit_headers = False
        assert [sentinel.run("send", word).code for word in ("alpha", "bravo")] == [0, 0]

    def test_of_a_quiet_hour_and_the_one_after_it_go_at_once_in_spite_of_a_burst_before(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        for word in ("alpha", "bravo", "charlie"):
            assert sentinel.run("send", word).code == DELIVERED
        sentinel.wait_idle()
        for word in ("delta", "foxtrot"):  # a fifth DM of the burst would have to wait 15 seconds
            assert run_shifted(sentinel, 3600, "send", word) == DELIVERED


# ---- a storm ----

STORM = """
import sys
import time

import bird_sentinel

began, number = time.monotonic(), 0
while time.monotonic() - began < float(sys.argv[1]):
    if bird_sentinel.main(["send", "--no-wait", "--", f"Failed password, port {number}"]):
        sys.exit("an alert was not accepted")
    number += 1
    time.sleep(max(0, began + number * float(sys.argv[2]) - time.monotonic()))
print(number)
"""


def rain(sentinel: Sentinel, seconds: float, every: float = 0.1) -> int:
    """Let alerts come that fast for so long.  Returns how many there were."""
    done = subprocess.run(
        [sys.executable, "-c", STORM, str(seconds), str(every)], env=sentinel.env, cwd="/",
        capture_output=True, text=True, timeout=seconds + 60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


class TestAStormOfTwoWindows:
    def test_meets_no_429_and_is_told_in_time_and_to_the_last_alert(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.limit, x.window = 15, 12.0  # a fair share is some 0.8 seconds
        number = rain(sentinel, 24)
        sentinel.wait_idle(40)
        assert x.refused_429 == []
        assert sum(told(dm.text) for dm in x.dms) == number
        # all at the start of a window would leave some ten seconds of silence
        assert max(dm.at - oldest(dm.text) for dm in x.dms) < 9
        assert 8 <= len(x.dms) <= 3 * x.limit


class TestAStormUnderALargeLimit:
    def test_makes_use_of_it(self, sentinel: Sentinel, x: FakeX) -> None:
        x.limit, x.window = 99, 10.0
        number = rain(sentinel, 8, every=0.05)
        sentinel.wait_idle(30)
        assert x.refused_429 == []
        assert sum(told(dm.text) for dm in x.dms) == number
        assert len(x.dms) > 20


# ---- 429 ----


def limit_headers(**values: object) -> dict[str, str | None]:
    """Headers of a 429 that say this and nothing else; `user_…` and `app_…` are of the day."""
    told: dict[str, str | None] = dict.fromkeys(NAMES[:3])
    for name, value in values.items():
        limit, _, value_name = name.rpartition("_")
        prefix = {
            "": "x-rate-limit", "user": "x-user-limit-24hour", "app": "x-app-limit-24hour"
        }[limit]  # fmt: skip
        told[f"{prefix}-{value_name}"] = str(value)
    return told


def in_seconds(seconds: float) -> int:
    return int(time.time() + seconds)


class TestA429:
    CASES: Mapping[str, tuple[dict[str, float | str], float, float]] = {
        # what X's headers say (of a time: in so many seconds), and the wait in seconds, from … to
        "with a reset": ({"reset": 700.0}, 690, 720),
        "with a reset and nothing left": ({"reset": 700.0, "remaining": "0"}, 690, 720),
        "without a reset": ({}, 800, 1000),
        "with a reset that is no number": ({"reset": "soon", "remaining": "0"}, 800, 1000),
        "with an empty reset": ({"reset": "", "remaining": ""}, 800, 1000),
        "with a fraction for a reset": ({"reset": "1e30"}, 800, 1000),
        "with a reset in the past": ({"reset": -100.0, "remaining": "0"}, 45, 1000),
        "with a negative reset": ({"reset": "-5"}, 45, 1000),
        "with a reset of zero": ({"reset": "0"}, 45, 1000),
        "with an endless reset": ({"reset": "-" + "9" * 400}, 45, 1000),
        "with a reset years ahead": ({"reset": 1e9}, DAY / 2, DAY + 60),
        "with a reset without end": ({"reset": "9" * 400}, DAY / 2, DAY + 60),
        "of the user's day": (
            {"reset": 60.0, "remaining": "5", "user_reset": 7200.0, "user_remaining": "0"},
            7190, 7260,
        ),
        "of the app's day": (
            {"reset": 60.0, "remaining": "5", "app_reset": 7200.0, "app_remaining": "0"},
            7190, 7260,
        ),
        "of the window while the day lasts": (
            {"reset": 600.0, "remaining": "0", "user_reset": 7200.0, "user_remaining": "9"},
            590, 620,
        ),
    }  # fmt: skip

    @pytest.mark.parametrize("case", CASES)
    def test_is_waited_for(self, sentinel: Sentinel, x: FakeX, case: str) -> None:
        values, shortest, longest = self.CASES[case]
        given_values = {
            name: in_seconds(value) if isinstance(value, float) else value
            for name, value in values.items()
        }
        x.answer(Answer(429, headers=limit_headers(**given_values)), times=None)
        done = sentinel.run("send", "disk full")
        assert done.code == KEPT and "rate limit" in done.err, done.err
        status = sentinel.status()
        assert shortest - 5 < seconds_ahead(status["next_attempt"]) < longest
        assert status["pending"] == 1
        assert len(x.requests) == 1

    def test_with_a_reset_that_comes_is_obeyed_and_nothing_is_lost(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        reset = in_seconds(6)
        x.answer(Answer(429, headers=limit_headers(reset=reset, remaining=0)))
        assert sentinel.run("send", "--no-wait", "disk full").code == DELIVERED
        x.wait_for(lambda: x.dms, 30)
        assert [r.status for r in x.requests] == [429, 201]
        assert x.requests[1].at >= reset

    def test_is_foreseen_where_x_says_that_nothing_is_left(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.limit, x.window = 1, 5.0
        sentinel.run("send", "alpha")
        for word in ("bravo", "charlie"):
            sentinel.run("send", "--no-wait", word)
        x.wait_for(lambda: len(x.dms) == 2, 30)
        assert x.refused_429 == []
        assert "bravo" in x.dms[1].text and "charlie" in x.dms[1].text

    def test_of_the_day_is_foreseen_too(self, sentinel: Sentinel, x: FakeX) -> None:
        x.daily_limit = 1
        sentinel.run("send", "alpha")
        assert sentinel.run("send", "bravo").code == KEPT
        assert seconds_ahead(sentinel.status()["next_attempt"]) > DAY - 600
        assert len(x.requests) == 1

    def test_is_never_cut_short_whoever_asks(self, sentinel: Sentinel, x: FakeX) -> None:
        x.answer(Answer(429, headers=limit_headers(reset=in_seconds(600))), times=None)
        sentinel.run("send", "alpha")
        assert sentinel.run("flush").code == KEPT
        assert sentinel.run("send", "bravo").code == KEPT
        sentinel.kill()
        sentinel.run("send", "--no-wait", "charlie")  # which starts a worker anew
        assert sentinel.run("flush").code == KEPT
        assert seconds_ahead(sentinel.status()["next_attempt"]) > 500
        assert len(x.requests) == 1

    def test_that_was_foreseen_is_not_cut_short_by_flush_either(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.limit = 1
        sentinel.run("send", "alpha")
        sentinel.run("send", "--no-wait", "bravo")
        assert sentinel.run("flush").code == KEPT
        assert len(x.requests) == 1

    def test_after_429_waits_grow_where_the_resets_lie_in_the_past(self) -> None:
        past = headers_of(0, -100)
        waits = [limit_wait(past, NOW, failures) for failures in (1, 2, 3, 9)]
        assert waits == sorted(waits) and waits[0] > 50 and 800 < waits[-1] < 1000


# ---- the clock jumps ----


class TestAClockThatJumped:
    def test_back_leaves_no_429_to_be_waited_for(self, sentinel: Sentinel, x: FakeX) -> None:
        x.answer(ERRORS["429-empty"])
        assert run_shifted(sentinel, 7200, "send", "alpha") == KEPT
        sentinel.kill()
        x.clock_offset = 0
        assert sentinel.run("send", "bravo").code == DELIVERED
        assert "alpha" in x.dms[0].text and "bravo" in x.dms[0].text

    def test_back_leaves_no_back_off_to_be_waited_for(self, sentinel: Sentinel, x: FakeX) -> None:
        x.answer(ERRORS["403-html"])
        assert run_shifted(sentinel, 30 * DAY, "send", "alpha") == 77
        sentinel.kill()
        x.clock_offset = 0
        assert sentinel.run("send", "bravo").code == DELIVERED

    def test_back_does_not_hold_up_an_alert_for_the_sake_of_pace(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        for word in ("alpha", "bravo"):
            assert run_shifted(sentinel, 7200, "send", word) == DELIVERED
        sentinel.wait_idle()
        x.clock_offset = 0
        assert sentinel.run("send", "charlie").code == DELIVERED

    def test_ahead_ends_a_429_whose_reset_has_passed(self, sentinel: Sentinel, x: FakeX) -> None:
        x.answer(ERRORS["429-empty"])
        assert sentinel.run("send", "alpha").code == KEPT
        sentinel.kill()
        assert run_shifted(sentinel, 1000, "send", "bravo") == DELIVERED


# ---- many hosts, one account ----


def host_of(text: str) -> str:
    return text[1:].split()[0]


class TestAFleet:
    HOSTS, LIMIT, WINDOW = 20, 15, 6.0

    @pytest.fixture
    def fleet(self, tmp_path: Path, x: FakeX) -> Iterator[list[Sentinel]]:
        made = []
        for number in range(self.HOSTS):
            home = tmp_path / f"home{number}"
            home.mkdir()
            one = Sentinel(home, x)
            one.configure(host=f"host{number}")
            made.append(one)
        yield made
        for one in made:
            one.kill()

    def window(self, x: FakeX, at: float) -> int:
        """In which of X's windows this was; each begins with the first request after the last."""
        began: list[float] = []
        for request in x.requests:
            if not began or request.at >= began[-1] + self.WINDOW:
                began.append(request.at)
        return sum(start <= at for start in began)

    def test_of_twenty_hosts_shares_a_limit_of_fifteen_and_none_starves(
        self, fleet: list[Sentinel], x: FakeX
    ) -> None:
        x.limit, x.window = 0, self.WINDOW  # others have used it up, until each has been told so
        for one in fleet:
            assert one.run("send", "--no-wait", f"alert of {one.home.name}.").code == DELIVERED
        x.wait_for(lambda: len({host_of(r.text) for r in x.requests}) == self.HOSTS, 60)
        x.limit = self.LIMIT
        x.wait_for(lambda: len(x.dms) == self.HOSTS, 60)
        assert len({host_of(dm.text) for dm in x.dms}) == self.HOSTS
        # twenty need two windows, and have one more
        used = self.window(x, x.dms[-1].at) - self.window(x, x.dms[0].at) + 1
        assert used <= 3
        refusals = collections.Counter(
            (self.window(x, r.at), host_of(r.text)) for r in x.requests if r.status == 429
        )
        assert set(refusals.values()) == {1}, refusals
