"""Whatever is found in the queue, or in its place: alerts go out, and a person is told of the rest.

What needs root says so and is skipped without.  Needs setpriv (util-linux); strace.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX, Request
from test_crashes import ROUNDS, alerts_in, make_queue, pending, put, texts

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def sentinel(fresh: Sentinel) -> Sentinel:
    """The command, authorized, which does not pause between DMs."""
    fresh.configure(interval="0.01")
    return fresh


# ---- odd files among the alerts ----


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)
    path.with_name("empty").touch()


def insane_time(path: Path) -> None:
    path.with_name("9" * 19 + ".1.web1").write_text("host: web1\n\nsent in three centuries")
    path.with_name("9" * 200).write_text("host: web1\n\nand later")
    path.with_name("-1e300").write_text("host: web1\n\nor never")


def damaged_head(path: Path) -> None:
    path.write_text("host: web1\ncut: 1e300\nto: nobody\n\nof a damaged head")


def strange_name(path: Path) -> None:
    (path.parent / os.fsdecode(b"\xff\xfe \n*?")).write_text("host: web1\n\nof a strange name")


def directory(path: Path) -> None:
    path.mkdir()
    (path / "content").touch()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def symlink(path: Path) -> None:
    path.symlink_to(path.parents[2] / "config.ini")


def dangling_symlink(path: Path) -> None:
    path.symlink_to(path.parents[2] / "nothing")


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # a path to a socket may not be long
        listener.bind(path.name)
        os.chdir(here)


ODD: list[Callable[[Path], None]] = [
    garbage, insane_time, damaged_head, strange_name, directory, fifo, symlink,
    dangling_symlink, socket_file,
]  # fmt: skip
NAME = "1700000000000000000.1.web1"


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
def test_an_odd_file_among_the_alerts_holds_up_none_and_each_regular_one_counts_as_an_alert(
    x: FakeX, sentinel: Sentinel, odd: Callable[[Path], None]
) -> None:
    put(sentinel, "accepted before")
    odd(sentinel.queue / "new" / NAME)
    regular = sum(path.is_file() and not path.is_symlink() for path in pending(sentinel))
    assert sentinel.run("flush").code == 0
    assert sentinel.run("send", "sent after").code == 0
    assert "accepted before" in texts(x) and "sent after" in texts(x)
    sentinel.wait_idle()
    assert sum(alerts_in(dm.text) for dm in x.dms) == regular + 1
    assert [path for path in pending(sentinel) if path.is_file() and not path.is_symlink()] == []
    assert "access_token" not in texts(x)
    assert (sentinel.run("status").code, sentinel.status()["pending"]) == (0, 0)


DAMAGED = {
    "nothing": b"",
    "garbage": bytes(range(256)),
    "too little": b"{}",
    "too deep": b"[" * 100_000,
    "another version's": b'{"names": [], "digests": [{"kinds": [{"of": "old"}], "rest": 3}]}',
}


def test_a_damaged_backlog_is_put_aside_and_told_of_and_holds_nothing_up(
    x: FakeX, sentinel: Sentinel
) -> None:
    for number, content in enumerate(DAMAGED.values()):
        make_queue(sentinel)
        beside = [f"beside it: {number}"] * (number % 2)  # or nothing
        for text in beside:
            put(sentinel, text)
        (sentinel.queue / "folded").write_bytes(content)
        assert sentinel.run("status").code in (75, 77)
        assert sentinel.run("flush").code in (0, 77)
        x.wait_for(lambda: texts(x).count("damaged") == number + 1)  # noqa: B023
        sentinel.wait_idle()
        assert [texts(x).count(text) for text in beside] == [1] * len(beside)
        status = sentinel.status()
        assert (status["pending"], status["refused"]) == (0, number + 1)
    kept = [path.read_bytes() for path in (sentinel.queue / "refused").iterdir()]
    assert sorted(kept) == sorted(DAMAGED.values())


# ---- a damaged state ----

INSANE: list[Any] = [1e300, -1, 10**10, float("nan"), None, "x", []]


def changed(value: Any, change: Callable[[str, Any], tuple[str, Any]]) -> Any:
    """A JSON value, in which each name, with what it names, is another."""
    if isinstance(value, dict):
        pairs = [change(name, changed(its, change)) for name, its in value.items()]
        return dict(pairs)
    if isinstance(value, list):
        return [changed(its, change) for its in value]
    return value


def with_numbers(value: Any, number: Any) -> str:
    """A state with another value in the place of each of its numbers."""
    def change(name: str, its: Any) -> tuple[str, Any]:
        return name, number if isinstance(its, (int, float)) else its

    return json.dumps(changed(value, change))


def without(value: Any, name: str) -> str:
    """A state as another version might have it, which has another name for a thing."""
    return json.dumps(changed(value, lambda n, its: (f"old_{n}" if n == name else n, its)))


def test_whatever_is_in_a_state_of_no_use_the_next_alert_goes_out_at_once_and_status_says_so(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.limit = 10**6
    sentinel.configure({"oncall": "2002", "second": "2003"}, interval="0.01")
    assert sentinel.run("send", "before that").code == 0
    x.answer(ERRORS["503-empty"], times=None, when=lambda request: request.recipient_id == "2003")
    assert sentinel.run("send", "before").code == 75  # so that there are waits in it
    sentinel.kill()
    sentinel.wait_idle()
    x.clear_answers()
    state = sentinel.queue / "state"
    sane = json.loads(state.read_text())
    no_use = [with_numbers(sane, number) for number in INSANE]
    names = sorted(set(re.findall(r'"(\w+)":', state.read_text())))
    tried = names if ROUNDS >= 300 else random.sample(names, 4)
    no_use += [without(sane, name) for name in tried]
    no_use += ["", "garbage", "[]", "[" * 100_000, json.dumps({**sane, "new": 1})]
    for content in no_use:
        state.write_text(content)
        assert sentinel.run("status").code in (0, 75), content
        result = sentinel.run("send", f"after {content[:300]!r}", timeout=20)
        assert (result.code, result.seconds < 5) == (0, True), (content, result)
        sentinel.wait_idle()
    for make in (os.mkfifo, os.mkdir):
        os.unlink(state)
        make(str(state))
        assert sentinel.run("status", timeout=10).code == 0
        assert sentinel.run("send", f"with another thing there: {make.__name__}").code == 0
        sentinel.wait_idle()


# ---- lock and trigger ----


def plain_file(path: Path) -> None:
    path.write_text("4194303\n")


PLACES = [plain_file, directory, symlink, dangling_symlink, socket_file]


@pytest.mark.parametrize("put_there", PLACES, ids=lambda put: put.__name__)
@pytest.mark.parametrize("name", ["trigger", "lock"])
def test_something_else_in_the_place_of_lock_or_trigger_stops_no_alert(
    x: FakeX, sentinel: Sentinel, name: str, put_there: Callable[[Path], None]
) -> None:
    make_queue(sentinel)
    config = sentinel.config.read_bytes()
    put_there(sentinel.queue / "new" / "x")
    (sentinel.queue / "new" / "x").rename(sentinel.queue / name)
    assert sentinel.run("send", "--no-wait", "--", "obstacle").code == 0
    x.wait_for(lambda: "obstacle" in texts(x), 5)
    assert sentinel.run("send", "and another").code == 0
    sentinel.wait_idle()
    assert (texts(x).count("obstacle"), pending(sentinel)) == (1, [])
    assert sentinel.config.read_bytes() == config


# ---- something else in the place of the queue ----


def link_to_a_file(path: Path) -> None:
    path.symlink_to(path.parent / "config.ini")


@pytest.mark.parametrize("put_there", [plain_file, fifo, link_to_a_file, dangling_symlink],
                         ids=lambda put: put.__name__)  # fmt: skip
@pytest.mark.parametrize("name", [".", "new", "tmp", "refused"])
def test_with_something_else_in_the_place_of_the_queue_an_alert_goes_by_memory_with_a_warning(
    x: FakeX, sentinel: Sentinel, name: str, put_there: Callable[[Path], None]
) -> None:
    make_queue(sentinel)
    shutil.rmtree(sentinel.queue / name)
    put_there(sentinel.queue / name)
    result = sentinel.run("send", "obstacle", timeout=20)
    assert (result.code, len(x.dms)) == (0, 1), result
    assert "bird_sentinel: warning: the queue" in result.err and str(sentinel.memory) in result.err
    sentinel.wait_idle()
    assert "unexpected" not in sentinel.run("flush").err + sentinel.run("status").err
    assert (sentinel.status()["pending"], len(x.dms)) == (0, 1)
    assert sorted(path.name for path in sentinel.directory.iterdir()) == ["config.ini", "queue"]


# ---- gone ----


@pytest.mark.parametrize("name", [".", "tmp", "new", "refused"])
def test_a_queue_that_vanished_or_a_directory_of_it_is_made_anew(
    x: FakeX, sentinel: Sentinel, name: str
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    shutil.rmtree(sentinel.queue / name)
    result = sentinel.run("send", "after")
    assert (result.code, result.err, len(x.dms)) == (0, "", 2)
    assert stat.S_IMODE((sentinel.queue / name).stat().st_mode) == 0o700


@pytest.mark.parametrize("how", ["removed", "moved away"])
def test_when_the_queue_goes_during_a_dm_the_next_alert_gets_a_new_one(
    x: FakeX, sentinel: Sentinel, how: str
) -> None:
    x.answer(Answer(delay=1))
    assert sentinel.run("send", "--no-wait", "in flight").code == 0
    x.wait_for(lambda: x.requests)
    if how == "removed":
        shutil.rmtree(sentinel.queue)
    else:
        sentinel.queue.rename(sentinel.queue.with_name("moved"))
    assert sentinel.run("send", "after").code == 0
    sentinel.wait_idle()
    assert [dm.text.count("after") for dm in x.dms].count(1) == 1
    assert texts(x).count("in flight") == 1


def test_a_send_whose_alert_vanished_with_the_queue_says_so(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(Answer(503, delay=1), times=None)
    sending = sentinel.start("send", "on a disk that is pulled out", stderr=subprocess.PIPE)
    x.wait_for(lambda: x.requests)
    shutil.rmtree(sentinel.queue)
    _, said = sending.communicate(timeout=60)
    assert (sending.returncode, b"Traceback" in said) == (74, False), said.decode()
    assert b"vanished" in said


# ---- not safe ----


@pytest.mark.parametrize("mode", [0o770, 0o707], ids=["group", "others"])
@pytest.mark.parametrize("which", ["..", ".", "new", "tmp", "refused"])
def test_a_queue_that_others_may_write_to_is_not_used_and_the_alert_goes_by_memory(
    x: FakeX, sentinel: Sentinel, which: str, mode: int
) -> None:
    put(sentinel, "by others, perhaps")
    path = Path(os.path.normpath(sentinel.queue / which))
    path.chmod(mode)
    before = sorted(sentinel.queue.rglob("*"))
    result = sentinel.run("send", "--no-wait", "--", "not into their hands")
    assert result.code == 78
    assert f"chmod go-w {path}" in result.err and "kept in memory" in result.err
    x.wait_for(lambda: "not into their hands" in texts(x))
    assert sorted(sentinel.queue.rglob("*")) == before
    sentinel.wait_idle()
    assert (sentinel.run("flush").code, len(x.dms)) == (78, 1)
    path.chmod(0o700)
    result = sentinel.run("send", "--no-wait", "--", "mended")
    assert (result.code, result.err) == (0, "")


@needs_root
@pytest.mark.parametrize("theirs", ["home, unauthorized", "home", "queue"])
def test_root_makes_nothing_in_a_place_of_another_users_and_is_told_what_to_run(
    fresh: Sentinel, theirs: str
) -> None:
    if theirs != "home, unauthorized":
        fresh.configure()
    make_queue(fresh)
    place = fresh.queue if theirs == "queue" else fresh.home
    for path in [place, *place.rglob("*")]:
        os.chown(path, 12345, 12345)
    before = sorted(fresh.home.rglob("*"))
    for way in (["send", "--no-wait", "--", "by root"], ["send", "by root"], ["flush"], ["status"]):
        result = fresh.run(*way)
        assert result.code == 78, (way, result)
        assert "belongs to '#12345'" in result.err or way[0] != "send"
    fresh.wait_idle()
    assert (sorted(fresh.home.rglob("*")), fresh.memory.exists()) == (before, False)


def test_a_standard_error_that_nobody_reads_does_not_hold_up_an_alert(
    x: FakeX, sentinel: Sentinel
) -> None:
    plain_file(sentinel.queue)  # so that there is something to say
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            writer.send(b"x")
    writer.setblocking(True)
    with reader, writer:
        sending = sentinel.start("send", "--no-wait", "--", "unheard", stderr=writer)
        assert sending.wait(15) == 0
    x.wait_for(lambda: "unheard" in texts(x))


def test_a_text_that_x_refuses_is_kept_though_the_directory_for_it_is_removed_meanwhile(
    x: FakeX, sentinel: Sentinel
) -> None:
    def refuse(_: Request) -> Answer:
        if not x.dms:
            shutil.rmtree(sentinel.queue / "refused", ignore_errors=True)
        return ERRORS["403-about-blank"]

    x.answer(refuse, times=None, when=lambda request: "evil" in request.text)
    assert sentinel.run("send", "an evil text").code == 77
    sentinel.wait_idle()
    assert len(x.dms) == 1  # that there is one
    assert ["an evil text" in path.read_text() for path in sentinel.queue.glob("refused/*")] == [
        True
    ]


def test_an_alert_that_cannot_be_opened_for_a_moment_is_not_lost(
    x: FakeX, sentinel: Sentinel
) -> None:
    path = put(sentinel, "root login")
    subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", "trace=openat",
         "-P", str(path), "-e", "inject=openat:error=ENFILE:when=1", str(COMMAND), "flush"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    sentinel.wait_idle()
    assert texts(x).count("root login") == 1


def test_an_alert_that_cannot_be_read_is_told_of_and_kept_and_holds_up_no_other(
    x: FakeX, sentinel: Sentinel
) -> None:
    path = put(sentinel, "root login")
    path.chmod(0)
    # root, but subject to the permission bits that everybody else is subject to
    as_user = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = subprocess.run([*as_user, str(COMMAND), "send", "disk full"], env=sentinel.env,
                          stdin=subprocess.DEVNULL, capture_output=True, check=False)  # fmt: skip
    assert (done.returncode, "disk full" in texts(x)) == (0, True), done
    until(lambda: "permission denied" in str(sentinel.status()["last_error"]))
    assert sentinel.run("status").code == 75
    path.chmod(0o600)
    assert sentinel.run("flush").code == 0
    assert texts(x).count("root login") == 1


@needs_root
def test_a_queue_in_memory_that_somebody_else_made_is_not_looked_at(
    x: FakeX, sentinel: Sentinel
) -> None:
    """In /dev/shm anybody can make one, under a name that can be computed."""
    theirs = sentinel.memory
    for name in ("new", "tmp"):
        (theirs / name).mkdir(parents=True)
    for name in ("state", "folded", "trigger"):
        os.mkfifo(theirs / name)
    (theirs / "new" / NAME).write_text("host: web1\n\nan alert of theirs")
    (theirs / "refused").symlink_to(sentinel.directory)
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    seen = sentinel.run("status", timeout=10)
    assert (seen.code, "theirs" in seen.out) == (0, False), seen
    assert sentinel.run("send", "an alert").code == 0
    # nor is anything put there, where the queue takes nothing
    sentinel.queue.rename(sentinel.queue.with_name("away"))
    plain_file(sentinel.queue)
    done = sentinel.run("send", "--no-wait", "--", "nowhere to go")
    assert (done.code, "sudo -u" in done.err) == (74, False), done  # least of all as that user
    sentinel.wait_idle()
    assert [dm.text.rpartition("] ")[2] for dm in x.dms] == ["an alert"]
    assert os.listdir(theirs / "new") == [NAME]
