"""on_trouble: when DMs do not get out, a command of the administrator's hears of it, once.

The command here keeps each of its inputs in a file of its own.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import time
from pathlib import Path

import pytest
from conftest import Sentinel, until
from fake_x import ERRORS, FakeX, problem
from test_backlog import put_all
from test_crashes import word

LINE = 'sshd[7]: "break-in" by $(touch {0}/pwned) `touch {0}/pwned`; touch {0}/pwned | \'x\' \\n %s'


class Listener:
    """Who is told: `heard` has what came on the command's standard input, by age."""

    def __init__(self, sentinel: Sentinel) -> None:
        self.directory = sentinel.home / "heard"
        self.directory.mkdir()
        self.command = (
            f"d={self.directory}; f=$(mktemp $d/XXXXXX) && cat >$f && mv $f $d/$(date +%s%N).heard"
        )

    def heard(self) -> list[str]:
        return [path.read_text() for path in sorted(self.directory.glob("*.heard"))]

    def moments(self) -> list[float]:
        """When it heard each (seconds since the epoch)."""
        return [int(path.stem) / 1e9 for path in sorted(self.directory.glob("*.heard"))]

    def wait_for(self, number: int) -> list[str]:
        until(lambda: len(self.heard()) >= number, 20, f"{number} were not told: {self.heard()}")
        return self.heard()


@pytest.fixture
def listener(fresh: Sentinel) -> Listener:
    """The command, authorized for two people, and somebody who is told of trouble."""
    listener = Listener(fresh)
    fresh.configure({"oncall": "2002", "second": "2003"}, on_trouble=listener.command, interval="1")
    return listener


def put(sentinel: Sentinel, text: str, minutes: float, to: str = "") -> None:
    """An alert in the queue that was accepted so many minutes ago."""
    for name in ("tmp", "new", "to", "refused"):
        (sentinel.queue / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    path = sentinel.queue / "new" / f"{time.time_ns() - int(minutes * 60e9):019d}.1.web1"
    path.write_text(f"host: web1\nto: {to}\n\n{text}")


def test_when_credits_run_out_it_hears_what_is_wrong_what_to_do_and_the_alerts_that_wait(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    line = LINE.format(fresh.home)
    assert fresh.run("send", "--", line).code == 77
    told = listener.wait_for(1)[0]
    assert "credits" in told.split("\n")[1] and "web1" in told.split("\n")[0]
    assert "console.x.com" in told
    assert line in told
    assert not (fresh.home / "pwned").exists()


def test_it_hears_of_one_trouble_once_and_with_one_line_when_dms_go_out_again(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    assert fresh.run("send", "disk full").code == 77
    listener.wait_for(1)
    assert [fresh.run("send", "fan stopped").code, fresh.run("flush").code] == [77, 77]
    x.clear_answers()
    assert fresh.run("flush").code == 0
    told = listener.wait_for(2)
    fresh.wait_idle()
    assert len(listener.heard()) == 2
    assert told[1].count("\n") == 1 and "go out again" in told[1]


def test_it_hears_of_the_next_trouble_anew(fresh: Sentinel, x: FakeX, listener: Listener) -> None:
    for number in (1, 3):
        x.answer(ERRORS["402-credits"], times=None)
        assert fresh.run("send", f"disk {number} full").code in (75, 77)
        if number == 3:  # not before our own pace allows it
            fresh.run("flush")
        listener.wait_for(number)
        x.clear_answers()
        assert fresh.run("flush").code == 0
        listener.wait_for(number + 1)
    assert "disk 3 full" in listener.heard()[2]


def test_whatever_becomes_of_the_worker_in_between_it_hears_of_beginning_and_end_once(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    assert fresh.run("send", "disk full").code == 77
    listener.wait_for(1)
    fresh.kill()
    fresh.wait_idle()
    assert fresh.run("flush").code == 77
    fresh.kill()
    fresh.wait_idle()
    x.clear_answers()
    assert fresh.run("flush").code == 0
    listener.wait_for(2)
    fresh.wait_idle()
    assert [told.split("\n")[0].rpartition(": ")[2] for told in listener.heard()] == [
        "DMs do not go out", "DMs go out again"
    ]  # fmt: skip


def test_when_one_recipient_refuses_it_hears_whose_dms_do_not_go_out(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["403-349"], times=None, path="/2/dm_conversations/with/2003/")
    assert fresh.run("send", "disk full").code == 77
    told = listener.wait_for(1)[0]
    assert "@second" in told and "@oncall" not in told and "disk full" in told
    assert [dm.recipient_id for dm in x.dms] == ["2002"]


@pytest.mark.parametrize("error", ["503-empty", "429-v2", "200-html"])
def test_when_alerts_have_waited_for_five_minutes_it_hears_them(
    fresh: Sentinel, x: FakeX, listener: Listener, error: str
) -> None:
    x.answer(ERRORS[error], times=None)
    put(fresh, "disk full", minutes=6)
    put(fresh, "fan stopped", minutes=2)
    assert fresh.run("flush").code == 75
    told = listener.wait_for(1)[0]
    assert "disk full" in told and "fan stopped" in told and "2 alerts" in told


def test_of_a_trouble_that_is_over_within_five_minutes_it_hears_nothing(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["503-empty"], times=2)
    put(fresh, "disk full", minutes=3)
    fresh.run("flush")
    x.wait_for(lambda: len(x.dms) == 2, 20)
    fresh.wait_idle()
    assert listener.heard() == []


@pytest.mark.parametrize(
    "command",
    ["exit 3", "no-such-command", "exec <&- >&-", "echo out; echo err >&2", "kill -9 $PPID; true"],
)
def test_a_command_that_fails_keeps_no_alert_back(fresh: Sentinel, x: FakeX, command: str) -> None:
    fresh.configure(on_trouble=command, interval="1")
    x.answer(ERRORS["402-credits"])
    done = fresh.run("send", "disk full")
    fresh.run("flush")
    x.wait_for(lambda: [dm for dm in x.dms if "disk full" in dm.text], 30)
    assert done.code in (75, 77)
    assert "on_trouble" not in done.out + done.err and done.out == ""


def test_a_command_that_hangs_is_ended_with_all_that_it_started(fresh: Sentinel, x: FakeX) -> None:
    once = fresh.home / "hung"
    command = f"[ -e {once} ] || {{ touch {once}; sleep 600 & sleep 600; }}"
    fresh.configure(on_trouble=command, interval="1")
    x.answer(ERRORS["402-credits"])
    assert fresh.run("send", "disk full").code == 77
    fresh.run("flush")
    x.wait_for(lambda: x.dms, 60)
    fresh.wait_idle(10)


def test_it_has_the_workers_environment_and_no_alert_in_it(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    seen = fresh.home / "seen"
    fresh.configure(on_trouble=f"{{ env; pwd; }} >{seen}.part; mv {seen}.part {seen}")
    x.answer(ERRORS["402-credits"], times=None)
    env = {"SWATCH_LINE": "disk full", "COLOUR": "blue"}
    assert fresh.run("send", "--no-wait", "--", "disk full", env=env).code == 0
    until(seen.exists, 20)
    lines = seen.read_text().splitlines()
    assert {f"HOME={fresh.home}", f"PATH={fresh.env['PATH']}", "COLOUR=blue"} <= set(lines)
    assert "disk full" not in seen.read_text() and lines[-1] == "/"


def test_it_hears_from_a_config_of_its_own_what_to_run_for_that(
    fresh: Sentinel, x: FakeX, listener: Listener, tmp_path: Path
) -> None:
    path = fresh.configure(path=fresh.home / "other.ini", on_trouble=listener.command)
    x.answer(ERRORS["401-code-89"], times=None)
    assert fresh.run("send", "--config", str(path), "disk full").code == 77
    assert f"bird_sentinel authorize --config {path}" in listener.wait_for(1)[0]
    assert os.listdir(f"{path}.queue")


def test_it_does_not_hear_that_dms_go_out_again_before_one_did(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["402-credits"])
    x.answer(ERRORS["429-v2"], times=None)
    fresh.configure({"oncall": "2002"}, on_trouble=listener.command)
    assert fresh.run("send", "disk full").code == 77
    listener.wait_for(1)
    assert fresh.run("flush").code == 75
    x.clear_answers()
    assert fresh.run("flush").code == 0
    assert "go out again" in listener.wait_for(2)[1]
    assert listener.moments()[1] > x.dms[0].at


def test_it_hears_the_alerts_of_all_who_wait_and_each_once(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    texts = {"disk of db1 is full": "oncall", "root login on web7": "second", "fan stopped": ""}
    for text, to in texts.items():
        put(fresh, text, 0, to)
    assert fresh.run("flush").code == 77
    told = listener.wait_for(1)[0]
    assert [told.count(text) for text in texts] == [1, 1, 1] and "2 alerts" in told


def test_it_hears_of_the_long_backlog_of_each_and_of_who_else_waits(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    put(fresh, "root login on web7", 0, "oncall")
    put_all(fresh, [f"disk: {word(n)}" for n in range(1_100)], "second")
    assert fresh.run("flush").code == 77
    told = listener.wait_for(1)[0]
    assert "root login on web7" in told and "1,100 alerts" in told


def test_it_hears_of_each_recipient_whatever_digits_tell_their_names_apart(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.add_user("ops1", "3001")
    x.add_user("ops2", "3002")
    fresh.configure({"ops1": "3001", "ops2": "3002"}, on_trouble=listener.command, interval="1")
    for number, who in enumerate(("ops1", "ops2"), 1):
        x.answer(ERRORS["403-349"], times=None, path=f"/2/dm_conversations/with/300{number}/")
        assert fresh.run("send", "disk full").code == 77
        assert f"@{who}" in listener.wait_for(number)[-1]
    assert all(f"@{who}" in fresh.run("send", "--no-wait", "more").err for who in ("ops1", "ops2"))


def test_it_hears_once_of_a_trouble_that_x_tells_in_other_words_each_time(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    for trace in ("abcf", "bdea", "cafe"):
        x.answer(problem(403, "Forbidden", f"Denied. Trace {trace}"), times=4)
    assert fresh.run("send", "disk full").code == 77
    assert [fresh.run("flush").code for _ in range(2)] == [77, 77]
    assert len(listener.wait_for(1)) == 1


def test_it_hears_whose_dms_do_not_go_out_and_what_to_run_even_with_an_odd_path_of_the_config(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    directory = os.fsencode(fresh.home) + b"/\xff"
    os.mkdir(directory, 0o700)
    path = directory + b"/its.ini"
    shutil.copy(os.fsencode(fresh.config), path)
    x.answer(ERRORS["401-code-89"], times=None)
    assert fresh.run("--config", path, "send", "disk full").code == 77
    told = listener.wait_for(1)[0]
    assert f"of {pwd.getpwuid(os.geteuid()).pw_name} on web1" in told.split("\n")[0]
    assert "bird_sentinel authorize --config" in told and "disk full" in told


def test_it_hears_that_dms_go_out_again_though_not_yet_to_all(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["403-349"], times=None, path="/2/dm_conversations/with/2002/")
    assert fresh.run("send", "one").code == 77
    listener.wait_for(1)
    x.answer(ERRORS["402-credits"], times=None, path="/2/dm_conversations/with/2003/")
    assert fresh.run("send", "two").code == 77
    assert "credits" in listener.wait_for(2)[1]
    x.clear_answers()
    x.answer(ERRORS["403-349"], times=None, path="/2/dm_conversations/with/2002/")
    assert fresh.run("flush").code == 77
    told = listener.wait_for(3)[2]
    assert re.search("DMs go out again; but still: @oncall: .* does not accept", told)
    assert len(told.splitlines()) == 1
