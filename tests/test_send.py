"""send: who gets an alert, what the exit status says of it, and whose config and queue it is.

What makes a message of the command line is in test_command_line.py.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest
from conftest import Sentinel, memory_of
from fake_x import ERRORS, Answer, FakeX
from test_command_line import told
from test_worker import Syslog

DMS = "/2/dm_conversations/"


def texts(x: FakeX, recipient_id: str = "2002") -> list[str]:
    """The DMs to a recipient, each without the host and the time at its head."""
    return [
        re.sub(r"\A\[[^]]*\] ", "", dm.text) for dm in x.dms if dm.recipient_id == recipient_id
    ]


def stored(queue: Path) -> list[str]:
    """The texts of the alerts that nobody has looked at yet, the oldest first."""
    return [path.read_text().split("\n\n", 1)[1] for path in sorted(queue.glob("new/*"))]


# ---- a long message ----


def told_gone(text: str) -> tuple[str, str, int]:
    """What is left of a cut message, and how many characters its mark says are gone."""
    match = re.fullmatch(r"(?s)\[[^]]*\] (.*) ?\[…([0-9,]+) characters cut…\] ?(.*?)\n?", text)
    assert match, text[-80:]
    return match[1].rstrip(" "), match[3].lstrip(" "), int(match[2].replace(",", ""))


@pytest.mark.parametrize("character", ["a", "é", "🐦"])
def test_a_message_too_long_for_a_dm_loses_its_middle_and_the_mark_says_how_much(
    fresh: Sentinel, character: str
) -> None:
    message = "backup:" + character * 12_345 + ":no space left on device"
    done = fresh.run("send", "--dry-run", message)
    begin, end, gone = told_gone(done.out)
    assert message.startswith(begin) and message.endswith(end) and len(end) > 1_000
    assert len(begin) + len(end) + gone == len(message)
    assert 9_000 < len(done.out) <= 10_001


def test_a_waiting_send_says_that_it_is_cut_and_megabytes_are_counted_to_the_last_character(
    sentinel: Sentinel, x: FakeX
) -> None:
    message = "a warning:" + "né " * 1_300_001 + ":end"
    done = sentinel.run("send", "-", input=message)
    assert (done.code, "middle" in told(done)[0]) == (0, True), done
    begin, end, gone = told_gone(x.dms[0].text)
    assert (begin[:10], end[-4:]) == ("a warning:", ":end")
    assert abs(len(begin) + len(end) + gone - len(message)) <= 2  # spaces at the cut
    assert len(x.dms[0].text) <= 10_000


# ---- who gets it, and what is said of it ----


@pytest.fixture
def two(sentinel: Sentinel) -> Sentinel:
    """Authorized, with two recipients."""
    sentinel.configure({"oncall": "2002", "second": "2003"})
    return sentinel


def test_all_recipients_get_it(two: Sentinel, x: FakeX) -> None:
    done = two.run("send", "disk full")
    assert (done.code, done.out, done.err) == (0, "delivered to @oncall, @second\n", "")
    assert texts(x, "2002") == texts(x, "2003") == ["disk full"]


def test_who_does_not_get_it_is_named_with_what_to_do_and_the_others_get_theirs(
    two: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["403-349"], None, path=f"{DMS}with/2003/")
    done = two.run("send", "disk full")
    assert (done.code, done.out, texts(x)) == (77, "", ["disk full"]), done
    error, hint = told(done)
    assert "delivered to @oncall; not to @second: " in error and "@sentinel_bot" in hint


@pytest.mark.parametrize(
    "limit, sent, words", [(15, 2, "our own pace"), (3, 1, "a share of X's limit")]
)
def test_a_waiting_send_at_a_terminal_says_what_it_waits_for(
    sentinel: Sentinel, x: FakeX, limit: int, sent: int, words: str
) -> None:
    x.limit, x.window = limit, 20.0
    for _ in range(sent):
        assert sentinel.run("send", "alpha").code == 0
    master, slave = pty.openpty()
    process = sentinel.start("send", "bravo", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen, deadline = b"", time.monotonic() + 20
    while words.encode() not in screen and time.monotonic() < deadline:
        screen += os.read(master, 1000)
    process.kill()
    process.wait()
    os.close(master)
    assert re.search(rf"waiting.*{words}", screen.decode()), screen


# ---- --dry-run and --no-wait ----


@pytest.mark.parametrize("host", ["", "the 100%(host)s box"])
def test_a_dry_run_needs_no_config_and_touches_neither_queue_nor_network(
    fresh: Sentinel, x: FakeX, host: str
) -> None:
    if host:
        fresh.configure(host=host)
    before = sorted(fresh.home.rglob("*"))
    done = fresh.run("send", "--dry-run", "disk", "full")
    label = re.escape(host or socket.gethostname().partition(".")[0])
    assert re.fullmatch(rf"\[{label} \d\d:\d\d:\d\d\] disk full\n", done.out), done
    assert (done.code, sorted(fresh.home.rglob("*")), x.connects) == (0, before, [])


def test_no_wait_waits_for_nothing_of_x_and_says_nothing_when_all_is_well(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(delay=15), path=DMS)
    for words in (["--no-wait", "disk full"], ["--no-wait", "--", "disk full"]):
        done = sentinel.run("send", *words)  # which reads both outputs to their ends
        assert (done.code, done.out, done.err) == (0, "", "")
        assert done.seconds < 10
    x.wait_for(lambda: x.requests, 30)


def never_authorized(sentinel: Sentinel) -> None:
    sentinel.config.unlink()


def half_authorized(sentinel: Sentinel) -> None:
    """What is wrong inside a config is the worker's to tell."""
    text = sentinel.config.read_text()
    sentinel.config.write_text(text[: text.index("[recipients]")])


def readable_by_others(sentinel: Sentinel) -> None:
    sentinel.config.chmod(0o644)


def unsafe_queue(sentinel: Sentinel) -> None:
    sentinel.queue.chmod(0o777)


def no_queue(sentinel: Sentinel) -> None:
    shutil.rmtree(sentinel.queue)
    sentinel.queue.write_text("somebody's file")


@pytest.mark.parametrize(
    "change, code, said",
    [
        (never_authorized, 78, "not authorized yet"),
        (half_authorized, 0, ""),
        (readable_by_others, 78, "chmod 600"),
        (unsafe_queue, 78, "chmod go-w"),
        (no_queue, 0, "kept in memory"),
    ],
)
@pytest.mark.parametrize("dashes", [["--"], []], ids=["the short way", "the long way"])
def test_without_waiting_it_says_where_there_is_no_config_or_what_is_open_to_others(
    sentinel: Sentinel, dashes: list[str], change: Callable[[Sentinel], None], code: int, said: str
) -> None:
    assert sentinel.run("send", "all is well").code == 0
    sentinel.wait_idle()
    change(sentinel)
    done = sentinel.run("send", "--no-wait", *dashes, "disk full")
    assert (done.code, said in done.err, bool(done.err)) == (code, True, bool(said)), done
    if change in (never_authorized, half_authorized, readable_by_others):
        assert stored(sentinel.queue) == ["disk full"]


def test_a_forgotten_perlcode_line_is_named_and_syslog_hears_it(
    sentinel: Sentinel, tmp_path: Path
) -> None:
    done = sentinel.run("send", "--no-wait", "--", "")
    assert (done.code, "empty" in told(done)[0]) == (2, True), done
    assert "perlcode 1 ($ENV{SWATCH_LINE} = substr($_, 0, 50000)) =~ tr/\\0//d;" in done.err
    syslog = Syslog(tmp_path)
    try:
        assert syslog.run(sentinel, "send", "--no-wait", "--", "") == 2
        syslog.wait_for("perlcode")
    finally:
        syslog.socket.close()


# ---- exit status ----


def test_74_is_stored_nowhere_and_leaves_nothing(sentinel: Sentinel, x: FakeX) -> None:
    done = subprocess.run(  # where no file can be written
        ["prlimit", "--fsize=0", "bird_sentinel", "send", "--no-wait", "--", "disk full"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 74, done
    assert "could not be stored anywhere" in done.stderr and "hint: " in done.stderr
    for queue in (sentinel.queue, sentinel.memory):
        assert [path for path in queue.rglob("*") if path.is_file()] == []
    assert not x.connects


@pytest.mark.parametrize(
    "error, code, words, hint",
    [("503-130", 75, "fault of its own", "kept"), ("401-code-89", 77, "token", "authorize")],
)
def test_75_is_retried_and_77_waits_for_a_person_and_both_say_when(
    sentinel: Sentinel, x: FakeX, error: str, code: int, words: str, hint: str
) -> None:
    x.answer(ERRORS[error], path=DMS)
    done = sentinel.run("send", "disk full")
    assert done.code == code, done
    assert "kept in the queue: " in told(done)[0] and words in told(done)[0]
    assert re.search(rf"{hint}.*the next attempt is at \d\d:\d\d:\d\d", told(done)[1])


def test_78_is_kept_and_says_where_and_how_to_go_on(fresh: Sentinel) -> None:
    done = fresh.run("send", "disk full")
    assert done.code == 78, done
    assert f"kept in the queue {fresh.queue}" in told(done)[0]
    assert "bird_sentinel authorize" in told(done)[1]
    assert stored(fresh.queue) == ["disk full"]


def test_130_is_interrupted_and_the_alert_is_delivered_all_the_same(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(delay=2), path=DMS)
    process = sentinel.start("send", "disk full", stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)  # fmt: skip
    x.wait_for(lambda: x.requests, 30)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130 and "error: interrupted" in err and "kept" in err, err
    sentinel.wait_idle(30)
    assert texts(x) == ["disk full"]


@pytest.mark.parametrize("words", [["flush"], ["send", "--no-wait", "--", "disk full"]], ids=str)
def test_what_came_while_the_config_was_of_no_use_is_delivered_later(
    two: Sentinel, x: FakeX, words: list[str]
) -> None:
    two.config.chmod(0o644)
    assert two.run("send", "a break-in at night").code == 78
    two.config.chmod(0o600)
    assert two.run(*words).code == 0
    x.wait_for(lambda: len(x.dms) == 2, 30)
    assert all("a break-in at night" in dm.text for dm in x.dms)


# ---- which config, and which queue ----


@pytest.mark.parametrize("before", [True, False], ids=["before send", "behind send"])
def test_an_alert_goes_to_whom_the_named_config_says(
    sentinel: Sentinel, x: FakeX, before: bool
) -> None:
    path = sentinel.home / "for the night" / "a = x.ini"
    sentinel.configure({"second": "2003"}, path=path)
    words, named = ["send", "--no-wait"], ["--config", path.name]
    words = named + words if before else words + named
    done = sentinel.run(*words, "disk full", cwd=path.parent)
    assert (done.code, done.err) == (0, ""), done
    x.wait_for(lambda: [dm.recipient_id for dm in x.dms] == ["2003"], 30)
    assert Path(f"{path}.queue").is_dir() and not sentinel.queue.exists()
    shutil.rmtree(memory_of(path), ignore_errors=True)


def where(sentinel: Sentinel, *args: str, **env: str) -> tuple[str, str]:
    """The config and the queue that status tells."""
    full = json.loads(sentinel.run("status", "--json", *args, env=env).out)
    return full["config"], full["queue"]


def test_the_config_is_named_by_option_environment_or_custom_in_that_order(
    fresh: Sentinel,
) -> None:
    xdg, named, option = (str(fresh.home / name) for name in ("xdg", "named.ini", "option.ini"))
    custom = f"{xdg}/bird_sentinel/config.ini"
    assert where(fresh) == (str(fresh.config), str(fresh.queue))
    assert where(fresh, XDG_CONFIG_HOME=xdg) == (custom, f"{xdg}/bird_sentinel/queue")
    assert where(fresh, XDG_CONFIG_HOME="relative") == where(fresh)
    env = {"XDG_CONFIG_HOME": xdg, "BIRD_SENTINEL_CONFIG": named}
    assert where(fresh, **env) == (named, f"{named}.queue")
    assert where(fresh, "--config", option, **env) == (option, f"{option}.queue")
    assert where(fresh, "--config", "~/option.ini", **env)[0] == option
