"""Whatever stands in a log line, a config or an answer of X, it is text and nothing else.

Here it comes through arguments and standard input; test_swatchrc.py has what swatchdog does to it.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Result, Sentinel
from fake_x import ERRORS, Answer, FakeX
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bird_sentinel import KEYS, Config, Problem, read_config

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def unsafe(text: str) -> list[str]:
    """The characters of it which may do something to a terminal."""
    return [
        hex(ord(character))
        for character in text
        if character in BIDI
        or (unicodedata.category(character) == "Cc" and character not in "\n\t")
    ]


# what comes, and what must arrive; the same bytes where nothing else is said
HOSTILE: dict[str, tuple[bytes, str | None]] = {
    "a command substitution": (b"$(touch pwned) `touch pwned` ${IFS}", None),
    "shell metacharacters": (b"; touch pwned & touch pwned | tee pwned > pwned < /dev/null", None),
    "unbalanced quotes": (b"it's \"one `two 'three \\", None),
    "globs": (b"* ? [a-z]* {a,b} ~ ~root !! !$", None),
    "a comment": (b"# not a comment # nor this", None),
    "a variable": (b"$HOME $0 $$ $_ \\$PATH", None),
    "an option": (b"--version", None),
    "a short option": (b"-h", None),
    "an option with its value": (b"--config=/nonexistent", None),
    "another option": (b"--dry-run", None),
    "two dashes": (b"--", None),
    "one dash": (b"-", None),
    "dashes": (b"---- --to nobody --", None),
    "a file to read options from": (b"@/etc/passwd", None),
    "names and tags": (b"@everyone @oncall #tag $TAG", None),
    "a URL": (b"http://evil.example/?a=b&c=%41#d", None),
    "percent signs": (b"100% %s %n %(home)s %% %", None),
    "JSON": (b'", "participant_id": "666", "x": "{\\u0000}', None),
    "markup": (b"<script>alert(1)</script> &amp; *bold* _under_", None),
    "SQL": (b"'); DROP TABLE alert; -- ", None),
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
    "an escape in an escape": (b"\x1b[\x1b[31m31mred", "[31mred"),
    "C1 controls": (b"\xc2\x9b31mred\xc2\x85", "red"),
    "C1 controls of one byte": (b"\x9b31mred", "\ufffd31mred"),
    "bidi overrides": (("user" + BIDI + "exe.txt").encode(), "userexe.txt"),
    "bytes that are no UTF-8": (b"\xff\xfe caf\xe9", "\ufffd\ufffd caf\ufffd"),
    "an overlong form": (b"\xc0\xae\xc0\xae/", "\ufffd\ufffd\ufffd\ufffd/"),
    "lone surrogates": (b"\xed\xa0\x80 \xed\xb2\xff", "\ufffd" * 3 + " " + "\ufffd" * 3),
    "a cut character": (b"cut \xe2\x82", "cut \ufffd"),
    "noncharacters": ("\ufffe\uffff\U0010ffff".encode(), None),
    "a flood of combining marks": (("e" + "\u0301" * 2000).encode(), None),
    "emoji": ("\U0001f426\u200d\u2b1b \U0001f1e9\U0001f1ea".encode(), None),
}
WITH_NUL: dict[str, tuple[bytes, str | None]] = {
    "a NUL": (b"before\0after", "beforeafter"),
    "NULs at the ends": (b"\0\0both\0", "both"),
}


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A working directory with two files for globs to match; nothing may be made in it."""
    path = tmp_path / "trap"
    path.mkdir()
    for name in ("globbed", "-rf"):
        (path / name).touch()
    yield path
    assert sorted(entry.name for entry in path.iterdir()) == ["-rf", "globbed"]


def arrived(x: FakeX) -> str:
    """The one DM, without what stands before an alert."""
    (dm,) = x.dms
    match = re.fullmatch(r"\[web1 \d\d:\d\d:\d\d\] (.*)", dm.text, re.DOTALL)
    assert match, dm.text
    return match.group(1)


@pytest.mark.parametrize(("raw", "expected"), HOSTILE.values(), ids=list(HOSTILE))
def test_what_comes_as_an_argument_arrives_as_cleaned_text(
    x: FakeX, sentinel: Sentinel, trap: Path, raw: bytes, expected: str | None
) -> None:
    result = sentinel.run("send", "--", raw, input="not this", cwd=trap)
    assert (result.code, result.out, result.err) == (0, "delivered to @oncall\n", "")
    assert arrived(x) == (raw.decode() if expected is None else expected)


@pytest.mark.parametrize(
    ("raw", "expected"), [*HOSTILE.values(), *WITH_NUL.values()], ids=[*HOSTILE, *WITH_NUL]
)
def test_what_comes_on_standard_input_arrives_as_cleaned_text(
    x: FakeX, sentinel: Sentinel, trap: Path, raw: bytes, expected: str | None
) -> None:
    result = sentinel.run("send", "-", input=raw, cwd=trap)
    assert (result.code, result.out, result.err) == (0, "delivered to @oncall\n", "")
    assert arrived(x) == (raw.decode() if expected is None else expected)


@pytest.mark.parametrize("raw", [b"", b"\n\n", b" \t ", b"\x1b[0m", b"\x07\x08", BIDI.encode()])
def test_a_message_of_which_nothing_is_left_is_a_usage_error(
    x: FakeX, sentinel: Sentinel, raw: bytes
) -> None:
    assert sentinel.run("send", "--", raw).code == 2
    assert sentinel.run("send", "-", input=raw + b"\0").code == 2
    assert not x.dms


# ---- long lines ----

LONG = {
    "letters": b"x" * 1_000_000,
    "two bytes a letter": "\u00e9".encode() * 500_000,
    "four bytes a letter": "\U0001f426".encode() * 250_000,
    "escapes": b"\x1b]" * 500_000 + b"the end",
    "half escapes": b"\x1b[" * 500_000 + b"the end",
    "combining marks": b"e" + "\u0301".encode() * 500_000,
    "digits": b"1234567890" * 100_000,
    "lines": b"line\n" * 200_000,
    "bytes that are no UTF-8": b"\xff" * 1_000_000,
    "spaces before the end": b"x" + b" " * 1_000_000 + b"x",
}


def whole(x: FakeX) -> tuple[str, int]:
    """What is shown of a line that was cut, and how many characters it had."""
    match = re.fullmatch(r"(.*) \[\u2026([0-9,]+) characters cut\]", arrived(x), re.DOTALL)
    assert match, arrived(x)[-100:]
    return match.group(1), len(match.group(1)) + int(match.group(2).replace(",", ""))


@pytest.mark.parametrize("line", LONG.values(), ids=list(LONG))
def test_a_line_of_a_megabyte_is_cut_and_delivered(
    x: FakeX, sentinel: Sentinel, line: bytes
) -> None:
    result = sentinel.run("send", "-", input=line)
    assert (result.code, result.err) == (0, "")
    assert len(x.dms[0].text) <= 10_000
    assert result.seconds < 20


@pytest.mark.parametrize("kind", ["letters", "two bytes a letter", "four bytes a letter", "digits"])
def test_a_long_line_says_how_many_characters_are_gone(
    x: FakeX, sentinel: Sentinel, kind: str
) -> None:
    sentinel.run("send", "-", input=LONG[kind])
    shown, length = whole(x)
    assert LONG[kind].decode().startswith(shown)
    assert length == len(LONG[kind].decode())


def test_arguments_as_long_as_the_kernel_allows_are_cut_and_delivered(
    x: FakeX, sentinel: Sentinel
) -> None:
    most = 128 * 1024 - 1  # MAX_ARG_STRLEN, without its NUL
    result = sentinel.run("send", "--", *["x" * most] * 10)
    assert (result.code, result.err) == (0, "")
    assert whole(x)[1] == 10 * most + 9  # with the spaces between


# ---- the terminal of whoever reads ----

EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\r\x08\u202eevil\u2066"


def readings(sentinel: Sentinel) -> list[Result]:
    commands = ["status", "status --json", "flush", "send --dry-run x", "send --no-wait x"]
    return [sentinel.run(*command.split()) for command in commands]


@pytest.mark.parametrize("body", ["title", "detail", "message"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_what_x_says_does_nothing_to_a_terminal(
    x: FakeX, sentinel: Sentinel, status: int, body: str
) -> None:
    said: object = {"errors": [{"code": 1, body: EVIL}]} if body == "message" else {body: EVIL}
    x.answer(Answer(status, json=said), times=None)
    results = [sentinel.run("send", "x"), *readings(sentinel)[:2]]
    assert [unsafe(result.out + result.err) for result in results] == [[]] * len(results)


def test_an_alert_that_x_refused_does_nothing_to_the_terminal_of_who_reads_it(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(ERRORS["403-151-other"])
    assert sentinel.run("send", f"refused {EVIL}").code == 77
    result = sentinel.run("status")
    assert "refused " in result.out
    assert unsafe(result.out) == []


@pytest.mark.parametrize("name", ["host", "screen_name", "queue", "recipient", "section"])
def test_what_a_config_says_does_nothing_to_a_terminal(
    x: FakeX, sentinel: Sentinel, name: str
) -> None:
    evil = EVIL.replace("\r", "")
    text = sentinel.configure(host="web1").read_text()
    changed = {
        "host": text.replace("host = web1", f"host = {evil}"),
        "screen_name": text.replace("= sentinel_bot", f"= {evil}"),
        "queue": text + f"queue = {evil}.db\n",
        "recipient": text.replace("oncall =", f"on{evil} ="),
        "section": text + f"[{evil}]\n{evil}\n",
    }[name]
    sentinel.config.write_text(changed)
    results = readings(sentinel)
    assert [unsafe(result.out + result.err) for result in results] == [[]] * len(results)


def test_what_is_wrong_on_the_command_line_does_nothing_to_a_terminal(sentinel: Sentinel) -> None:
    evil = EVIL.encode() + b"\xff"
    results = [
        sentinel.run("send", b"--to", evil, "x"),
        sentinel.run("send", b"--" + evil),
        sentinel.run(evil),
        sentinel.run("--config", evil + b"/none.ini", "status"),
        sentinel.run("--config", evil + b"/none.ini", "send", "x", cwd=sentinel.home),
        sentinel.run("authorize", b"--to", evil),
    ]
    assert [unsafe(result.out + result.err) for result in results] == [[]] * len(results)


# ---- an odd config ----

ODD_QUEUES = ["\0", "a\0b", "x" * 300, ("x" * 250 + "/") * 20 + "q", "~nobody_of_that_name/q",
              "/", ".", "..", "/dev/null", "/proc/self/mem", "/dev/full", "%(home)s", "$HOME/q",
              "q\u2028\u20ac", ":memory:", "file:q?mode=memory", "-q", "\ud7ff"]  # fmt: skip


@pytest.mark.parametrize("queue", ODD_QUEUES, ids=[repr(queue)[:30] for queue in ODD_QUEUES])
def test_an_odd_queue_is_used_or_told_of_and_the_alert_delivered(
    x: FakeX, sentinel: Sentinel, queue: str
) -> None:
    sentinel.configure(queue=queue)
    result = sentinel.run("send", "odd queue", cwd=sentinel.home)
    assert "unexpected" not in result.err
    assert (result.code == 0) == (len(x.dms) == 1)
    assert result.code == 0 or "bird_sentinel: error: " in result.err


ODD_HOSTS = ["%s %(host)s %", "${HOSTNAME}", "h" * 20_000, "\u20ac" * 5000, "a\n b\n c", "[x] #; =",
             '"quoted"', "\0"]  # fmt: skip


@pytest.mark.parametrize("host", ODD_HOSTS, ids=[repr(host)[:20] for host in ODD_HOSTS])
def test_with_an_odd_host_the_alert_is_delivered_whole(
    x: FakeX, sentinel: Sentinel, host: str
) -> None:
    sentinel.configure(host=host)
    assert sentinel.run("send", "odd host").code == 0
    assert x.dms[0].text.endswith("] odd host")
    assert len(x.dms[0].text) < 200
    assert unsafe(x.dms[0].text) == []


SECRET = "q9Zx7secret7xZ9q"
GOOD = {
    "account": {**{key: SECRET for key in KEYS}, "screen_name": "sentinel_bot"},
    "recipients": {"oncall": "2002"},
    "delivery": {"host": "web1", "queue": ""},
}


def ini(sections: dict[str, dict[str, str]]) -> str:
    return "".join(
        f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
        for section, values in sections.items()
    )


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="config-"))
    yield path
    shutil.rmtree(path)


def read(directory: Path, content: bytes) -> Config | Problem:
    """What read_config makes of a file; nothing but a Problem may come out of it."""
    path = directory / "config.ini"
    path.write_bytes(content)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    try:
        config = read_config(str(path))
    except Problem as problem:
        assert problem.status == 78
        assert problem.message
        assert SECRET not in problem.message + problem.hint
        assert SECRET not in repr(problem.args)
        return problem
    assert config.host
    assert config.queue
    assert all(config.account[key] for key in KEYS)
    assert config.recipients
    return config


fuzz = settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LINES = st.one_of(
    st.sampled_from(
        ["[account]", "[recipients]", "[delivery]", "[DEFAULT]", "[]", "[", "[\n]", "=", ":", " =",
         f"consumer_key = {SECRET}", f"consumer_key {SECRET}", f"  {SECRET}", f"\t{SECRET}", SECRET,
         f"{SECRET} = {SECRET}", f"[{SECRET}", f"[{SECRET}]", f"{SECRET}]", "oncall = 2002",
         "oncall : 2002", "oncall", "queue = \0", "queue = ~\0", "host = %(x)s", "# a comment", ";",
         "", " ", "\x0b", "\x85", "\u2028", "\ufeff", "\x1c[account]", "name = \r", "\r[x]"]
    ),
    st.text(max_size=30),
)  # fmt: skip


@fuzz
@given(content=st.binary(max_size=2000))
def test_of_random_bytes_the_config_reader_says_what_is_wrong(
    directory: Path, content: bytes
) -> None:
    assert isinstance(read(directory, content), Problem)


@fuzz
@given(lines=st.lists(LINES, max_size=20), whole=st.booleans())
def test_of_random_lines_the_config_reader_makes_a_config_or_says_what_is_wrong(
    directory: Path, lines: list[str], whole: bool
) -> None:
    text = (ini(GOOD) if whole else "") + "\n".join(lines)
    read(directory, text.encode("utf-8", "surrogatepass"))


@fuzz
@given(content=st.binary(max_size=20), at=st.integers(0, len(ini(GOOD))), over=st.integers(0, 20))
def test_of_a_config_with_random_bytes_in_it_the_same(
    directory: Path, content: bytes, at: int, over: int
) -> None:
    good = ini(GOOD).encode()
    read(directory, good[:at] + content + good[at + over :])


@fuzz
@given(value=st.text(max_size=50), key=st.sampled_from([*KEYS, "screen_name", "host", "queue"]))
def test_of_a_config_with_an_odd_value_the_same(directory: Path, value: str, key: str) -> None:
    sections = {
        section: {name: value if name == key else kept for name, kept in values.items()}
        for section, values in GOOD.items()
    }
    read(directory, ini(sections).encode("utf-8", "surrogatepass"))


@fuzz
@given(handle=st.text(min_size=1, max_size=60), number=st.text(max_size=30))
def test_of_a_config_with_an_odd_recipient_the_same(
    directory: Path, handle: str, number: str
) -> None:
    found = read(
        directory, ini({**GOOD, "recipients": {handle: number}}).encode("utf-8", "replace")
    )
    if isinstance(found, Config):
        for name, id in found.recipients.items():
            assert re.fullmatch("[A-Za-z0-9_]+", name)
            assert re.fullmatch("[0-9]+", id)


def test_the_whole_config_is_read(directory: Path) -> None:
    config = read(directory, ini(GOOD).encode())
    assert isinstance(config, Config)
    assert (config.host, config.recipients) == ("web1", {"oncall": "2002"})
    assert config.account["access_token_secret"] == SECRET


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, "", " ", "two words", "tab\tbed", "caf\u00e9", "nul\0"])
def test_a_key_that_is_missing_or_odd_is_named(
    directory: Path, key: str, value: str | None
) -> None:
    account = {name: kept for name, kept in GOOD["account"].items() if name != key}
    if value is not None:
        account[key] = value
    problem = read(directory, ini({**GOOD, "account": account}).encode())
    assert isinstance(problem, Problem)
    assert re.search(rf"\b{key}\b", problem.message)


@pytest.mark.parametrize("section", ["account", "recipients"])
def test_a_section_that_is_missing_is_told(directory: Path, section: str) -> None:
    problem = read(directory, ini({k: v for k, v in GOOD.items() if k != section}).encode())
    assert isinstance(problem, Problem)
    assert section in problem.message


@pytest.mark.parametrize(
    "mark", ["%", "%s", "%(consumer_key)s", "${x}", "#", ";", "=", ":", "'", '"']
)
def test_marks_in_a_value_are_ordinary_characters(directory: Path, mark: str) -> None:
    account = {**GOOD["account"], "consumer_secret": f"a{mark}b"}
    config = read(directory, ini({**GOOD, "account": account}).encode())
    assert isinstance(config, Config)
    assert config.account["consumer_secret"] == f"a{mark}b"
