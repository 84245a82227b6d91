"""authorize: the PIN flow at a terminal and with piped answers, and what it leaves on disk."""

from __future__ import annotations

import configparser
import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Callable

import pytest
from conftest import COMMAND, Result, Sentinel, at_once
from fake_x import ERRORS, Answer, FakeX, Mode

CLOSED = "nothing more comes on standard input"  # in the place of a PIN
PAGE = re.compile(r"https://api\.twitter\.com/oauth/authorize\?oauth_token=(\S+)")


def walk(
    sentinel: Sentinel,
    *options: str,
    answers: Iterable[str] = (),
    pins: Iterable[str] = ("",),
    env: Mapping[str, str] | None = None,
    umask: int = -1,
    hold: Callable[[], object] = lambda: None,
) -> Result:
    """authorize with piped answers. For each page it shows, a PIN: the right one where it is "".
    `hold` is called before a PIN is given."""
    assert sentinel.x
    began = time.monotonic()
    process = sentinel.start("authorize", *options, env=env, umask=umask, bufsize=0,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdin and process.stdout
    guard = threading.Timer(90, process.kill)
    guard.start()
    out, pins = b"", iter(pins)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("".join(answer + "\n" for answer in answers).encode())
        while line := process.stdout.readline():
            out += line
            page = PAGE.search(line.decode())
            if page:
                right, pin = sentinel.x.pin(page[1]), next(pins, CLOSED)
                hold()
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
    assert parser.read(sentinel.config)
    return parser


@pytest.fixture
def keys(x: FakeX) -> list[str]:
    """The first answers: the consumer key and the consumer secret."""
    return [x.consumer_key, x.consumer_secret]


# ---- at a terminal ----


def page_at(terminal: Terminal) -> str:
    """The oauth_token of the page on the screen, once it asks for the PIN."""
    found = PAGE.search(terminal.wait_for("PIN:"))
    assert found
    return found[1]


def test_at_a_terminal_it_asks_for_key_secret_recipients_and_pin_in_this_order(
    fresh: Sentinel, x: FakeX
) -> None:
    terminal = Terminal(fresh, "authorize")
    terminal.wait_for("consumer key:")
    terminal.type(x.consumer_key)
    terminal.wait_for("consumer secret:")
    terminal.type(x.consumer_secret)
    terminal.wait_for("recipients")
    terminal.type("@oncall second")
    terminal.type(x.pin(page_at(terminal)))
    assert terminal.end() == 0, terminal.screen
    assert {dm.recipient_id for dm in x.dms} == {"2002", "2003"}


def test_at_a_terminal_the_consumer_secret_is_not_echoed(fresh: Sentinel, x: FakeX) -> None:
    terminal = Terminal(fresh, "authorize", "--to", "oncall", "--no-test")
    terminal.wait_for("consumer key:")
    terminal.type(x.consumer_key)
    terminal.wait_for("consumer secret:")
    terminal.type(x.consumer_secret)
    terminal.type(x.pin(page_at(terminal)))
    assert terminal.end() == 0, terminal.screen
    assert x.consumer_key in terminal.screen
    assert x.consumer_secret not in terminal.screen


def test_at_a_terminal_a_wrong_pin_gives_a_new_page_and_another_go(
    sentinel: Sentinel, x: FakeX
) -> None:
    terminal = Terminal(sentinel, "authorize")
    first = page_at(terminal)
    x.pin(first)
    terminal.type("7654321")
    second = page_at(terminal)
    assert second != first
    terminal.type(x.pin(second))
    assert terminal.end() == 0, terminal.screen


def test_at_a_terminal_an_unknown_handle_is_asked_for_again(sentinel: Sentinel, x: FakeX) -> None:
    terminal = Terminal(sentinel, "authorize", "--to", "secnod")
    terminal.type(x.pin(page_at(terminal)))
    terminal.wait_for("@secnod")
    terminal.wait_for("right handle:")
    terminal.type("second")
    assert terminal.end() == 0, terminal.screen
    assert config_of(sentinel)["recipients"]["second"] == "2003"


PROMPTS = ("consumer key:", "consumer secret:", "recipients", "PIN:")


def at_prompt(sentinel: Sentinel, x: FakeX, prompt: str) -> Terminal:
    """A first authorize, answered up to this prompt."""
    terminal = Terminal(sentinel, "authorize")
    for one, answer in zip(PROMPTS, (x.consumer_key, x.consumer_secret, "oncall", "")):
        terminal.wait_for(one)
        if one == prompt:
            break
        terminal.type(answer)
    return terminal


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ctrl_c_at_each_prompt_leaves_no_trace(fresh: Sentinel, x: FakeX, prompt: str) -> None:
    terminal = at_prompt(fresh, x, prompt)
    terminal.press(b"\x03")
    assert terminal.end() == 130, terminal.screen
    assert disk(fresh) == {}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ctrl_d_at_each_prompt_is_told_as_a_missing_answer(
    fresh: Sentinel, x: FakeX, prompt: str
) -> None:
    terminal = at_prompt(fresh, x, prompt)
    terminal.press(b"\x04")
    assert terminal.end() == 2, terminal.screen
    assert "bird_sentinel: error:" in terminal.screen
    assert disk(fresh) == {}


def test_ctrl_c_leaves_an_existing_config_as_it_was(sentinel: Sentinel) -> None:
    before = disk(sentinel)
    terminal = Terminal(sentinel, "authorize")
    terminal.wait_for("PIN:")
    terminal.press(b"\x03")
    assert terminal.end() == 130, terminal.screen
    assert disk(sentinel) == before


def test_ctrl_c_while_the_right_handle_is_asked_for_leaves_the_config_as_it_was(
    sentinel: Sentinel, x: FakeX
) -> None:
    before = disk(sentinel)
    terminal = Terminal(sentinel, "authorize", "--to", "secnod")
    terminal.type(x.pin(page_at(terminal)))
    terminal.wait_for("right handle:")
    terminal.press(b"\x03")
    assert terminal.end() == 130, terminal.screen
    assert disk(sentinel) == before


@pytest.mark.parametrize("path", ["/oauth/request_token", "/oauth/access_token"])
def test_ctrl_c_while_x_does_not_answer_leaves_no_trace(
    sentinel: Sentinel, x: FakeX, path: str
) -> None:
    before = disk(sentinel)
    x.answer(Answer(mode="stall"), path=path)
    terminal = Terminal(sentinel, "authorize")
    if path == "/oauth/access_token":
        terminal.type(x.pin(page_at(terminal)))
    x.wait_for(lambda: any(r.path == path for r in x.requests), 30)
    terminal.press(b"\x03")
    assert terminal.end(15) == 130, terminal.screen
    assert disk(sentinel) == before


# ---- with piped answers ----


def test_piped_answers_are_taken_a_line_each_in_the_order_asked(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    done = walk(fresh, answers=[*keys, "oncall second"])
    assert done.code == 0, done
    assert dict(config_of(fresh)["recipients"]) == {"oncall": "2002", "second": "2003"}


def test_keys_in_the_environment_are_not_asked_for(fresh: Sentinel, x: FakeX) -> None:
    env = {"BIRD_SENTINEL_CONSUMER_KEY": x.consumer_key,
           "BIRD_SENTINEL_CONSUMER_SECRET": x.consumer_secret}  # fmt: skip
    done = walk(fresh, answers=["oncall"], env=env)
    assert done.code == 0, done
    account = config_of(fresh)["account"]
    assert [account["consumer_key"], account["consumer_secret"]] == list(env.values())


def test_keys_and_recipients_in_the_config_are_not_asked_for(sentinel: Sentinel) -> None:
    done = walk(sentinel)
    assert done.code == 0, done


def test_recipients_named_by_to_are_not_asked_for(fresh: Sentinel, keys: list[str]) -> None:
    done = walk(fresh, "--to", "oncall", "--to", "@second", answers=keys)
    assert done.code == 0, done
    assert list(config_of(fresh)["recipients"]) == ["oncall", "second"]


def test_the_pin_may_be_typed_with_spaces(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(), path="/oauth/request_token")
    process = sentinel.start("authorize", stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin and process.stdout
    while not (page := PAGE.search(process.stdout.readline().decode())):
        assert process.poll() is None
    pin = x.pin(page[1])
    process.stdin.write(f"{pin[:3]} {pin[3:]} \n".encode())
    process.communicate()
    assert process.returncode == 0


def test_a_wrong_pin_then_the_right_one_authorizes(fresh: Sentinel, keys: list[str]) -> None:
    done = walk(fresh, answers=[*keys, "oncall"], pins=["7654321", ""])
    assert done.code == 0, done
    assert "PIN" in done.err


def test_three_wrong_pins_end_it(sentinel: Sentinel, x: FakeX) -> None:
    done = walk(sentinel, pins=["7654321", "7654322", "7654323", ""])
    assert done.code == 77, done
    assert [r.path for r in x.requests].count("/oauth/access_token") == 3


def test_each_wrong_pin_gets_a_new_page(sentinel: Sentinel) -> None:
    done = walk(sentinel, pins=["7654321", "7654322", "7654323"])
    pages = PAGE.findall(done.out)
    assert len(set(pages)) == len(pages) == 3


# ---- what it saves ----


def test_alerts_are_sent_with_the_tokens_that_it_obtained(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    walk(fresh, "--no-test", answers=[*keys, "oncall"])
    assert fresh.run("send", "disk full").code == 0
    assert [dm.text.partition("] ")[2] for dm in x.dms] == ["disk full"]
    assert not x.bad_signatures


def test_the_account_that_authorized_is_saved(fresh: Sentinel, keys: list[str]) -> None:
    walk(fresh, "--no-test", answers=[*keys, "oncall"])
    assert config_of(fresh)["account"]["screen_name"] == "sentinel_bot"


def test_a_recipient_is_stored_as_x_spells_it_with_its_numeric_id(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    x.add_user("NightShift", "2009")
    walk(fresh, "--to", "@nightshift", "--no-test", answers=keys)
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(fresh.config)
    assert dict(parser["recipients"]) == {"NightShift": "2009"}


def test_sending_looks_nobody_up(fresh: Sentinel, x: FakeX, keys: list[str]) -> None:
    walk(fresh, "--no-test", answers=[*keys, "oncall"])
    before = len(x.requests)
    fresh.run("send", "disk full")
    assert [r.path for r in x.requests[before:]] == ["/2/dm_conversations/with/2002/messages"]


def test_an_unknown_handle_is_told_and_nothing_is_saved(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    done = walk(fresh, "--to", "nobody_here", answers=keys)
    assert done.code == 2, done
    assert "@nobody_here" in done.err
    assert disk(fresh) == {}


@pytest.mark.parametrize("handle", ["no/body", "héros", "x" * 60, "--", "a?b"])
def test_what_cannot_be_a_handle_is_refused_before_any_page_is_shown(
    sentinel: Sentinel, x: FakeX, handle: str
) -> None:
    done = walk(sentinel, f"--to={handle}")
    assert done.code == 2, done
    assert not x.requests


def test_files_are_0600_and_the_directory_0700_even_under_umask_000(
    fresh: Sentinel, keys: list[str]
) -> None:
    done = walk(fresh, answers=[*keys, "oncall"], umask=0)
    assert done.code == 0, done
    fresh.wait_idle()
    for directory in (fresh.directory, fresh.directory.parent):
        assert oct(directory.stat().st_mode & 0o777) == "0o700", directory
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in fresh.directory.iterdir()}
    assert {"config.ini", "queue.db"} <= modes.keys()
    assert set(modes.values()) == {"0o600"}, modes


def test_a_second_authorize_replaces_the_tokens(sentinel: Sentinel, x: FakeX) -> None:
    old = config_of(sentinel)["account"]
    x.revoke(old["access_token"])
    assert walk(sentinel).code == 0
    new = config_of(sentinel)["account"]
    assert new["access_token"] != old["access_token"]
    assert new["access_token_secret"] != old["access_token_secret"]


def test_a_second_authorize_keeps_other_sections_keys_and_recipients(sentinel: Sentinel) -> None:
    with sentinel.config.open("a") as file:
        file.write("colour = 50% blue\n[site]\nOwner = the night shift\n")
    before = config_of(sentinel)
    assert walk(sentinel, "--to", "second").code == 0
    after = config_of(sentinel)
    assert dict(after["site"]) == dict(before["site"])
    assert dict(after["delivery"]) == dict(before["delivery"])
    assert dict(after["recipients"]) == {"oncall": "2002", "second": "2003"}


def test_a_recipient_whose_id_changed_is_looked_up_anew_where_it_is_named(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"second": "1999"})
    assert walk(sentinel, "--to", "Second").code == 0
    assert dict(config_of(sentinel)["recipients"]) == {"second": "2003"}


@pytest.mark.parametrize("_", range(3))
def test_two_at_once_leave_one_whole_config(sentinel: Sentinel, x: FakeX, _: int) -> None:
    both, done = threading.Barrier(2, timeout=60), []

    def authorize() -> None:
        done.append(walk(sentinel, "--no-test", hold=both.wait))

    threads = [threading.Thread(target=authorize) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert [result.code for result in done] == [0, 0], done
    # a token with the other's secret would make a wrong signature
    assert sentinel.run("send", "disk full").code == 0
    assert not x.bad_signatures
    others = {path.name for path in sentinel.directory.iterdir()} - {"config.ini"}
    assert all(name.startswith("queue.db") for name in others), others


# ---- what it proves and tells ----


def test_a_test_dm_goes_to_each_recipient(fresh: Sentinel, x: FakeX, keys: list[str]) -> None:
    done = walk(fresh, answers=[*keys, "oncall second"])
    assert done.code == 0, done
    assert sorted(dm.recipient_id for dm in x.dms) == ["2002", "2003"]


def test_no_test_sends_no_dm(fresh: Sentinel, x: FakeX, keys: list[str]) -> None:
    done = walk(fresh, "--no-test", answers=[*keys, "oncall"])
    assert done.code == 0, done
    fresh.wait_idle()
    assert x.dms == []


def test_a_recipient_that_does_not_accept_dms_is_warned_about(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    x.add_user("shy", "2004", accepts_dms=False)
    done = walk(fresh, "--to", "oncall", "--to", "shy", "--no-test", answers=keys)
    assert done.code == 0, done
    warnings = [line for line in done.err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "@shy" in warnings[0] and "DM" in warnings[0], done.err
    assert config_of(fresh)["recipients"]["shy"] == "2004"


def test_a_test_dm_that_a_recipient_does_not_accept_is_told_and_the_others_get_theirs(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    x.add_user("shy", "2004", accepts_dms=False)
    done = walk(fresh, "--to", "shy", "--to", "oncall", answers=keys)
    assert done.code == 77, done
    error = next(line for line in done.err.splitlines() if "error" in line)
    assert "@shy" in error and "@oncall" not in error
    assert [dm.recipient_id for dm in x.dms] == ["2002"]


@pytest.mark.parametrize("level", ["read", "read-write"])
def test_an_app_without_dm_permission_is_told_what_to_change(
    sentinel: Sentinel, x: FakeX, level: str
) -> None:
    before = disk(sentinel)
    x.access_level = level
    done = walk(sentinel)
    assert done.code == 77, done
    assert "Direct message" in done.err and "developer portal" in done.err
    assert disk(sentinel) == before


def test_an_app_whose_permission_x_does_not_tell_is_authorized(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.access_level = None
    assert walk(sentinel).code == 0


def test_what_was_queued_before_is_delivered(fresh: Sentinel, x: FakeX, keys: list[str]) -> None:
    assert fresh.run("send", "a break-in at night").code == 78
    done = walk(fresh, answers=[*keys, "oncall"])
    assert done.code == 0, done
    assert any("a break-in at night" in dm.text for dm in x.dms), x.summary()


def test_what_was_queued_before_is_delivered_without_a_test_dm_too(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    assert fresh.run("send", "a break-in at night").code == 78
    done = walk(fresh, "--no-test", answers=[*keys, "oncall second"])
    assert done.code == 0, done
    x.wait_for(lambda: len(x.dms) == 2, 30)
    assert {dm.recipient_id for dm in x.dms if "a break-in at night" in dm.text} == {"2002", "2003"}


def test_what_was_queued_for_one_recipient_goes_to_that_one_alone(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    assert fresh.run("send", "--to", "@second", "a break-in at night").code == 78
    done = walk(fresh, answers=[*keys, "oncall second"])
    assert done.code == 0, done
    assert [dm.recipient_id for dm in x.dms if "a break-in at night" in dm.text] == ["2003"]


def test_it_never_shows_a_secret(fresh: Sentinel, x: FakeX, keys: list[str]) -> None:
    done = walk(fresh, answers=[*keys, "oncall"])
    account = config_of(fresh)["account"]
    for name in ("consumer_secret", "access_token", "access_token_secret"):
        assert account[name] not in done.out + done.err, name


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


def test_the_printed_swatchrc_lines_work_with_swatch(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    done = walk(fresh, "--no-test", answers=[*keys, "oncall"])
    assert str(COMMAND.resolve()) in done.out
    run_in_swatch(fresh, done.out, BREAK_IN)
    x.wait_for(lambda: x.dms, 30)
    assert x.dms[0].text.partition("] ")[2].encode() == BREAK_IN


def test_the_printed_swatchrc_lines_work_with_another_config(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    path = fresh.home / "sub-dir" / "other.ini"
    done = walk(fresh, "--no-test", "--config", str(path), answers=[*keys, "oncall"])
    assert done.code == 0, done
    run_in_swatch(fresh, done.out, BREAK_IN)
    x.wait_for(lambda: x.dms, 30)
    assert x.dms[0].text.partition("] ")[2].encode() == BREAK_IN


def test_a_path_that_cannot_stand_in_a_swatchrc_is_warned_about(
    fresh: Sentinel, keys: list[str]
) -> None:
    path = str(fresh.home / "with space.ini")
    done = walk(fresh, "--no-test", "--config", path, answers=[*keys, "oncall"])
    warnings = [line for line in done.err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and path in warnings[0], done


def test_a_config_that_the_environment_names_is_in_the_printed_swatchrc_lines(
    fresh: Sentinel, x: FakeX, keys: list[str]
) -> None:
    path = fresh.home / "other.ini"
    done = walk(fresh, "--no-test", answers=[*keys, "oncall"],
                env={"BIRD_SENTINEL_CONFIG": str(path)})  # fmt: skip
    assert done.code == 0, done
    run_in_swatch(fresh, done.out, BREAK_IN)
    x.wait_for(lambda: x.dms, 30)


# ---- one that fails ----

REQUEST, ACCESS, LOOK_UP = "/oauth/request_token", "/oauth/access_token", "/2/users/by/username/"
GARBAGE = Answer(200, body="<html>Please log in to the hotel's network</html>")
FAILURES = {
    "keys that X does not accept": (REQUEST, ERRORS["401-code-32"], 77, "consumer key"),
    "a callback URL that is not approved": (REQUEST, ERRORS["403-code-415"], 77, "callback URL"),
    "no callback URL": (REQUEST, ERRORS["401-code-417"], 77, "callback URL"),
    "a wrong clock": (REQUEST, ERRORS["401-code-135"], 77, "clock"),
    "a fault of X at the page": (REQUEST, ERRORS["503-130"], 75, "X has a fault"),
    "a fault of X at the PIN": (ACCESS, ERRORS["500-html"], 75, "X has a fault"),
    "a fault of X at the look-up": (LOOK_UP, ERRORS["502-html"], 75, "X has a fault"),
    "a rate limit at the page": (REQUEST, ERRORS["429-88"], 75, "rate limit"),
    "a rate limit at the look-up": (LOOK_UP, ERRORS["429-v2"], 75, "rate limit"),
    "no credits for the look-up": (LOOK_UP, ERRORS["402-credits"], 77, "credits"),
    "something else in the place of X at the page": (REQUEST, GARBAGE, 75, "cannot be read"),
    "something else in the place of X at the PIN": (ACCESS, GARBAGE, 75, "cannot be read"),
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
    done = walk(sentinel, "--to", "second")
    assert (done.code, words in done.err) == (code, True), done
    assert disk(sentinel) == before


def test_one_without_a_network_is_told_and_leaves_the_disk_as_it_was(
    sentinel: Sentinel, x: FakeX
) -> None:
    before = disk(sentinel)
    x.stop()
    done = walk(sentinel)
    assert (done.code, "cannot be reached" in done.err) == (75, True), done
    assert disk(sentinel) == before


def test_three_wrong_pins_leave_the_disk_as_it_was(sentinel: Sentinel) -> None:
    before = disk(sentinel)
    assert walk(sentinel, pins=["7654321", "7654322", "7654323"]).code == 77
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


def test_the_old_tokens_still_work_after_one_that_failed(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["503-130"], path=ACCESS)
    assert walk(sentinel).code == 75
    assert sentinel.run("send", "disk full").code == 0


@pytest.fixture(scope="class")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Result, bool]]]:
    """Every way of not answering, all at once, as each takes its half minute. What came of each,
    with the seconds since it connected, and whether the disk was as before."""
    results: dict[str, tuple[Result, bool]] = {}
    homes = tmp_path_factory.mktemp("homes")

    def attempt(path: str, mode: Mode) -> None:
        with FakeX() as x:
            x.add_user("oncall", "2002")
            sentinel = Sentinel(homes / f"{mode}{path.replace('/', '.')}", x)
            sentinel.configure()
            before = disk(sentinel)
            x.answer(Answer(mode=mode), path=path)
            result = walk(sentinel)
            took = time.time() - x.connects[0].at
            results[f"{mode} {path}"] = result._replace(seconds=took), disk(sentinel) == before
            sentinel.kill()

    ways = ((REQUEST, "stall"), (REQUEST, "trickle"), (ACCESS, "stall"), (ACCESS, "trickle"),
            ("", "stall-connect"), ("/2/dm_conversations/", "stall"))  # fmt: skip
    at_once(attempt, ways)
    yield results


class TestAServerThatNeverAnswers:
    @pytest.mark.parametrize("mode", ["stall", "trickle"])
    @pytest.mark.parametrize("path", [REQUEST, ACCESS])
    def test_holds_it_for_half_a_minute_at_the_most_and_changes_nothing(
        self, held: dict[str, tuple[Result, bool]], mode: str, path: str
    ) -> None:
        result, unchanged = held[f"{mode} {path}"]
        assert (result.code, unchanged) == (75, True), result
        assert result.seconds < 32

    def test_nor_does_a_proxy_that_does_not(self, held: dict[str, tuple[Result, bool]]) -> None:
        result, unchanged = held["stall-connect "]
        assert (result.code, unchanged) == (75, True), result
        assert result.seconds < 32

    def test_at_the_test_dm_the_keys_are_saved_and_the_dm_is_retried(
        self, held: dict[str, tuple[Result, bool]]
    ) -> None:
        result, unchanged = held["stall /2/dm_conversations/"]
        assert (result.code, unchanged) == (75, False), result
        assert result.seconds < 32
