"""A config is used only if it is whole and nobody else's business; what is wrong with it is named,
with the step that mends it and without a word of the keys, and the alert is kept."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

import pytest
from conftest import COMMAND, Result, Sentinel, until
from fake_x import ERRORS, FakeX
from test_command_line import told

KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
Edit = Callable[[str], "str | bytes"]
needs_strace = pytest.mark.skipif(
    not shutil.which("strace") and not os.environ.get("CI"), reason="strace is not installed"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away, which needs root")


def edit(sentinel: Sentinel, change: Edit) -> None:
    changed = change(sentinel.config.read_text())
    sentinel.config.write_bytes(changed if isinstance(changed, bytes) else changed.encode())


def refused(sentinel: Sentinel, keys: Iterable[str] = (), *options: str) -> list[str]:
    """What `send` says of a config that it does not use, while it keeps the alert."""
    done = sentinel.run("send", *options, "disk full")
    assert done.code == 78, done
    lines = told(done)
    assert f"kept in the queue {sentinel.queue}" in lines[0]
    assert str(sentinel.config) in lines[0]
    assert not [key for key in keys if key in done.err]
    assert len(list(sentinel.queue.glob("new/*"))) == 1
    return lines


# ---- what it may look like ----


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="with the line ends of Windows"),
        pytest.param(lambda text: "\ufeff" + text, id="with a byte order mark"),
        pytest.param(lambda text: text.replace(" = ", " : "), id="with colons"),
        pytest.param(lambda text: "  " + text.replace("\n", "\n  "), id="indented"),
        pytest.param(lambda text: "[DEFAULT]\nx = %(y)s\n[site]\nz = %\n" + text, id="with more"),
    ],
)
def test_a_config_that_was_edited_is_read(sentinel: Sentinel, change: Edit) -> None:
    edit(sentinel, change)
    full = sentinel.status()
    assert (full["account"], full["recipients"]) == ("sentinel_bot", {"oncall": "2002"})
    assert (full["last_error"], sentinel.run("status").code) == (None, 0)


def test_each_mark_in_a_key_is_an_ordinary_character(sentinel: Sentinel, x: FakeX) -> None:
    x.consumer_secret = "%(consumer_key)s%%${x}#;=:'\""
    sentinel.configure()
    assert sentinel.run("send", "disk full").code == 0
    assert len(x.dms) == 1 and not x.bad_signatures


# ---- what is missing or wrong in it ----


def instead(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new)


def setting(name: str, value: str) -> Edit:
    return lambda text: re.sub(rf"(?m)^{name} =.*$", f"{name} = {value}", text)


def content(data: str | bytes) -> Edit:
    return lambda _: data


WRONG: dict[str, tuple[Edit, str, str]] = {  # its change; what the error, and what the hint names
    "nothing in it": (content(""), "authoriz|consumer_key", "bird_sentinel authorize"),
    **{f"without {key}": (lambda text, key=key: re.sub(f"(?m)^{key} =.*\n", "", text),  # type: ignore
       rf"has no( usable)? {key} ", "bird_sentinel authorize") for key in KEYS},
    **{f"a key that can be none: {value!r}": (setting("access_token", value),
       r"\baccess_token in \[account\]$", "") for value in ("", "two words", "a\tb", "café", "\0")},
    "no recipient": (instead("oncall = 2002\n", ""), r"\[recipients\]", "--to HANDLE"),
    "an id that is a path": (setting("oncall", "2002/../1"), "no id for @oncall", ""),
    "a name twice": (instead("oncall =", "oncall = 1\noncall ="), "line 9$", ""),
    "not name = value": (lambda text: text + "# fine\nthis is not\n", "line 12$", "name = value"),
    **{f"interval = {value}": (setting("host", f"x\ninterval = {value}"), "interval",
       "interval = 60") for value in ("often", "0", "-5", "nan", "1e9")},
    "ISO-8859-1": (content(b"[account]\nhost = caf\xe9\n"), "UTF-8", ""),
    "a half section": (content("["), "line 1", ""),
}  # fmt: skip


@pytest.mark.parametrize("change, named, hinted", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_and_no_key_shown(
    sentinel: Sentinel, change: Edit, named: str, hinted: str
) -> None:
    keys = re.findall(r"(?:key|secret|token) = (\S+)", sentinel.config.read_text())
    edit(sentinel, change)
    error, hint = refused(sentinel, keys)
    assert re.search(named, error) and hinted in hint, (error, hint)
    assert "hint: ; " not in hint


def test_a_watcher_is_not_held_up_by_a_config_and_status_names_what_is_wrong_with_it(
    sentinel: Sentinel,
) -> None:
    edit(sentinel, lambda text: text.replace("oncall = 2002\n", ""))
    assert sentinel.run("send", "--no-wait", "--", "disk full").code == 0
    done = sentinel.run("status")
    assert (done.code, "[recipients]" in done.out.splitlines()[0]) == (78, True), done
    with open(sentinel.config, "w") as config:
        config.write("not a config\n")
    done = sentinel.run("status")
    assert (done.code, "line 1" in done.out.splitlines()[0]) == (78, True), done


def test_no_line_with_a_mistake_is_shown_as_it_may_hold_a_key(sentinel: Sentinel) -> None:
    text = sentinel.config.read_text()
    keys = re.findall(r"(?:key|secret|token) = (\S+)", text)
    edit(sentinel, lambda text: text.replace("[recipients]", keys[1] + "\n[" + keys[2]))
    results = [sentinel.run(*words) for words in (["send", "x"], ["flush"], ["status"], ["status",
               "--json"], ["authorize", "--to", "oncall"])]  # fmt: skip
    said = "".join(result.out + result.err for result in results)
    assert [key for key in keys if key in said] == []
    assert {result.code for result in results} == {78}


# ---- whose business it is ----


def loosen(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


def give_away(path: Path) -> None:
    os.chown(path, 12345, -1)


def symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


UNSAFE = [
    pytest.param(loosen(0o640), "chmod 600 {}", id="readable by its group"),
    pytest.param(loosen(0o604), "chmod 600 {}", id="readable by others"),
    pytest.param(symlink, "--config", id="a symbolic link"),
    pytest.param(fifo, "--config", id="a FIFO"),
]
OTHERS = pytest.param(give_away, "as that user", id="somebody else's", marks=needs_root)


@pytest.mark.parametrize("options", [("--no-wait",), ()], ids=["--no-wait", ""])
@pytest.mark.parametrize("make, advice", UNSAFE)
def test_a_config_that_is_not_safe_is_refused_with_what_mends_it(
    sentinel: Sentinel, x: FakeX, make: Callable[[Path], None], advice: str, options: tuple[str]
) -> None:
    make(sentinel.config)
    hint = refused(sentinel, [], *options)[-1]
    assert advice.format(sentinel.config) in hint
    assert not re.search(r"\b(chown|rm|mv|cp)\b", hint), "which may break what works for another"
    assert not x.connects


def test_what_the_hint_says_mends_it_and_what_was_kept_is_delivered(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.config.chmod(0o644)
    hint = refused(sentinel)[-1]
    command = re.search("run: (chmod [^;]*)", hint)
    assert command and "then: bird_sentinel flush" in hint
    subprocess.run(["sh", "-c", command[1]], check=True)
    assert sentinel.run("flush").code == 0
    assert "disk full" in x.dms[0].text


@needs_root
def test_of_another_users_config_nothing_is_kept_and_it_is_told_to_run_it_as_that_user(
    sentinel: Sentinel, x: FakeX
) -> None:
    give_away(sentinel.config)
    for words in (["send", "--no-wait", "--", "x"], ["send", "x"], ["status"]):
        done = sentinel.run(*words)
        assert done.code == 78, done
        assert "-u '#12345' bird_sentinel" in done.err + done.out
        assert not re.search(r"\bchown\b", done.err + done.out)
        if words[0] == "send":
            assert "not kept" in done.err
    assert not sentinel.queue.exists() and not sentinel.memory.exists() and not x.connects


def test_a_worker_does_not_use_a_config_that_became_unsafe(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["503-empty"], times=None)
    assert sentinel.run("send", "pending").code == 75
    sentinel.config.chmod(0o644)
    until(lambda: "chmod 600" in (sentinel.queue / "state").read_text(), 20)
    asked = len(x.requests)
    assert sentinel.run("send", "--no-wait", "--", "pending too").code == 78
    assert len(x.requests) == asked
    x.clear_answers()
    sentinel.config.chmod(0o600)
    assert sentinel.run("flush").code == 0


# ---- what authorize writes into it ----


def add_second(sentinel: Sentinel, umask: str = "022") -> Result:
    done = subprocess.run(
        ["sh", "-c", f"umask {umask}; bird_sentinel authorize --to second --no-test"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr, 0.0)


@pytest.mark.parametrize("umask", ["000", "777"])
def test_authorize_keeps_what_is_not_its_own_and_its_mode(sentinel: Sentinel, umask: str) -> None:
    more = "[site]\nOwner = the 100% night shift\n  and the day shift\ncolour = %(blue)s\n"
    edit(sentinel, lambda text: more + text.replace("[recip", "Team = %d\n[recip"))
    done = add_second(sentinel, umask)
    assert done.code == 0, done
    text = sentinel.config.read_text()
    for line in ("[site]", "Owner = the 100% night shift", "and the day shift",
                 "colour = %(blue)s", "Team = %d", "host = web1"):  # fmt: skip
        assert line in [have.strip() for have in text.splitlines()]
    assert sentinel.status()["recipients"] == {"oncall": "2002", "second": "2003"}
    assert stat.S_IMODE(sentinel.config.stat().st_mode) == 0o600
    assert [path.name for path in sentinel.directory.glob("*ini*")] == ["config.ini"]


@pytest.mark.parametrize("make, advice", [*UNSAFE, OTHERS])
def test_authorize_writes_through_no_config_that_is_not_safe(
    sentinel: Sentinel, x: FakeX, make: Callable[[Path], None], advice: str
) -> None:
    make(sentinel.config)
    before = sorted(sentinel.directory.iterdir())
    assert sentinel.run("authorize", "--no-test", "--to", "oncall").code == 78
    assert sorted(sentinel.directory.iterdir()) == before
    assert not x.requests


def add_second_and_die(sentinel: Sentinel) -> Path:
    """Have authorize killed before its config takes the place of the old one; what it leaves."""
    before = sentinel.config.read_text()
    subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2", "-e",
         "inject=rename,renameat,renameat2:signal=KILL:when=1", str(COMMAND), "authorize", "--to",
         "second", "--no-test"],
        env={**sentinel.env, "PYTHONDONTWRITEBYTECODE": "1"},  # which Python renames, too
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    assert sentinel.config.read_text() == before
    (left,) = set(sentinel.directory.iterdir()) - {sentinel.config}
    assert (left.name, stat.S_IMODE(left.stat().st_mode)) == (".config.ini.tmp", 0o600)
    return left


@needs_strace
def test_what_a_killed_authorize_left_of_the_keys_the_next_one_takes_away(
    sentinel: Sentinel,
) -> None:
    left = add_second_and_die(sentinel)
    left.chmod(0o400)  # and whatever became of it
    assert add_second(sentinel).code == 0
    assert sentinel.status()["recipients"] == {"oncall": "2002", "second": "2003"}
    assert [path.name for path in sentinel.directory.glob("*ini*")] == ["config.ini"]


@needs_strace
@pytest.mark.parametrize("age, stays", [(23 * 3600, True), (25 * 3600, False)])
def test_what_a_killed_authorize_left_of_the_keys_a_worker_removes_after_a_day(
    sentinel: Sentinel, age: int, stays: bool
) -> None:
    left = add_second_and_die(sentinel)
    os.utime(left, (time.time() - age,) * 2)
    assert sentinel.run("send", "disk full").code == 0
    sentinel.wait_idle()
    assert left.exists() == stays
