"""A disk that is full, read-only, damaged or gone: delivered all the same, or told why not.

Needs root, as it mounts small tmpfs file systems, and setpriv (util-linux).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from conftest import COMMAND, Result, Sentinel, until
from fake_x import ERRORS, Answer, FakeX

# root, but subject to the permission bits that everybody else is subject to
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
GARBAGE = bytes(range(256)) * 64


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def on_disk(disk: Path, fresh: Sentinel) -> Iterator[Sentinel]:
    """An authorized sentinel whose queue lies on that disk, the config does not."""
    fresh.queue = disk / "queue.db"
    fresh.configure(queue=str(fresh.queue))
    yield fresh
    fresh.kill()
    until(lambda: not fresh.processes())


def fill(disk: Path) -> None:
    """Leave not a single byte."""
    with contextlib.suppress(OSError), open(disk / "filling", "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError) as full, open(disk / "one more", "wb", buffering=0) as file:
        file.write(b"byte")
    assert full.value.errno == errno.ENOSPC


def remount(disk: Path, mode: str) -> None:
    """Make it read-only or writable again; whoever is writing at this moment is waited for."""

    def done() -> bool:
        return not subprocess.run(
            ["mount", "-o", f"remount,{mode}", disk], capture_output=True, check=False
        ).returncode

    until(done)


def texts(x: FakeX) -> str:
    return "\n".join(dm.text for dm in x.dms)


def keep(x: FakeX, sentinel: Sentinel, *alerts: str, error: str = "401-code-89") -> None:
    """Leave alerts in the queue, which X would not take, and no worker."""
    x.answer(ERRORS[error])
    for alert in alerts:
        assert sentinel.run("send", "--no-wait", alert).code == 0
    until(lambda: sentinel.status()["last_error"])
    assert sentinel.status()["pending"] == len(alerts)
    sentinel.kill()
    sentinel.wait_idle()
    assert not x.dms
    x.clear_answers()


# ---- full ----


def test_on_a_full_disk_an_alert_is_delivered_directly(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    fill(disk)
    result = on_disk.run("send", "disk full on web1")
    assert (result.code, result.out) == (0, "delivered to @oncall\n")
    assert [dm.text[-17:] for dm in x.dms] == ["disk full on web1"]


def test_on_a_full_disk_a_person_is_told_so(disk: Path, on_disk: Sentinel) -> None:
    fill(disk)
    assert "could not be stored" in on_disk.run("send", "disk full").err


def test_on_a_full_disk_no_wait_delivers_too(x: FakeX, disk: Path, on_disk: Sentinel) -> None:
    fill(disk)
    assert on_disk.run("send", "--no-wait", "disk full").code == 0
    assert len(x.dms) == 1


def test_on_a_full_disk_with_a_queue_in_use_an_alert_is_delivered_directly(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    assert on_disk.run("send", "before").code == 0
    fill(disk)
    assert on_disk.run("send", "--no-wait", "disk full").code == 0
    assert "disk full" in x.dms[1].text


def test_on_a_full_disk_without_x_both_reasons_are_told(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    fill(disk)
    x.stop()
    result = on_disk.run("send", "disk full")
    assert result.code == 74
    assert "full" in result.err
    assert "X cannot be reached" in result.err


def test_on_a_full_disk_without_a_config_both_reasons_are_told(
    disk: Path, on_disk: Sentinel
) -> None:
    fill(disk)
    result = on_disk.run("--config", str(disk / "none.ini"), "send", "disk full")
    assert result.code == 74
    assert "could not be stored" in result.err
    assert "not authorized" in result.err


def test_when_the_disk_fills_up_what_is_pending_is_delivered_and_not_repeated(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    x.answer(ERRORS["503-empty"])
    assert on_disk.run("send", "--no-wait", "before the disk was full").code == 0
    until(lambda: x.requests)
    fill(disk)
    x.wait_for(lambda: x.dms)
    time.sleep(7)  # the worker looks again after five seconds
    assert len(x.dms) == 1
    (disk / "filling").unlink()
    assert on_disk.run("flush").code == 0
    on_disk.wait_idle()
    assert len(x.dms) == 1, "what was delivered is recorded as soon as there is room"


def test_when_the_disk_fills_up_a_new_alert_is_delivered_beside_those_pending(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    keep(x, on_disk, "pending")
    fill(disk)
    assert on_disk.run("send", "--no-wait", "the disk is full").code == 0
    assert "the disk is full" in texts(x)


def test_on_a_full_disk_flush_delivers_what_is_pending(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    keep(x, on_disk, "pending", error="503-empty")
    fill(disk)
    flush = on_disk.start("flush", stdout=subprocess.DEVNULL)
    x.wait_for(lambda: "pending" in texts(x), 20)
    (disk / "filling").unlink()
    assert flush.wait(60) == 0


def test_when_there_is_room_again_nothing_that_was_pending_is_missing(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    keep(x, on_disk, "pending")
    fill(disk)
    on_disk.run("send", "--no-wait", "the disk is full")
    (disk / "filling").unlink()
    assert on_disk.run("flush").code == 0
    assert "pending" in texts(x)


# ---- read-only ----


def test_on_a_read_only_disk_an_alert_is_delivered_directly(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    remount(disk, "ro")
    result = on_disk.run("send", "remounted read-only")
    assert (result.code, len(x.dms)) == (0, 1)
    assert "read-only" in result.err


def test_on_a_disk_that_became_read_only_an_alert_is_delivered_directly(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    assert on_disk.run("send", "before").code == 0
    on_disk.wait_idle()
    remount(disk, "ro")
    assert on_disk.run("send", "--no-wait", "remounted read-only").code == 0
    assert "remounted read-only" in x.dms[1].text


def test_on_a_read_only_disk_where_x_refuses_both_reasons_are_told(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    x.answer(ERRORS["401-code-89"], times=None)
    remount(disk, "ro")
    result = on_disk.run("send", "remounted read-only")
    assert result.code == 74
    assert "read-only" in result.err
    assert "access token" in result.err


def test_what_is_pending_survives_a_time_of_read_only(
    x: FakeX, disk: Path, on_disk: Sentinel
) -> None:
    keep(x, on_disk, "pending")
    remount(disk, "ro")
    assert on_disk.run("send", "--no-wait", "remounted read-only").code == 0
    remount(disk, "rw")
    assert on_disk.run("flush").code == 0
    assert "pending" in texts(x)


def test_on_a_read_only_disk_status_speaks(disk: Path, on_disk: Sentinel) -> None:
    assert on_disk.run("send", "before").code == 0
    on_disk.wait_idle()
    remount(disk, "ro")
    result = on_disk.run("status")
    assert "read-only" in result.out
    assert not result.err


def unprivileged(sentinel: Sentinel, *args: str) -> Result:
    done = subprocess.run(
        [*WITHOUT_PRIVILEGE, str(COMMAND), *args],
        env=sentinel.env, capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr, 0.0)


def test_without_leave_to_write_in_the_directory_an_alert_is_delivered_directly(
    x: FakeX, sentinel: Sentinel
) -> None:
    sentinel.directory.chmod(0o500)
    result = unprivileged(sentinel, "send", "read-only directory")
    assert (result.code, len(x.dms)) == (0, 1)
    assert "permission denied" in result.err


def test_without_leave_to_make_the_directory_an_alert_is_delivered_directly(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    sentinel.configure(queue=str(tmp_path / "closed" / "deeper" / "queue.db"))
    assert unprivileged(sentinel, "send", "no directory").code == 0
    assert len(x.dms) == 1


# ---- something else in the place of the queue ----


def damage(sentinel: Sentinel, how: str) -> None:
    """Damage a queue in which alerts are pending."""
    size = sentinel.queue.stat().st_size
    if how == "garbage":
        sentinel.queue.write_bytes(GARBAGE)
    elif how == "text":
        sentinel.queue.write_text("this is a text\n" * 1000)
    elif how == "zeros":
        sentinel.queue.write_bytes(bytes(8192))
    elif how == "truncated in its head":
        os.truncate(sentinel.queue, 60)
    elif how == "truncated":
        os.truncate(sentinel.queue, size // 4096 // 2 * 4096)
    elif how == "a hole in it":
        with open(sentinel.queue, "r+b") as file:
            file.seek(4096)
            file.write(GARBAGE[:4096])
    else:
        sentinel.queue.unlink()
        with contextlib.closing(sqlite3.connect(sentinel.queue)) as other:
            other.execute("CREATE TABLE alert (somebody TEXT, elses TEXT)")
        sentinel.queue.chmod(0o600)


DAMAGES = ["garbage", "text", "zeros", "truncated in its head", "truncated", "a hole in it",
           "another database"]  # fmt: skip


def asides(sentinel: Sentinel) -> list[Path]:
    """The damaged queues that were moved aside."""
    found = sentinel.directory.glob("queue.db.damaged-*")
    return [path for path in found if not path.name.endswith("-journal")]


@pytest.fixture(params=DAMAGES)
def damaged(request: pytest.FixtureRequest, x: FakeX, sentinel: Sentinel) -> bytes:
    """A damaged queue, and what is in the file."""
    keep(x, sentinel, "pending")
    damage(sentinel, request.param)
    return sentinel.queue.read_bytes()


def test_a_damaged_queue_stops_no_alert_and_is_moved_aside_and_told(
    x: FakeX, sentinel: Sentinel, damaged: bytes
) -> None:
    result = sentinel.run("send", "after the damage")
    assert result.code == 0
    x.wait_for(lambda: "after the damage" in texts(x))
    (aside,) = asides(sentinel)
    assert aside.read_bytes() == damaged
    assert str(aside) in result.err
    sentinel.run("flush")
    assert str(aside) in texts(x), "a person who reads no log is told by a DM"
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_a_damaged_queue_does_not_stop_status(sentinel: Sentinel, damaged: bytes) -> None:
    result = sentinel.run("status")
    assert result.out or result.err
    assert result.code != 1


def test_a_damaged_queue_does_not_stop_flush(x: FakeX, sentinel: Sentinel, damaged: bytes) -> None:
    assert sentinel.run("flush").code == 0
    assert "was damaged (" in texts(x)


def test_what_can_still_be_read_of_a_damaged_queue_is_delivered(
    x: FakeX, sentinel: Sentinel
) -> None:
    keep(x, sentinel, "pending")
    with contextlib.closing(sqlite3.connect(sentinel.queue)) as queue:
        queue.execute("DROP TABLE refused")
    assert sentinel.run("flush").code == 0
    assert "pending" in texts(x)


def test_an_empty_file_is_a_new_queue(x: FakeX, sentinel: Sentinel) -> None:
    sentinel.queue.touch(0o600)
    result = sentinel.run("send", "first")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


def put_symlink(path: Path) -> None:
    path.symlink_to(path.with_name("target"))
    path.with_name("target").write_bytes(b"precious")


def put_dangling_symlink(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def put_directory(path: Path) -> None:
    path.mkdir()


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_anothers(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, 12345, 12345)


OBSTACLES = [put_symlink, put_dangling_symlink, put_directory, put_fifo, put_anothers]


@pytest.mark.parametrize("put", OBSTACLES)
def test_with_something_else_in_the_place_of_the_queue_an_alert_is_delivered_directly(
    x: FakeX, sentinel: Sentinel, put: Callable[[Path], None]
) -> None:
    put(sentinel.queue)
    result = sentinel.run("send", "obstacle")
    assert (result.code, len(x.dms)) == (0, 1)
    assert "could not be stored" in result.err


@pytest.mark.parametrize("put", OBSTACLES)
def test_with_something_else_in_the_place_of_the_queue_and_no_x_both_reasons_are_told(
    x: FakeX, sentinel: Sentinel, put: Callable[[Path], None]
) -> None:
    put(sentinel.queue)
    x.stop()
    result = sentinel.run("send", "obstacle")
    assert result.code == 74
    assert "could not be stored" in result.err
    assert "X cannot be reached" in result.err


@pytest.mark.parametrize("put", OBSTACLES)
def test_with_something_else_in_the_place_of_the_queue_status_and_flush_say_so(
    sentinel: Sentinel, put: Callable[[Path], None]
) -> None:
    put(sentinel.queue)
    status, flush = sentinel.run("status"), sentinel.run("flush")
    assert status.code
    assert str(sentinel.queue) in status.out + status.err
    assert flush.code
    assert str(sentinel.queue) in flush.err


@pytest.mark.parametrize("name", ["queue.db", "queue.db.lock", "queue.db-journal"])
def test_what_a_planted_symlink_points_to_is_not_touched(
    x: FakeX, sentinel: Sentinel, name: str
) -> None:
    put_symlink(sentinel.directory / name)
    assert sentinel.run("send", "planted").code == 0
    assert len(x.dms) == 1
    assert (sentinel.directory / "target").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["queue.db", "queue.db.lock", "queue.db-journal"])
def test_what_a_planted_dangling_symlink_points_to_is_not_made(
    x: FakeX, sentinel: Sentinel, name: str
) -> None:
    put_dangling_symlink(sentinel.directory / name)
    assert sentinel.run("send", "planted").code == 0
    assert len(x.dms) == 1
    assert not (sentinel.directory / "nothing").exists()


# ---- a lock left behind ----

PIDS = {
    "nothing": b"",
    "a dead process": b"4194303",
    "init": b"1",
    "zero": b"0",
    "minus one": b"-1",
    "a number too large": b"9" * 20,
    "words": b"not a pid\n",
    "bytes": b"\xff\x00\x80",
}


@pytest.mark.parametrize("pid", PIDS.values(), ids=PIDS)
def test_a_lock_file_left_behind_stops_nothing(x: FakeX, sentinel: Sentinel, pid: bytes) -> None:
    sentinel.queue.with_name("queue.db.lock").write_bytes(pid)
    result = sentinel.run("send", "stale lock")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


@pytest.mark.parametrize("pid", PIDS.values(), ids=PIDS)
def test_a_lock_that_somebody_else_holds_costs_no_alert(
    x: FakeX, sentinel: Sentinel, pid: bytes
) -> None:
    lock = sentinel.queue.with_name("queue.db.lock")
    lock.write_bytes(pid)
    with open(lock, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sentinel.run("send", "--no-wait", "held up")
        assert sentinel.run("status").code != 1
    assert sentinel.run("flush").code == 0
    assert "held up" in texts(x)


def test_a_stale_pid_that_is_somebody_elses_now_harms_nobody(x: FakeX, sentinel: Sentinel) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        sentinel.queue.with_name("queue.db.lock").write_text(str(bystander.pid))
        assert sentinel.run("send", "stale lock").code == 0
        assert bystander.poll() is None
        bystander.kill()


def test_a_directory_in_the_place_of_the_lock_stops_no_alert(x: FakeX, sentinel: Sentinel) -> None:
    sentinel.queue.with_name("queue.db.lock").mkdir(parents=True)
    assert sentinel.run("send", "no lock").code == 0
    assert len(x.dms) == 1


# ---- gone ----


def test_a_queue_directory_that_vanished_is_made_anew(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    sentinel.configure(queue=str(tmp_path / "spool" / "queue.db"))
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    shutil.rmtree(tmp_path / "spool")
    result = sentinel.run("send", "after")
    assert (result.code, result.err, len(x.dms)) == (0, "", 2)
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_when_the_directory_vanishes_under_a_worker_the_next_alert_gets_a_new_one(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    sentinel.configure(queue=str(tmp_path / "spool" / "queue.db"))
    x.answer(Answer(delay=1))
    assert sentinel.run("send", "--no-wait", "in flight").code == 0
    x.wait_for(lambda: x.requests)
    shutil.rmtree(tmp_path / "spool")
    assert sentinel.run("send", "after").code == 0
    sentinel.wait_idle()
    assert sorted(dm.text[16:].lstrip() for dm in x.dms) == ["after", "in flight"]


def test_a_send_whose_alert_vanished_with_the_directory_says_so(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    sentinel.configure(queue=str(tmp_path / "spool" / "queue.db"))
    x.answer(Answer(503, delay=1), times=None)
    sending = sentinel.start("send", "on a disk that is pulled out", stderr=subprocess.PIPE)
    x.wait_for(lambda: x.requests)
    shutil.rmtree(tmp_path / "spool")
    _, said = sending.communicate(timeout=60)
    assert b"Traceback" not in said
    assert sending.returncode == 74, said.decode()


# ---- in the middle of a worker's life ----


def test_when_the_queue_is_damaged_under_a_worker_nothing_is_silent(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(Answer(delay=1))
    assert sentinel.run("send", "--no-wait", "in flight").code == 0
    x.wait_for(lambda: x.requests)
    sentinel.queue.write_bytes(GARBAGE)
    x.wait_for(lambda: "was damaged (" in texts(x), 20)
    assert sentinel.run("send", "after").code == 0
    sentinel.wait_idle()
    assert texts(x).count("in flight") == 1
    assert texts(x).count("was damaged (") == 1
    assert texts(x).count("after") == 1


def test_several_that_find_the_damage_at_once_lose_nothing(x: FakeX, sentinel: Sentinel) -> None:
    x.limit = 10**6
    for turn in "abcd":
        sentinel.queue.write_bytes(GARBAGE)
        sentinel.queue.chmod(0o600)
        alerts = [f"alert {turn}{letter}" for letter in "abcdef"]
        sending = [
            sentinel.start("send", "--no-wait", alert, stderr=subprocess.DEVNULL)
            for alert in alerts
        ]
        assert [process.wait(60) for process in sending] == [0] * len(alerts)
        assert sentinel.run("flush").code == 0
        sentinel.wait_idle()
        assert [texts(x).count(alert) for alert in alerts] == [1] * len(alerts)
    assert len(asides(sentinel)) == 4
    assert texts(x).count("was damaged (") == 4


def test_a_queue_that_somebody_holds_locked_holds_nobody_up_for_ever(
    x: FakeX, sentinel: Sentinel
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    with contextlib.closing(sqlite3.connect(sentinel.queue, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        result = sentinel.run("send", "--no-wait", "locked out")
        assert (result.code, len(x.dms)) == (0, 2)
        assert "locked" in result.err
        assert result.seconds < 30
