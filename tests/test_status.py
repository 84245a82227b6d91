"""status in each state of affairs, for people and monitors; flush where there is little to do."""

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

DMS = "/2/dm_conversations/"
KEYS = [
    "account", "recipients", "pending", "oldest_pending", "next_attempt", "last_delivery",
    "last_error", "worker", "config", "queue",
]  # fmt: skip
IDLE = {"pending": 0, "oldest_pending": None, "next_attempt": None, "worker": False}


def told(sentinel: Sentinel) -> tuple[int, str, dict[str, Any]]:
    """The exit status, the first line for a person, and the JSON; the exit statuses agree."""
    plain, full = sentinel.run("status"), sentinel.run("status", "--json")
    assert plain.code == full.code, (plain, full)
    return plain.code, plain.out.splitlines()[0], json.loads(full.out)


def moment(text: str) -> datetime:
    """ISO 8601 with an offset, as Python 3.9 reads it."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", text), text
    return datetime.fromisoformat(text)


def seconds_from_now(text: str) -> float:
    return moment(text).timestamp() - time.time()


# ---- in each state ----


def test_never_authorized(fresh: Sentinel) -> None:
    code, first, full = told(fresh)
    assert (code, first.partition(":")[0]) == (78, "problem")
    assert "not authorized yet" in first
    assert full == {
        **IDLE, "account": None, "recipients": {}, "last_delivery": None,
        "last_error": full["last_error"], "config": str(fresh.config), "queue": str(fresh.queue),
    }  # fmt: skip
    assert "not authorized yet" in full["last_error"]


def test_never_authorized_names_the_next_step(fresh: Sentinel) -> None:
    assert "bird_sentinel authorize" in fresh.run("status").out


def test_never_authorized_with_an_alert_that_waits_for_it(fresh: Sentinel) -> None:
    fresh.run("send", "disk full")
    code, first, full = told(fresh)
    assert (code, full["pending"]) == (78, 1)
    assert "1 alert pending since" in first


def test_authorized_and_never_used(sentinel: Sentinel) -> None:
    code, first, full = told(sentinel)
    assert (code, first) == (0, "ok: nothing pending")
    assert full == {
        **IDLE, "account": "sentinel_bot", "recipients": {"oncall": "2002"}, "last_delivery": None,
        "last_error": None, "config": str(sentinel.config), "queue": str(sentinel.queue),
    }  # fmt: skip


def test_after_a_delivery(sentinel: Sentinel) -> None:
    sentinel.run("send", "disk full")
    sentinel.wait_idle()
    code, first, full = told(sentinel)
    assert (code, first) == (0, "ok: nothing pending")
    assert {name: full[name] for name in IDLE} == IDLE
    assert abs(seconds_from_now(full["last_delivery"])) < 60


def test_while_x_is_out_of_reach(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    began = time.time()
    sentinel.run("send", "disk full")
    code, first, full = told(sentinel)
    assert (code, full["pending"], full["worker"]) == (75, 1, True)
    assert re.fullmatch(
        r"problem: 1 alert pending since \d\d:\d\d:\d\d: X cannot be reached: .+", first
    )
    assert "X cannot be reached" in full["last_error"]
    assert began - 1 <= moment(full["oldest_pending"]).timestamp() <= began + 30
    assert -5 < seconds_from_now(full["next_attempt"]) < 330


def test_while_x_refuses_our_token(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["401-code-89"], times=None, path=DMS)
    sentinel.run("send", "disk full")
    code, first, full = told(sentinel)
    assert (code, full["pending"], full["worker"]) == (77, 1, True)
    assert first.startswith("problem: 1 alert pending since ") and "token" in first
    assert 600 < seconds_from_now(full["next_attempt"]) < 1100
    assert "bird_sentinel authorize" in sentinel.run("status").out


def test_while_one_of_two_recipients_does_not_accept_dms(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.configure({"oncall": "2002", "shy": "2004"})
    x.add_user("shy", "2004", accepts_dms=False)
    sentinel.run("send", "disk full")
    code, first, full = told(sentinel)
    assert (code, full["pending"]) == (77, 1)
    assert "does not accept" in full["last_error"]
    assert full["last_delivery"] is not None


def test_while_the_next_dm_of_a_burst_waits(sentinel: Sentinel) -> None:
    for word in ("one", "two"):
        sentinel.run("send", word)
    sentinel.run("send", "--no-wait", "three")  # three seconds after the second
    code, first, full = told(sentinel)
    assert (code, full["pending"], full["last_error"]) == (75, 1, None)
    assert re.fullmatch(r"busy: 1 alert pending since \d\d:\d\d:\d\d", first)
    assert -1 <= seconds_from_now(full["next_attempt"]) < 5


def test_an_alert_for_several_recipients_is_one_alert(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.configure({"oncall": "2002", "second": "2003"})
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    for word in ("one", "two"):
        sentinel.run("send", word)
    assert sentinel.status()["pending"] == 2


def test_an_error_that_is_over_is_told_no_more(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], path=DMS)
    sentinel.run("send", "disk full")
    assert sentinel.run("flush").code == 0
    code, first, full = told(sentinel)
    assert (code, first, full["last_error"]) == (0, "ok: nothing pending", None)


def test_an_unsafe_config(sentinel: Sentinel) -> None:
    sentinel.config.chmod(0o604)
    code, first, full = told(sentinel)
    assert (code, first.partition(":")[0]) == (78, "problem")
    assert f"chmod 600 {sentinel.config}" in sentinel.run("status").out


@pytest.mark.parametrize("damage", ["garbage", "directory"])
def test_a_queue_that_cannot_be_read(sentinel: Sentinel, damage: str) -> None:
    if damage == "garbage":
        sentinel.queue.write_bytes(b"no database at all " * 500)
    else:
        sentinel.queue.mkdir()
    code, first, full = told(sentinel)
    assert (code, first.partition(":")[0]) == (75, "problem")
    assert str(sentinel.queue) in full["last_error"]


def test_looking_at_a_damaged_queue_leaves_it_as_it_is(sentinel: Sentinel) -> None:
    sentinel.queue.write_bytes(b"no database at all " * 500)
    sentinel.run("status")
    assert sentinel.queue.read_bytes() == b"no database at all " * 500


@pytest.fixture
def refused(sentinel: Sentinel, x: FakeX) -> Sentinel:
    """With an alert that X refused for its content."""
    x.answer(
        ERRORS["403-151-other"], times=None, path=DMS, when=lambda request: "http" in request.text
    )
    done = sentinel.run("send", "GET http://\x1b[31mevil.example/\x1b]0;owned\x07 by root")
    assert done.code == 77, done
    sentinel.wait_idle(30)
    return sentinel


def test_an_alert_that_x_refused_for_its_content_is_shown_with_the_reason(
    refused: Sentinel,
) -> None:
    out = refused.run("status").out
    assert "GET http://evil.example/ by root" in out
    assert "X refuses the text" in out


def test_an_alert_that_x_refused_is_no_longer_pending(refused: Sentinel) -> None:
    full = refused.status()
    assert {name: full[name] for name in IDLE} == IDLE


def test_refused_alerts_are_forgotten_when_flush_is_told_to(refused: Sentinel) -> None:
    assert "flush --discard-refused" in refused.run("status").out
    assert refused.run("flush", "--discard-refused").code == 0
    assert "evil.example" not in refused.run("status").out


# ---- what it touches ----


def test_it_makes_no_files(fresh: Sentinel) -> None:
    fresh.run("status")
    fresh.run("status", "--json")
    assert list(fresh.home.iterdir()) == []


def test_it_asks_x_nothing(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.run("status")
    assert x.connects == []


def test_it_does_not_wait_for_a_worker_that_waits_for_x(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(mode="stall"), path=DMS)
    sentinel.run("send", "--no-wait", "disk full")
    x.wait_for(lambda: x.requests, 30)
    done = sentinel.run("status", "--json")
    assert done.seconds < 10
    assert (done.code, json.loads(done.out)["worker"]) == (75, True)


# ---- how it says it ----


@pytest.mark.parametrize("state", ["never authorized", "authorized", "pending"])
def test_the_json_has_these_keys_and_no_others(fresh: Sentinel, x: FakeX, state: str) -> None:
    if state != "never authorized":
        fresh.configure()
    if state == "pending":
        x.answer(ERRORS["402-credits"], times=None, path=DMS)
        fresh.run("send", "disk full")
    assert list(json.loads(fresh.run("status", "--json").out)) == KEYS


def test_times_in_the_json_have_the_local_offset(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], path=DMS, when=lambda request: "full" in request.text)
    sentinel.run("send", "disk okay")
    sentinel.run("send", "disk full")
    full = json.loads(sentinel.run("status", "--json", env={"TZ": "IST-5:30"}).out)
    for name in ("oldest_pending", "next_attempt", "last_delivery"):
        assert moment(full[name]).utcoffset() == timedelta(hours=5, minutes=30), name


def test_the_first_line_says_since_when_in_local_time(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    sentinel.run("send", "disk full")
    oldest = moment(sentinel.status()["oldest_pending"])
    first = sentinel.run("status", env={"TZ": "IST-5:30"}).out.splitlines()[0]
    assert (oldest + timedelta(hours=5, minutes=30) - (oldest.utcoffset() or timedelta())).strftime(
        "%H:%M:%S"
    ) in first


def test_what_x_said_and_the_config_holds_cannot_drive_the_terminal(
    sentinel: Sentinel, x: FakeX
) -> None:
    config = sentinel.config.read_text()
    sentinel.config.write_text(config.replace("sentinel_bot", "bot\x1b[2J\x9b31m\x07"))
    evil = Answer(403, json={"title": "no\x1b]0;owned\x07\x1b[31m\r\u202e", "detail": "\x9b2J"})
    x.answer(evil, times=None, path=DMS)
    done = sentinel.run("send", "disk full")
    assert done.code == 77, done
    out = done.err + sentinel.run("status").out + sentinel.run("status", "--json").out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out), ascii(out)


def test_a_put_aside_alert_cannot_drive_the_terminal(refused: Sentinel) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", refused.run("status").out)


def test_no_secret_is_shown(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.run("send", "disk full")
    out = sentinel.run("status").out + sentinel.run("status", "--json").out
    secrets = re.findall(r"(?:secret|token|key) = (\S+)", sentinel.config.read_text())
    assert len(secrets) == 4
    assert not [secret for secret in secrets if secret in out]


def test_the_home_directory_is_the_password_databases_where_home_is_unset(
    fresh: Sentinel,
) -> None:
    del fresh.env["HOME"]
    expected = os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".config", "bird_sentinel")
    assert os.path.dirname(fresh.status()["config"]) == expected


def test_a_relative_xdg_config_home_is_not_believed(fresh: Sentinel) -> None:
    done = fresh.run("status", "--json", env={"XDG_CONFIG_HOME": "here"})
    assert json.loads(done.out)["config"] == str(fresh.config)


def test_a_config_of_another_name_and_its_queue_are_told(fresh: Sentinel) -> None:
    path = fresh.home / "other.ini"
    full = json.loads(fresh.run("status", "--json", "--config", str(path)).out)
    assert full["config"] == str(path)
    assert os.path.dirname(full["queue"]) == str(fresh.home)


def test_a_moved_queue_is_told(sentinel: Sentinel) -> None:
    sentinel.configure(queue="spool/alerts.db")
    assert sentinel.status()["queue"] == str(sentinel.directory / "spool" / "alerts.db")


# ---- flush, with little to do ----


def test_flush_with_nothing_pending_is_well(sentinel: Sentinel, x: FakeX) -> None:
    done = sentinel.run("flush")
    assert (done.code, done.out) == (0, "nothing is pending\n")
    assert x.connects == []


def test_flush_says_how_many_it_delivered(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], path=DMS)
    sentinel.run("send", "one")
    sentinel.run("send", "two")
    done = sentinel.run("flush")
    assert (done.code, done.out) == (0, "delivered: 2 alerts\n")


def test_flush_without_a_config_is_78_and_names_the_next_step(fresh: Sentinel) -> None:
    done = fresh.run("flush")
    assert done.code == 78, done
    assert "bird_sentinel authorize" in done.err


def test_flush_while_x_still_refuses_is_77(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    sentinel.run("send", "disk full")
    done = sentinel.run("flush")
    assert (done.code, "credits" in done.err) == (77, True), done


def test_flush_while_x_is_out_of_reach_is_75(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    sentinel.run("send", "disk full")
    done = sentinel.run("flush")
    assert (done.code, "cannot be reached" in done.err) == (75, True), done


def test_no_worker_is_told_when_it_has_ended(sentinel: Sentinel) -> None:
    sentinel.run("send", "disk full")
    until(lambda: not sentinel.processes(), 20)
    assert sentinel.status()["worker"] is False


def test_it_tells_of_alerts_that_came_while_the_config_with_another_queue_was_unreadable(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure(queue=str(sentinel.home / "elsewhere.db"))
    x.stop()
    sentinel.config.chmod(0o644)
    assert sentinel.run("send", "--no-wait", "disk full").code == 78
    sentinel.config.chmod(0o600)
    assert sentinel.status()["pending"] == 1
    x.start()
    x.wait_for(lambda: any("disk full" in dm.text for dm in x.dms), 30)


def test_what_to_do_is_about_the_config_that_was_named(sentinel: Sentinel, x: FakeX) -> None:
    path = sentinel.configure(path=sentinel.home / "night shift.ini")
    x.answer(ERRORS["401-code-32"], times=None)
    done = sentinel.run("send", "--config", str(path), "disk full")
    assert f"bird_sentinel authorize --config '{path}'" in done.err, done
    done = sentinel.run("status", f"--config={path}")
    assert f"bird_sentinel authorize --config '{path}'" in done.out, done
    path.chmod(0o644)
    assert f"chmod 600 '{path}'" in sentinel.run("send", "--config", str(path), "x").err
