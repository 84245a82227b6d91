"""The command line: what of it is an option and what is the message, and nobody has to guess.

What is wrong is named, with the next step, and then nothing is stored and nothing is sent.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Result, Sentinel


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Sentinel]:
    """The command where there is no config and no X."""
    sentinel = Sentinel(tmp_path / "home")
    sentinel.home.mkdir()
    yield sentinel
    sentinel.kill()


def told(result: Result) -> list[str]:
    """The lines for a person, each in our voice: what it is, lower case, no full stop."""
    lines = result.err.splitlines()
    voice = re.compile(r"bird_sentinel: (error|warning|hint): (?![A-Z][a-z]).*[^.]")
    assert [line for line in lines if not voice.fullmatch(line)] == []
    return lines


def printed_dm(sentinel: Sentinel, *words: str, input: str = "") -> str:
    """The text in the DM that --dry-run prints."""
    done = sentinel.run("send", "--dry-run", *words, input=input)
    assert (done.code, done.err) == (0, ""), done
    match = re.fullmatch(r"(?s)\[\S+ \d\d:\d\d:\d\d\] (.*)\n", done.out)
    assert match, done.out
    return match[1]


def assert_nothing_was_done(sentinel: Sentinel) -> None:
    assert list(sentinel.home.iterdir()) == []


# ---- what is the message ----


@pytest.mark.parametrize(
    "words, message",
    [
        (["disk", "full on", "web1"], "disk full on web1"),
        (["--", "disk", "full"], "disk full"),
        (["disk", "--", "-n", "full"], "disk -n full"),
        (["--", "--to", "second", "-x", "--"], "--to second -x --"),
        (["--", "-"], "-"),
        (["disk", "-", "full"], "disk - full"),
        (["-5", "degrees"], "-5 degrees"),
        (["-> look"], "-> look"),
        (["-x and --to are words here"], "-x and --to are words here"),
        (["--to=oncall", "--", "--help"], "--help"),
        (["send"], "send"),
        (["two\nlines\tand a tab"], "two\n    lines\tand a tab"),
    ],
    ids=repr,
)
def test_words_are_joined_by_one_space(bare: Sentinel, words: list[str], message: str) -> None:
    assert printed_dm(bare, *words, input="this is not the message") == message


@pytest.mark.parametrize("words", [["-"], []], ids=["a dash", "no words"])
def test_the_message_is_read_from_standard_input(bare: Sentinel, words: list[str]) -> None:
    assert printed_dm(bare, *words, input="disk full on web1\n") == "disk full on web1"


@pytest.mark.parametrize(
    "words", [["--dry-run", "disk", "full"], ["disk", "--dry-run", "full"], ["disk", "full",
              "--dry-run", "--to", "oncall"]], ids=repr,
)  # fmt: skip
def test_options_may_stand_before_between_and_after_the_words(
    bare: Sentinel, words: list[str]
) -> None:
    done = bare.run("send", *words)
    assert (done.code, done.out[-10:]) == (0, "disk full\n"), done


# ---- what is no message ----


@pytest.mark.parametrize(
    "words", [[""], ["  ", " "], ["--"], ["\n\t"], ["-"], [], ["--", ""]], ids=repr
)
def test_an_empty_message_is_a_usage_error_and_is_not_stored(
    bare: Sentinel, words: list[str]
) -> None:
    done = bare.run("send", "--no-wait", *words, input=" \n" if words == ["-"] else "")
    assert (done.code, "the message is empty" in told(done)[0]) == (2, True), done
    assert_nothing_was_done(bare)


def test_nothing_behind_two_dashes_is_no_wait_for_standard_input(bare: Sentinel) -> None:
    read, write = os.pipe()  # which nobody closes
    process = bare.start("send", "--no-wait", "--", stdin=read, stderr=subprocess.PIPE)
    assert b"the message is empty" in process.communicate(timeout=30)[1]
    assert process.returncode == 2
    os.close(read)
    os.close(write)


def test_no_words_at_a_terminal_are_a_usage_error(bare: Sentinel) -> None:
    master, slave = pty.openpty()
    process = bare.start("send", stdin=slave, stderr=subprocess.PIPE)
    os.close(slave)
    err = process.communicate(timeout=30)[1].decode()
    os.close(master)
    assert (process.returncode, "the message is empty" in err) == (2, True), err


@pytest.mark.parametrize(
    "words",
    [["send", "disk", "-h", "full"], ["send", "-h", "disk"], ["send", "--no-wait", "a", "--help"],
     ["send", "disk", "--version"]],
    ids=" ".join,
)  # fmt: skip
def test_a_message_with_a_word_like_help_in_it_does_not_vanish(
    bare: Sentinel, words: list[str]
) -> None:
    done = bare.run(*words)
    assert (done.code, done.out) == (2, ""), done
    assert "put -- before the message" in told(done)[-1]
    assert_nothing_was_done(bare)


@pytest.mark.parametrize(
    "words, named",
    [
        (["send", "--no-wiat", "x"], "--no-wiat"),
        (["send", "--no-w", "x"], "--no-w"),
        (["send", "-n", "x"], "-n"),
        (["send", "-nx", "x"], "-n"),
        (["send", "--json", "x"], "--json"),
        (["send", "--no-wait=yes", "x"], "--no-wait"),
        (["send", "x", "--config"], "--config"),
        (["send", "x", "--config", ""], "--config|empty"),
        (["send", "--to", "--no-wait", "x"], "--to"),
        (["send", "--to=", "x"], "--to|empty"),
        (["status", "--json", "now"], "now|no message"),
        (["status", "--", "now"], "now|no message"),
        (["flush", "--discard"], "--discard"),
        (["authorize", "oncall"], "oncall"),
        (["--bogus", "status"], "--bogus"),
        (["xyzzy"], "xyzzy"),
        ([], "no command|COMMAND"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_named_with_where_to_read_on(
    bare: Sentinel, words: list[str], named: str
) -> None:
    done = bare.run(*words, input="x")
    assert (done.code, done.out) == (2, ""), done
    error, hint = told(done)
    assert re.search(named, error), error
    assert "--help" in hint
    assert_nothing_was_done(bare)


@pytest.mark.parametrize(
    "wrong, meant", [("sned", "send"), ("statsu", "status"), ("authorise", "authorize")]
)
def test_a_mistyped_command_is_met_with_the_right_one(
    bare: Sentinel, wrong: str, meant: str
) -> None:
    done = bare.run(wrong, "x")
    assert done.code == 2
    assert re.search(rf"did you mean: bird_sentinel {meant}\b", told(done)[-1])


# ---- what it tells of itself ----


def test_help_tells_each_command_and_each_exit_status(bare: Sentinel) -> None:
    done = bare.run("--help")
    assert (done.code, done.err) == (0, "")
    for word in ("authorize", "send", "flush", "status", "--config"):
        assert re.search(rf"^ *{word}\b|\[{word}\b", done.out, re.MULTILINE), word
    assert re.findall(r"^ +(\d+)  \S", done.out, re.MULTILINE) == [
        "0", "2", "74", "75", "77", "78", "130"
    ]  # fmt: skip
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    "command, options",
    [
        ("authorize", ["--to", "--no-test"]),
        ("send", ["--to", "--no-wait", "--dry-run", "MESSAGE"]),
        ("flush", ["--discard-refused"]),
        ("status", ["--json"]),
    ],
)
def test_help_of_a_command_tells_its_options(
    bare: Sentinel, command: str, options: list[str]
) -> None:
    done = bare.run(command, "-h")
    assert (done.code, done.err) == (0, "")
    usage = done.out.partition("\n\n")[0]
    missing = [option for option in ["--config", *options] if option not in usage]
    assert (usage.split()[1:3], missing) == (["bird_sentinel", command], [])


def test_version_is_told(bare: Sentinel) -> None:
    assert re.fullmatch(r"bird_sentinel \d+\.\d+\.\d+\n", bare.run("--version").out)


def test_help_is_not_asked_of_the_config(bare: Sentinel) -> None:
    done = bare.run("--config", "/dev/null/none", "status", "--help")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("words", [[], ["--help"], ["/a/config"]])
def test_the_worker_is_no_command(fresh: Sentinel, words: list[str]) -> None:
    done = fresh.run("worker", *words)
    assert (done.code, "unexpected" in done.err) == (2, False), done
