"""authorize: a PIN is asked for once, what it gave is kept, and a number proves the whole way.

At a terminal of its own, as a person sees it, and with piped answers, as a script gives them.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import pty
import re
import select
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import conftest
import pytest
from conftest import Result, Sentinel, at_once, memory_of
from fake_x import ERRORS, Answer, FakeX

CLOSED = "nothing more comes on standard input"  # in the place of a PIN
PAGE = re.compile(
    r"^ *https://api\.x\.com/oauth/authorize\?oauth_token=([^&\s]+)&force_login=true$", re.MULTILINE
)
NUMBER = re.compile(r"the number is (\d+)$")
REQUEST, ACCESS, ME = "/oauth/request_token", "/oauth/access_token", "/2/users/me"
LOOK_UP, SEND = "/2/users/by/username/", "/2/dm_conversations/"


def walk(
    sentinel: Sentinel,
    *options: str,
    answers: Iterable[str] = (),
    pins: Iterable[str] = ("",),
    env: Mapping[str, str] | None = None,
    wrapper: Iterable[str] = (),
) -> Result:
    """authorize with piped answers. For each page it shows, a PIN: the right one where it is ""."""
    assert sentinel.x
    began = time.monotonic()
    process = subprocess.Popen([*wrapper, str(conftest.COMMAND), "authorize", *options], bufsize=0,
                               env={**sentinel.env, **(env or {})}, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdin and process.stdout
    guard = threading.Timer(60, process.kill)
    guard.start()
    out, pins = b"", iter(pins)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("".join(answer + "\n" for answer in answers).encode())
        while line := process.stdout.readline():
            out += line
            page = PAGE.search(line.decode())
            if page:
                right, pin = sentinel.x.pin(page[1]), next(pins, CLOSED)
                if pin is CLOSED:
                    process.stdin.close()
                    process.stdin = None  # for communicate()
                    break
                process.stdin.write((pin or right).encode() + b"\n")
    rest, err = process.communicate()
    guard.cancel()
    took = time.monotonic() - began
    result = Result(process.returncode, (out + rest).decode(), err.decode(), took)
    assert "Traceback" not in result.err, result.err
    return result


class Terminal:
    """The command at a terminal of its own, as a person sees it and types into it."""

    def __init__(self, sentinel: Sentinel, *words: str) -> None:
        self.screen, self.read_so_far = "", 0
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", str(conftest.COMMAND), *words], env=sentinel.env,
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)

    def wait_for(self, words: str, timeout: float = 30) -> str:
        """Read until these words are on the screen, after those waited for last. Returns the
        screen between the two."""
        deadline = time.monotonic() + timeout
        while words not in self.screen[self.read_so_far :]:
            more = self.read(deadline - time.monotonic())
            assert more, f"no {words!r} on the screen:\n{self.screen}"
        end = self.screen.index(words, self.read_so_far) + len(words)
        text, self.read_so_far = self.screen[self.read_so_far : end], end
        return text

    def wait_for_page(self) -> str:
        """The oauth_token of the page on the screen, once it asks for the PIN."""
        found = PAGE.search(self.wait_for("PIN:"))
        assert found, self.screen
        return found[1]

    def read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self.master, 65_536)
        except OSError:  # nobody has the terminal open any more
            return False
        self.screen += data.decode().replace("\r\n", "\n")
        return bool(data)

    def type(self, line: str) -> None:
        os.write(self.master, line.encode() + b"\n")

    def answer(self, prompt: str, line: str, then: str = "") -> None:
        """Wait for a question, answer it, and wait for what is to come then."""
        self.wait_for(prompt)
        self.type(line)
        self.wait_for(then)

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    def end(self, timeout: float = 40) -> int:
        """Read to the end. Returns the exit status."""
        deadline = time.monotonic() + timeout
        while self.read(deadline - time.monotonic()):
            pass
        try:
            code = self.process.wait(max(1.0, deadline - time.monotonic()))
        finally:
            self.process.kill()
            os.close(self.master)
        assert "Traceback" not in self.screen, self.screen
        return code


def disk(sentinel: Sentinel) -> dict[str, tuple[int, bytes]]:
    """All that lies in the home directory: each path with its mode and content."""
    return {
        str(path.relative_to(sentinel.home)): (
            path.stat().st_mode, path.read_bytes() if path.is_file() else b""
        )
        for path in sorted(sentinel.home.rglob("*"))
    }  # fmt: skip


def config_of(sentinel: Sentinel) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    assert parser.read(sentinel.config)
    return parser


def asked(x: FakeX) -> list[str]:
    """The paths of all that was asked of X."""
    return [request.path for request in x.requests]


def warnings(done: Result) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith("bird_sentinel: warning:")]


@pytest.fixture
def keys(x: FakeX) -> list[str]:
    """The first answers: the consumer key and the consumer secret."""
    return [x.consumer_key, x.consumer_secret]


# ---- at a terminal ----

PROMPTS = ("consumer key:", "consumer secret:", "recipients", "PIN:")


def at_prompt(sentinel: Sentinel, x: FakeX, prompt: str) -> Terminal:
    """A first authorize, answered up to this prompt."""
    terminal = Terminal(sentinel, "authorize")
    for one, answer in zip(PROMPTS, (x.consumer_key, x.consumer_secret, "@oncall second", "")):
        if one == prompt:
            break
        terminal.answer(one, answer)
    return terminal


def numbers_in(x: FakeX) -> dict[str, str]:
    """The number that each phone shows."""
    found = [(x._users[dm.recipient_id].screen_name, NUMBER.search(dm.text)) for dm in x.dms]
    return {handle: number[1] for handle, number in found if number}


def test_a_slip_costs_a_question_and_not_the_set_up(fresh: Sentinel, x: FakeX) -> None:
    """What is wrong with an answer is said, and it is asked for again, in this order: key, secret,
    what X says of the two, recipients, PIN, and the number of each phone, which no other has."""
    terminal = Terminal(fresh, "authorize")
    for wrong in ("", "two words"):
        terminal.answer("consumer key:", wrong, "error: ")
    terminal.answer("consumer key:", x.consumer_secret)
    assert f"({len(x.consumer_secret)} char" in terminal.wait_for("consumer secret:")
    terminal.type(x.consumer_key)
    assert "error: X" in terminal.wait_for("consumer key:")
    terminal.type(x.consumer_key)
    terminal.answer("consumer secret:", x.consumer_secret)
    for wrong in ("", "on-call", "oncall second/third", "https://example.com/oncall"):
        terminal.answer("recipients", wrong, "error: ")
    terminal.answer("recipients", "https://x.com/OnCall twitter.com/second/?s=20")
    pin = x.pin(terminal.wait_for_page())
    terminal.type("")
    for answer in ("1", "the one on the page", f" {pin[:3]} {pin[3:]} "):
        terminal.wait_for("error: ")
        terminal.answer("PIN:", answer)
    terminal.wait_for("@oncall shows")
    numbers = numbers_in(x)
    shown = re.compile(rf"(?<![\w./])({'|'.join(numbers.values())})\b")
    assert not shown.search(terminal.screen)
    terminal.type(numbers["second"])
    terminal.wait_for("error: ")
    terminal.answer("@oncall shows", numbers["oncall"])
    terminal.answer("@second shows", "12", "error: ")
    terminal.answer("@second shows", numbers["second"])
    assert terminal.end() == 0, terminal.screen
    assert asked(x).count(REQUEST) == 2 and asked(x).count(ACCESS) == 1
    for secret in (x.consumer_key, x.consumer_secret):
        assert secret not in terminal.screen
    assert dict(config_of(fresh)["recipients"]) == {"oncall": "2002", "second": "2003"}


def test_a_handle_that_does_not_exist_is_asked_for_again(sentinel: Sentinel, x: FakeX) -> None:
    terminal = Terminal(sentinel, "authorize", "--to", "secnod", "--no-test")
    assert "@secnod" in terminal.wait_for("handle:")
    terminal.type("@third")
    assert "@third" in terminal.wait_for("handle:")
    terminal.type("x.com/second")
    assert terminal.end() == 0, terminal.screen
    assert dict(config_of(sentinel)["recipients"]) == {"oncall": "2002", "second": "2003"}


def test_enter_instead_of_the_number_says_where_to_look(sentinel: Sentinel, x: FakeX) -> None:
    terminal = Terminal(sentinel, "authorize", "--to", "oncall", "--to", "second")
    terminal.answer("@oncall shows", "", "@second shows")
    terminal.type(numbers_in(x)["second"])
    assert terminal.end() == 75, terminal.screen
    error = terminal.screen[terminal.screen.rindex("error: ") :]
    for words in ("@oncall", "message requests", "X Chat", "notification", "never set", "Chat PIN"):
        assert words in " ".join(error.split()), error


def interrupt(terminal: Terminal, saved: str) -> None:
    """Ctrl-C is told on a line of its own, with what was saved, and how to go on."""
    terminal.press(b"\x03")
    assert terminal.end(15) == 130, terminal.screen
    error, hint = terminal.screen.splitlines()[-2:]
    assert re.match(rf"bird_sentinel: error: interrupted\b{saved}", error), terminal.screen
    assert re.match(r"bird_sentinel: hint: .*bird_sentinel authorize", hint), terminal.screen


@pytest.mark.parametrize("prompt", PROMPTS)
def test_whoever_leaves_at_a_prompt_leaves_no_trace(
    fresh: Sentinel, x: FakeX, prompt: str
) -> None:
    terminal = at_prompt(fresh, x, prompt)
    terminal.wait_for(prompt)
    interrupt(terminal, ".*nothing.*saved")
    assert disk(fresh) == {}


def test_a_second_run_on_keys_that_work_says_why_there_is_a_page(sentinel: Sentinel) -> None:
    before = disk(sentinel)
    terminal = Terminal(sentinel, "authorize")
    said = terminal.wait_for("PIN:")
    assert "keys" in said and "--to" in said
    interrupt(terminal, ".*nothing.*saved")
    assert disk(sentinel) == before


@pytest.mark.parametrize("path", [ME, REQUEST, ACCESS, LOOK_UP, SEND])
def test_something_is_said_before_each_call_that_may_take_long_and_ctrl_c_ends_it(
    fresh: Sentinel, x: FakeX, path: str
) -> None:
    x.answer(Answer(mode="stall"), times=None, path=path)
    last, typed = "$^", ""
    if path in (REQUEST, ACCESS):
        terminal = at_prompt(fresh, x, "recipients" if path == REQUEST else "PIN:")
        last = "secret:"
    else:
        fresh.configure()
        terminal = Terminal(fresh, "authorize", "--to", "second")
    before = disk(fresh)
    if path == ACCESS:
        last, typed = "PIN:", x.pin(terminal.wait_for_page())
        terminal.type(typed)
    x.wait_for(lambda: [one for one in asked(x) if one.startswith(path)], 30)
    terminal.read(1)
    said = re.split(last, terminal.screen)[-1].replace(typed, "")
    assert re.sub(r"\(\d+ characters\)", "", said).strip(), "nothing was said"
    interrupt(terminal, "(?!.*nothing).*saved" if path == SEND else "")
    assert path in (LOOK_UP, SEND) or disk(fresh) == before
    fresh.wait_idle()


# ---- the first time, with piped answers: one walk, which many look at ----


class First:
    """A first authorize for two people, after an alert had come already."""

    def __init__(self, home: Path, x: FakeX) -> None:
        self.x, self.sentinel = x, Sentinel(home, x)
        home.mkdir()
        self.queued = self.sentinel.run("send", "a break-in at night")
        answers = [x.consumer_key, x.consumer_secret, "@OnCall second"]
        self.done = walk(self.sentinel, answers=answers)
        self.sentinel.wait_idle()
        self.config = config_of(self.sentinel)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    with FakeX() as x:
        x.add_user("oncall", "2002")
        x.add_user("second", "2003")
        first = First(tmp_path_factory.mktemp("first") / "home", x)
        yield first
        first.sentinel.end()


def test_piped_answers_are_taken_a_line_each_in_the_order_asked(first: First) -> None:
    assert (first.queued.code, first.done.code) == (78, 0), first.done
    account = first.config["account"]
    assert first.x._access_tokens[account["access_token"]].secret == account["access_token_secret"]
    assert account["screen_name"] == "sentinel_bot"
    assert dict(first.config["recipients"]) == {"oncall": "2002", "second": "2003"}


def test_it_asks_x_for_no_more_than_it_needs(first: First) -> None:
    dms = {f"{SEND}with/{number}/messages" for number in ("2002", "2003")}
    needed = {REQUEST, ACCESS, ME, LOOK_UP + "OnCall", LOOK_UP + "second"}
    assert (set(asked(first.x)[:5]), set(asked(first.x)[5:])) == (needed, dms)


@pytest.mark.parametrize(
    "name, value", [("proxy", "HTTPS_PROXY"), ("ca_bundle", "REQUESTS_CA_BUNDLE")]
)
def test_a_proxy_and_a_ca_bundle_that_were_in_use_are_saved(
    first: First, name: str, value: str
) -> None:
    assert first.config["delivery"][name] == first.x.env[value]
    assert first.x.env[value] in first.done.out, "and said"


def test_with_them_saved_a_worker_without_that_environment_reaches_x(first: First) -> None:
    before = len(first.x.dms)
    env = dict.fromkeys(first.x.env, "")
    assert first.sentinel.run("send", "disk full", env=env).code == 0
    first.sentinel.wait_idle()
    assert [dm.recipient_id for dm in first.x.dms[before:]] == ["2002", "2003"]


def test_what_was_queued_is_delivered_and_then_a_number_to_each_recipient(first: First) -> None:
    night = [dm.recipient_id for dm in first.x.dms[:2] if "a break-in at night" in dm.text]
    assert night == ["2002", "2003"]
    assert set(numbers_in(first.x)) == {"oncall", "second"}


def test_the_line_for_on_trouble_can_be_pasted_below_what_is_in_the_config(
    first: First, sentinel: Sentinel
) -> None:
    swatch = first.done.out.index("perlcode")
    (line,) = re.findall(r"(?m)^ *(on_trouble = .*\n)", first.done.out[swatch:])
    with open(sentinel.config, "a") as config:
        config.write(line)
    assert sentinel.run("send", "disk full").code == 0
    assert "mail" in config_of(sentinel)["delivery"]["on_trouble"]


# ---- what is not asked for ----


def test_keys_in_the_environment_are_not_asked_for(fresh: Sentinel, x: FakeX) -> None:
    env = {"BIRD_SENTINEL_CONSUMER_KEY": x.consumer_key,
           "BIRD_SENTINEL_CONSUMER_SECRET": x.consumer_secret}  # fmt: skip
    done = walk(fresh, "--no-test", answers=["oncall"], env=env)
    assert done.code == 0, done
    account = config_of(fresh)["account"]
    assert [account["consumer_key"], account["consumer_secret"]] == list(env.values())


def test_no_test_sends_no_test_dm_but_what_was_queued(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    assert fresh.run("send", "--no-wait", "--", "a break-in at night").code == 78
    assert walk(fresh, "--to", "oncall", "--no-test", answers=keys).code == 0
    fresh.wait_idle()
    assert ["a break-in at night" in dm.text for dm in x.dms] == [True]


def test_a_third_recipient_with_good_tokens_needs_no_pin(sentinel: Sentinel, x: FakeX) -> None:
    x.add_user("third", "2004")
    before = config_of(sentinel)
    done = sentinel.run("authorize", "--to", "https://x.com/third?s=20", "--no-test")
    assert done.code == 0, done
    assert asked(x) == [ME, LOOK_UP + "third"]
    assert re.search("added @third.* to @oncall, @third", done.out, re.I | re.S), done
    assert "perlcode" not in done.out
    after = config_of(sentinel)
    assert dict(after["recipients"]) == {"oncall": "2002", "third": "2004"}
    assert dict(after["account"]) == dict(before["account"])


@pytest.mark.parametrize("error", ["402-credits", "403-spend-cap", "403-client-not-enrolled"])
def test_a_refusal_that_no_pin_would_mend_asks_for_none(
    sentinel: Sentinel, x: FakeX, error: str
) -> None:
    x.answer(ERRORS[error], times=None, path="/2/users")
    done = sentinel.run("authorize", "--to", "second", "--no-test")
    assert (done.code, asked(x), PAGE.search(done.out)) == (77, [ME], None), done


@pytest.mark.parametrize("handle", ["no/body", "héros", "x" * 60, "", "https://example.com/oncall",
                                    "https://x.com/"])  # fmt: skip
def test_what_cannot_be_a_handle_is_refused_before_anything_is_asked(
    sentinel: Sentinel, x: FakeX, handle: str
) -> None:
    done = walk(sentinel, f"--to={handle}")
    assert (done.code, asked(x)) == (2, []), done


def test_two_at_once_leave_one_whole_config(sentinel: Sentinel, x: FakeX) -> None:
    done: list[Result] = []
    at_once(lambda: done.append(walk(sentinel, "--no-test")), [(), ()])
    assert [result.code for result in done] == [0, 0], done
    # a token with the other's secret would make a wrong signature
    assert sentinel.run("send", "disk full").code == 0
    assert not x.bad_signatures
    assert {path.name for path in sentinel.directory.iterdir()} == {"config.ini", "queue"}


# ---- the PIN ----


def test_a_wrong_pin_gives_a_new_page_and_another_go(fresh: Sentinel, keys: list[str]) -> None:
    done = walk(fresh, "--to", "oncall", "--no-test", answers=keys, pins=["7654321", ""])
    assert (done.code, len(set(PAGE.findall(done.out)))) == (0, 2), done


def test_three_wrong_pins_end_it_and_leave_no_trace(sentinel: Sentinel, x: FakeX) -> None:
    before = disk(sentinel)
    done = walk(sentinel, pins=["7654321", "7654322", "7654323", ""])
    assert (done.code, asked(x).count(ACCESS)) == (77, 3), done
    assert disk(sentinel) == before


def test_a_look_up_that_fails_costs_neither_a_second_pin_nor_the_recipients_that_there_are(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.revoke(config_of(sentinel)["account"]["access_token"])
    x.answer(ERRORS["503-empty"], path=ME)
    assert walk(sentinel, "--to", "oncall").code == 75
    assert sentinel.run("send", "disk full").code == 0
    done = sentinel.run("authorize", "--no-test")
    assert (done.code, asked(x).count(ACCESS)) == (0, 1), done


@pytest.mark.parametrize("path", [ME, LOOK_UP])
@pytest.mark.parametrize(
    "error, code, words",
    [("402-credits", 77, "credits"), ("429-v2", 75, "limit"), ("200-html", 75, "place of X")],
)
def test_a_look_up_that_fails_after_the_pin_costs_neither_a_second_one_nor_the_handles(
    fresh: Sentinel, x: FakeX, keys: list[str], path: str, error: str, code: int, words: str
) -> None:
    """And what it was is what status names."""
    x.answer(ERRORS[error], times=None, path=path)
    failed = walk(fresh, answers=[*keys, "oncall second"])
    assert (failed.code, words in failed.err) == (code, True), failed
    assert words in fresh.run("status").out.splitlines()[0]
    assert list(config_of(fresh)["recipients"]) == ["oncall", "second"]
    x.clear_answers()
    done = fresh.run("authorize", "--no-test")
    assert (done.code, asked(x).count(ACCESS)) == (0, 1), done
    assert dict(config_of(fresh)["recipients"]) == {"oncall": "2002", "second": "2003"}


def last_command(done: Result) -> list[str]:
    """The words behind `bird_sentinel` in the last hint."""
    hints = [line for line in done.err.splitlines() if line.startswith("bird_sentinel: hint:")]
    return hints[-1].rpartition("bird_sentinel ")[2].split()


@pytest.mark.parametrize("odd", ["unknown", "not to be looked up"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_whoever_cannot_be_looked_up_takes_nobody_else_along(
    fresh: Sentinel, x: FakeX, keys: list[str], odd: str, place: int
) -> None:
    x.add_user("third", "2004")
    names = ["oncall", "second", "third"]
    given = [*names[:place], "odd", *names[place + 1 :]] if odd == "unknown" else names
    if odd != "unknown":
        x.answer(ERRORS["503-empty"], path=LOOK_UP + names[place])
    failed = walk(fresh, "--no-test", answers=[*keys, " ".join(given)])
    assert failed.code == (2 if odd == "unknown" else 75), failed
    again = [names[place] if word in ("odd", "HANDLE") else word for word in last_command(failed)]
    done = fresh.run(*again, "--no-test")
    assert (done.code, asked(x).count(ACCESS)) == (0, 1), (failed, done)
    assert sorted(config_of(fresh)["recipients"]) == sorted(names)


# ---- what it finds out and tells ----


@pytest.mark.parametrize(
    "handle, words",
    [("shy", "not accept DMs"), ("sentinel_bot", "notification")],
)
def test_a_recipient_that_gets_no_dm_or_does_not_hear_of_it_is_warned_about(
    sentinel: Sentinel, x: FakeX, handle: str, words: str
) -> None:
    x.add_user("shy", "2004", accepts_dms=False)
    done = sentinel.run("authorize", "--to", "second", "--to", handle, "--no-test")
    assert done.code == 0, done
    assert len(warnings(done)) == 1 and words in warnings(done)[0], done.err
    assert handle in config_of(sentinel)["recipients"]


def test_a_test_dm_that_a_recipient_does_not_accept_is_told_and_the_others_get_theirs(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.add_user("shy", "2004", accepts_dms=False)
    done = sentinel.run("authorize", "--to", "shy", "--to", "oncall")
    assert done.code == 77, done
    error = next(line for line in done.err.splitlines() if "error" in line)
    assert "@shy" in error and "@oncall" not in error
    x.wait_for(lambda: [dm.recipient_id for dm in x.dms] == ["2002"])


@pytest.mark.parametrize("level", ["read", "read-write"])
@pytest.mark.parametrize("options", [(), ("--to", "oncall")], ids=["", "--to"])
def test_an_app_without_dm_permission_is_told_at_once_and_then_the_command_in_the_hint_mends_it(
    fresh: Sentinel, x: FakeX, keys: list[str], level: str, options: tuple[str, ...]
) -> None:
    x.access_level = level
    failed = walk(fresh, *options, answers=[*keys, "oncall"][: 3 - len(options) // 2])
    assert (failed.code, last_command(failed)) == (77, ["authorize"]), failed
    assert "Direct Messages" in failed.err and "console.x.com" in failed.err
    assert not [path for path in asked(x) if path.startswith(SEND)]
    assert "permission" in fresh.run("status").out.splitlines()[0]
    x.access_level = "read-write-directmessages"
    assert walk(fresh, "--no-test").code == 0
    assert fresh.run("send", "disk full").code == 0


@pytest.mark.parametrize("saved", ["of another app", "no_longer_good"])
@pytest.mark.parametrize("key", ["consumer_key", "consumer_secret"])
def test_saved_keys_that_are_of_no_use_are_told_and_asked_for_in_the_same_run(
    sentinel: Sentinel, x: FakeX, keys: list[str], key: str, saved: str
) -> None:
    text = sentinel.config.read_text()
    sentinel.config.write_text(text.replace(getattr(x, key), saved))
    done = walk(sentinel, "--no-test", answers=keys)
    assert done.code == 0, done
    assert ("no longer" in done.err) == (saved == "no_longer_good"), done
    account = config_of(sentinel)["account"]
    assert [account["consumer_key"], account["consumer_secret"]] == keys
    assert sentinel.run("send", "disk full").code == 0


def test_keys_that_x_does_not_accept_again_end_a_script_s_run(
    sentinel: Sentinel, x: FakeX, keys: list[str]
) -> None:
    before = disk(sentinel)
    x.answer(ERRORS["401-code-32"], times=None, path="/")
    done = walk(sentinel, answers=keys)
    assert (done.code, "consumer key" in done.err.splitlines()[-2]) == (77, True), done
    assert disk(sentinel) == before


@pytest.mark.parametrize("path", [REQUEST, ACCESS])
@pytest.mark.parametrize("place", [0, 1])
def test_no_key_comes_back_in_the_words_of_x(
    fresh: Sentinel, x: FakeX, keys: list[str], path: str, place: int
) -> None:
    said = {"errors": [{"code": 999, "message": f"bad: {keys[place]}"}]}
    x.answer(Answer(400, json=said), path=path, times=None)
    done = walk(fresh, answers=[*keys, "oncall"])
    assert done.code == 77 and "bad: …" in done.err and keys[place] not in done.err, done
    assert "id" not in last_command(done)


# ---- the swatchrc lines ----


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_action_printed_for_swatch_works_where_the_config_is_named(
    fresh: Sentinel, x: FakeX, keys: list[str], by: str
) -> None:
    path, options, env = fresh.home / "sub-dir" / "other.ini", [], {}
    fresh.memories.add(memory_of(path))
    if by == "option":
        options = ["--config", str(path)]
    else:
        env = {"BIRD_SENTINEL_CONFIG": str(path)}
    done = walk(fresh, "--to", "oncall", "--no-test", *options, answers=keys, env=env)
    (action,) = re.findall(r"(?m)^ +exec '(.*)'$", done.out)
    line = """break-in by "$(touch pwned)" `id`; it's \\$5 -- --to *, <b> 100% \\n"""
    env = {**fresh.env, "PATH": "/usr/bin:/bin", "SWATCH_LINE": line}  # not where the command lies
    subprocess.run(["sh", "-c", action.replace("\\$", "$")], env=env, check=True)
    x.wait_for(lambda: x.dms, 30)
    assert x.dms[0].text.partition("] ")[2] == line


def test_a_path_that_cannot_stand_in_a_swatchrc_is_warned_about(
    fresh: Sentinel, keys: list[str]
) -> None:
    path = fresh.home / "with space.ini"
    fresh.memories.add(memory_of(path))
    done = walk(fresh, "--to", "oncall", "--no-test", "--config", str(path), answers=keys)
    assert (done.code, len(warnings(done)), "swatch" in done.err) == (0, 1, True), done


# ---- one that fails before X has given the tokens ----

OFF = Answer(401, body="Failed to validate oauth signature and token",
             headers={"date": "Thu, 01 Jan 2026 00:00:00 GMT"})  # fmt: skip
FAILURES = {
    "a callback URL that is not approved": (REQUEST, ERRORS["403-code-415"], 77, "callback"),
    "a clock that is off, at the PIN": (ACCESS, OFF, 77, "clock"),
    "no tokens for the PIN": (ACCESS, Answer(200, json={}), 75, "no answer"),
    "a rate limit at the page": (REQUEST, ERRORS["429-88"], 75, "limit"),
    "something else in the place of X at the PIN": (ACCESS, ERRORS["200-html"], 75, "X"),
    "no network": (REQUEST, None, 75, "https_proxy in the environment"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_one_that_fails_is_told_and_leaves_the_disk_as_it_was(
    sentinel: Sentinel, x: FakeX, failure: str
) -> None:
    path, answer, code, words = FAILURES[failure]
    before = disk(sentinel)
    if answer:
        x.answer(answer, times=None, path=path)
    else:
        x.stop()
    done = walk(sentinel)
    errors = [line for line in done.err.splitlines() if " error: " in line]
    assert (done.code, len(errors), words in done.err) == (code, 1, True), done
    assert disk(sentinel) == before


@pytest.mark.parametrize("given", range(4))
def test_answers_that_end_too_early_are_told_and_leave_no_trace(
    fresh: Sentinel, keys: list[str], given: int
) -> None:
    if given < 3:
        answers = [*keys, "oncall"][:given]
        done = fresh.run("authorize", input="".join(answer + "\n" for answer in answers))
    else:
        done = walk(fresh, answers=[*keys, "oncall"], pins=[CLOSED])
    missing = ("consumer key", "consumer secret", "recipients", "PIN")[given]
    assert (done.code, missing in done.err) == (2, True), done
    assert disk(fresh) == {}


def test_what_keeps_the_queued_alerts_is_told_with_what_to_do(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["403-349"], times=None, when=lambda r: r.recipient_id == "2002")
    assert sentinel.run("send", "disk full").code == 77
    done = sentinel.run("authorize", "--to", "second")
    assert (done.code, "@sentinel_bot a DM" in done.err) == (0, True), done
