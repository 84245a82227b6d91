"""A config is used only if it is whole and nobody else's business; what is wrong with it is named,
with the step that mends it and without a word of the keys, and the alert is kept."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import threading
from pathlib import Path
from typing import Callable

import pytest
from conftest import Result, Sentinel, until
from fake_x import ERRORS, FakeX
from test_command_line import told

KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
Edit = Callable[[str], str]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away, which needs root")


def edit(sentinel: Sentinel, change: Edit) -> None:
    sentinel.config.write_bytes(change(sentinel.config.read_text()).encode())


def refused(sentinel: Sentinel, keys: list[str]) -> list[str]:
    """What `send` says of a config that it does not use, while it keeps the alert."""
    done = sentinel.run("send", "--no-wait", "disk full")
    assert done.code == 78, done
    lines = told(done)
    assert f"kept in the queue {sentinel.queue}" in lines[0]
    assert str(sentinel.config) in lines[0]
    assert not [key for key in keys if key in done.err]
    assert len(list(sentinel.queue.glob("new/*"))) == 1
    assert not sentinel.processes()
    return lines


# ---- what it may look like ----


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="with the line ends of Windows"),
        pytest.param(lambda text: "\ufeff" + text, id="with a byte order mark"),
        pytest.param(lambda text: text.replace(" = ", "="), id="without spaces"),
        pytest.param(lambda text: text.replace(" = ", " : "), id="with colons"),
        pytest.param(lambda text: text.replace("\n", "\n\n  # why\n"), id="with comments"),
        pytest.param(lambda text: "  " + text.replace("\n", "\n  "), id="indented"),
        pytest.param(lambda text: text.rstrip("\n"), id="without an end of its last line"),
        pytest.param(lambda text: "[DEFAULT]\nx = %(y)s\n[site]\nz = %\n" + text, id="with more"),
        pytest.param(lambda text: text + "interval = 0.5\n", id="with an interval"),
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


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_missing_is_named(sentinel: Sentinel, key: str) -> None:
    edit(sentinel, lambda text: re.sub(rf"(?m)^{key} =.*\n", "", text))
    error, hint = refused(sentinel, [])
    assert re.search(rf"has no( usable)? {key} ", error)
    assert "bird_sentinel authorize" in hint


@pytest.mark.parametrize("value", ["", "two words", "tab\tbed", "café", "nul\0"])
def test_a_key_that_can_be_none_is_named_and_not_shown(sentinel: Sentinel, value: str) -> None:
    edit(sentinel, lambda text: re.sub("(?m)^access_token =.*$", f"access_token = {value}", text))
    error = refused(sentinel, [value] if value else [])[0]
    assert re.search(r"\baccess_token in \[account\]$", error)


@pytest.mark.parametrize(
    "change, named",
    [
        pytest.param(lambda text: "", "authoriz|consumer_key", id="nothing in it"),
        pytest.param(lambda text: text.replace("oncall = 2002\n", ""), r"\[recipients\]",
                     id="no recipient"),
        pytest.param(lambda text: text.replace("[recipients]", "[recipient]"), r"\[recipients\]",
                     id="a section mistyped"),
        pytest.param(lambda text: text.replace("= 2002", "= @oncall"), "handle = id",
                     id="a recipient without an id"),
        pytest.param(lambda text: text.replace("= 2002", "= 2002/../1"), "handle = id",
                     id="an id that is a path"),
        pytest.param(lambda text: text.replace("oncall =", "on call ="), "handle = id: on call$",
                     id="a recipient that is no handle"),
        pytest.param(lambda text: text.replace("oncall =", "OnCall = 1\noncall ="), "twice",
                     id="a recipient twice, in another case"),
        pytest.param(lambda text: text.replace("oncall =", "oncall = 1\noncall ="), "line 9$",
                     id="a name twice"),
        pytest.param(lambda text: text + "# fine\nthis is not\n", "line 12$",
                     id="not name = value"),
        pytest.param(lambda text: text + "[delivery]\n", "line 11$", id="a section twice"),
        pytest.param(lambda text: "key = value\n" + text, "line 1$", id="no section"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(sentinel: Sentinel, change: Edit, named: str) -> None:
    keys = re.findall(r"(?:key|secret|token) = (\S+)", sentinel.config.read_text())
    edit(sentinel, change)
    error, hint = refused(sentinel, keys)
    assert re.search(named, error), error


@pytest.mark.parametrize("value", ["often", "0", "-5", "nan", "inf", "1e9", "99999999", "60 s"])
def test_an_interval_that_makes_no_sense_is_named(sentinel: Sentinel, value: str) -> None:
    sentinel.configure(interval=value)
    error, hint = refused(sentinel, [])
    assert "interval" in error and "interval = 60" in hint


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe[\0a\0]\0", b"[account]\nhost = caf\xe9\n", b"\0" * 100, b"\x1f\x8b\x08", b"["],
    ids=repr,
)
def test_what_is_no_config_at_all_is_told(sentinel: Sentinel, content: bytes) -> None:
    sentinel.config.write_bytes(content)
    assert "hint: ; then" not in "".join(refused(sentinel, []))


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


def dangling_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


UNSAFE = [
    pytest.param(loosen(0o640), "chmod 600 {}", id="readable by its group"),
    pytest.param(loosen(0o604), "chmod 600 {}", id="readable by others"),
    pytest.param(loosen(0o602), "chmod 600 {}", id="writable by others"),
    pytest.param(symlink, "--config", id="a symbolic link"),
    pytest.param(dangling_symlink, "--config", id="a symbolic link to nothing"),
    pytest.param(fifo, "--config", id="a FIFO"),
    pytest.param(directory, "--config", id="a directory"),
    pytest.param(give_away, "run it as that user", id="somebody else's", marks=needs_root),
]


@pytest.mark.parametrize("make, advice", UNSAFE)
def test_a_config_that_is_not_safe_is_refused_with_what_mends_it(
    sentinel: Sentinel, x: FakeX, make: Callable[[Path], None], advice: str
) -> None:
    make(sentinel.config)
    hint = refused(sentinel, [])[-1]
    assert advice.format(sentinel.config) in hint
    assert not re.search(r"\b(chown|rm|mv|cp)\b", hint), "which may break what works for another"
    assert not x.connects


def test_what_the_hint_says_mends_it_and_what_was_kept_is_delivered(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.config.chmod(0o644)
    hint = refused(sentinel, [])[-1]
    command = re.search("run: (chmod [^;]*)", hint)
    assert command and "then: bird_sentinel flush" in hint
    subprocess.run(["sh", "-c", command[1]], check=True)
    assert sentinel.run("flush").code == 0
    assert "disk full" in x.dms[0].text


@needs_root
def test_root_is_told_to_use_a_services_config_as_that_service(sentinel: Sentinel) -> None:
    import pwd

    somebody = pwd.getpwnam("nobody")
    os.chown(sentinel.config, somebody.pw_uid, somebody.pw_gid)
    assert "runuser -u nobody -- bird_sentinel" in sentinel.run("status").out


def test_a_worker_does_not_use_a_config_that_became_unsafe(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["503-empty"])
    assert sentinel.run("send", "pending").code == 75
    sentinel.config.chmod(0o644)
    until(lambda: (sentinel.queue / "trouble").exists(), 20)
    asked = len(x.requests)
    assert "chmod 600" in (sentinel.queue / "trouble").read_text()
    assert sentinel.run("send", "--no-wait", "--", "pending too").code == 78
    assert len(x.requests) == asked
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


@pytest.mark.parametrize("make, advice", UNSAFE)
def test_authorize_writes_through_no_config_that_is_not_safe(
    sentinel: Sentinel, x: FakeX, make: Callable[[Path], None], advice: str
) -> None:
    make(sentinel.config)
    before = sorted(sentinel.directory.iterdir())
    assert sentinel.run("authorize", "--no-test", "--to", "oncall").code == 78
    assert sorted(sentinel.directory.iterdir()) == before
    assert not x.requests


def test_while_authorize_replaces_it_nobody_finds_half_of_it(sentinel: Sentinel) -> None:
    halves, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            text = sentinel.config.read_text()
            if not all(f"\n{key} = " in text for key in KEYS) or "oncall = 2002" not in text:
                halves.append(text)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        assert add_second(sentinel).code == 0
    finally:
        done.set()
        watching.join()
    assert halves == []
