"""The worker: detached from its caller, woken by the trigger, patient with X, silent on contents.

Needs strace; unshare (util-linux), and leave to mount, for what it tells syslog.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from conftest import COMMAND, Result, Sentinel, at_once, until
from fake_x import ERRORS, Answer, FakeX, Mode
from test_crashes import put, texts, word

Homes = Callable[[], Sentinel]
DMS = "/2/dm_conversations/"


def send(sentinel: Sentinel, *words: str) -> None:
    """Queue an alert, in the way of a log watcher."""
    done = sentinel.run("send", "--no-wait", "--", *words)
    assert done.code == 0, done


def workers(sentinel: Sentinel) -> list[int]:
    """The workers, without what they have started."""
    found = []
    for pid in sentinel.processes():
        with contextlib.suppress(ProcessLookupError):
            found += [pid] if os.getsid(pid) == pid else []
    return found


def stalled(sentinel: Sentinel, x: FakeX) -> Path:
    """A worker that waits for X: its directory in /proc."""
    until(lambda: x.requests)
    (worker,) = workers(sentinel)
    return Path("/proc", str(worker))


# ---- detached from its caller ----


def test_it_holds_no_file_no_directory_and_no_terminal_of_its_caller(
    sentinel: Sentinel, x: FakeX, tmp_path: Path
) -> None:
    x.answer(Answer(mode="stall"))
    with open(tmp_path / "a log", "wb") as log:
        high = os.dup2(log.fileno(), 900)
        done = subprocess.run(
            [str(COMMAND), "send", "--no-wait", "--", "x"], env=sentinel.env, cwd=tmp_path,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[log.fileno(), high],
            timeout=30, check=False,
        )  # fmt: skip
        os.close(high)
    assert done.returncode == 0
    worker = stalled(sentinel, x)
    assert os.readlink(worker / "cwd") == "/"
    assert [os.readlink(worker / "fd" / number) for number in "012"] == [os.devnull] * 3
    held = [os.readlink(path) for path in (worker / "fd").iterdir()]
    assert str(tmp_path / "a log") not in held, held


def test_its_command_line_tells_what_it_is_and_holds_no_alert_nor_does_its_environment(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(mode="stall"))
    environment = {"SWATCH_LINE": "a line with a S3cret"}
    assert sentinel.run("send", "--no-wait", "--", "a S3cret", env=environment).code == 0
    worker = stalled(sentinel, x)
    words = (worker / "cmdline").read_bytes().split(b"\0")
    assert b"worker" in words and any(b"bird_sentinel" in word for word in words)
    assert b"S3cret" not in (worker / "cmdline").read_bytes() + (worker / "environ").read_bytes()


def test_it_outlives_the_terminal_and_the_process_group_it_was_started_from(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.stop()
    master, slave = pty.openpty()
    terminal = subprocess.Popen(
        ["setsid", "--ctty", str(COMMAND), "send", "--no-wait", "by a terminal"],
        env=sentinel.env, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    assert terminal.wait(30) == 0
    os.close(master)  # the terminal hangs up
    group = subprocess.Popen(
        ["sh", "-c", "bird_sentinel send --no-wait 'by a service'; sleep 60"], env=sentinel.env,
        start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: sentinel.status()["pending"] == 2)
    os.killpg(group.pid, signal.SIGKILL)
    group.wait()
    x.start()
    x.wait_for(lambda: "by a terminal" in texts(x) and "by a service" in texts(x), 30)


def test_its_lock_is_open_for_writing_which_nfs_wants(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(mode="stall"))
    send(sentinel, "x")
    worker = stalled(sentinel, x)
    locks = [path.name for path in (worker / "fd").iterdir()
             if os.readlink(path) == str(sentinel.queue / "lock")]  # fmt: skip
    assert len(locks) == 1
    flags = re.findall(r"flags:\s+(\d+)", (worker / "fdinfo" / locks[0]).read_text())
    assert int(flags[0], 8) & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
    assert "FLOCK" in (worker / "fdinfo" / locks[0]).read_text()


@pytest.mark.parametrize("way", [["--no-wait", "--"], []], ids=["no-wait", "waiting"])
def test_where_no_process_can_be_started_the_alert_is_kept_it_is_said_and_flush_delivers_it(
    sentinel: Sentinel, x: FakeX, way: list[str]
) -> None:
    calls = "fork,vfork,clone,clone3"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}",
         "-e", f"inject={calls}:error=EAGAIN", "--", str(COMMAND), "send", *way, "kept"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, "no worker can be started" in done.stderr) == (75, True), done
    assert "bird_sentinel flush" in done.stderr
    status = sentinel.run("status")
    assert (status.code, status.out.startswith("problem: 1 alert pending")) == (75, True), status
    assert sentinel.run("flush").code == 0
    assert "kept" in texts(x)


# ---- one at a time, woken by the trigger, gone when nothing is pending ----


def test_several_that_are_started_at_once_send_one_dm(busy_x: FakeX, homes: Homes) -> None:
    sentinel = homes()
    busy_x.answer(Answer(delay=0.5), times=None)
    put(sentinel, "once")
    flushes = [sentinel.start("flush", stdout=subprocess.DEVNULL) for _ in range(5)]
    flushes += [sentinel.start("send", "--no-wait", "--", word(n)) for n in range(3)]
    assert [process.wait(60) for process in flushes] == [0] * 8
    sentinel.wait_idle()
    assert [texts(busy_x).count(each) for each in ["once", *map(word, range(3))]] == [1] * 4


def test_one_that_sleeps_is_woken_by_the_next_alert_and_delivers_it_itself(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"shy": "2004", "second": "2003"})
    x.add_user("shy", "2004", accepts_dms=False)
    assert sentinel.run("send", "--to", "shy", "one").code == 77
    before = workers(sentinel)
    assert len(before) == 1
    result = sentinel.run("send", "--to", "second", "two")
    assert (result.code, texts(x, "2003")[-3:]) == (0, "two"), result
    assert workers(sentinel) == before


def test_one_that_sleeps_uses_no_processor(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["402-credits"], times=None)
    assert sentinel.run("send", "unpaid").code == 77
    (worker,) = workers(sentinel)

    def ticks() -> int:
        fields = Path("/proc", str(worker), "stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    until(lambda: sentinel.processes() == [worker])  # it has told syslog, and sleeps
    before = ticks()
    time.sleep(2.5)
    assert ticks() - before <= 2  # hundredths of a second


# ---- X is away, and comes back ----


def test_when_x_comes_back_all_that_came_meanwhile_is_in_one_dm(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.stop()
    names = ("disk", "fan", "door", "root")
    for name in names:
        send(sentinel, f"{name} alert")
    until(lambda: sentinel.status()["last_error"])
    x.start()
    x.wait_for(lambda: x.dms, 30)  # with no new alert
    assert [name for name in names if f"{name} alert" in x.dms[0].text] == list(names)
    sentinel.wait_idle()
    assert len(x.dms) == 1


def test_a_fault_of_x_is_retried_with_growing_waits_until_it_is_over(
    sentinel: Sentinel, x: FakeX
) -> None:
    # a third time in a row it may be the text, so a notice goes at once in its place
    x.answer(ERRORS["503-130"], times=2, path=DMS)
    send(sentinel, "disk full")
    x.wait_for(lambda: x.dms, 60)
    at = [request.at for request in x.requests if request.recipient_id]
    waits = [after - before for before, after in zip(at, at[1:])]
    assert [wait >= least for wait, least in zip(waits, (0.8, 1.7))] == [True] * 2, waits


def test_a_config_replaced_while_it_sleeps_is_used(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    send(sentinel, "disk full")
    until(lambda: sentinel.status()["last_error"])
    sentinel.configure({"second": "2003"}, host="new-name")
    until((sentinel.queue / "to" / "2003").exists, 20)
    x.start()
    x.wait_for(lambda: x.dms, 60)
    assert x.dms[0].recipient_id == "2003"
    assert x.dms[0].text.startswith("[new-name ")


def test_a_server_that_never_answers_holds_a_waiting_send_for_half_a_minute_and_is_asked_again(
    tmp_path: Path,
) -> None:
    """Every way of not answering, side by side, as each takes its half minute."""
    results: dict[str, tuple[Result, bool]] = {}

    def attempt(mode: Mode) -> None:
        with FakeX() as x:
            x.add_user("oncall", "2002")
            sentinel = Sentinel(tmp_path / mode, x)
            sentinel.configure()
            x.answer(Answer(mode=mode), path=DMS)
            result = sentinel.run("send", "disk full")
            again = False
            with contextlib.suppress(AssertionError):
                x.wait_for(lambda: x.dms and "disk full" in x.dms[-1].text, 30)
                again = True
            results[mode] = result, again
            sentinel.kill()

    modes: tuple[Mode, ...] = ("stall", "trickle", "stall-connect")
    at_once(attempt, [(mode,) for mode in modes])
    for mode in modes:
        result, again = results[mode]
        assert (result.code, "kept" in result.err) == (75, True), (mode, result)
        assert result.seconds < 32, mode
        assert again, mode


# ---- a long wait: who ends it, and who does not ----


@pytest.mark.parametrize("worker", ["alive", "gone"])
def test_flush_ends_a_long_back_off(sentinel: Sentinel, x: FakeX, worker: str) -> None:
    x.answer(ERRORS["402-credits"], path=DMS)
    assert sentinel.run("send", "a break-in at night").code == 77
    if worker == "gone":
        sentinel.kill()
    assert sentinel.run("flush").code == 0
    assert "a break-in at night" in texts(x)


def test_a_new_alert_does_not_end_a_long_back_off_and_is_told_why_at_once(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    assert sentinel.run("send", "a break-in at night").code == 77
    done = sentinel.run("send", "another")
    assert (done.code, "credits" in done.err, done.seconds < 5) == (77, True, True), done
    time.sleep(1)
    assert len([request for request in x.requests if request.recipient_id]) == 1


@pytest.mark.parametrize("slow", ["openat:delay_enter", "getdents64:delay_exit"])
def test_a_waiting_send_that_is_refused_while_it_looks_tells_that_and_not_something_else(
    sentinel: Sentinel, x: FakeX, slow: str
) -> None:
    x.answer(Answer(delay=0.4), times=1, path=DMS)
    assert sentinel.run("send", "first").code == 0  # so that its own pace has a wait, too
    x.answer(ERRORS["401-code-89"], times=None, path=DMS)
    call = slow.partition(":")[0]
    places = [sentinel.queue / name for name in ("state", "new", "to", "to/2002")]
    done = subprocess.run(
        ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={slow}=150000",
         *(word for place in places for word in ("-P", str(place))), str(COMMAND), "send", "x"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, "access token" in done.stderr) == (77, True), done


# ---- what it tells syslog ----

NAMESPACE = """
set -e
mkdir "$1/dev"
mount --rbind /dev "$1/dev"
mount -t tmpfs none /dev
for name in null zero full random urandom; do
    touch "/dev/$name"
    mount --bind "$1/dev/$name" "/dev/$name"
done
ln -s "$2" /dev/log
shift 2
exec "$@"
"""


class Syslog:
    """A syslog daemon: a socket at /dev/log, in a mount namespace that is the command's own."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.at = directory, directory / "log"
        self.unshare = ["unshare", "--mount"] + (["-r"] if os.geteuid() else [])
        done = subprocess.run([*self.unshare, "mount", "-t", "tmpfs", "none", str(directory)],
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            pytest.skip(f"no /dev of its own can be mounted: {done.stderr.strip()}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.at))
        self.socket.settimeout(0.2)
        self.lines: list[str] = []

    def run(self, sentinel: Sentinel, *words: str) -> int:
        """Run the command, which finds this daemon. Returns its exit status."""
        place = self.directory / uuid.uuid4().hex
        place.mkdir()
        command = [*self.unshare, "sh", "-c", NAMESPACE, "sh", str(place), str(self.at)]
        command += [str(COMMAND), *words]
        done = subprocess.run(command, env=sentinel.env, input=b"", capture_output=True,
                              timeout=60, check=False)  # fmt: skip
        return done.returncode

    def read(self) -> list[str]:
        with contextlib.suppress(socket.timeout):
            while True:
                self.lines.append(self.socket.recv(65_536).decode())
        return self.lines

    def wait_for(self, words: str) -> str:
        until(lambda: any(words in line for line in self.read()), 30, f"no {words!r} in syslog")
        return next(line for line in self.lines if words in line)

    def stop_reading(self) -> None:
        """Fill the socket, so that the next line finds no room."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"<29>noise", str(self.at))


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[Syslog]:
    daemon = Syslog(tmp_path)
    yield daemon
    daemon.socket.close()


def test_it_tells_syslog_of_a_delivery_as_bird_sentinel_of_the_daemon_facility(
    sentinel: Sentinel, syslog: Syslog
) -> None:
    assert syslog.run(sentinel, "send", "disk full") == 0
    line = syslog.wait_for("delivered")
    match = re.match(r"<(\d+)>(?:\w+ +\d+ [\d:]+ )?bird_sentinel\[\d+\]: .*1 alert", line)
    assert match and "@oncall" in line, line
    assert int(match[1]) >> 3 == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("402-credits", "credits"),
        ("403-349", "does not accept DMs"),
        ("503-130", "fault of its own"),
        ("429-v2", "rate limit"),
    ],
)
def test_it_tells_syslog_what_went_wrong(
    sentinel: Sentinel, x: FakeX, syslog: Syslog, answer: str, words: str
) -> None:
    x.answer(ERRORS[answer], path=DMS)
    assert syslog.run(sentinel, "send", "--no-wait", "--", "disk full") == 0
    syslog.wait_for(words)


def test_syslog_is_never_told_an_alerts_text(sentinel: Sentinel, x: FakeX, syslog: Syslog) -> None:
    x.limit = 10**6
    sentinel.configure(interval="0.01")
    echo = Answer(403, json={"title": "no", "detail": "I will not take: marmalade 4711"})
    for answer in (ERRORS["503-130"], ERRORS["402-credits"], echo):
        x.answer(answer, path=DMS)
        syslog.run(sentinel, "send", "--no-wait", "--", "marmalade 4711")
        syslog.run(sentinel, "send", "--no-wait", "--", "marmalade on the server")
        until(lambda: x.requests)
        until(lambda: syslog.run(sentinel, "flush") in (0, 77) and not sentinel.processes(), 30)
    assert syslog.read()
    assert [line for line in syslog.lines if "marmalade" in line or "4711" in line] == []


def test_a_syslog_that_nobody_reads_holds_nothing_up_for_long(
    sentinel: Sentinel, x: FakeX, syslog: Syslog
) -> None:
    syslog.stop_reading()
    began = time.monotonic()
    assert syslog.run(sentinel, "send", "disk full") == 0
    assert time.monotonic() - began < 8
    sentinel.wait_idle(8)
    assert len(x.dms) == 1


def test_a_worker_that_was_to_give_way_to_one_that_died_goes_on(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(delay=3, status=503), times=1, path=DMS)
    assert sentinel.run("send", "--no-wait", "--", "root login").code == 0
    until(lambda: x.requests)
    first = set(sentinel.processes())
    flush = sentinel.start("flush", stderr=subprocess.DEVNULL)
    until(lambda: len(set(sentinel.processes()) - first - {flush.pid}) == 1)
    time.sleep(0.5)  # it insists
    for pid in set(sentinel.processes()) - first:
        os.kill(pid, signal.SIGKILL)
    flush.wait()
    until(lambda: "root login" in texts(x), 15)


def test_a_config_that_is_unsafe_for_a_moment_does_not_end_a_wait_for_xs_limit(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["429-88"])
    assert sentinel.run("send", "one").code == 75
    asked = len(x.requests)
    sentinel.config.chmod(0o640)
    assert sentinel.run("send", "--no-wait", "two").code == 78
    (sentinel.queue / "trigger").write_text("l")
    until(lambda: (sentinel.queue / "trouble").exists())
    sentinel.config.chmod(0o600)
    assert sentinel.run("send", "--no-wait", "three").code == 0
    until(lambda: not (sentinel.queue / "trouble").exists())
    assert (len(x.requests), sentinel.status()["pending"]) == (asked, 3)


def test_once_the_config_is_mended_nobody_is_told_of_it_while_the_round_lasts(
    sentinel: Sentinel, x: FakeX
) -> None:
    good = sentinel.configure({"oncall": "2002", "second": "2003"}).read_text()
    x.answer(ERRORS["429-88"])
    assert sentinel.run("send", "one").code == 75
    sentinel.config.write_text(good.replace("oncall =", "on call ="))
    (sentinel.queue / "trigger").write_text("l")
    until(lambda: (sentinel.queue / "trouble").exists())
    sentinel.config.write_text(good)
    x.answer(ERRORS["403-349"], path=DMS)
    x.answer(Answer(delay=3), path=DMS)
    began = len(x.requests)
    flush = sentinel.start("flush", stderr=subprocess.DEVNULL)
    until(lambda: len(x.requests) > began + 1)
    assert "recipient that is no" not in sentinel.run("status").out
    assert flush.wait() == 77
