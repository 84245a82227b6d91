"""authorize: a PIN is asked for once, what it gave is kept, and a number proves the whole way.

At a terminal of its own, as a person sees it, and with piped answers, as a script gives them.
Needs strace.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from conftest import COMMAND, Result, Sentinel, at_once
from fake_x import ERRORS, Answer, FakeX, Mode

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
    umask: int = -1,
) -> Result:
    """authorize with piped answers. For each page it shows, a PIN: the right one where it is ""."""
    assert sentinel.x
    began = time.monotonic()
    process = sentinel.start("authorize", *options, env=env, umask=umask, bufsize=0,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)  # fmt: skip
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
            ["setsid", "--ctty", str(COMMAND), *words], env=sentinel.env,
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


def at_prompt(sentinel: Sentinel, x: FakeX, prompt: str, *options: str) -> Terminal:
    """A first authorize, answered up to this prompt."""
    terminal = Terminal(sentinel, "authorize", *options)
    for one, answer in zip(PROMPTS, (x.consumer_key, x.consumer_secret, "@oncall second", "")):
        if one == prompt:
            break
        terminal.wait_for(one)
        terminal.type(answer)
    return terminal


def number_in(x: FakeX) -> str:
    """The number that the phone shows."""
    found = NUMBER.search(x.dms[-1].text)
    assert found, x.summary()
    return found[1]


def test_at_a_terminal_key_secret_recipients_pin_and_number_are_asked_for_in_this_order(
    fresh: Sentinel, x: FakeX
) -> None:
    terminal = at_prompt(fresh, x, "PIN:")
    terminal.type(x.pin(terminal.wait_for_page()))
    terminal.wait_for("number that the phone shows")
    terminal.type(number_in(x))
    assert terminal.end() == 0, terminal.screen
    assert {dm.recipient_id for dm in x.dms} == {"2002", "2003"}


def test_at_a_terminal_the_keys_are_not_echoed(fresh: Sentinel, x: FakeX) -> None:
    terminal = at_prompt(fresh, x, "PIN:")
    terminal.wait_for("PIN:")
    terminal.press(b"\x03")
    terminal.end()
    assert [secret in terminal.screen for secret in (x.consumer_key, x.consumer_secret)] == [
        False, False
    ]  # fmt: skip


def at_number(sentinel: Sentinel, x: FakeX) -> Terminal:
    """An authorize with `--to` and good tokens, up to where it asks for the number."""
    terminal = Terminal(sentinel, "authorize", "--to", "oncall")
    terminal.wait_for("number that the phone shows")
    return terminal


def test_the_number_is_to_be_seen_on_the_phone_alone(sentinel: Sentinel, x: FakeX) -> None:
    terminal = at_number(sentinel, x)
    assert not re.search(rf"\b{number_in(x)}\b", terminal.screen)
    terminal.press(b"\x03")
    assert terminal.end() == 130, terminal.screen


def test_the_number_stands_alone_whatever_test_dms_were_queued_before(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["503-empty"], None, path=SEND)
    for _ in range(4):
        assert sentinel.run("authorize", "--to", "oncall").code == 75
    assert sentinel.status()["pending"] == 4
    x.clear_answers()
    terminal = at_number(sentinel, x)
    terminal.type(number_in(x))
    assert terminal.end() == 0, terminal.screen
    assert len(x.dms) == 2 and "4 alerts" in x.dms[0].text


def test_a_wrong_number_is_asked_for_again_until_it_is_right(sentinel: Sentinel, x: FakeX) -> None:
    terminal = at_number(sentinel, x)
    terminal.type("12")
    terminal.wait_for("error:")
    terminal.wait_for("number that the phone shows")
    terminal.type(number_in(x))
    assert terminal.end() == 0, terminal.screen


def test_enter_instead_of_the_number_says_where_to_look(sentinel: Sentinel, x: FakeX) -> None:
    terminal = at_number(sentinel, x)
    terminal.type("")
    assert terminal.end() == 75, terminal.screen
    for place in ("message requests", "X Chat", "notification"):
        assert place in terminal.screen


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("key, code", [(b"\x03", 130), (b"\x04", 2)], ids=["ctrl-c", "ctrl-d"])
def test_whoever_leaves_at_a_prompt_leaves_no_trace(
    fresh: Sentinel, x: FakeX, prompt: str, key: bytes, code: int
) -> None:
    terminal = at_prompt(fresh, x, prompt)
    terminal.wait_for(prompt)
    terminal.press(key)
    assert terminal.end() == code, terminal.screen
    assert disk(fresh) == {}


def test_ctrl_c_leaves_an_existing_config_as_it_was(sentinel: Sentinel) -> None:
    before = disk(sentinel)
    terminal = Terminal(sentinel, "authorize")
    terminal.wait_for("PIN:")
    terminal.press(b"\x03")
    assert terminal.end() == 130, terminal.screen
    assert disk(sentinel) == before


@pytest.mark.parametrize("path", [REQUEST, ACCESS])
def test_ctrl_c_while_x_does_not_answer_leaves_no_trace(
    sentinel: Sentinel, x: FakeX, path: str
) -> None:
    before = disk(sentinel)
    x.answer(Answer(mode="stall"), path=path)
    terminal = Terminal(sentinel, "authorize")
    if path == ACCESS:
        terminal.type(x.pin(terminal.wait_for_page()))
    x.wait_for(lambda: path in asked(x), 30)
    terminal.press(b"\x03")
    assert terminal.end(15) == 130, terminal.screen
    assert disk(sentinel) == before
    sentinel.wait_idle()


# ---- the first time, with piped answers: one walk, which many look at ----


class First:
    """A first authorize for two people, after an alert had come already, under umask 0."""

    def __init__(self, home: Path, x: FakeX) -> None:
        self.x, self.sentinel = x, Sentinel(home, x)
        home.mkdir()
        self.queued = self.sentinel.run("send", "--to", "second", "a break-in at night")
        self.done = walk(self.sentinel, answers=[x.consumer_key, x.consumer_secret,
                                                 "@OnCall second"], umask=0)  # fmt: skip
        self.sentinel.wait_idle()
        self.config = config_of(self.sentinel)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    with FakeX() as x:
        x.add_user("oncall", "2002")
        x.add_user("second", "2003")
        first = First(tmp_path_factory.mktemp("first") / "home", x)
        yield first
        first.sentinel.kill()


def test_piped_answers_are_taken_a_line_each_in_the_order_asked(first: First) -> None:
    assert (first.queued.code, first.done.code) == (78, 0), first.done


def test_it_asks_x_for_no_more_than_it_needs(first: First) -> None:
    dms = [f"{SEND}with/{number}/messages" for number in ("2002", "2003")]
    assert sorted(asked(first.x)[:5]) == sorted(
        [REQUEST, ACCESS, ME, LOOK_UP + "OnCall", LOOK_UP + "second"]
    )
    assert set(asked(first.x)[5:]) == set(dms)


def test_the_tokens_that_it_got_are_saved(first: First) -> None:
    account = first.config["account"]
    assert first.x._access_tokens[account["access_token"]].secret == account["access_token_secret"]


def test_the_account_that_authorized_is_saved(first: First) -> None:
    assert first.config["account"]["screen_name"] == "sentinel_bot"


def test_recipients_are_saved_as_x_spells_them_with_their_ids(first: First) -> None:
    assert dict(first.config["recipients"]) == {"oncall": "2002", "second": "2003"}


@pytest.mark.parametrize(
    "name, value", [("proxy", "HTTPS_PROXY"), ("ca_bundle", "REQUESTS_CA_BUNDLE")]
)
def test_a_proxy_and_a_ca_bundle_that_were_in_use_are_saved(
    first: First, name: str, value: str
) -> None:
    assert first.config["delivery"][name] == first.x.env[value]


def test_with_them_saved_a_worker_without_that_environment_reaches_x(first: First) -> None:
    before = len(first.x.dms)
    env = dict.fromkeys(first.x.env, "")
    assert first.sentinel.run("send", "--to", "oncall", "disk full", env=env).code == 0
    first.sentinel.wait_idle()
    assert [dm.recipient_id for dm in first.x.dms[before:]] == ["2002"]


def test_all_files_are_private_even_under_umask_0(first: First) -> None:
    found = [first.sentinel.directory.parent, *first.sentinel.directory.parent.rglob("*")]
    assert first.sentinel.config in found
    assert not [path for path in found if path.stat().st_mode & 0o077]


def test_a_test_dm_with_a_number_goes_to_each_recipient(first: First) -> None:
    numbers = [re.findall(r"the number is (\d{1,6})\b", dm.text) for dm in first.x.dms]
    assert {dm.recipient_id for dm, found in zip(first.x.dms, numbers) if found} == {"2002", "2003"}


def test_what_was_queued_is_delivered_to_whom_it_was_for(first: First) -> None:
    night = [dm.recipient_id for dm in first.x.dms if "a break-in at night" in dm.text]
    assert night == ["2003"]


@pytest.mark.parametrize("name", ["consumer_secret", "access_token", "access_token_secret"])
def test_it_never_shows_a_secret(first: First, name: str) -> None:
    assert first.config["account"][name] not in first.done.out + first.done.err


def test_it_mentions_on_trouble_at_its_end(first: First) -> None:
    assert "\non_trouble = " in first.done.out[first.done.out.index("perlcode") :]


# ---- what is not asked for ----


def test_keys_in_the_environment_are_not_asked_for(fresh: Sentinel, x: FakeX) -> None:
    env = {"BIRD_SENTINEL_CONSUMER_KEY": x.consumer_key,
           "BIRD_SENTINEL_CONSUMER_SECRET": x.consumer_secret}  # fmt: skip
    done = walk(fresh, "--no-test", answers=["oncall"], env=env)
    assert done.code == 0, done
    account = config_of(fresh)["account"]
    assert [account["consumer_key"], account["consumer_secret"]] == list(env.values())


def test_keys_and_recipients_in_the_config_are_not_asked_for(sentinel: Sentinel, x: FakeX) -> None:
    done = walk(sentinel, "--no-test")
    assert done.code == 0, done
    assert ACCESS in asked(x)


def test_no_test_sends_no_dm(fresh: Sentinel, x: FakeX, keys: list[str]) -> None:
    done = walk(fresh, "--to", "oncall", "--no-test", answers=keys)
    assert done.code == 0, done
    fresh.wait_idle()
    assert not [path for path in asked(x) if path.startswith(SEND)]


def test_without_a_test_dm_too_what_was_queued_is_delivered(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    assert fresh.run("send", "--no-wait", "--", "a break-in at night").code == 78
    assert walk(fresh, "--to", "oncall", "--no-test", answers=keys).code == 0
    x.wait_for(lambda: [dm for dm in x.dms if "a break-in at night" in dm.text], 20)


def test_a_third_recipient_with_good_tokens_needs_no_pin(sentinel: Sentinel, x: FakeX) -> None:
    x.add_user("third", "2004")
    before = config_of(sentinel)
    done = sentinel.run("authorize", "--to", "third", "--no-test")
    assert done.code == 0, done
    assert asked(x) == [ME, LOOK_UP + "third"]
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


def test_the_configs_own_proxy_goes_before_the_environments(sentinel: Sentinel, x: FakeX) -> None:
    proxy = sentinel.env["HTTPS_PROXY"]
    sentinel.configure(proxy=proxy)
    elsewhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    bypass = {"NO_PROXY": "*", "no_proxy": "*"}
    done = sentinel.run("authorize", "--to", "second", "--no-test", env={**elsewhere, **bypass})
    assert done.code == 0, done
    assert config_of(sentinel)["delivery"]["proxy"] == proxy


@pytest.mark.parametrize("bypass, used", [("", True), ("*", False)])
def test_a_proxy_of_the_environment_is_used_unless_the_environment_says_it_is_not(
    fresh: Sentinel, x: FakeX, keys: list[str], tmp_path: Path, bypass: str, used: bool
) -> None:
    """No connection gets through here: where it would go to tells."""
    env = {**fresh.env, "NO_PROXY": bypass, "no_proxy": bypass}
    calls = tmp_path / "calls"
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(calls), "-e", "trace=connect",
         "-e", "inject=connect:error=ENETUNREACH",
         str(COMMAND), "authorize", "--to", "oncall", "--no-test"],
        env=env, input="\n".join(keys) + "\n", capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, "cannot be reached" in done.stderr) == (75, True), done
    assert (f"htons({x.port})" in calls.read_text()) == used


def test_with_revoked_tokens_it_asks_for_a_pin(sentinel: Sentinel, x: FakeX) -> None:
    old = config_of(sentinel)["account"]
    x.revoke(old["access_token"])
    done = walk(sentinel, "--to", "second", "--no-test")
    assert done.code == 0, done
    assert config_of(sentinel)["account"]["access_token"] != old["access_token"]


def test_with_keys_of_another_app_it_asks_for_a_pin(sentinel: Sentinel, x: FakeX) -> None:
    text = sentinel.config.read_text()
    sentinel.config.write_text(text.replace(x.consumer_key, "of_another_app"))
    env = {"BIRD_SENTINEL_CONSUMER_KEY": x.consumer_key,
           "BIRD_SENTINEL_CONSUMER_SECRET": x.consumer_secret}  # fmt: skip
    done = walk(sentinel, "--to", "oncall", "--no-test", env=env)
    assert (done.code, ACCESS in asked(x)) == (0, True), done


def test_a_recipient_whose_id_changed_is_looked_up_anew(sentinel: Sentinel, x: FakeX) -> None:
    sentinel.configure({"second": "1999"})
    assert sentinel.run("authorize", "--to", "Second", "--no-test").code == 0
    assert dict(config_of(sentinel)["recipients"]) == {"second": "2003"}


@pytest.mark.parametrize("handle", ["no/body", "héros", "x" * 60, "--", "a?b", ""])
def test_what_cannot_be_a_handle_is_refused_before_anything_is_asked(
    sentinel: Sentinel, x: FakeX, handle: str
) -> None:
    done = walk(sentinel, f"--to={handle}")
    assert (done.code, asked(x)) == (2, []), done


def test_other_sections_keys_and_recipients_survive(sentinel: Sentinel) -> None:
    with sentinel.config.open("a") as file:
        file.write("interval = 30\ncolour = 50% blue\n[site]\nOwner = the night shift\n")
    before = config_of(sentinel)
    assert walk(sentinel, "--to", "second", "--no-test").code == 0
    after = config_of(sentinel)
    assert dict(after["site"]) == dict(before["site"])
    assert dict(after["delivery"]).items() >= dict(before["delivery"]).items()
    assert dict(after["recipients"]) == {"oncall": "2002", "second": "2003"}


def test_two_at_once_leave_one_whole_config(sentinel: Sentinel, x: FakeX) -> None:
    done: list[Result] = []
    at_once(lambda: done.append(walk(sentinel, "--no-test")), [(), ()])
    assert [result.code for result in done] == [0, 0], done
    # a token with the other's secret would make a wrong signature
    assert sentinel.run("send", "disk full").code == 0
    assert not x.bad_signatures
    assert {path.name for path in sentinel.directory.iterdir()} == {"config.ini", "queue"}


# ---- the PIN ----


def test_the_pin_may_be_typed_with_spaces(sentinel: Sentinel, x: FakeX) -> None:
    terminal = Terminal(sentinel, "authorize", "--no-test")
    pin = x.pin(terminal.wait_for_page())
    terminal.type(f" {pin[:3]} {pin[3:]} ")
    assert terminal.end() == 0, terminal.screen


def test_a_wrong_pin_gives_a_new_page_and_another_go(fresh: Sentinel, keys: list[str]) -> None:
    done = walk(fresh, "--to", "oncall", "--no-test", answers=keys, pins=["7654321", ""])
    assert (done.code, len(set(PAGE.findall(done.out)))) == (0, 2), done


def test_three_wrong_pins_end_it_and_leave_no_trace(sentinel: Sentinel, x: FakeX) -> None:
    before = disk(sentinel)
    done = walk(sentinel, pins=["7654321", "7654322", "7654323", ""])
    assert (done.code, asked(x).count(ACCESS)) == (77, 3), done
    assert disk(sentinel) == before


@pytest.mark.parametrize("path", [ME, LOOK_UP])
@pytest.mark.parametrize("error", ["503-empty", "429-v2", "200-html"])
def test_a_look_up_that_fails_after_the_pin_costs_no_second_one(
    fresh: Sentinel, x: FakeX, keys: list[str], path: str, error: str
) -> None:
    x.answer(ERRORS[error], path=path)
    failed = walk(fresh, "--to", "oncall", answers=keys)
    assert failed.code == 75, failed
    done = fresh.run("authorize", "--to", "oncall", "--no-test")
    assert done.code == 0, done
    assert asked(x).count(ACCESS) == 1
    assert dict(config_of(fresh)["recipients"]) == {"oncall": "2002"}


def test_a_look_up_that_fails_costs_no_second_pin_where_recipients_are_in_the_config(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["503-empty"], path=ME)
    assert walk(sentinel).code == 75
    done = sentinel.run("authorize", "--no-test")
    assert (done.code, asked(x).count(ACCESS)) == (0, 1), done


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
    assert list(config_of(fresh)["recipients"]) == names


def test_the_command_in_a_hint_names_the_config_in_use(
    fresh: Sentinel, x: FakeX, keys: list[str], tmp_path: Path
) -> None:
    done = walk(fresh, "--config", str(tmp_path / "its own.ini"), "--to", "nobody_here",
                answers=keys)  # fmt: skip
    assert done.code == 2 and f"authorize --config '{tmp_path}/its own.ini' --to HANDLE" in done.err
    assert "--config" not in fresh.run("send", "--nonsense").err


# ---- what it finds out and tells ----


def test_an_unknown_handle_is_told_and_the_next_go_needs_no_pin(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    done = walk(fresh, "--to", "nobody_here", answers=keys)
    assert (done.code, "@nobody_here" in done.err) == (2, True), done
    assert fresh.run("authorize", "--to", "oncall", "--no-test").code == 0
    assert dict(config_of(fresh)["recipients"]) == {"oncall": "2002"}


def test_a_recipient_that_does_not_accept_dms_is_warned_about(sentinel: Sentinel, x: FakeX) -> None:
    x.add_user("shy", "2004", accepts_dms=False)
    done = sentinel.run("authorize", "--to", "second", "--to", "shy", "--no-test")
    assert done.code == 0, done
    assert len(warnings(done)) == 1 and "@shy does not accept DMs" in warnings(done)[0], done.err
    assert config_of(sentinel)["recipients"]["shy"] == "2004"


def test_a_recipient_that_is_the_sending_account_is_warned_about(sentinel: Sentinel) -> None:
    done = sentinel.run("authorize", "--to", "sentinel_bot", "--no-test")
    assert done.code == 0, done
    assert len(warnings(done)) == 1 and "nobody gets a notification" in warnings(done)[0], done.err


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
def test_an_app_without_dm_permission_is_told_at_once_what_to_change(
    sentinel: Sentinel, x: FakeX, level: str
) -> None:
    x.access_level = level
    done = walk(sentinel)
    assert done.code == 77, done
    assert "Direct Messages" in done.err and "console.x.com" in done.err
    assert not [path for path in asked(x) if path.startswith(SEND)]


@pytest.mark.parametrize("options", [(), ("--to", "oncall")], ids=["", "--to"])
def test_once_the_app_has_dm_permission_the_command_in_the_hint_mends_it(
    fresh: Sentinel, x: FakeX, keys: list[str], options: tuple[str, ...]
) -> None:
    x.access_level = "read"
    failed = walk(fresh, *options, answers=[*keys, "oncall"][: 3 - len(options) // 2])
    assert (failed.code, last_command(failed)) == (77, ["authorize"]), failed
    x.access_level = "read-write-directmessages"
    done = walk(fresh, *options, "--no-test", answers=["oncall"] if not options else [])
    assert done.code == 0, done
    assert fresh.run("send", "disk full").code == 0


def test_keys_in_the_config_that_cannot_be_any_are_asked_for(
    sentinel: Sentinel, x: FakeX, keys: list[str]
) -> None:
    text = sentinel.config.read_text()
    sentinel.config.write_text(text.replace(x.consumer_key, "…"))
    assert walk(sentinel, "--no-test", answers=keys[:1]).code == 0
    assert config_of(sentinel)["account"]["consumer_key"] == x.consumer_key


def test_of_keys_in_the_config_that_x_does_not_accept_it_says_where_they_are(
    sentinel: Sentinel, x: FakeX
) -> None:
    text = sentinel.config.read_text()
    sentinel.config.write_text(text.replace(x.consumer_secret, "its_old_one"))
    done = walk(sentinel)
    assert done.code == 77 and str(sentinel.config) in done.err, done


def test_the_line_for_on_trouble_can_be_pasted_below_what_is_in_the_config(
    first: First, sentinel: Sentinel
) -> None:
    with open(sentinel.config, "a") as config:
        config.write("\n" + first.done.out.rpartition("\n\n")[2])
    assert sentinel.run("send", "disk full").code == 0
    assert "mail" in config_of(sentinel)["delivery"]["on_trouble"]


def test_an_answer_that_is_not_utf_8_is_told_as_what_it_is(fresh: Sentinel) -> None:
    done = fresh.run("authorize", input=b"\xff\n", env={"PYTHONIOENCODING": "utf-8:strict"})
    assert (done.code, "this is no consumer key" in done.err) == (2, True), done


def test_it_works_where_the_caller_ignores_that_children_end(sentinel: Sentinel) -> None:
    done = sentinel.run(
        "authorize", "--to", "second", "--no-test",
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )  # fmt: skip
    assert done.code == 0, done


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


def test_an_app_whose_permission_x_does_not_tell_is_authorized(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.access_level = None
    assert walk(sentinel, "--no-test").code == 0


# ---- the swatchrc lines ----


def run_in_swatch(sentinel: Sentinel, printed: str, line: bytes) -> None:
    """A swatchrc of what authorize printed, run by the real swatchdog on a log with one line."""
    lines = [one for one in printed.splitlines() if re.match(r"perlcode |\s+exec ", one)]
    assert len(lines) == 2, printed
    swatchrc, log = sentinel.home / "swatchrc", sentinel.home / "log"
    swatchrc.write_text(f"{lines[0]}\nwatchfor /break-in/\n{lines[1]}\n")
    log.write_bytes(line + b"\n")
    program = shutil.which("swatchdog") or shutil.which("swatch")
    assert program, "swatchdog is missing: apt install swatch"
    env = {**sentinel.env, "PATH": "/usr/local/bin:/usr/bin:/bin"}  # not where the command lies
    done = subprocess.run([program, f"--config-file={swatchrc}", f"--examine={log}",
                           f"--script-dir={sentinel.home}"], env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


BREAK_IN = rb"""sshd[1]: break-in by "$(touch pwned)" `id`; it's \$5 -- --to *, <b> 100% \n"""


@pytest.mark.parametrize("named", ["", "by an option", "by the environment"])
def test_the_printed_swatchrc_lines_work_with_swatch_where_the_config_is_named(
    sentinel: Sentinel, x: FakeX, named: str
) -> None:
    path, options, env = sentinel.config, [], {}
    if named:
        path = sentinel.configure(path=sentinel.home / "sub-dir" / "other.ini")
    if named == "by an option":
        options = ["--config", str(path)]
    if named == "by the environment":
        env = {"BIRD_SENTINEL_CONFIG": str(path)}
    done = sentinel.run("authorize", "--to", "oncall", "--no-test", *options, env=env)
    assert str(COMMAND.resolve()) in done.out, done
    run_in_swatch(sentinel, done.out, BREAK_IN)
    x.wait_for(lambda: x.dms, 30)
    assert x.dms[0].text.partition("] ")[2].encode() == BREAK_IN


def test_a_path_that_cannot_stand_in_a_swatchrc_is_warned_about(sentinel: Sentinel) -> None:
    path = sentinel.configure(path=sentinel.home / "with space.ini")
    done = sentinel.run("authorize", "--to", "oncall", "--no-test", "--config", str(path))
    assert (done.code, len(warnings(done)), "swatch" in done.err) == (0, 1, True), done


# ---- one that fails before X has given the tokens ----

OFF = Answer(401, body="Failed to validate oauth signature and token",
             headers={"date": "Thu, 01 Jan 2026 00:00:00 GMT"})  # fmt: skip
FAILURES = {
    "keys that X does not accept": (REQUEST, ERRORS["401-code-32"], 77, "consumer key"),
    "a callback URL that is not approved": (REQUEST, ERRORS["403-code-415"], 77, "callback URL"),
    "no callback URL": (REQUEST, ERRORS["401-code-417"], 77, "callback URL"),
    "a wrong clock": (REQUEST, ERRORS["401-code-135"], 77, "clock"),
    "a clock that is off, at the page": (REQUEST, OFF, 77, "this machine's clock is"),
    "a clock that is off, at the PIN": (ACCESS, OFF, 77, "this machine's clock is"),
    "no tokens for the PIN": (ACCESS, Answer(200, json={}), 75, "no answer (TokenMissing)"),
    "a fault of X at the page": (REQUEST, ERRORS["503-130"], 75, "fault"),
    "a fault of X at the PIN": (ACCESS, ERRORS["500-html"], 75, "fault"),
    "a rate limit at the page": (REQUEST, ERRORS["429-88"], 75, "rate limit"),
    "something else in the place of X at the page": (REQUEST, ERRORS["200-html"], 75, "X"),
    "something else in the place of X at the PIN": (ACCESS, ERRORS["200-html"], 75, "X"),
    "a proxy's 401 at the page": (REQUEST, ERRORS["401-html"], 75, "in the place of X"),
    "a proxy's 401 at the PIN": (ACCESS, ERRORS["401-html"], 75, "in the place of X"),
    "a connection lost at the page": (REQUEST, Answer(mode="reset"), 75, "cannot be reached"),
    "a connection lost at the PIN": (ACCESS, Answer(mode="lost"), 75, "cannot be reached"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_one_that_fails_is_told_and_leaves_the_disk_as_it_was(
    sentinel: Sentinel, x: FakeX, failure: str
) -> None:
    path, answer, code, words = FAILURES[failure]
    before = disk(sentinel)
    x.answer(answer, times=None, path=path)
    done = walk(sentinel)
    errors = [line for line in done.err.splitlines() if " error: " in line]
    assert (done.code, len(errors), words in done.err) == (code, 1, True), done
    assert disk(sentinel) == before


def test_one_without_a_network_is_told_and_leaves_the_disk_as_it_was(
    sentinel: Sentinel, x: FakeX
) -> None:
    before = disk(sentinel)
    x.stop()
    done = sentinel.run("authorize")
    assert (done.code, "cannot be reached" in done.err) == (75, True), done
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


def test_a_server_that_never_answers_holds_it_half_a_minute_at_the_most(
    tmp_path: Path,
) -> None:
    """Side by side, as each takes its time: the exit status, whether the disk was left as it was,
    and whether it was over in time."""
    found: dict[str, tuple[int, bool, bool]] = {}

    def attempt(path: str, mode: Mode) -> None:
        with FakeX() as x:
            x.add_user("oncall", "2002")
            sentinel = Sentinel(tmp_path / f"{mode}{path.replace('/', '.')}", x)
            sentinel.configure()
            before = disk(sentinel)
            x.answer(Answer(mode=mode), times=None, path=path)
            done = walk(sentinel)
            unchanged = disk(sentinel) == before
            took = time.time() - x.connects[0].at
            found[f"{mode} {path}"] = (done.code, unchanged, took < 35)
            sentinel.kill()

    at_once(attempt, [(REQUEST, "stall"), (ACCESS, "trickle"), ("", "stall-connect"),
                      (SEND, "stall")])  # fmt: skip
    assert found == {
        f"stall {REQUEST}": (75, True, True),
        f"trickle {ACCESS}": (75, True, True),
        "stall-connect ": (75, True, True),
        f"stall {SEND}": (75, False, True),  # the tokens were saved before
    }


def test_a_queue_that_is_not_safe_is_told_though_the_test_dm_goes(
    sentinel: Sentinel, x: FakeX
) -> None:
    assert sentinel.run("send", "disk full").code == 0
    sentinel.wait_idle()
    sentinel.queue.chmod(0o770)
    done = sentinel.run("authorize", "--to", "second")
    assert (done.code, "chmod go-w" in done.err) == (78, True), done
    assert [dm.recipient_id for dm in x.dms] == ["2002", "2003"]


def test_what_keeps_the_queued_alerts_is_told_with_what_to_do(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["403-349"], times=None, when=lambda r: r.recipient_id == "2002")
    assert sentinel.run("send", "disk full").code == 77
    done = sentinel.run("authorize", "--to", "second")
    assert (done.code, "ask them to send" in done.err) == (0, True), done
