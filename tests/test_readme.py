"""What README.md says is what the program does, and what it shows is what people see.

That what it has for other programs works is tried in test_callers.py.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import demo
import pytest
from conftest import COMMAND, PROJECT, Sentinel, processes, until
from fake_x import ERRORS, Answer, FakeX

README = (PROJECT / "README.md").read_text()
EXAMPLE = (PROJECT / "swatchrc.example").read_text()
COMMANDS = ("authorize", "send", "flush", "status")
FENCE = r"^```\w+\n(.*?)^```$"


def flat(text: str) -> str:
    """Text without its line breaks and without Markdown's code marks."""
    return " ".join(text.replace("`", "").split())


def section(title: str) -> str:
    """What stands below a title, up to the next one of its rank or a higher one."""
    rank = title.partition(" ")[0]
    text = README.partition(f"\n{title}\n")[2]
    assert text, f"there is no {title}"
    text = re.sub(FENCE, lambda fence: fence[0].replace("\n#", "\n #"), text, flags=re.M | re.S)
    return re.split(rf"^#{{1,{len(rank)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def block(mark: str) -> str:
    """What is in the fence below a mark."""
    found = re.search(rf"<!--{mark}-->\n{FENCE}", README, re.M | re.S)
    assert found, f"the README has nothing marked {mark}"
    return found[1]


# ---- its size, its links ----


def test_it_can_be_read_at_one_sitting() -> None:
    assert len(README.split()) <= 2900


def test_its_links_lead_somewhere() -> None:
    titles = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
              for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}  # fmt: skip
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in titles
        elif not target.startswith("https://"):
            assert (PROJECT / target).exists(), target


def test_its_first_screen_says_what_it_is_needs_and_costs_and_how_to_see_it() -> None:
    screen = "\n".join(README.splitlines()[:40])
    assert "an alert as a phone shows it" in flat(screen).lower()
    assert "$0.015" in screen and "half an hour" in screen
    assert ".venv/bin/python tests/demo.py" in screen and "&& .venv/bin/pytest" in screen


# ---- reference ----


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What --help prints, by command; '' for that without a command."""
    return {
        name: subprocess.run(
            [str(COMMAND), *([name] if name else []), "--help"],
            capture_output=True, text=True, check=True,
        ).stdout
        for name in ("", *COMMANDS)
    }  # fmt: skip


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*|(?<![\w-])-h\b", text))


def told_options(helps: dict[str, str], name: str) -> set[str]:
    return options_in(helps[name].partition("\noptions:\n")[2].partition("\n\n")[0])


def test_each_help_fits_80_columns(helps: dict[str, str]) -> None:
    wide = [line for text in helps.values() for line in text.splitlines() if len(line) > 80]
    assert wide == []


def test_the_commands_and_their_options_are_those_of_help(helps: dict[str, str]) -> None:
    told = helps[""].partition("\noptions:\n")[0]
    assert re.findall(r"^ {2,4}([a-z]+)\b", told, re.MULTILINE) == list(COMMANDS)
    text = section("### Commands and options")
    shown = re.findall(r"^bird_sentinel (\w+)(.*)$", text, re.MULTILINE)
    assert [name for name, _ in shown] == list(COMMANDS)
    common = told_options(helps, "") - {"--version"}
    for name, usage in shown:
        assert options_in(usage) == told_options(helps, name) - common, name
    assert told_options(helps, "") <= options_in(re.sub(FENCE, "", text, flags=re.M | re.S))


def statuses(text: str) -> dict[str, str]:
    """Exit statuses and what they mean, without punctuation, from indented lines."""
    told: dict[str, str] = {}
    for number, words in re.findall(r"^ {,5}(\d*) {2,}(.*)$", text, re.MULTILINE):
        number = number or list(told)[-1]
        told[number] = flat(f"{told.get(number, '')} {words}")
    return {number: re.sub("[.;:,]", "", words) for number, words in told.items()}


def test_the_exit_statuses_are_those_of_help_in_the_same_words(helps: dict[str, str]) -> None:
    told = statuses(helps[""].partition("exit status:\n")[2])
    assert len(told) == 7
    assert statuses(section("### Exit status")) == told


def test_the_keys_of_status_json_are_named(sentinel: Sentinel) -> None:
    words = section("### Commands and options").partition("`status --json`")[2]
    assert re.findall(r"`(\w+)`", words) == list(sentinel.status())


def test_the_environment_variables_are_those_of_help(helps: dict[str, str]) -> None:
    told = re.findall(r"\b[A-Z]+_[A-Z_]+\b", helps[""].partition("environment:")[2])
    assert set(told) <= set(re.findall(r"`\$?([A-Z_]+)`", section("## Reference")))
    ours = re.findall(r"\bBIRD_SENTINEL_[A-Z_]+", README)
    assert set(ours) <= set(told)


def test_the_config_shown_is_taken_as_it_stands(sentinel: Sentinel, x: FakeX) -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(block("config"))
    keys = configparser.ConfigParser(interpolation=None)
    keys.read(sentinel.config)
    assert set(config["account"]) == set(keys["account"])
    config["account"] = keys["account"]
    told = sentinel.home / "told"
    config["delivery"].update({
        "proxy": sentinel.env.pop("HTTPS_PROXY"),
        "ca_bundle": sentinel.env.pop("REQUESTS_CA_BUNDLE"),
        "on_trouble": config["delivery"]["on_trouble"].replace("mail ", f"{sentinel.home}/mail "),
    })  # fmt: skip
    with sentinel.config.open("w") as file:
        config.write(file)
    assert (sentinel.run("send", "hello").code, sentinel.status()["pending"]) == (0, 0)
    assert {dm.recipient_id for dm in x.dms} == {"2002", "2003"}
    assert all(dm.text.startswith("[web1 ") for dm in x.dms)
    mail = sentinel.home / "mail"
    mail.write_text(f'#!/bin/sh\n{{ echo "$@"; cat; }} >{told}\n')
    mail.chmod(0o755)
    x.answer(ERRORS["402-credits"], times=None)
    assert sentinel.run("send", "nobody hears this").code == 77
    until(lambda: told.exists() and "nobody hears this" in told.read_text(), 10, "no mail")
    assert told.read_text().startswith("-s alerts do not get out of web1 root\n")


def test_the_config_shown_names_each_key_that_is_read() -> None:
    named = configparser.ConfigParser(interpolation=None)
    named.read_string(block("config"))
    source = (PROJECT / "bird_sentinel.py").read_text()
    read = set(re.findall(r"\bdelivery(?:\.get\(|\[)\"(\w+)\"", source))
    assert read and read <= set(named["delivery"])


# ---- every command shown ----


def test_every_command_shown_anywhere_exists_with_its_options(helps: dict[str, str]) -> None:
    fences = re.findall(FENCE, README, re.MULTILINE | re.DOTALL)
    prose = re.sub(FENCE, "", README, flags=re.MULTILINE | re.DOTALL).replace("\n", " ")
    lines = [line for fence in fences for line in fence.splitlines()] + [prose]
    called = r"(?<!/lib/)\bbird_sentinel(?:\.py)?((?: [^\s`'|;&)]+)+)"
    found = [words for line in lines for words in re.findall(called, line)]
    checked = 0
    for words in (text.split() for text in found):
        if words[0] == "--config":
            del words[:2]
        if not words or not (words[0] in COMMANDS or words[0].startswith("-")):
            continue
        name = words[0] if words[0] in COMMANDS else ""
        given = options_in(" ".join(words).partition(" -- ")[0])
        assert given <= options_in(helps[name]), words
        checked += 1
    assert checked > 20


def swatch_lines() -> list[str]:
    """What a swatchrc has to hold: the perlcode line and the action."""
    lines = re.findall(r"^(?:perlcode 1 .*| +exec .*)$", section("## swatch"), re.MULTILINE)
    assert len(lines) == 2
    return lines


def test_the_lines_for_swatch_are_those_of_the_example() -> None:
    for line in (
        *swatch_lines(),
        'pipe "bird_sentinel send --no-wait -"',
        "--tail-file='/var/log/syslog /var/log/auth.log'",
        "--read-pipe='journalctl -f -n 0 -a'",
        "logger -t arpwatch 'flip flop, a test'",
    ):
        assert flat(line) in flat(README) and flat(line) in flat(EXAMPLE)


# ---- what is shown of its output ----


def without_chance(text: str) -> str:
    """A transcript without what differs each time: keys, tokens, PINs, paths, blanks at an end."""
    text = re.sub(r"(consumer key: |PIN: |oauth_token=)[^\s&]+", r"\1…", text)
    text = re.sub(r"\b\d\d\d\b", "…", text)  # the number of the test
    text = re.sub(r"the keys are in \S+", "the keys are in …", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()


def test_the_transcript_of_authorize_is_what_a_terminal_shows(fresh: Sentinel, x: FakeX) -> None:
    # the way to X is in the config already: of one that is in use, authorize says so
    fresh.configure()
    way = f"proxy = {fresh.env.pop('HTTPS_PROXY')}\nca_bundle = {fresh.env['REQUESTS_CA_BUNDLE']}\n"
    fresh.config.write_text("[delivery]\n" + way)
    for name in ("https_proxy", "REQUESTS_CA_BUNDLE", "NO_PROXY", "no_proxy"):
        fresh.env.pop(name)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", str(COMMAND), "authorize"], env=fresh.env,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = ""

    def answer(prompt: str, line: Callable[[], str]) -> None:
        nonlocal seen
        deadline, begin = time.monotonic() + 20, len(seen)
        while not re.search(prompt, seen[begin:]):
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 4096).decode()
        os.write(ours, line().encode() + b"\n")

    answer("consumer key: $", lambda: x.consumer_key)
    answer("consumer secret: $", lambda: x.consumer_secret)
    answer("recipients .*: $", lambda: "oncall")
    answer("PIN: $", lambda: x.pin(re.findall(r"oauth_token=([^\s&]+)", seen)[0]))
    answer(r"number.*: ?$", lambda: re.findall(r"\b\d\d\d\b", x.dms[-1].text)[0])
    assert process.wait(20) == 0
    with contextlib.suppress(OSError):  # the end of a terminal
        while more := os.read(ours, 4096):
            seen += more.decode()
    os.close(ours)
    shown = without_chance(block("transcript:authorize"))
    begun, _, lines = without_chance(seen).partition(shown)
    assert not begun
    lines = re.sub(r"exec '.*/bird_sentinel ", "exec 'bird_sentinel ", lines)
    for line in swatch_lines():
        assert f"\n{line}\n" in lines


def wrapped(text: str) -> str:
    """A DM as the README shows it, of another day, and without its times of day."""
    lines = []
    for line in re.sub(r"[A-Z][a-z]{2} [ \d]\d (?=\d\d:)", "Nov 23 ", text).splitlines():
        lines += textwrap.wrap(line, demo.WIDTH, break_on_hyphens=False)
    return re.sub(r"\d\d:\d\d:\d\d", "T", "\n".join(lines))


@pytest.mark.parametrize(
    ("mark", "lines"), [("single", [demo.SINGLE]), ("storm", demo.storm())]
)
def test_the_pictures_of_dms_are_what_arrives(
    sentinel: Sentinel, x: FakeX, mark: str, lines: list[str]
) -> None:
    x.answer(Answer(mode="refuse-connect"), times=None)
    for line in lines:
        sentinel.run("send", "--no-wait", "--", time.strftime("%b %e %H:%M:%S web1 ") + line)
    sentinel.kill()  # or its next try may be before the flush
    x.clear_answers()
    assert sentinel.run("flush").code == 0
    (dm,) = x.dms
    assert wrapped(dm.text) == wrapped(block(f"picture:{mark}"))


def test_the_demo_named_in_the_readme_shows_all_alerts_and_cleans_up(tmp_path: Path) -> None:
    (words,) = re.findall(r"&& \.venv/bin/python (tests/demo\.py)$", README, re.MULTILINE)
    mark = f"demo-{tmp_path.name}-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, words], cwd=PROJECT, capture_output=True, text=True, timeout=200,
        env={**os.environ, "TMPDIR": str(tmp_path), "BIRD_SENTINEL_TEST": mark}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "played by a stand-in" in done.stdout
    shown = re.sub(r"[│╭╮╰╯─\s]+", " ", done.stdout)
    for line in (demo.SINGLE, *demo.RARE):
        assert flat(line) in flat(shown)
    counts = [int(count) for count in re.findall(r"\[\S+\] (\d+) alerts, ", shown)]
    # a DM of one alert has no count: that of authorize, the first line's, perhaps one of the storm
    single = done.stdout.count("╭") - len(counts) - 2
    assert sum(counts) + single == len(demo.storm())
    assert "ok: nothing pending" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes(mark) == []
