"""send: what becomes of the words, who gets them, what the exit status says, and where it looks."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, Sentinel, until
from fake_x import ERRORS, Answer, FakeX

DMS = "/2/dm_conversations/"


def texts(x: FakeX, recipient_id: str = "2002") -> list[str]:
    """The alerts in the DMs to a recipient: of a single alert the text, else the whole DM."""
    return [
        re.sub(r"\A\[\S+ [0-9:]{8}\] ", "", dm.text)
        for dm in x.dms
        if dm.recipient_id == recipient_id
    ]


# ---- the message ----


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["disk full"], "disk full"),
        (["disk", "full on", "web1"], "disk full on web1"),
        (["--", "disk", "full"], "disk full"),
        (["disk", "--", "full"], "disk full"),
        (["--", "--to", "second", "-x", "--dry-run"], "--to second -x --dry-run"),
        (["--", "--config=/nowhere"], "--config=/nowhere"),
        (["--", "disk", "--", "full"], "disk -- full"),
        (["--", "--"], "--"),
        (["--", "-"], "-"),
        (["--", "-", "disk"], "- disk"),
        (["--", "--help"], "--help"),
        (["-5 degrees"], "-5 degrees"),
        (["send"], "send"),
        (["grüß dich ☃ 🐦"], "grüß dich ☃ 🐦"),
        (["100% %s %(host)s {0} $HOME `id` \\n"], "100% %s %(host)s {0} $HOME `id` \\n"),
        (["two\nlines\tand a tab"], "two\nlines\tand a tab"),
    ],
    ids=repr,
)
def test_the_words_arrive_joined_by_one_space(
    sentinel: Sentinel, x: FakeX, words: list[str], text: str
) -> None:
    done = sentinel.run("send", *words, input="this is not the message")
    assert done.code == 0, done
    assert texts(x) == [text]


@pytest.mark.parametrize("words", [["-"], []], ids=["a dash", "no words"])
def test_the_message_is_read_from_standard_input(
    sentinel: Sentinel, x: FakeX, words: list[str]
) -> None:
    done = sentinel.run("send", *words, input="disk full\non web1\n")
    assert done.code == 0, done
    assert texts(x) == ["disk full\non web1"]


def test_options_do_not_keep_standard_input_from_being_read(sentinel: Sentinel, x: FakeX) -> None:
    done = sentinel.run("send", "--to", "oncall", "--no-wait", "-", input="disk full\n")
    assert done.code == 0, done
    x.wait_for(lambda: texts(x) == ["disk full"], 30)


def test_a_dash_among_other_words_is_a_word(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.run("send", "disk", "-", "full", input="this is not the message")
    assert texts(x) == ["disk - full"]


@pytest.mark.parametrize("way", ["argument", "input"])
def test_bytes_that_are_not_utf_8_arrive_as_replacement_characters(
    sentinel: Sentinel, x: FakeX, way: str
) -> None:
    raw = b"user \xff\xfe logged in"
    done = sentinel.run("send", raw) if way == "argument" else sentinel.run("send", input=raw)
    assert done.code == 0, done
    assert texts(x) == ["user \ufffd\ufffd logged in"]


def test_utf_8_arrives_under_the_c_locale(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.run("send", "grüß dich ☃".encode(), env={"LANG": "C", "LC_ALL": "C"})
    assert texts(x) == ["grüß dich ☃"]


@pytest.mark.parametrize("words", [[""], ["  ", " "], ["--"], ["\n\t"], ["-"], []], ids=repr)
def test_an_empty_message_is_a_usage_error_and_is_not_queued(
    sentinel: Sentinel, x: FakeX, words: list[str]
) -> None:
    done = sentinel.run("send", *words, input="\n" if words == ["-"] else "")
    assert (done.code, "empty" in done.err) == (2, True), done
    assert sentinel.status()["pending"] == 0


def test_no_words_at_a_terminal_are_a_usage_error(sentinel: Sentinel) -> None:
    master, slave = pty.openpty()
    process = sentinel.start("send", stdin=slave, stderr=subprocess.PIPE)
    os.close(slave)
    err = process.communicate(timeout=30)[1].decode()
    os.close(master)
    assert (process.returncode, "empty" in err) == (2, True), err


def told_gone(text: str) -> tuple[str, int]:
    """What is left of a cut message, and how many characters it says are gone."""
    match = re.fullmatch(r"(?s)(.*) \[…([0-9,]+) characters cut\]", text)
    assert match, text[-80:]
    return match[1], int(match[2].replace(",", ""))


@pytest.mark.parametrize("character", ["a", "é", "🐦"])
def test_an_over_long_message_is_cut_and_says_how_many_characters_are_gone(
    sentinel: Sentinel, x: FakeX, character: str
) -> None:
    done = sentinel.run("send", character * 12_345)
    assert done.code == 0, done
    kept, gone = told_gone(texts(x)[0])
    assert set(kept) == {character} and len(kept) + gone == 12_345
    assert len(x.dms[0].text) <= 10_000


def test_megabytes_on_standard_input_are_counted_to_the_last_character(
    sentinel: Sentinel, x: FakeX
) -> None:
    message = "a warning: " + "né\n" * 1_300_001 + "end"
    done = sentinel.run("send", "-", input=message)
    assert done.code == 0, done
    kept, gone = told_gone(texts(x)[0])
    assert message.startswith(kept) and len(kept) + gone == len(message)


# ---- who gets it ----


@pytest.fixture
def two(sentinel: Sentinel) -> Sentinel:
    """Authorized, with two recipients."""
    sentinel.configure({"oncall": "2002", "second": "2003"})
    return sentinel


def test_all_recipients_get_it_by_default(two: Sentinel, x: FakeX) -> None:
    done = two.run("send", "disk full")
    assert done.code == 0, done
    assert texts(x, "2002") == texts(x, "2003") == ["disk full"]


@pytest.mark.parametrize("handle", ["second", "@second", "SECOND", "@SecOnd"])
def test_to_picks_one_with_or_without_at_in_any_case(two: Sentinel, x: FakeX, handle: str) -> None:
    done = two.run("send", "--to", handle, "disk full")
    assert done.code == 0, done
    assert [dm.recipient_id for dm in x.dms] == ["2003"]


def test_to_may_be_repeated_and_nobody_gets_it_twice(two: Sentinel, x: FakeX) -> None:
    done = two.run("send", "--to=second", "--to", "oncall", "--to", "@second", "disk full")
    assert done.code == 0, done
    assert sorted(dm.recipient_id for dm in x.dms) == ["2002", "2003"]


def test_an_unknown_recipient_is_a_usage_error_that_names_the_known(two: Sentinel) -> None:
    done = two.run("send", "--to", "oncall", "--to", "nobody", "disk full")
    assert done.code == 2, done
    assert "nobody" in done.err and "oncall" in done.err and "second" in done.err
    assert two.status()["pending"] == 0


def test_whoever_does_not_get_it_is_named_and_the_others_get_theirs(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"shy": "2004", "oncall": "2002"})
    x.add_user("shy", "2004", accepts_dms=False)
    done = sentinel.run("send", "disk full")
    error = next(line for line in done.err.splitlines() if ": error: " in line)
    assert "@shy" in error and "@oncall" not in error
    assert texts(x) == ["disk full"]


def test_with_several_recipients_the_status_is_the_worst(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.configure({"oncall": "2002", "shy": "2004"})
    x.add_user("shy", "2004", accepts_dms=False)
    assert sentinel.run("send", "--to", "oncall", "first").code == 0  # so that it is shy's turn
    x.answer(ERRORS["503-130"], times=None, path=f"{DMS}with/2002/")
    done = sentinel.run("send", "disk full")
    assert done.code == 77, done
    error = next(line for line in done.err.splitlines() if ": error: " in line)
    assert "@shy" in error and "@oncall" in error


# ---- --dry-run and --no-wait ----


def test_a_dry_run_prints_the_dm_without_config_queue_or_network(fresh: Sentinel, x: FakeX) -> None:
    done = fresh.run("send", "--dry-run", "--to", "anybody", "disk", "full")
    assert done.code == 0, done
    host = socket.gethostname().partition(".")[0]
    assert re.fullmatch(rf"\[{re.escape(host)} \d\d:\d\d:\d\d\] disk full\n", done.out)
    assert list(fresh.home.iterdir()) == []
    assert x.connects == []


def test_a_dry_run_on_an_authorized_machine_sends_and_stores_nothing(
    sentinel: Sentinel, x: FakeX
) -> None:
    done = sentinel.run("send", "--dry-run", "disk full")
    assert done.code == 0, done
    assert re.fullmatch(r"\[web1 \d\d:\d\d:\d\d\] disk full\n", done.out)
    assert [path.name for path in sentinel.directory.iterdir()] == ["config.ini"]
    assert x.connects == []


def test_no_wait_does_not_wait_for_x(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(delay=20), path=DMS)
    done = sentinel.run("send", "--no-wait", "disk full")
    assert done.code == 0, done
    assert done.seconds < 10
    x.wait_for(lambda: texts(x) == ["disk full"], 30)


def test_no_wait_says_nothing_when_all_is_well(sentinel: Sentinel) -> None:
    done = sentinel.run("send", "--no-wait", "disk full")
    assert (done.out, done.err) == ("", "")


def test_no_wait_keeps_nobody_waiting_for_the_end_of_its_output(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(mode="stall"), path=DMS)
    done = subprocess.run("bird_sentinel send --no-wait 'disk full' 2>&1 | cat", shell=True,
                          env=sentinel.env, timeout=15, check=False)  # fmt: skip
    assert done.returncode == 0


def test_without_no_wait_it_says_to_whom_it_was_delivered(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(delay=1), path=DMS)
    done = sentinel.run("send", "disk full")
    assert (done.code, done.out, done.err) == (0, "delivered to @oncall\n", "")
    assert texts(x) == ["disk full"]


# ---- exit status ----


def hint(err: str) -> str:
    """The error's next step."""
    lines = err.splitlines()
    assert all(re.match(r"bird_sentinel: (error|warning|hint): \S", line) for line in lines), err
    return next(line for line in lines if ": hint: " in line)


@pytest.mark.parametrize(
    "words, told",
    [
        (["send", "--no-wiat", "x"], "bird_sentinel send takes no option --no-wiat"),
        (["send", "--no-w", "x"], "bird_sentinel send takes no option --no-w"),
        (["send", "-n", "x"], "bird_sentinel send takes no option -n"),
        (["--to", "oncall", "send", "x"], "bird_sentinel takes no option --to"),
        (["send", "--no-wait=yes", "x"], "--no-wait takes no value"),
        (["send", "x", "--config"], "--config wants a PATH"),
        (["send", "--to", "--no-wait", "x"], "--to wants a HANDLE"),
        (["status", "--json", "now"], "status takes no message"),
        (["sned", "x"], "there is no command sned"),
        (["", ""], "no command was given"),
        (["send", "--config", "", "x"], "--config wants a PATH"),
        (["send", "--to=", "x"], "--to wants a HANDLE"),
    ],
    ids=repr,
)
def test_what_is_wrong_on_the_command_line_is_named_and_nothing_is_sent(
    sentinel: Sentinel, x: FakeX, words: list[str], told: str
) -> None:
    done = sentinel.run(*words)
    assert done.code == 2, done
    assert f"bird_sentinel: error: {told}\n" in done.err
    assert not x.requests and not sentinel.queue.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["disk", "--no-wait", "full"], "disk full"),
        (["-5", "degrees"], "-5 degrees"),
        (["-> look"], "-> look"),
        (["-x and --to are words here"], "-x and --to are words here"),
        (["--x=1 is wrong"], "--x=1 is wrong"),
        (["--", "--to", "oncall", "--"], "--to oncall --"),
        (["disk", "--", "-n"], "disk -n"),
        (["--to=oncall", "--", "--help"], "--help"),
    ],
    ids=repr,
)
def test_what_is_no_option_is_the_message(
    sentinel: Sentinel, x: FakeX, words: list[str], message: str
) -> None:
    done = sentinel.run("send", *words)
    assert done.code == 0, done
    x.wait_for(lambda: texts(x) == [message], 30)


@pytest.mark.parametrize(
    "words",
    [[], ["--bogus"], ["sned", "x"], ["send", "--bogus", "x"], ["send", "x", "--to"],
     ["flush", "x"], ["status", "--", "x"]],
    ids=repr,
)  # fmt: skip
def test_2_is_usage(sentinel: Sentinel, words: list[str]) -> None:
    done = sentinel.run(*words)
    assert done.code == 2, done
    assert "--help" in hint(done.err)


def test_74_is_neither_stored_nor_delivered(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.queue.mkdir()
    x.stop()
    done = sentinel.run("send", "disk full")
    assert done.code == 74, done
    assert "stored" in done.err and "cannot be reached" in done.err


def test_an_alert_that_cannot_be_stored_is_delivered_all_the_same(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.queue.mkdir()
    done = sentinel.run("send", "--no-wait", "disk full")
    assert done.code == 0, done
    assert texts(x) == ["disk full"]


def test_75_is_kept_and_retried(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["503-130"], path=DMS)
    done = sentinel.run("send", "disk full")
    assert (done.code, "kept" in done.err) == (75, True), done
    x.wait_for(lambda: texts(x) == ["disk full"], 30)


def test_75_with_x_out_of_reach(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    done = sentinel.run("send", "disk full")
    assert (done.code, "cannot be reached" in done.err) == (75, True), done
    assert sentinel.status()["pending"] == 1


@pytest.mark.parametrize(
    ("answer", "what", "next_step"),
    [
        ("401-code-89", "token", "authorize"),
        ("401-code-135", "clock", "clock"),
        ("402-credits", "credits", "credits"),
        ("403-oauth1-permissions", "permission", "Direct message"),
        ("403-326", "locked", "unlock"),
        ("403-349", "does not accept", "message requests"),
    ],
)
def test_77_is_kept_until_a_person_acts_and_says_how(
    sentinel: Sentinel, x: FakeX, answer: str, what: str, next_step: str
) -> None:
    x.answer(ERRORS[answer], times=None, path=DMS)
    done = sentinel.run("send", "disk full")
    assert (done.code, what in done.err) == (77, True), done
    assert next_step in hint(done.err)
    assert sentinel.status()["pending"] == 1


def test_78_before_any_authorize_and_the_alert_is_kept(fresh: Sentinel) -> None:
    done = fresh.run("send", "disk full")
    assert (done.code, "kept" in done.err) == (78, True), done
    assert "bird_sentinel authorize" in hint(done.err)
    assert fresh.status()["pending"] == 1


def test_78_with_no_wait_too(fresh: Sentinel) -> None:
    assert fresh.run("send", "--no-wait", "disk full").code == 78
    assert fresh.status()["pending"] == 1


def test_78_with_a_config_that_others_can_read_and_the_chmod_that_mends_it(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.config.chmod(0o640)
    done = sentinel.run("send", "disk full")
    assert done.code == 78, done
    assert f"chmod 600 {sentinel.config}" in hint(done.err)
    assert x.connects == []
    assert sentinel.status()["pending"] == 1


def test_130_when_interrupted_and_the_alert_is_kept(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(delay=3), path=DMS)
    process = sentinel.start("send", "disk full", stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)  # fmt: skip
    x.wait_for(lambda: x.requests, 30)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    sentinel.wait_idle(30)
    assert texts(x) == ["disk full"]


# ---- how it is called ----


@pytest.mark.parametrize(
    "command",
    [
        ["bird_sentinel"],
        [sys.executable, "-m", "bird_sentinel"],
        [sys.executable, str(PROJECT / "bird_sentinel.py")],
    ],
    ids=["entry point", "module", "script"],
)
def test_it_runs_as(sentinel: Sentinel, x: FakeX, command: list[str]) -> None:
    done = subprocess.run([*command, "send", "disk full"], env=sentinel.env, cwd="/",
                          stdin=subprocess.DEVNULL, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0
    assert texts(x) == ["disk full"]


def test_it_runs_where_standard_streams_are_closed(sentinel: Sentinel, x: FakeX) -> None:
    done = subprocess.run("bird_sentinel send 'disk full' <&- >&- 2>&-", shell=True, check=False,
                          env=sentinel.env, timeout=60)  # fmt: skip
    assert done.returncode == 0
    assert texts(x) == ["disk full"]


# ---- which config, which queue ----


def two_configs(sentinel: Sentinel, x: FakeX, name: str = "other.ini") -> Path:
    """Another config than the usual one, which goes to another recipient."""
    return sentinel.configure({"second": "2003"}, path=sentinel.home / "other" / name)


@pytest.mark.parametrize("order", ["before", "after"])
def test_config_is_taken_before_and_after_the_command(
    sentinel: Sentinel, x: FakeX, order: str
) -> None:
    option = ["--config", str(two_configs(sentinel, x))]
    words = [*option, "send"] if order == "before" else ["send", *option]
    done = sentinel.run(*words, "disk full")
    assert done.code == 0, done
    assert [dm.recipient_id for dm in x.dms] == ["2003"]


@pytest.mark.parametrize("words", [["--config", "{}"], ["--config={}"]], ids=repr)
def test_the_path_of_the_config_may_have_spaces(
    sentinel: Sentinel, x: FakeX, words: list[str]
) -> None:
    path = str(sentinel.configure(path=sentinel.home / "for the night = x" / "night shift.ini"))
    done = sentinel.run("send", *(word.format(path) for word in words), "disk full")
    assert done.code == 0, done
    assert texts(x) == ["disk full"]
    assert not sentinel.queue.exists()


def test_the_environment_may_name_the_config(sentinel: Sentinel, x: FakeX) -> None:
    path = two_configs(sentinel, x)
    done = sentinel.run("send", "disk full", env={"BIRD_SENTINEL_CONFIG": str(path)})
    assert done.code == 0, done
    assert [dm.recipient_id for dm in x.dms] == ["2003"]


def test_the_option_outranks_the_environment(sentinel: Sentinel, x: FakeX) -> None:
    env = {"BIRD_SENTINEL_CONFIG": str(two_configs(sentinel, x))}
    done = sentinel.run("send", "--config", str(sentinel.config), "disk full", env=env)
    assert done.code == 0, done
    assert [dm.recipient_id for dm in x.dms] == ["2002"]


def test_xdg_config_home_is_looked_in(sentinel: Sentinel, x: FakeX) -> None:
    base = sentinel.home / "xdg"
    sentinel.configure({"second": "2003"}, path=base / "bird_sentinel" / "config.ini")
    done = sentinel.run("send", "disk full", env={"XDG_CONFIG_HOME": str(base)})
    assert done.code == 0, done
    assert [dm.recipient_id for dm in x.dms] == ["2003"]
    assert (base / "bird_sentinel" / "queue.db").exists()


def test_a_relative_config_is_found_by_the_worker_too(sentinel: Sentinel, x: FakeX) -> None:
    path = two_configs(sentinel, x)
    done = sentinel.run("send", "--no-wait", "--config", path.name, "disk full", cwd=path.parent)
    assert (done.code, done.err) == (0, ""), done
    x.wait_for(lambda: [dm.recipient_id for dm in x.dms] == ["2003"], 30)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("config.ini", "other.ini"),
        ("a.ini", "b.ini"),
        ("a.ini", "a.conf"),
        ("a", "a.ini"),
        ("a.b.ini", "a.c.ini"),
        ("config.ini", "config"),
        ("config.ini", "queue.ini"),
    ],
)
def test_two_configs_beside_each_other_never_share_a_queue(
    fresh: Sentinel, x: FakeX, one: str, other: str
) -> None:
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    for name in (one, other):
        path = fresh.configure(path=fresh.home / name)
        assert fresh.run("send", "--config", str(path), f"alert of {name}").code == 77
    x.clear_answers()
    assert fresh.run("flush", "--config", str(fresh.home / one)).code == 0
    assert texts(x) == [f"alert of {one}"]


def test_two_configs_in_two_directories_never_share_a_queue(sentinel: Sentinel, x: FakeX) -> None:
    path = two_configs(sentinel, x, "config.ini")
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    sentinel.run("send", "disk full")
    sentinel.run("send", "--config", str(path), "disk full")
    x.clear_answers()
    assert sentinel.run("flush", "--config", str(path)).code == 0
    assert [dm.recipient_id for dm in x.dms] == ["2003"]


@pytest.mark.parametrize("where", ["absolute", "relative", "home"])
def test_delivery_queue_moves_the_queue(sentinel: Sentinel, x: FakeX, where: str) -> None:
    moved, named = {
        "absolute": (sentinel.home / "spool" / "alerts", str(sentinel.home / "spool" / "alerts")),
        "relative": (sentinel.directory / "alerts.db", "alerts.db"),
        "home": (sentinel.home / "alerts.db", "~/alerts.db"),
    }[where]
    sentinel.configure(queue=named)
    done = sentinel.run("send", "disk full")
    assert done.code == 0, done
    assert moved.exists() and not sentinel.queue.exists()
    assert oct(moved.stat().st_mode & 0o777) == "0o600"


def test_delivery_host_is_the_label_in_the_dm(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.configure(host="the big box")
    sentinel.run("send", "disk full")
    assert re.fullmatch(r"\[the big box \d\d:\d\d:\d\d\] disk full", x.dms[0].text)


def test_the_label_is_the_short_host_name_where_none_is_configured(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure(host="")
    sentinel.run("send", "disk full")
    assert x.dms[0].text.startswith(f"[{socket.gethostname().partition('.')[0]} ")


def test_percent_signs_in_the_config_are_ordinary_characters(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.configure(host="100%(host)s %d%%", queue="50%.db")
    done = sentinel.run("send", "disk full")
    assert done.code == 0, done
    assert x.dms[0].text.startswith("[100%(host)s %d%% ")
    assert (sentinel.directory / "50%.db").exists()


@pytest.mark.parametrize("queue", ["", "moved.db"], ids=["the usual queue", "a moved queue"])
@pytest.mark.parametrize("by", ["flush", "send"])
def test_alerts_that_came_while_the_config_was_unreadable_are_delivered_later(
    sentinel: Sentinel, x: FakeX, queue: str, by: str
) -> None:
    sentinel.configure(queue=queue)
    sentinel.config.chmod(0o644)
    assert sentinel.run("send", "a break-in at night").code == 78
    sentinel.config.chmod(0o600)
    done = sentinel.run("flush") if by == "flush" else sentinel.run("send", "disk full")
    assert done.code == 0, done
    until(lambda: any("a break-in at night" in text for text in texts(x)), 30)


def test_alerts_for_one_recipient_that_came_while_the_config_was_unreadable_go_to_that_one(
    two: Sentinel, x: FakeX
) -> None:
    two.config.chmod(0o644)
    assert two.run("send", "--to", "@Second", "a break-in at night").code == 78
    two.config.chmod(0o600)
    assert two.run("flush").code == 0
    assert [dm.recipient_id for dm in x.dms] == ["2003"]
