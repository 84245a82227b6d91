"""The config is read as configparser reads it, and authorize changes its own lines alone.

Reading and writing are ours, so that an alert does not wait for configparser to load; here that one
says what is right.
"""

from __future__ import annotations

import configparser
import stat
import subprocess
import sys

import pytest
from conftest import Sentinel
from fake_x import FakeX
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_authorize import walk

from bird_sentinel import Config, ini_values, ini_with

profile = settings(max_examples=200, deadline=None, database=None)

WORDS = st.text("abAB1 =:#;[]%$\t\x0b\u00e9", max_size=8)
LINES = st.one_of(
    st.builds("{}[{}]{}".format, st.sampled_from(["", " "]), WORDS, WORDS),
    st.builds("{}{} {} {}".format, st.sampled_from(["", " ", "\t ", "    "]), WORDS,
              st.sampled_from("=:"), WORDS),
    st.builds("{}{}{}".format, st.sampled_from(["", "  "]), st.sampled_from("#;"), WORDS),
    WORDS,
)  # fmt: skip
TEXTS = st.lists(LINES, max_size=12).map("\n".join)


def judge(text: str) -> dict[str, dict[str, str]] | None:
    """What configparser makes of it; None: an error.  Blank lines within a value do not count."""
    parser = configparser.ConfigParser(interpolation=None, default_section="\n")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return {
        section: {
            name: "\n".join(filter(None, value.split("\n"))) for name, value in values.items()
        }
        for section, values in parser.items()
        if section != "\n"
    }


def ours(text: str) -> dict[str, dict[str, str]] | None:
    try:
        sections = ini_values(text)
    except ValueError:
        return None
    return {
        section: {name: value.strip("\n") for name, value in values.items()}
        for section, values in sections.items()
    }


@profile
@given(text=TEXTS)
def test_it_is_read_as_configparser_reads_it_or_refused_as_there(text: str) -> None:
    assert ours(text) == judge(text)


def test_an_error_is_told_with_its_line(sentinel: Sentinel) -> None:
    number = len(sentinel.config.read_text().splitlines()) + 2
    with sentinel.config.open("a") as file:
        file.write("# fine\nthis is not\n")
    done = sentinel.run("send", "disk full")
    assert done.code == 78
    assert f"has an error in line {number}" in done.err


@pytest.mark.parametrize("line", ["oncall = 2003", "OnCall = 2003", "consumer_key = other"])
def test_a_name_that_is_there_twice_is_an_error(sentinel: Sentinel, line: str) -> None:
    name = line.partition(" ")[0].lower()
    text = sentinel.config.read_text()
    sentinel.config.write_text(text.replace(f"\n{name} =", f"\n{line}\n{name} ="))
    assert sentinel.run("send", "disk full").code == 78


@pytest.mark.parametrize(
    "as_edited",
    [
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="with the line ends of Windows"),
        pytest.param(lambda text: "\ufeff" + text, id="with a byte order mark"),
        pytest.param(lambda text: text.replace(" = ", "="), id="without spaces"),
        pytest.param(lambda text: text.replace(" = ", ": "), id="with colons"),
        pytest.param(lambda text: text.replace("\n", "\n\n  # why\n"), id="with comments"),
        pytest.param(lambda text: "  " + text.replace("\n", "\n  "), id="indented"),
        pytest.param(lambda text: text.rstrip("\n"), id="without an end of its last line"),
    ],
)
def test_a_config_that_was_edited_is_read_and_written(sentinel: Sentinel, as_edited) -> None:  # type: ignore[no-untyped-def]
    text = as_edited(sentinel.config.read_text())
    sentinel.config.write_bytes(text.encode())
    assert sentinel.run("send", "disk full").code == 0
    done = walk(sentinel, "--to", "second")
    assert done.code == 0, done
    assert sentinel.run("send", "--to", "second", "disk full").code == 0


# ---- writing ----

FEW = st.lists(  # sections and names that meet, at depths that matter
    st.builds("{}{}".format, st.sampled_from(["", " ", "  "]),
              st.sampled_from(["[a]", "[b]", "a = 0", "b = 0", "A = 0", "more", "# why", ""])),
    max_size=9,
).map("\n".join)  # fmt: skip
VALUES = st.dictionaries(
    st.text("abAB", min_size=1, max_size=2), st.text("01", min_size=1, max_size=3), max_size=3
).filter(lambda values: len({name.lower() for name in values}) == len(values))


@settings(profile, max_examples=500)
@given(text=FEW | TEXTS, section=st.sampled_from(["a", "b", "new"]), values=VALUES)
def test_what_is_written_is_read_and_all_else_stays(
    text: str, section: str, values: dict[str, str]
) -> None:
    before = ours(text)
    assume(before is not None)
    assert before is not None
    lowered = {name.lower() for name in values}
    expected = {
        where: {
            name: value for name, value in old.items()
            if where != section or name.lower() not in lowered
        }
        for where, old in before.items()
    }  # fmt: skip
    expected.setdefault(section, {}).update(values)
    after = ini_with(text, section, values)
    assert ours(after) == expected
    # and no line is touched but those of these names
    kept = iter(map(str.lstrip, after.split("\n")))
    settled = {f"{name} = {value}" for name, value in values.items()}
    for line in text.split("\n"):
        if line.lower().strip().startswith(tuple(lowered)):
            continue
        if line[:1] not in " \t" or line.strip()[:1] in ("#", ";"):  # else a value may go on
            assert not line.strip() or line.lstrip() in settled or line.lstrip() in kept


def test_what_is_indented_does_not_become_part_of_a_new_value() -> None:
    text = "  [recipients]\n  oncall = 1\n  other = 3\n    and more\n  [delivery]\n"
    after = ini_with(text, "recipients", {"oncall": "4", "second": "5"})
    recipients = {"oncall": "4", "other": "3\nand more", "second": "5"}
    assert ini_values(after) == {"recipients": recipients, "delivery": {}}


def test_a_name_in_another_case_is_replaced_and_one_in_two_cases_is_made_one() -> None:
    text = "[recipients]\nOnCall = 1\n# why\nonCall = 2\nother = 3\n"
    after = "[recipients]\noncall = 4\n# why\nother = 3\nsecond = 5\n"
    assert ini_with(text, "recipients", {"oncall": "4", "second": "5"}) == after


COMMENTED = """\
# keys: see the vault, entry 17
[account]
consumer_key = {consumer_key}
consumer_secret = {consumer_secret}
; made in March
access_token = {access_token}
access_token_secret = {access_token_secret}
screen_name = sentinel_bot
colour = 50% blue

[recipients]
# on call, until Friday
OnCall = 2002

# of the site
[site]
Owner = the night shift
  and the day shift
"""


def test_authorize_leaves_comments_order_and_what_is_not_its_own(sentinel: Sentinel) -> None:
    keys = Config("", sentinel.config.read_text()).account
    sentinel.config.write_text(COMMENTED.format(**keys))
    assert walk(sentinel, "--to", "oncall", "--to", "second", "--no-test").code == 0
    text = sentinel.config.read_text()
    now = Config("", text).account
    assert now["access_token"] != keys["access_token"]
    assert text == COMMENTED.format(**now).replace("OnCall = 2002", "oncall = 2002\nsecond = 2003")
    assert stat.S_IMODE(sentinel.config.stat().st_mode) == 0o600


def test_a_new_config_is_as_the_readme_shows_it(fresh: Sentinel, x: FakeX) -> None:
    answers = [x.consumer_key, x.consumer_secret, "oncall second"]
    assert walk(fresh, "--no-test", answers=answers).code == 0
    values = Config("", fresh.config.read_text()).account
    lines = [f"{name} = {value}\n" for name, value in values.items()]
    recipients = "[recipients]\noncall = 2002\nsecond = 2003\n"
    assert fresh.config.read_text() == "[account]\n" + "".join(lines) + "\n" + recipients
    assert list(values) == [
        "consumer_key", "consumer_secret", "access_token", "access_token_secret", "screen_name"
    ]  # fmt: skip


# ---- what an alert does not wait for ----


def loaded(*words: str, env: dict[str, str]) -> set[str]:
    """The modules that Python loads when it is started with these words."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_an_alert_waits_for_no_module_that_it_does_not_need(sentinel: Sentinel) -> None:
    bare = loaded("-c", "pass", env=sentinel.env)
    script = "import bird_sentinel; bird_sentinel.run()"
    words = ("send", "--no-wait", "--", "disk\tfull: sda1 at 99%")
    names = loaded("-c", script, *words, env=sentinel.env) - bare
    assert {"bird_sentinel", "sqlite3"} <= names
    heavy = {"argparse", "configparser", "enum", "json", "logging", "random", "re", "signal",
             "subprocess", "syslog", "tempfile", "threading", "tweepy", "typing"}  # fmt: skip
    assert names & heavy == set()
