"""on_trouble: when DMs do not get out, a command of the administrator's hears of it, once.

The command here keeps each of its inputs in a file of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Callable

import pytest
from conftest import Sentinel, until
from fake_x import ERRORS, FakeX, problem

LINE = 'sshd[7]: "break-in" by $(touch {0}/pwned) `touch {0}/pwned`; touch {0}/pwned | \'x\' \\n %s'
TO_SECOND = "/2/dm_conversations/with/2003/"


class Listener:
    """Who is told: `heard` has what came on the command's standard input, by age."""

    def __init__(self, sentinel: Sentinel) -> None:
        self.directory = sentinel.home / "heard"
        self.directory.mkdir()
        self.command = (
            f"d={self.directory}; f=$(mktemp $d/XXXXXX) && cat >$f && mv $f $d/$(date +%s%N).heard"
        )

    def heard(self) -> list[str]:
        heard = [path.read_text() for path in sorted(self.directory.glob("*.heard"))]
        assert not [text for text in heard if re.search("^hint: *$", text, re.MULTILINE)]
        return heard

    def wait_for(self, number: int) -> list[str]:
        until(lambda: len(self.heard()) >= number, 20, f"{number} were not told: {self.heard()}")
        return self.heard()


@pytest.fixture
def listener(fresh: Sentinel) -> Listener:
    """The command, authorized for two people, and somebody who is told of trouble."""
    listener = Listener(fresh)
    people = {"oncall": "2002", "second": "2003"}
    fresh.configure(people, on_trouble=listener.command, interval="0.5")
    return listener


def put(sentinel: Sentinel, minutes: float, texts: Iterable[str]) -> None:
    """Alerts in the queue that were accepted so many minutes ago: their names say when."""
    for name in ("tmp", "new", "refused"):
        (sentinel.queue / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    sent = time.time_ns() - int(minutes * 60e9)
    for number, text in enumerate(texts):
        path = sentinel.queue / "new" / f"{sent + number:019d}.1.web1"
        path.write_text(f"host: web1\n\n{text}")


def test_it_hears_what_is_wrong_what_to_do_and_the_alerts_that_wait(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    line = LINE.format(fresh.home)
    assert fresh.run("send", "--", line).code == 77
    told = listener.wait_for(1)[0]
    assert "DMs do not go out" in told and "web1" in told.split("\n")[0]
    assert "credits" in told and "console.x.com" in told and line in told
    assert not (fresh.home / "pwned").exists()


def forget(sentinel: Sentinel) -> None:
    """Let the worker be killed, once it has written down whom it told."""
    time.sleep(0.3)
    sentinel.kill()
    sentinel.wait_idle()


@pytest.mark.parametrize("between", [lambda _: None, forget], ids=["one worker", "killed workers"])
def test_it_hears_of_each_trouble_once_and_with_one_line_when_dms_go_out_again(
    fresh: Sentinel, x: FakeX, listener: Listener, between: Callable[[Sentinel], None]
) -> None:
    for number, name in ((1, "402-credits"), (3, "401-code-89")):
        x.answer(ERRORS[name], times=None)
        assert fresh.run("send", "--no-wait", f"disk {number} full").code == 0
        assert f"disk {number} full" in listener.wait_for(number)[number - 1]
        between(fresh)
        assert [fresh.run("send", "fan stopped").code, fresh.run("flush").code] == [77, 77]
        between(fresh)
        x.clear_answers()
        assert fresh.run("flush").code == 0
        again = listener.wait_for(number + 1)[number]
        assert again.count("\n") == 1 and "go out again" in again
        fresh.wait_idle()
        assert len(listener.heard()) == number + 1


def test_it_does_not_hear_that_dms_go_out_again_before_one_did(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    fresh.configure(on_trouble=listener.command)
    x.answer(ERRORS["402-credits"])
    x.answer(ERRORS["429-v2"], times=None)
    assert fresh.run("send", "disk full").code == 77
    listener.wait_for(1)
    assert fresh.run("flush").code == 75
    time.sleep(1)
    assert len(listener.heard()) == 1
    x.clear_answers()
    assert fresh.run("flush").code == 0
    assert "go out again" in listener.wait_for(2)[1]


def test_when_a_recipient_refuses_it_hears_whose_dms_do_not_go_out_and_of_an_outage_as_well(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["403-349"], times=None, path=TO_SECOND)
    assert fresh.run("send", "disk full").code == 77
    told = listener.wait_for(1)[0]
    assert "DMs to @second do not go out" in told and "@oncall" not in told
    assert "@sentinel_bot" in told
    fresh.run("send", "fan stopped")
    fresh.wait_idle()
    assert len(listener.heard()) == 1
    x.answer(ERRORS["503-empty"], times=None)
    put(fresh, 6, ["raid degraded"])
    assert fresh.run("flush").code in (75, 77)
    told = listener.wait_for(2)[1]
    assert "DMs do not go out" in told and "fault" in told and "raid degraded" in told
    x.clear_answers()
    fresh.run("flush")
    assert "go out again" in listener.wait_for(3)[2]


@pytest.mark.parametrize("error", ["503-empty", "429-v2", "200-html", "no answer"])
def test_when_alerts_have_waited_for_five_minutes_it_hears_them(
    fresh: Sentinel, x: FakeX, listener: Listener, error: str
) -> None:
    if error == "no answer":
        x.stop()
    else:
        x.answer(ERRORS[error], times=None)
    put(fresh, 6, ["disk full"])
    put(fresh, 2, ["fan stopped"])
    assert fresh.run("flush").code == 75
    told = listener.wait_for(1)[0]
    assert "disk full" in told and "fan stopped" in told and "2 alerts" in told
    assert "hint: " in told


def test_it_hears_so_also_while_nothing_but_time_passes(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["429-v2"], times=None)
    put(fresh, 4.93, ["disk full"])
    assert fresh.run("flush").code == 75
    assert listener.heard() == []
    assert "disk full" in listener.wait_for(1)[0]
    time.sleep(1)
    assert len(listener.heard()) == len(x.requests) == 1


def test_of_a_trouble_that_is_over_within_five_minutes_it_hears_nothing(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    x.answer(ERRORS["503-empty"], times=2)
    put(fresh, 3, ["disk full"])
    fresh.run("flush")
    x.wait_for(lambda: len(x.dms) == 2, 20)
    fresh.wait_idle()
    assert listener.heard() == []


def test_one_that_fails_is_run_again_with_the_next_attempts_until_it_is_well(
    fresh: Sentinel, x: FakeX, listener: Listener
) -> None:
    """Mail may be down together with X."""
    up = fresh.home / "mail is up"
    fresh.configure(on_trouble=f"{listener.command}; test -e '{up}'")
    x.answer(ERRORS["503-empty"], times=None)  # tried again after 1 s, 2 s, 4 s
    put(fresh, 6, ["disk full"])
    fresh.run("flush")
    assert all("disk full" in told for told in listener.wait_for(2))
    up.touch()
    well = len(listener.heard()) + 1
    listener.wait_for(well)
    asked = len(x.requests)
    x.wait_for(lambda: len(x.requests) > asked, 30)
    assert fresh.run("flush").code == 75
    assert len(listener.heard()) == well
    up.unlink()
    x.clear_answers()
    assert fresh.run("flush").code == 0
    assert "go out again" in listener.wait_for(well + 1)[-1]


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


@pytest.mark.parametrize("number", [1, 2])
def test_no_line_that_it_hears_is_one_that_a_mail_program_takes_for_a_command(
    fresh: Sentinel, x: FakeX, listener: Listener, number: int
) -> None:
    fresh.configure(on_trouble=listener.command, host="~r\n ~!id")
    evil = "~!id\n~!id\r\n~!id\r~!id\v~!id\f~!id\x1e~!id\x85~!id\u2028~!id\u2029~!id"
    x.answer(problem(402, "~!id", evil), times=None)
    put(fresh, 0, [evil, "sshd: " + evil][:number])
    assert fresh.run("flush").code == 77
    told = listener.wait_for(1)[0]
    assert "~!id" in told
    assert [line for line in told.splitlines() if line.startswith("~")] == []
