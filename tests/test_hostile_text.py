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
from fake_x import Answer, FakeX
from test_surroundings import stored

from bird_sentinel import Alert, Digest, clean, compose

DMS = "/2/dm_conversations/"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"  # what splits lines for one program or another


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
    "an option with its value": (b"--config=/nonexistent", None),
    "two dashes": (b"--", None),
    "a file to read options from": (b"@/etc/passwd", None),
    "names and tags": (b"@everyone @oncall #tag $TAG", None),
    "percent signs": (b"100% %s %n %(home)s %% %", None),
    "JSON": (b'", "participant_id": "666", "x": "{\\u0000}', None),
    "markup": (b"<script>alert(1)</script> &amp; *bold* _under_", None),
    "tabs and spaces": (b"  two\t\ttabs  ", None),
    "several lines": (b"one\n\ntwo\r\nthree\n", "one\n\ntwo\nthree"),
    "a lone carriage return": (b"shown\rhidden", "shownhidden"),
    "backspaces and bells": (b"root\x08\x08\x08\x08user\x07\x7f", "rootuser"),
    "colours": (b"\x1b[1;31mred\x1b[0m", "red"),
    "a cleared screen": (b"gone\x1b[2J\x1b[H\x1bcback", "goneback"),
    "a terminal's title": (b"\x1b]0;title\x07after", "after"),
    "a hyperlink": (b"\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
    "a device control string": (b'\x1bP$q"p\x1b\\after', "after"),
    "a title without an end": (b"\x1b]0;the rest of it", "]0;the rest of it"),
    "a title over a line's end": (b"\x1b]0;one\ntwo\x07three", "]0;one\ntwothree"),
    "an escape in an escape": (b"\x1b[\x1b[31m31mred", "[31mred"),
    "C1 controls": (b"\xc2\x9b31mred\xc2\x85", "red"),
    "C1 controls of one byte": (b"\x9b31mred", "\ufffd31mred"),
    "bidi overrides": (("user" + BIDI + "exe.txt").encode(), "userexe.txt"),
    "tags": ("see\U000e0001\U000e0068\U000e0069\U000e007fn".encode(), "seen"),
    "line separators": ("one\u2028two\u2029three".encode(), "one two three"),
    "bytes that are no UTF-8": (b"\xff\xfe caf\xe9", "\ufffd\ufffd caf\ufffd"),
    "an overlong form": (b"\xc0\xae\xc0\xae/", "\ufffd\ufffd\ufffd\ufffd/"),
    "lone surrogates": (b"\xed\xa0\x80 \xed\xb2\xff", "\ufffd" * 3 + " " + "\ufffd" * 3),
    "a cut character": (b"cut \xe2\x82", "cut \ufffd"),
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


CUT = re.compile(r"(?s)\[\S+ [\d:]{8}\] (.*?) ?\[…([0-9,]+) characters cut…\] ?(.*)\n\Z")
LONG: dict[str, tuple[str, int]] = {  # what comes, and how many characters of it are left
    "letters": ("x" * 19_500, 19_500),
    "a hundred times a DM": ("x" * 1_000_000, 1_000_000),
    "more than anybody cleans": ("x" * 5_000_000, 5_000_000),
    "lines": ("line\n" * 3000, 15_000),
    "four bytes a letter": ("\U0001f426" * 12_000, 12_000),
    "escapes, which do not count": ("\x1b[1mx\x1b[0m" * 20_000, 20_000),
    "control strings": ("\x90" * 1_000_000 + "x" * 20_000, 20_000),
}


@pytest.mark.parametrize("text, count", LONG.values(), ids=LONG.keys())
def test_what_is_too_long_loses_its_middle_and_says_how_much(
    fresh: Sentinel, text: str, count: int
) -> None:
    """The cause is often at the end."""
    whole = "first of all " + text + " and: No space left on device"
    done = fresh.run("send", "--dry-run", "-", input=whole)
    found = CUT.fullmatch(done.out)
    assert found and len(done.out) <= 10_001, done.out[-100:]
    begin, end = (part.replace("\n    ", "\n") for part in (found[1], found[3]))
    assert begin.startswith("first of all ") and end.endswith(" and: No space left on device")
    kept, gone = len(begin) + len(end), int(found[2].replace(",", ""))
    assert abs(kept + gone - count - len(whole) + len(text)) <= 2  # spaces beside the mark
    assert kept > 5000 and unsafe(done.out) == []


def test_arguments_as_long_as_the_kernel_allows_are_taken(fresh: Sentinel) -> None:
    most = 128 * 1024 - 1  # MAX_ARG_STRLEN, without its NUL
    done = fresh.run("send", "--dry-run", "--", *["x" * most] * 10)
    found = CUT.fullmatch(done.out)
    assert found, done.out[-100:]
    gone = int(found[2].replace(",", ""))
    assert len(found[1]) + gone + len(found[3]) == 10 * most + 9  # spaces between


@pytest.mark.parametrize("length, cut", [(20_000, True), (9_000, False)])
def test_who_waits_is_told_where_the_middle_was_cut(
    sentinel: Sentinel, x: FakeX, length: int, cut: bool
) -> None:
    done = sentinel.run("send", "-", input="x" * length + " […7 characters cut…]")
    assert (done.code, "warning" in done.err and "middle" in done.err) == (0, cut), done
    assert len(x.dms) == 1


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


FORGED = ["[web1] 1,000 alerts, 14:03:22 to 14:04:10", "•14:03:22 kernel: all is well",
          "  39 more like this, last 14:04:10", "and 7 more of 3 other kinds",
          "Nov 23 14:03:22 web1 sshd[7]: Accepted password for root"]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("many", [1, 3, 40], ids="{} alerts".format)
def test_no_further_line_of_an_alert_passes_for_an_entry_or_a_count(
    forged: str, many: int
) -> None:
    digest = Digest()
    for number in range(many):
        separator = "\n" if number % 2 else "\r\n"
        text = clean(f"backup: output {number} follows" + (separator + forged) * 2)
        digest.add(Alert(text, 1_700_000_000.0 + number, "web1"))
    dm = compose(digest, "", 1_700_000_100.0)
    forgeries = [line for line in dm.split("\n") if forged in line]
    assert forgeries
    assert [line for line in forgeries if not line.startswith("    ")] == []


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_what_some_take_for_the_end_of_a_line_begins_none(separator: str) -> None:
    digest = Digest()
    digest.add(Alert(clean(f"one{separator}14:03:22 two"), 0.0, "web1"))
    assert len(compose(digest, "", 0.0).splitlines()) == 1


# ---- the terminal of whoever reads ----

EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\x08\u202eevil\u2066\U000e0041"


def said_unsafe(sentinel: Sentinel, *commands: tuple[str | bytes, ...]) -> list[list[str]]:
    """What is unsafe in the output of each command; there is some output."""
    results = [sentinel.run(*command, cwd=sentinel.home) for command in commands]
    assert all(result.out or result.err for result in results), results
    return [found for result in results if (found := unsafe(result.out + result.err))]


@pytest.mark.parametrize(
    "status, said",
    [
        (403, {"title": EVIL, "detail": EVIL}),
        (400, {"errors": [{"code": 1, "message": EVIL}]}),
        (401, {"errors": [{"code": 32, "message": EVIL}]}),
        (500, EVIL),
    ],
)
def test_what_x_says_does_nothing_to_a_terminal(
    x: FakeX, sentinel: Sentinel, status: int, said: object
) -> None:
    x.answer(Answer(status, json=said), times=None, path=DMS)
    commands = [("send", "x"), ("status",), ("status", "--json"), ("flush",)]
    assert said_unsafe(sentinel, *commands) == []


def test_an_alert_that_was_put_aside_does_nothing_to_a_terminal(sentinel: Sentinel) -> None:
    for name in ("new", "refused"):
        (sentinel.queue / name).mkdir(mode=0o700, parents=True)
    aside = sentinel.queue / "refused" / f"1700000000000000000.1.{EVIL}"
    aside.write_text(f"refused: {EVIL}\n\n{EVIL} was here")
    assert "evil was here" in sentinel.run("status").out
    assert said_unsafe(sentinel, ("status",), ("status", "--json")) == []


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
