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
    sentinel.end()


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
        (["--", "--to", "second", "-x", "--"], "--to second -x --"),
        (["--", "-"], "-"),
        (["disk", "-", "full"], "disk - full"),
        (["two\nlines\tand a tab"], "two\n    lines\tand a tab"),
    ],
    ids=repr,
)
def test_words_are_joined_by_one_space(bare: Sentinel, words: list[str], message: str) -> None:
    assert printed_dm(bare, *words, input="this is not the message") == message


@pytest.mark.parametrize("words", [["-"], []], ids=["a dash", "no words"])
def test_the_message_is_read_from_standard_input(bare: Sentinel, words: list[str]) -> None:
    assert printed_dm(bare, *words, input="disk full on web1\n") == "disk full on web1"


@pytest.mark.parametrize("words", [["--dry-run", "disk", "full"], ["disk", "full", "--dry-run"]])
def test_options_may_stand_before_and_after_the_words(bare: Sentinel, words: list[str]) -> None:
    done = bare.run("send", *words)
    assert (done.code, done.out[-10:]) == (0, "disk full\n"), done


@pytest.mark.parametrize("words", [["--no-wait"], ["--no-wait", "--"], []], ids=repr)
def test_a_config_may_be_named_before_and_after_the_command(
    bare: Sentinel, words: list[str]
) -> None:
    path = bare.home / "other.ini"
    for given in (["--config", str(path), "send", *words, "disk full"],
                  ["send", "--config", str(path), *words, "disk full"]):  # fmt: skip
        done = bare.run(*given)
        assert (done.code, str(path) in told(done)[0]) == (78, True), done
    texts = [file.read_text() for file in bare.home.glob("other.ini.queue/new/*")]
    assert [text.endswith("\ndisk full") for text in texts] == [True, True]


# ---- what is no message ----


@pytest.mark.parametrize(
    "words", [[""], ["  ", " "], ["--"], ["\n\t"], ["-"], [], ["--", ""]], ids=repr
)
def test_an_empty_message_is_a_usage_error_and_is_not_stored(
    bare: Sentinel, words: list[str]
) -> None:
    done = bare.run("send", "--no-wait", *words, input=" \n" if words == ["-"] else "")
    assert (done.code, "the message is empty" in told(done)[0]) == (2, True), done
    # it is what swatch gives where the line is forgotten that hands it the message
    assert ("perlcode 1 " in told(done)[1]) == (words[:1] == ["--"])
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


READ_ON = r"see: .*--help$"
MISTAKES: list[tuple[str, str, str]] = [  # the words, what of them is named, and what may help
    ("send -n x", "-n", "--"),
    ("send --json x", "--json", READ_ON),
    ("send --to second x", "--to", READ_ON),
    ("status --json now", "now", READ_ON),
    ("flush --discard-refused", "--discard-refused", READ_ON),
    ("xyzzy", "xyzzy", READ_ON),
    ("", "COMMAND", READ_ON),
    ("send --nowait disk full", "--nowait", "did you mean: --no-wait$"),
    ("send --no-w x", "--no-w", "did you mean: --no-wait$"),
    ("status --jsno", "--jsno", "did you mean: --json$"),
    ("sned x", "sned", "did you mean: (bird_sentinel )?send$"),
]


@pytest.mark.parametrize("words, named, helps", MISTAKES, ids=[one[0] for one in MISTAKES])
def test_what_is_wrong_is_named_with_what_was_meant_or_where_to_read_on(
    bare: Sentinel, words: str, named: str, helps: str
) -> None:
    done = bare.run(*words.split(), input="x")
    assert (done.code, done.out) == (2, ""), done
    error, hint = told(done)
    assert named in error and re.search(helps, hint), (error, hint)
    assert_nothing_was_done(bare)


def test_who_forgets_the_two_dashes_before_a_dash_hears_of_them(bare: Sentinel) -> None:
    done = bare.run("send", "-x", "is", "odd")
    assert (done.code, done.out) == (2, ""), done
    hint = told(done)[-1]
    if "send --help" in hint:
        hint = bare.run("send", "--help").out
    assert re.search(r"put -- before", hint, re.IGNORECASE), hint


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
        ("authorize", {"--to", "--no-test"}),
        ("send", {"--no-wait", "--dry-run", "MESSAGE"}),
        ("flush", set[str]()),
        ("status", {"--json"}),
    ],
)
def test_help_of_a_command_tells_its_options_and_no_exit_status_once_more(
    bare: Sentinel, command: str, options: set[str]
) -> None:
    done = bare.run(command, "-h")
    assert (done.code, done.err) == (0, "")
    usage, _, rest = done.out.partition("\n\n")
    assert usage.split()[1:3] == ["bird_sentinel", command]
    assert set(re.findall(r"--[a-z-]+|MESSAGE", usage)) == options | {"--config"}
    assert [option for option in options if option not in rest] == []
    assert not re.search(r"^ +\d+  ", done.out, re.MULTILINE)


def test_version_is_told(bare: Sentinel) -> None:
    assert re.fullmatch(r"bird_sentinel \d+\.\d+\.\d+\n", bare.run("--version").out)
