"""Whatever is found in the queue, or in its place: alerts go out, and a person is told of the rest.

What needs root says so and is skipped without.  Needs setpriv (util-linux); strace.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import stat
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX, Request
from test_crashes import alerts_in, pending, put, texts

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def sentinel(fresh: Sentinel) -> Sentinel:
    """The command, authorized, which does not pause between DMs."""
    fresh.configure(interval="0.01")
    return fresh


# ---- odd files among the alerts ----


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def empty(path: Path) -> None:
    path.touch()


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


def unreadable(path: Path) -> None:
    path.write_text("host: web1\n\nnobody may read this")
    path.chmod(0)


ODD: list[Callable[[Path], None]] = [
    garbage, empty, insane_time, damaged_head, strange_name, directory, fifo, symlink,
    dangling_symlink, socket_file, unreadable,
]  # fmt: skip
NAME = "1700000000000000000.1.web1"


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
def test_an_odd_file_among_the_alerts_holds_up_none_of_them_and_is_told_of(
    x: FakeX, sentinel: Sentinel, odd: Callable[[Path], None]
) -> None:
    put(sentinel, "accepted before")
    odd(sentinel.queue / "new" / NAME)
    assert sentinel.run("flush").code in (0, 77)
    assert sentinel.run("send", "sent after").code == 0
    assert "accepted before" in texts(x) and "sent after" in texts(x)
    sentinel.wait_idle()
    assert pending(sentinel) == []
    told = sum(alerts_in(dm.text) for dm in x.dms) + sentinel.status()["refused"]
    assert told == (5 if odd is insane_time else 3)
    assert "access_token" not in texts(x)
    assert sentinel.run("flush", "--discard-refused").code == 0
    assert (sentinel.run("status").code, list(sentinel.queue.glob("refused/*"))) == (0, [])


def test_odd_files_among_a_recipients_alerts_hold_up_none_of_them(
    x: FakeX, sentinel: Sentinel
) -> None:
    path = put(sentinel, "accepted before")
    (sentinel.queue / "to" / "2002").mkdir()
    path.rename(sentinel.queue / "to" / "2002" / path.name)
    for number, odd in enumerate(ODD):
        odd(sentinel.queue / "to" / "2002" / f"{1700000000000000000 + number}.1.web1")
    (sentinel.queue / "to" / "a file").touch()
    (sentinel.queue / "to" / "nobody").mkdir()
    assert sentinel.run("flush").code in (0, 77)
    assert "accepted before" in texts(x)
    sentinel.wait_idle()
    assert list(sentinel.queue.glob("to/2002/*")) == []


def test_a_damaged_backlog_is_put_aside_and_told_of_and_holds_nothing_up(
    x: FakeX, sentinel: Sentinel
) -> None:
    for number, content in enumerate((b"garbage", b"", b"{}", b"[" * 100_000)):
        put(sentinel, f"beside it: {number}")
        (sentinel.queue / "to" / "2002").mkdir(exist_ok=True)
        (sentinel.queue / "to" / "2002" / "folded").write_bytes(content)
        assert sentinel.run("flush").code in (0, 77)
        x.wait_for(lambda: f"beside it: {number}" in texts(x))  # noqa: B023
        sentinel.wait_idle()
        assert texts(x).count("a backlog was damaged") == number + 1
        status = sentinel.status()
        assert (status["pending"], status["refused"]) == (0, number + 1)


# ---- a damaged state ----

INSANE = ["1e300", "-1", "10000000000", "NaN", "null", '"x"', "[]"]


def with_numbers(value: Any, number: str) -> str:
    """A JSON value with another in the place of each of its numbers."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {with_numbers(v, number)}"
                               for k, v in value.items()) + "}"  # fmt: skip
    if isinstance(value, list):
        return "[" + ", ".join(with_numbers(v, number) for v in value) + "]"
    return number if isinstance(value, (int, float)) else json.dumps(value)


def test_whatever_is_in_a_damaged_state_the_next_alert_goes_out_at_once(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.limit = 10**6
    sentinel.configure({"oncall": "2002", "shy": "2004"}, interval="0.01")
    x.answer(ERRORS["503-empty"], times=None, when=lambda request: request.recipient_id == "2004")
    assert sentinel.run("send", "before").code == 75  # so that there are waits in it
    sentinel.kill()
    sentinel.wait_idle()
    x.clear_answers()
    x.add_user("shy", "2004")
    state = sentinel.queue / "state"
    sane = json.loads(state.read_text())
    damaged = [with_numbers(sane, number) for number in INSANE]
    damaged += ["", "garbage", "[]", "[" * 100_000]
    for content in damaged:
        state.write_text(content)
        sentinel.run("status")
        result = sentinel.run("send", f"after {content[:300]!r}", timeout=20)
        assert (result.code, result.seconds < 5) == (0, True), (content, result)
        sentinel.wait_idle()
    state.unlink()
    state.mkdir()
    assert sentinel.run("send", "with a directory there").code == 0


# ---- lock and trigger ----


def plain_file(path: Path) -> None:
    path.write_text("4194303\n")


PLACES = [plain_file, directory, symlink, dangling_symlink, socket_file]


@pytest.mark.parametrize("put_there", PLACES, ids=lambda put: put.__name__)
@pytest.mark.parametrize("name", ["trigger", "lock"])
def test_something_else_in_the_place_of_lock_or_trigger_stops_no_alert_or_is_told_of(
    x: FakeX, sentinel: Sentinel, name: str, put_there: Callable[[Path], None]
) -> None:
    sentinel.queue.mkdir(mode=0o700)
    config = sentinel.config.read_bytes()
    (sentinel.queue / "new").mkdir(mode=0o700)
    put_there(sentinel.queue / "new" / "x")
    (sentinel.queue / "new" / "x").rename(sentinel.queue / name)
    sentinel.run("send", "--no-wait", "--", "obstacle")

    def delivered_or_told() -> bool:
        return "obstacle" in texts(x) or str(sentinel.queue / name) in sentinel.run("status").out

    until(delivered_or_told, 5)
    sentinel.wait_idle()
    assert sentinel.config.read_bytes() == config
    assert not (sentinel.directory / "nothing").exists()


def test_a_lock_that_somebody_else_holds_costs_no_alert(x: FakeX, sentinel: Sentinel) -> None:
    put(sentinel, "held up")
    with open(sentinel.queue / "lock", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sentinel.run("send", "--no-wait", "--", "held up too").code == 0
        assert sentinel.run("status").code == 75
    x.wait_for(lambda: "held up too" in texts(x))  # a worker waits for it


# ---- something else in the place of the queue ----


def link_to_a_file(path: Path) -> None:
    path.symlink_to(path.with_name("config.ini"))


OBSTACLES = [plain_file, fifo, link_to_a_file, dangling_symlink]


@pytest.mark.parametrize("put_there", OBSTACLES, ids=lambda put: put.__name__)
def test_with_something_else_in_the_place_of_the_queue_an_alert_goes_by_memory_with_a_warning(
    x: FakeX, sentinel: Sentinel, put_there: Callable[[Path], None]
) -> None:
    put_there(sentinel.queue)
    result = sentinel.run("send", "obstacle", timeout=20)
    assert (result.code, len(x.dms)) == (0, 1), result
    assert "bird_sentinel: warning: the queue" in result.err and str(sentinel.memory) in result.err
    assert sorted(path.name for path in sentinel.directory.iterdir()) == ["config.ini", "queue"]


# ---- gone ----


def test_a_queue_that_vanished_is_made_anew(x: FakeX, sentinel: Sentinel) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    shutil.rmtree(sentinel.queue)
    result = sentinel.run("send", "after")
    assert (result.code, result.err, len(x.dms)) == (0, "", 2)
    assert stat.S_IMODE(sentinel.queue.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["tmp", "new", "to", "refused"])
def test_a_directory_of_the_queue_that_vanished_stops_no_alert(
    x: FakeX, sentinel: Sentinel, name: str
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    shutil.rmtree(sentinel.queue / name)
    result = sentinel.run("send", "after")
    assert (result.code, result.err) == (0, "")
    assert "after" in texts(x)
    sentinel.wait_idle()
    # and where the worker meets what it has to put aside
    dangling_symlink(sentinel.queue / "new" / NAME)
    assert sentinel.run("send", "beside a file that cannot be read").code == 0
    assert sentinel.status()["refused"] == 1


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


def test_a_send_whose_queue_was_replaced_by_another_does_not_take_that_for_a_delivery(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(Answer(503, delay=2), times=None)
    sending = sentinel.start("send", "precious", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    x.wait_for(lambda: x.requests)
    held = sentinel.queue.with_name("held")
    shutil.copytree(sentinel.queue, held, ignore=lambda *_: ["trigger"])
    for path in [*held.glob("new/*"), *held.glob("to/*/*")]:
        path.unlink()
    sentinel.queue.rename(sentinel.queue.with_name("moved"))
    held.rename(sentinel.queue)
    out, err = sending.communicate(timeout=60)
    assert (sending.returncode != 0, out) == (True, b""), err.decode()


# ---- not safe ----


@pytest.mark.parametrize("mode", [0o770, 0o707], ids=["group", "others"])
@pytest.mark.parametrize("which", ["queue", "directory"])
def test_a_queue_that_others_may_write_to_is_refused_and_the_alert_goes_by_memory(
    x: FakeX, sentinel: Sentinel, which: str, mode: int
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    path = sentinel.queue if which == "queue" else sentinel.directory
    path.chmod(mode)
    before = sorted(sentinel.queue.rglob("*"))
    result = sentinel.run("send", "--no-wait", "--", "not into their hands")
    assert result.code == 78
    assert f"chmod go-w {path}" in result.err and "kept in memory" in result.err
    x.wait_for(lambda: "not into their hands" in texts(x))
    assert sorted(sentinel.queue.rglob("*")) == before
    sentinel.wait_idle()
    path.chmod(0o700)
    result = sentinel.run("send", "--no-wait", "--", "mended")
    assert (result.code, result.err) == (0, "")


def test_what_is_in_a_queue_that_others_may_write_to_is_not_sent(
    x: FakeX, sentinel: Sentinel
) -> None:
    put(sentinel, "written by others, perhaps")
    sentinel.queue.chmod(0o777)
    result = sentinel.run("flush")
    assert (result.code, "chmod go-w" in result.err, x.dms) == (78, True, []), result


@needs_root
def test_roots_alerts_are_not_put_into_another_users_queue(x: FakeX, sentinel: Sentinel) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    for path in [sentinel.queue, *sentinel.queue.rglob("*")]:
        os.chown(path, 12345, 12345)
    before = sorted(sentinel.queue.rglob("*"))
    result = sentinel.run("send", "--no-wait", "--", "by root")
    assert (result.code, "belongs to #12345" in result.err) == (78, True), result
    assert sorted(sentinel.queue.rglob("*")) == before
    x.wait_for(lambda: "by root" in texts(x))


@needs_root
@pytest.mark.parametrize("authorized", [True, False])
def test_root_with_another_users_home_makes_nothing_there(
    fresh: Sentinel, authorized: bool
) -> None:
    if authorized:
        fresh.configure()
    for path in [fresh.home, *fresh.home.rglob("*")]:
        os.chown(path, 12345, 12345)
    before = sorted(fresh.home.rglob("*"))
    for way in (["--no-wait", "--"], []):
        result = fresh.run("send", *way, "by root")
        assert (result.code, str(fresh.memory) in result.err) == (78, True), result
        assert not authorized or "sudo -u '#12345' -- bird_sentinel" in result.err
        assert "send it again there" in result.err or not authorized
    fresh.run("flush")
    fresh.run("status")
    fresh.wait_idle()
    assert sorted(fresh.home.rglob("*")) == before


def test_a_trouble_that_is_over_in_the_very_moment_costs_no_wrong_exit_status(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    assert sentinel.run("send", "unpaid").code == 77
    trouble = sentinel.queue / "trouble"
    until(trouble.exists)
    done = subprocess.run(
        ["strace", "-qq", "-o", os.devnull, "-e", "trace=openat", "-P", str(trouble),
         "-e", "inject=openat:error=ENOENT", str(COMMAND), "send", "--no-wait", "--", "paid"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_trouble_that_cannot_be_read_costs_no_wrong_exit_status(
    x: FakeX, sentinel: Sentinel
) -> None:
    put(sentinel, "accepted before")
    (sentinel.queue / "trouble").mkdir()
    done = sentinel.run("send", "--no-wait", "--", "disk full")
    assert (done.code, done.err) == (0, "")
    x.wait_for(lambda: "disk full" in texts(x))


def test_a_standard_error_that_nobody_reads_does_not_hold_up_an_alert(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    assert sentinel.run("send", "unpaid").code == 77
    until((sentinel.queue / "trouble").exists)  # there is something to say
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(1 << 16))
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    sending = sentinel.start("send", "--no-wait", "--", "unheard", stderr=writer)
    try:
        assert sending.wait(15) == 0
    finally:
        sending.kill()
        sending.wait()
        os.close(reader)
        os.close(writer)
    assert sentinel.status()["pending"] == 2


def test_a_waiting_send_whose_alert_moves_on_while_it_looks_does_not_take_that_for_a_delivery(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(ERRORS["403-349"], times=None)
    assert sentinel.run("send", "--no-wait", "--", "before").code == 0
    until(lambda: sentinel.status()["last_error"])  # a worker is there, and quick
    done = subprocess.run(
        ["strace", "-qq", "-o", os.devnull, "-e", "trace=getdents64",
         "-P", str(sentinel.queue / "new"), "-e", "inject=getdents64:delay_enter=600000",
         str(COMMAND), "send", "--", "moves on"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, x.dms) == (77, []), done


def test_a_text_that_x_refuses_is_kept_though_the_directory_for_it_is_removed_meanwhile(
    x: FakeX, sentinel: Sentinel
) -> None:
    def refuse(_: Request) -> Answer:
        shutil.rmtree(sentinel.queue / "refused", ignore_errors=True)
        return ERRORS["403-about-blank"]

    x.answer(refuse, times=None, when=lambda request: "evil" in request.text)
    assert sentinel.run("send", "an evil text").code == 77
    sentinel.wait_idle()
    assert ["an evil text" in path.read_text() for path in sentinel.queue.glob("refused/*")] == [
        True
    ]


def test_an_alert_that_cannot_be_opened_for_a_moment_is_not_put_aside(
    x: FakeX, sentinel: Sentinel
) -> None:
    path = sentinel.queue / "to" / "2002" / put(sentinel, "root login").name
    subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", "trace=openat",
         "-P", str(path), "-e", "inject=openat:error=ENFILE:when=1", str(COMMAND), "flush"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    sentinel.wait_idle()
    assert (texts(x).count("root login"), sentinel.status()["refused"]) == (1, 0)


def test_the_queue_of_another_config_is_beside_it_and_named_after_it(
    x: FakeX, sentinel: Sentinel
) -> None:
    path = sentinel.configure(path=sentinel.home / "srv" / "config.ini")
    assert sentinel.run("--config", str(path), "send", "disk full").code == 0
    sentinel.wait_idle()
    assert sorted(os.listdir(path.parent)) == ["config.ini", "config.ini.queue"]


@needs_root
def test_a_queue_in_memory_that_somebody_else_made_is_not_looked_at(
    x: FakeX, sentinel: Sentinel
) -> None:
    """In /dev/shm anybody can make one, under a name that can be computed."""
    victim = sentinel.home / "victim"
    victim.mkdir()
    (victim / "file").write_text("")
    name = f"bird_sentinel-{os.geteuid()}-{zlib.crc32(os.fsencode(sentinel.config)):08x}.queue"
    theirs = sentinel.memory / name
    (theirs / "to" / "2002").mkdir(parents=True)
    os.mkfifo(theirs / "state")
    os.mkfifo(theirs / "to" / "2002" / "folded")
    (theirs / "to" / "2002" / "1.1.theirs").write_text("an alert of theirs")
    (theirs / "refused").symlink_to(victim)
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    seen = sentinel.run("status", timeout=10)
    assert (seen.code, "theirs" in seen.out) == (0, False), seen
    assert sentinel.run("flush", "--discard-refused").code == 0
    assert sentinel.run("send", "an alert").code == 0
    assert [dm.text.rpartition("] ")[2] for dm in x.dms] == ["an alert"]
    assert (victim / "file").exists()


@needs_root
def test_what_lies_in_another_users_queue_is_not_discarded(sentinel: Sentinel) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    (sentinel.queue / "refused" / "1").write_text("of theirs")
    for path in [sentinel.queue, *sentinel.queue.rglob("*")]:
        os.chown(path, 12345, 12345)
    assert sentinel.run("flush", "--discard-refused").code == 78
    assert (sentinel.queue / "refused" / "1").exists()


@pytest.mark.parametrize("name", ["new", "refused", "to"])
def test_a_directory_of_the_queue_that_others_may_write_to_is_refused(
    x: FakeX, sentinel: Sentinel, name: str
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    sentinel.queue.chmod(0o755)
    (sentinel.queue / name).chmod(0o777)
    done = sentinel.run("send", "an alert")
    assert (done.code, f"chmod go-w {sentinel.queue / name}" in done.err) == (78, True), done
    x.wait_for(lambda: "an alert" in texts(x))


def test_what_can_be_read_for_neither_of_two_recipients_does_not_keep_the_worker_busy(
    x: FakeX, sentinel: Sentinel
) -> None:
    sentinel.configure({"oncall": "2002", "second": "2003"})
    x.answer(ERRORS["503-empty"], times=None)
    as_user = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] * (os.geteuid() == 0)
    subprocess.run([*as_user, str(COMMAND), "send", "disk full"], env=sentinel.env, check=False,
                   stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
    (one,) = (sentinel.queue / "to" / "2002").iterdir()
    one.chmod(0)
    x.clear_answers()
    sentinel.wait_idle()
    assert [path.name for path in (sentinel.queue / "refused").iterdir()] == [one.name]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_something_else_in_the_place_of_state_and_trouble_hides_nothing(
    x: FakeX, sentinel: Sentinel, make: Callable[[str], None]
) -> None:
    assert sentinel.run("send", "all is well").code == 0
    sentinel.wait_idle()
    (sentinel.queue / "state").unlink()
    for name in ("state", "trouble"):
        make(str(sentinel.queue / name))
    assert sentinel.run("status", timeout=10).code == 0
    x.answer(ERRORS["401-code-89"], times=None)
    assert sentinel.run("send", "root login").code == 77
    warned = sentinel.run("send", "--no-wait", "again", timeout=10)
    assert (warned.code, "authorize" in warned.err) == (0, True), warned


def test_of_many_warnings_a_standard_error_that_nobody_reads_holds_up_an_alert_for_one(
    x: FakeX, sentinel: Sentinel
) -> None:
    people = {f"p{number}": f"300{number}" for number in range(6)}
    for handle, number in people.items():
        x.add_user(handle, number, accepts_dms=False)
    sentinel.configure(people)
    assert sentinel.run("send", "one").code == 77
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    began = time.monotonic()
    assert sentinel.start("send", "--no-wait", "--", "two", stderr=writer).wait(30) == 0
    assert time.monotonic() - began < 5
    os.close(reader)
    os.close(writer)


def test_a_memory_that_is_named_twice_is_counted_once(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    env = {"XDG_RUNTIME_DIR": "/dev/shm"}
    x.answer(ERRORS["503-empty"], times=None)
    sentinel.queue.write_text("no directory")
    try:
        assert sentinel.run("send", "an alert", env=env).code == 75
        seen = json.loads(sentinel.run("status", "--json", env=env).out)
        assert seen["pending"] == 1
    finally:
        sentinel.kill()
        sentinel.wait_idle()
        for path in Path("/dev/shm").glob(
            f"*-{os.geteuid()}-{zlib.crc32(os.fsencode(sentinel.config)):08x}.queue"
        ):
            shutil.rmtree(path)
