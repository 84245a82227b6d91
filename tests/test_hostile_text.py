"""Whatever stands in a log line, a config or an answer of X, it is text and nothing else.

Here it comes through arguments and standard input.  test_clean.py has what is clean of any text,
test_swatchrc.py what swatchdog does to a line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Sentinel
from fake_x import FakeX
from test_surroundings import stored

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def unsafe(text: str) -> list[str]:
    """The characters of it which do something to a terminal, or hide something from a reader."""
    return [
        hex(ord(character))
        for character in text
        if character in BIDI + "\u2028\u2029"
        or "\U000e0000" <= character <= "\U000e007f"
        or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
    ]


# what comes, and what must arrive; the same bytes where nothing else is said
HOSTILE: dict[str, tuple[bytes, str | None]] = {
    "a command substitution": (b"$(touch pwned) `touch pwned` ${IFS}", None),
    "shell metacharacters": (b"; touch pwned & touch pwned | tee pwned > pwned < /dev/null", None),
    "unbalanced quotes": (b"it's \"one `two 'three \\", None),
    "globs": (b"* ? [a-z]* {a,b} ~ ~root !! !$", None),
    "an option": (b"--version", None),
    "two dashes": (b"--", None),
    "a file to read options from": (b"@/etc/passwd", None),
    "percent signs": (b"100% %s %n %(home)s %% %", None),
    "markup": (b"<script>alert(1)</script> &amp; *bold* _under_", None),
    "tabs and spaces": (b"  two\t\ttabs  ", None),
    "several lines": (b"one\n\ntwo\r\nthree\n", "one\n\ntwo\nthree"),
    "a lone carriage return": (b"shown\rhidden", "shownhidden"),
    "backspaces and bells": (b"root\x08\x08\x08\x08user\x07\x7f", "rootuser"),
    "colours": (b"\x1b[1;31mred\x1b[0m", "red"),
    "a terminal's title": (b"\x1b]0;title\x07after", "after"),
    "a hyperlink": (b"\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
    "a title without an end": (b"\x1b]0;the rest of it", "]0;the rest of it"),
    "C1 controls": (b"\xc2\x9b31mred\xc2\x85", "red"),
    "C1 controls of one byte": (b"\x9b31mred", "\ufffd31mred"),
    "bidi overrides": (("user" + BIDI + "exe.txt").encode(), "userexe.txt"),
    "tags": ("see\U000e0001\U000e0068\U000e0069\U000e007fn".encode(), "seen"),
    "line separators": ("one\u2028two\u2029three".encode(), "one two three"),
    "bytes that are no UTF-8": (b"\xff\xfe caf\xe9", "\ufffd\ufffd caf\ufffd"),
    "an overlong form": (b"\xc0\xae\xc0\xae/", "\ufffd\ufffd\ufffd\ufffd/"),
    "lone surrogates": (b"\xed\xa0\x80 \xed\xb2\xff", "\ufffd" * 3 + " " + "\ufffd" * 3),
    "a flood of combining marks": (("e" + "\u0301" * 2000).encode(), None),
    "emoji": ("\U0001f426\u200d\u2b1b \U0001f1e9\U0001f1ea".encode(), None),
}
WITH_NUL: dict[str, tuple[bytes, str | None]] = {
    "a NUL": (b"before\0after", "beforeafter"),
    "NULs at the ends": (b"\0\0both\0", "both"),
}
EVERYTHING = {
    name: (raw, raw.decode() if expected is None else expected)
    for name, (raw, expected) in {**HOSTILE, **WITH_NUL}.items()
}


# ---- from the command line into the queue, and into a DM ----


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A working directory with two files for globs to match; nothing may be made in it."""
    path = tmp_path / "trap"
    path.mkdir()
    for name in ("globbed", "-rf"):
        (path / name).touch()
    yield path
    assert sorted(entry.name for entry in path.iterdir()) == ["-rf", "globbed"]


@pytest.mark.parametrize("way", ["argument", "standard input"])
def test_what_comes_is_stored_as_cleaned_text(fresh: Sentinel, trap: Path, way: str) -> None:
    wrong = {}
    for name, (raw, expected) in EVERYTHING.items():
        if way == "standard input":
            done = fresh.run("send", "--no-wait", "-", input=raw, cwd=trap)
        elif name in WITH_NUL:
            continue  # which no argument can hold
        else:
            done = fresh.run("send", "--no-wait", "--", raw, input="not this", cwd=trap)
        found = stored(fresh.queue)
        if (done.code, found[-1:]) != (78, [expected]):
            wrong[name] = done, found[-1:]
    assert wrong == {}
    assert not any(unsafe(expected) for _, expected in EVERYTHING.values())


def test_what_comes_as_one_line_arrives_byte_by_byte(sentinel: Sentinel, x: FakeX) -> None:
    lines = [text for _, text in EVERYTHING.values() if "\n" not in text and len(text) < 200]
    message = " | ".join(lines)
    assert sentinel.run("send", "--", message).code == 0
    assert re.sub(r"\A\[web1 [\d:]{8}\] ", "", x.dms[0].text) == message


def test_a_message_of_which_nothing_is_left_is_a_usage_error(fresh: Sentinel) -> None:
    for raw in (b"\n\n", b" \t ", b"\x1b[0m", b"\x07\x08", BIDI.encode(), "\u2028".encode()):
        assert fresh.run("send", "--no-wait", "--", raw).code == 2, raw
        assert fresh.run("send", "--no-wait", "-", input=raw + b"\0").code == 2, raw
    assert not fresh.queue.exists()


# ---- an alert's text passes for nothing but an alert's text ----


def test_what_looks_like_the_head_of_a_file_in_the_queue_is_text(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"oncall": "2002", "second": "2003"})
    text = "host: evil\nto: second\ncut: 7\n\nand no more"
    assert sentinel.run("send", text).code == 0
    assert [dm.recipient_id for dm in x.dms] == ["2002", "2003"]
    for dm in x.dms:
        assert [line.strip() for line in dm.text.splitlines() if line.strip()] == [
            f"{dm.text[:15]} host: evil", "to: second", "cut: 7", "and no more"
        ]  # fmt: skip


# ---- the terminal of whoever reads ----

EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\x08\u202eevil\u2066\U000e0041"


def said_unsafe(sentinel: Sentinel, *commands: tuple[str | bytes, ...]) -> list[list[str]]:
    """What is unsafe in the output of each command; there is some output."""
    results = [sentinel.run(*command, cwd=sentinel.home) for command in commands]
    assert all(result.out or result.err for result in results), results
    return [found for result in results if (found := unsafe(result.out + result.err))]


@pytest.mark.parametrize("name", ["host", "screen_name", "recipient", "section", "interval"])
def test_what_a_config_says_does_nothing_to_a_terminal(
    x: FakeX, sentinel: Sentinel, name: str
) -> None:
    text = sentinel.configure(interval="60").read_text()
    sentinel.config.write_text({
        "host": text.replace("host = web1", f"host = {EVIL}" + "h" * 20_000),
        "screen_name": text.replace("= sentinel_bot", f"= {EVIL}"),
        "recipient": text.replace("oncall =", f"on{EVIL} ="),
        "section": text + f"[{EVIL}]\n{EVIL}\n",
        "interval": text.replace("interval = 60", f"interval = {EVIL}"),
    }[name])  # fmt: skip
    commands = [("status",), ("status", "--json"), ("flush",), ("send", "--dry-run", "x")]
    assert said_unsafe(sentinel, *commands) == []


def test_what_is_wrong_on_the_command_line_does_nothing_to_a_terminal(fresh: Sentinel) -> None:
    evil = EVIL.encode() + b"\xff"
    commands: list[tuple[str | bytes, ...]] = [
        ("send", b"--" + evil),
        ("send", b"--no-wait=" + evil),
        (evil,),
        ("status", evil),
        ("--config", evil + b"/none.ini", "status"),
        ("--config", evil + b".ini", "send", "--no-wait", "x"),
        ("authorize", b"--to", evil),
    ]
    assert said_unsafe(fresh, *commands) == []
