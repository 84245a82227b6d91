"""A disk that is full, read-only or slow: the alert goes out all the same, and is not held up.

What mounts small disks needs CAP_SYS_ADMIN and is skipped without; setpriv (util-linux); strace.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX
from test_crashes import alerts_in, pending, put, texts, word

# root, but subject to the permission bits that everybody else is subject to
AS_USER = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.fixture
def disk(sentinel: Sentinel) -> Iterator[Path]:
    """A small disk, mounted where config and queue are."""
    path = sentinel.directory
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", str(path)]
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


def test_a_storm_on_a_full_disk_becomes_a_few_digests_in_which_each_alert_counts(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    x.limit = 10**6
    fill(disk)
    storm = [
        sentinel.start("send", "--no-wait", "--", word(n), stderr=subprocess.DEVNULL)
        for n in range(40)
    ]
    assert [process.wait(60) for process in storm] == [0] * 40
    x.wait_for(lambda: sum(alerts_in(dm.text) for dm in x.dms) >= 40, 30)
    assert [n for n in range(40) if texts(x).count(word(n)) != 1] == []
    assert len(x.dms) <= 8


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


def test_on_a_full_disk_flush_delivers_what_was_accepted_before_by_a_worker_that_died(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    put(sentinel, "accepted before")
    fill(disk)
    assert sentinel.run("flush").code == 0
    assert "accepted before" in texts(x)


def test_when_there_is_room_again_the_queue_is_on_the_disk_again(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    fill(disk)
    assert sentinel.run("send", "--no-wait", "disk full").code == 0
    (disk / "filling").unlink()
    result = sentinel.run("send", "room again")
    assert (result.code, result.err) == (0, "")
    x.wait_for(lambda: "disk full" in texts(x))


# ---- read-only ----


def test_on_a_read_only_disk_an_alert_is_delivered_once(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    remount(disk, "ro")
    result = sentinel.run("send", "remounted read-only")
    assert (result.code, "read-only" in result.err) == (0, True), result
    sentinel.wait_idle()
    assert sentinel.run("flush").code == 0
    assert texts(x).count("remounted read-only") == 1


def test_a_disk_that_becomes_read_only_under_a_worker_does_not_repeat_a_dm_again_and_again(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    x.answer(Answer(delay=1), times=None)
    assert sentinel.run("send", "--no-wait", "in flight").code == 0
    x.wait_for(lambda: x.requests)
    remount(disk, "ro")
    x.wait_for(lambda: x.dms)
    assert sentinel.run("send", "and another").code == 0
    time.sleep(4)
    assert texts(x).count("in flight") == 1
    assert texts(x).count("and another") == 1


def test_what_is_pending_on_a_disk_that_became_read_only_is_told_of_and_goes_when_that_is_over(
    x: FakeX, disk: Path, sentinel: Sentinel
) -> None:
    put(sentinel, "pending before")
    remount(disk, "ro")
    assert sentinel.run("send", "--no-wait", "--", "remounted read-only").code == 0
    x.wait_for(lambda: "remounted read-only" in texts(x))
    sentinel.wait_idle()
    if "pending before" not in texts(x):
        status = sentinel.run("status")
        assert (status.code, status.out.startswith("problem: 1 alert pending")) == (75, True)
    remount(disk, "rw")
    assert sentinel.run("flush").code == 0
    assert "pending before" in texts(x)


def test_without_leave_to_write_in_the_directory_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel
) -> None:
    sentinel.directory.chmod(0o500)
    done = subprocess.run(
        [*AS_USER, str(COMMAND), "send", "read-only directory"], env=sentinel.env,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    sentinel.directory.chmod(0o700)
    assert (done.returncode, len(x.dms)) == (0, 1), done
    assert "permission denied" in done.stderr


def test_a_relative_directory_for_memory_is_not_used_as_its_place_depends_on_the_caller(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    (tmp_path / "relative").mkdir(mode=0o700)
    sentinel.env["XDG_RUNTIME_DIR"] = "relative"
    sentinel.directory.chmod(0o500)
    done = subprocess.run(
        [*AS_USER, str(COMMAND), "send", "disk full"], env=sentinel.env, cwd=tmp_path,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    sentinel.directory.chmod(0o700)
    sentinel.wait_idle()
    mark = binascii.crc32(os.fsencode(sentinel.config))
    shutil.rmtree(f"/dev/shm/bird_sentinel-{os.geteuid()}-{mark:08x}.queue", ignore_errors=True)
    assert (done.returncode, len(x.dms)) == (0, 1), done
    assert not any((tmp_path / "relative").iterdir())


# ---- nowhere ----


def test_only_where_memory_fails_too_an_alert_is_not_kept_and_the_status_says_so(
    x: FakeX, sentinel: Sentinel
) -> None:
    def no_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    for way in (["send", "--no-wait", "--"], ["send"]):
        result = sentinel.run(*way, "nowhere to go", preexec_fn=no_files)
        assert result.code == 74
        assert "could not be stored anywhere" in result.err and "file too large" in result.err
    assert not x.requests
    assert pending(sentinel) == []
    # the directories of the second queue are made all the same
    mark = binascii.crc32(os.fsencode(sentinel.config))
    shutil.rmtree(f"/dev/shm/bird_sentinel-{os.geteuid()}-{mark:08x}.queue", ignore_errors=True)


# ---- slow ----

CROWD = 150
DELAY = 0.04  # seconds that a sync takes
DRIVER = """
import json, subprocess, sys, time
command, count = sys.argv[1], int(sys.argv[2])
start = time.monotonic()
running = {subprocess.Popen([command, "send", "--no-wait", "--", f"alert {n}"]): time.monotonic()
           for n in range(count)}
found = []
while running:
    for process in [process for process in running if process.poll() is not None]:
        found.append((process.returncode, time.monotonic() - running.pop(process)))
    time.sleep(0.005)
print(json.dumps(found))
"""


def test_on_a_slow_disk_150_senders_at_once_all_store_their_alerts_and_none_is_held_long(
    busy_x: FakeX, sentinel: Sentinel
) -> None:
    sentinel.x = busy_x
    sentinel.env.update(busy_x.env)
    sentinel.configure(interval="0.5")
    crowd = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", "trace=fsync",
         "-e", f"inject=fsync:delay_enter={DELAY * 1e6:.0f}",
         "--", sys.executable, "-c", DRIVER, str(COMMAND), str(CROWD)],
        env=sentinel.env, stdout=subprocess.PIPE, check=True, timeout=100,
    )  # fmt: skip
    found = json.loads(crowd.stdout)
    sentinel.wait_idle(30)
    assert [code for code, _ in found] == [0] * CROWD
    assert sum(alerts_in(dm.text) for dm in busy_x.dms) == CROWD
    # none waits for the syncs of all the others, of which each makes two
    assert max(seconds for _, seconds in found) < CROWD * 2 * DELAY


# ---- read-only, by whatever way, while a worker has its files open ----


@pytest.fixture
def frozen(sentinel: Sentinel) -> Iterator[Callable[[], None]]:
    """What makes the queue read-only."""

    def freeze() -> None:
        for command in (["--bind", queue, queue], ["-o", "remount,bind,ro", queue]):
            done = subprocess.run(["mount", *command], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")

    queue = str(sentinel.queue)
    yield freeze
    sentinel.kill()
    subprocess.run(["umount", "-l", queue], capture_output=True, check=False)


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


def test_with_something_else_in_the_place_of_the_directory_for_refused_texts_none_is_lost(
    x: FakeX, sentinel: Sentinel
) -> None:
    assert sentinel.run("send", "all is well").code == 0
    sentinel.wait_idle()
    put(sentinel, "evil")
    (sentinel.queue / "refused").rmdir()
    (sentinel.queue / "refused").write_text("")
    x.answer(ERRORS["403-about-blank"], None, when=lambda r: "evil" in r.text)
    assert sentinel.run("flush").code == 75
    time.sleep(6)
    assert len(x.dms) == 2 and "does not take" in x.dms[1].text
    assert sentinel.status()["pending"] == 1


def test_what_is_distributed_goes_though_the_disk_takes_nothing_more(
    x: FakeX, sentinel: Sentinel, frozen: Callable[[], None]
) -> None:
    x.answer(ERRORS["503-empty"], None)
    assert sentinel.run("send", "distributed").code == 75
    put(sentinel, "not yet")
    frozen()
    x.clear_answers()
    x.wait_for(lambda: "distributed" in texts(x), 30)
    time.sleep(5)
    assert texts(x).count("distributed") == 1
