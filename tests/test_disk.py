"""A disk that is full, read-only, slow, or lacks what we use: alerts go out all the same.

What mounts small disks needs CAP_SYS_ADMIN and is skipped without; setpriv (util-linux); strace.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX
from test_crashes import alerts_in, pending, put, texts, word


@pytest.fixture
def disk(sentinel: Sentinel, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small disk, mounted where config and queue are; its size, or what it is asked for."""
    path = sentinel.directory
    options = f"mode=700,{getattr(request, 'param', 'size=256k')}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted: {done.stderr.strip()}")
    try:
        sentinel.configure(interval="0.5")
        yield path
    finally:
        sentinel.kill()
        until(lambda: not sentinel.processes())
        subprocess.run(["umount", "-l", path], check=True)


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
        command = ["mount", "-o", f"remount,{mode}", str(disk)]
        return not subprocess.run(command, capture_output=True, check=False).returncode

    until(done)


# ---- full ----


def test_on_a_full_disk_an_alert_is_kept_in_memory_delivered_and_a_warning_says_so(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    fill(disk)
    result = sentinel.run("send", "disk full on web1")
    assert (result.code, result.out) == (0, "delivered to @oncall\n")
    assert [dm.text[-17:] for dm in x.dms] == ["disk full on web1"]
    assert "bird_sentinel: warning: " in result.err
    assert "no space left" in result.err and str(sentinel.memory) in result.err
    (disk / "filling").unlink()
    result = sentinel.run("send", "room again")
    assert (result.code, result.err) == (0, "")


def test_a_storm_on_a_full_disk_becomes_a_few_digests_in_which_each_alert_counts(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    x.limit = 10**6
    put(sentinel, "accepted before")
    fill(disk)
    storm = [
        sentinel.start("send", "--no-wait", "--", word(n), stderr=subprocess.DEVNULL)
        for n in range(60)
    ]
    assert [process.wait(60) for process in storm] == [0] * 60
    x.wait_for(lambda: sum(alerts_in(dm.text) for dm in x.dms) >= 61, 30)
    assert [n for n in range(60) if texts(x).count(word(n)) != 1] == []
    assert texts(x).count("accepted before") == 1
    assert len(x.dms) <= 10


def test_what_is_kept_in_memory_while_x_is_away_is_pending_and_goes_with_flush(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    fill(disk)
    x.stop()
    result = sentinel.run("send", "disk full")
    assert (result.code, "X cannot be reached" in result.err) == (75, True), result
    assert sentinel.status()["pending"] == 1
    x.start()
    assert sentinel.run("flush").code == 0
    assert "disk full" in texts(x)


def test_when_the_disk_fills_up_what_is_pending_is_delivered_and_not_repeated(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    x.answer(ERRORS["503-empty"])
    assert sentinel.run("send", "--no-wait", "before the disk was full").code == 0
    until(lambda: x.requests)
    fill(disk)
    x.wait_for(lambda: x.dms)
    sentinel.wait_idle()
    assert len(x.dms) == 1
    assert pending(sentinel) == []


# ---- read-only ----


def test_on_a_read_only_disk_an_alert_and_what_was_accepted_before_is_delivered_once(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    put(sentinel, "accepted before")
    remount(disk, "ro")
    result = sentinel.run("send", "remounted read-only")
    assert (result.code, "read-only" in result.err) == (0, True), result
    time.sleep(3)
    texts_of = texts(x)
    assert (texts_of.count("accepted before"), texts_of.count("remounted read-only")) == (1, 1)


@pytest.fixture
def frozen(sentinel: Sentinel) -> Iterator[Callable[[], None]]:
    """What makes the queue read-only, even while a worker has files of it open."""

    def freeze() -> None:
        for command in (["--bind", queue, queue], ["-o", "remount,bind,ro", queue]):
            done = subprocess.run(["mount", *command], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")

    queue = str(sentinel.queue)
    yield freeze
    sentinel.kill()
    thaw(sentinel)


def thaw(sentinel: Sentinel) -> None:
    subprocess.run(["umount", "-l", str(sentinel.queue)], capture_output=True, check=False)


def test_a_disk_that_becomes_read_only_under_a_worker_does_not_repeat_a_dm_again_and_again(
    x: FakeX, sentinel: Sentinel, frozen: Callable[[], None]
) -> None:
    x.limit = 10**6
    sentinel.configure(interval="0.01")
    x.answer(Answer(delay=1))
    assert sentinel.run("send", "--no-wait", "in flight").code == 0
    x.wait_for(lambda: x.requests)
    frozen()
    x.wait_for(lambda: x.dms)
    assert sentinel.run("send", "and another").code == 0
    time.sleep(4)
    assert (texts(x).count("in flight"), texts(x).count("and another")) == (1, 1)


def test_a_disk_that_turns_read_only_with_20_pending_and_comes_back_costs_none_and_repeats_none(
    x: FakeX, sentinel: Sentinel, frozen: Callable[[], None]
) -> None:
    x.limit = 10**6
    sentinel.configure(interval="0.01")
    x.answer(ERRORS["503-empty"], times=None)
    for n in range(20):
        put(sentinel, word(n))
    sentinel.start("flush", stderr=subprocess.DEVNULL)
    until(lambda: sentinel.status()["last_error"])
    frozen()
    for n in range(20, 40):
        assert sentinel.run("send", "--no-wait", "--", word(n)).code == 0
    assert sentinel.status()["pending"] == 40
    x.clear_answers()
    sentinel.start("flush", stderr=subprocess.DEVNULL)
    x.wait_for(lambda: sum(alerts_in(dm.text) for dm in x.dms) >= 40, 30)
    thaw(sentinel)
    assert sentinel.run("send", "and one more").code == 0
    assert sentinel.run("flush").code == 0
    sentinel.wait_idle(90)
    assert [texts(x).count(word(n)) for n in range(40)] == [1] * 40
    assert (sentinel.status()["pending"], pending(sentinel)) == (0, [])


def test_a_damaged_backlog_on_a_read_only_disk_holds_up_nothing(
    x: FakeX, sentinel: Sentinel, frozen: Callable[[], None]
) -> None:
    put(sentinel, "pending before")
    (sentinel.queue / "folded").write_text("garbage")
    frozen()
    assert sentinel.run("send", "--no-wait", "--", "remounted read-only").code == 0
    x.wait_for(lambda: "remounted read-only" in texts(x) and "pending before" in texts(x), 20)
    thaw(sentinel)
    sentinel.run("flush")
    x.wait_for(lambda: "damaged" in texts(x))
    assert (texts(x).count("pending before"), texts(x).count("remounted read-only")) == (1, 1)


def test_of_a_refused_text_on_a_disk_that_became_read_only_a_person_hears_once(
    x: FakeX, sentinel: Sentinel, frozen: Callable[[], None]
) -> None:
    x.answer(ERRORS["503-empty"], None)
    assert sentinel.run("send", "evil").code == 75
    frozen()
    x.clear_answers()
    x.answer(ERRORS["403-about-blank"], None, when=lambda r: "evil" in r.text)
    x.wait_for(lambda: x.dms, 60)
    time.sleep(6)
    assert len(x.dms) == 1 and "does not take" in x.dms[0].text


# ---- without what a worker wants of it ----


@contextlib.contextmanager
def without(sentinel: Sentinel, calls: str, error: str, path: Path | None = None) -> Iterator[None]:
    """Send "first" where these system calls fail, for a path: in the worker too, which lives on."""
    only = ["-P", str(path)] if path else []
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", *only,
               "-e", f"inject={calls}:error={error}"]  # fmt: skip
    with subprocess.Popen([*command, str(COMMAND), "send", "--no-wait", "--", "first"],
                          env=sentinel.env, stdin=subprocess.DEVNULL) as process:  # fmt: skip
        yield
        sentinel.kill()
        process.wait()


@pytest.mark.parametrize(
    ("calls", "error", "name"),
    [("mknod,mknodat", "EPERM", "trigger"), ("flock", "ENOLCK", "lock"), ("openat", "EIO", "lock")],
    ids=["no fifos", "no locks", "no such file"],
)
def test_on_a_disk_that_lacks_what_a_worker_wants_alerts_go_out_once_and_still_wake_it(
    x: FakeX, sentinel: Sentinel, calls: str, error: str, name: str
) -> None:
    x.limit = 10**6
    x.answer(ERRORS["402-credits"], times=None)
    put(sentinel, "accepted before")
    with without(sentinel, calls, error, sentinel.queue / name):
        until(lambda: sentinel.status()["last_error"])
        done = sentinel.run("send", "second")
        assert (done.code, "credits" in done.err) == (77, True), done
        x.clear_answers()
        done = sentinel.run("flush")
        assert done.code == 0, done
        sentinel.wait_idle()
    assert [texts(x).count(each) for each in ("accepted before", "first", "second")] == [1] * 3
    assert pending(sentinel) == []


@pytest.mark.parametrize("disk", ["nr_inodes=9"], indirect=True)
def test_on_a_disk_without_room_for_lock_and_trigger_what_is_there_goes_out_once(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    put(sentinel, "accepted before")
    with contextlib.suppress(OSError):
        for number in range(99):
            (disk / f"filling{number}").touch()
    for text in ("one", "two"):
        result = sentinel.run("send", text)
        assert result.code == 0, result
    sentinel.wait_idle()
    assert [texts(x).count(each) for each in ("accepted before", "one", "two")] == [1] * 3


def test_on_a_disk_that_cannot_be_read_any_more_the_next_alert_goes_by_memory(
    x: FakeX, sentinel: Sentinel
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    with without(sentinel, "openat", "EIO", sentinel.queue / "new"):
        x.wait_for(lambda: "first" in texts(x), 15)
        time.sleep(2)
    assert texts(x).count("first") == 1


@pytest.mark.parametrize(
    ("calls", "error", "of"),
    [("flock", "ENOLCK", ""), ("chdir", "EACCES", ""), ("pipe,pipe2", "EMFILE", ""),
     ("getdents64", "EIO", "new")],
)  # fmt: skip
def test_whatever_fails_in_a_worker_is_told_and_costs_no_alert(
    x: FakeX, sentinel: Sentinel, calls: str, error: str, of: str
) -> None:
    put(sentinel, "accepted before")
    with without(sentinel, calls, error, sentinel.queue / of if of else None):
        until(lambda: sentinel.status()["last_error"], 15, "nobody is told")
    assert sentinel.run("flush").code == 0
    assert [texts(x).count(each) for each in ("accepted before", "first")] == [1] * 2


# ---- slow ----

CROWD = 150


def test_on_a_slow_disk_150_senders_at_once_all_store_their_alerts_and_each_counts_once(
    busy_x: FakeX, homes: Callable[[], Sentinel]
) -> None:
    sentinel = homes()
    crowd = 'for n in $(seq $1); do "$0" send --no-wait -- "alert $n" || echo failed & done; wait'
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", "trace=fsync",
         "-e", "inject=fsync:delay_enter=40000", "sh", "-c", crowd, str(COMMAND), str(CROWD)],
        env=sentinel.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=100,
    )  # fmt: skip
    assert (done.stdout, sum(alerts_in(dm.text) for dm in busy_x.dms)) == (b"", CROWD)
