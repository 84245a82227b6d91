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
from conftest import COMMAND, Sentinel, at_once, until
from fake_x import ERRORS, Answer, FakeX
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
    assert sentinel.run("status").code == 75
    assert sentinel.run("flush").code == 0
    assert "kept" in texts(x)


# ---- one at a time, woken by the trigger, gone when nothing is pending ----


def test_one_that_waits_for_xs_limit_keeps_the_queue_and_is_woken_by_flush(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(ERRORS["429-88"])
    assert sentinel.run("send", "one").code == 75
    before = workers(sentinel)
    assert len(before) == 1
    assert sentinel.run("send", "two").code == 75
    assert (workers(sentinel), len(x.requests)) == (before, 1)
    flush = sentinel.start("flush", stdout=subprocess.DEVNULL)
    x.answer(Answer(delay=1))
    until(lambda: len(x.requests) == 2)
    assert set(workers(sentinel)) - {flush.pid} == set(before)
    assert (flush.wait(30), texts(x).count("one"), texts(x).count("two")) == (0, 1, 1)


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
    for number in range(9):
        put(sentinel, f"eth0: the carrier was lost {number} times")
    until(lambda: sentinel.status()["last_error"])
    x.start()
    x.wait_for(lambda: x.dms, 30)  # with no new alert
    assert [name for name in names if f"{name} alert" in x.dms[0].text] == list(names)
    assert "lost 0 times" in x.dms[0].text and "8 more like this" in x.dms[0].text
    sentinel.wait_idle()
    assert len(x.dms) == 1


# ---- it cannot reach X, but others can ----


def unconnected(sentinel: Sentinel, *words: str) -> int:
    """Run the command, and what it starts, in a network of its own, in which there is nothing."""
    command = ["unshare", "--net"] + (["-r"] if os.geteuid() else [])
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace can be made")
    null = subprocess.DEVNULL
    done = subprocess.run([*command, str(COMMAND), *words], env=sentinel.env, check=False,
                          stdin=null, stdout=null, stderr=null)  # fmt: skip
    return done.returncode


def test_of_sixty_at_once_forty_of_them_by_callers_without_a_network_each_comes_once(
    busy_x: FakeX, homes: Homes
) -> None:
    sentinel = homes()
    unconnected(sentinel, "--version")  # or it is skipped here, not in a thread
    ways: list[Callable[..., int]] = [
        lambda *words: unconnected(sentinel, *words),
        lambda *words: unconnected(sentinel, *words),
        lambda *words: sentinel.run(*words).code,
    ]
    codes: list[int] = []

    def attempt(which: int) -> None:
        for number in range(which, 60, 6):
            codes.append(ways[number % 3]("send", "--no-wait", "--", word(number)))

    at_once(attempt, [(which,) for which in range(6)])
    assert codes == [0] * 60
    assert sentinel.run("flush").code == 0
    sentinel.wait_idle(60)
    assert [texts(busy_x).count(word(number)) for number in range(60)] == [1] * 60


# ---- a round that is cut short ----


@pytest.mark.parametrize(
    "trouble", [Answer(mode="reset"), ERRORS["503-130"], ERRORS["429-88"], ERRORS["402-credits"]],
    ids=["a dropped connection", "503", "429", "no credits"],
)  # fmt: skip
@pytest.mark.parametrize("whose", ["2002", "2003", "2004"])
def test_a_round_cut_short_goes_on_with_those_who_lack_it_and_nobody_is_told_twice(
    sentinel: Sentinel, x: FakeX, trouble: Answer, whose: str
) -> None:
    everybody = {"oncall": "2002", "second": "2003", "third": "2004"}
    x.add_user("third", "2004")
    sentinel.configure(everybody, interval="0.01")
    x.answer(trouble, when=lambda request: request.recipient_id == whose)
    assert sentinel.run("send", "disk full").code in (75, 77, 0)
    send(sentinel, "meanwhile")  # is the next one's
    assert sentinel.run("flush").code == 0
    for recipient in everybody.values():
        texts_of = texts(x, recipient)
        assert (texts_of.count("disk full"), texts_of.count("meanwhile")) == (1, 1)
    sentinel.wait_idle()
    assert sentinel.status()["pending"] == 0


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
        ("403-349", "accepts no DMs"),
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
