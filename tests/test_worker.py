"""The worker: one at a time, patient with X, gone when all is delivered, and silent on contents.

Needs root; strace; unshare (util-linux).
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import COMMAND, Result, Sentinel, at_once, until
from fake_x import ERRORS, Answer, FakeX, Mode
from test_authorize import walk

DMS = "/2/dm_conversations/"


def alerts(x: FakeX, recipient_id: str = "2002") -> str:
    """All that a recipient was told."""
    return "\n".join(dm.text for dm in x.dms if dm.recipient_id == recipient_id)


def attempts(x: FakeX) -> int:
    return sum(bool(request.recipient_id) for request in x.requests)


def send(sentinel: Sentinel, *words: str) -> None:
    """Queue an alert, in the way of a log watcher."""
    done = sentinel.run("send", "--no-wait", *words)
    assert done.code == 0, done


def in_back_off(sentinel: Sentinel, x: FakeX, answer: str = "402-credits") -> None:
    """Bring the worker into a wait of a quarter of an hour, with one alert pending."""
    x.answer(ERRORS[answer], times=None, path=DMS)
    assert sentinel.run("send", "a break-in at night").code == 77
    x.clear_answers()


# ---- one at a time ----


def test_senders_at_once_start_one_worker(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(delay=3), path=DMS)
    started = [
        sentinel.start("send", "--no-wait", f"alert {number}", stdin=subprocess.DEVNULL)
        for number in range(8)
    ]
    assert [process.wait(30) for process in started] == [0] * 8
    x.wait_for(lambda: x.requests, 30)
    assert len(sentinel.processes()) == 1


def test_it_ends_when_nothing_is_pending(sentinel: Sentinel) -> None:
    assert sentinel.run("send", "disk full").code == 0
    until(lambda: not sentinel.processes(), 20)


def test_it_stays_while_something_is_pending(sentinel: Sentinel, x: FakeX) -> None:
    in_back_off(sentinel, x)
    time.sleep(1)
    assert len(sentinel.processes()) == 1


def test_an_alert_queued_while_it_waits_for_x_is_delivered_next(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(delay=1), path=DMS)
    send(sentinel, "one")
    x.wait_for(lambda: x.requests, 30)
    send(sentinel, "two")
    x.wait_for(lambda: "two" in alerts(x), 30)
    assert [dm.text[-3:] for dm in x.dms] == ["one", "two"]


def test_an_alert_queued_in_the_moment_in_which_it_ends_is_delivered(
    sentinel: Sentinel, x: FakeX
) -> None:
    # the moment made long: what it does to its lock, or to end, takes a second more
    slowly = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=flock,exit_group"]
    for call in ("flock", "exit_group"):
        slowly += ["-e", f"inject={call}:delay_enter=1200000"]
    first = subprocess.Popen([*slowly, str(COMMAND), "send", "--no-wait", "first"],
                             env=sentinel.env, stdin=subprocess.DEVNULL)  # fmt: skip
    x.wait_for(lambda: "first" in alerts(x), 30)
    time.sleep(0.2)
    for number in range(2):
        send(sentinel, f"second <{number}>")
    for number in range(2):
        x.wait_for(lambda: f"second <{number}>" in alerts(x), 30)  # noqa: B023
    first.wait(30)


def test_alerts_queued_around_its_end_are_delivered_time_and_again(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.limit = 10**6  # so that it never has to wait: it ends a few milliseconds after X's answer
    for number in range(8):
        x.answer(Answer(delay=random.uniform(0.0, 0.06)), path=DMS)
        send(sentinel, f"first <{number}>")
        x.wait_for(lambda: f"first <{number}>" in alerts(x), 30)  # noqa: B023
        send(sentinel, f"second <{number}>")
        x.wait_for(lambda: f"second <{number}>" in alerts(x), 30)  # noqa: B023
        until(lambda: not sentinel.processes(), 20)


# ---- detached from its caller ----


def test_it_outlives_the_terminal_it_was_started_from(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    for number in range(5):  # workers of their own: one that had no session yet would be seen
        config = sentinel.configure(path=sentinel.home / f"{number}.ini")
        master, slave = pty.openpty()
        process = subprocess.Popen(
            ["setsid", "--ctty", str(COMMAND), "send", "--no-wait", "--config", str(config),
             f"alert <{number}>"],
            env=sentinel.env, stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        assert process.wait(30) == 0
        os.close(master)  # the terminal hangs up
    x.start()
    for number in range(5):
        x.wait_for(lambda: f"alert <{number}>" in alerts(x), 30)  # noqa: B023


def test_it_has_left_its_callers_session_when_send_ends(
    sentinel: Sentinel, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=setsid,exit_group",
         "-e", "inject=setsid:delay_enter=300000", str(COMMAND), "send", "--no-wait", "disk full"],
        env=sentinel.env, stdin=subprocess.DEVNULL, timeout=60, check=True,
    )  # fmt: skip
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    left = next(n for n, call in enumerate(calls) if "setsid" in call and "= " in call)
    ended = next(n for n, call in enumerate(calls) if call.startswith("exit_group"))
    assert left < ended, calls


def test_one_that_is_killed_before_it_has_left_is_noticed(sentinel: Sentinel, x: FakeX) -> None:
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=setsid",
         "-e", "inject=setsid:signal=KILL", str(COMMAND), "send", "--no-wait", "disk full"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert "no worker can be started" in done.stderr
    assert done.returncode == 0
    assert "disk full" in alerts(x)


def test_it_does_its_work_where_send_is_killed_as_soon_as_it_is_started(
    sentinel: Sentinel, x: FakeX
) -> None:
    process = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=setsid",
         "-e", "inject=setsid:delay_enter=1500000", str(COMMAND), "send", "--no-wait", "once"],
        env=sentinel.env, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    started = Path(f"{sentinel.queue}.lock")
    until(lambda: started.exists() and len(sentinel.processes()) == 3, 30)  # strace is one
    os.kill(min(pid for pid in sentinel.processes() if pid != process.pid), signal.SIGKILL)
    x.wait_for(lambda: "once" in alerts(x), 30)
    process.wait(30)


def test_it_outlives_its_callers_process_group(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    process = subprocess.Popen(
        ["sh", "-c", "bird_sentinel send --no-wait 'disk full'; sleep 60"], env=sentinel.env,
        start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: sentinel.status()["last_error"], 30)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    x.start()
    x.wait_for(lambda: "disk full" in alerts(x), 30)


def test_it_holds_no_directory_and_no_file_of_its_caller(
    sentinel: Sentinel, x: FakeX, tmp_path: Path
) -> None:
    in_back_off(sentinel, x)
    sentinel.kill()
    with open(tmp_path / "a log", "wb") as log:
        done = subprocess.run([str(COMMAND), "send", "--no-wait", "disk full"], env=sentinel.env,
                              cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                              pass_fds=[log.fileno()], timeout=30, check=False)  # fmt: skip
    assert done.returncode == 0
    until(lambda: len(sentinel.processes()) == 1)
    process = Path("/proc", str(sentinel.processes()[0]))
    until(lambda: os.readlink(process / "cwd") == "/")
    until(lambda: str(tmp_path / "a log") not in map(os.readlink, (process / "fd").iterdir()))


# ---- X is away, and comes back ----


def test_when_x_comes_back_the_alert_arrives_with_no_new_one(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    send(sentinel, "disk full")
    until(lambda: sentinel.status()["last_error"], 30)
    x.start()
    x.wait_for(lambda: "disk full" in alerts(x), 60)
    assert len(x.dms) == 1


def test_all_that_came_while_x_was_away_is_in_the_next_dm(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    names = ("disk", "fan", "door", "root")
    for name in names:
        send(sentinel, f"{name} alert")
    until(lambda: sentinel.status()["last_error"], 30)
    x.start()
    x.wait_for(lambda: x.dms, 60)
    assert [name for name in names if f"{name} alert" in x.dms[0].text] == list(names)


def test_a_fault_of_x_is_retried_until_it_is_over(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["503-130"], times=2, path=DMS)
    send(sentinel, "disk full")
    x.wait_for(lambda: "disk full" in alerts(x), 60)
    assert attempts(x) == 3


def test_the_waits_between_retries_grow(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["503-130"], times=3, path=DMS)
    send(sentinel, "disk full")
    x.wait_for(lambda: x.dms, 60)
    at = [request.at for request in x.requests]
    for (before, after), least in zip(zip(at, at[1:]), (0.8, 1.7, 3.5)):
        assert after - before >= least


def test_a_config_replaced_while_it_sleeps_is_used(sentinel: Sentinel, x: FakeX) -> None:
    x.stop()
    send(sentinel, "disk full")
    until(lambda: sentinel.status()["last_error"], 30)
    sentinel.configure({"second": "2003"}, host="new-name")
    x.start()
    x.wait_for(lambda: x.dms, 60)
    assert x.dms[0].recipient_id == "2003"
    assert x.dms[0].text.startswith("[new-name ")


def test_a_config_unsafe_for_a_while_is_used_again_when_it_is_mended(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.stop()
    send(sentinel, "disk full")
    until(lambda: sentinel.status()["last_error"], 30)
    sentinel.config.chmod(0o644)
    x.start()
    until(lambda: "by others" in sentinel.status()["last_error"], 30)
    sentinel.config.chmod(0o600)
    x.wait_for(lambda: "disk full" in alerts(x), 60)


@pytest.fixture(scope="class")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Result, bool]]]:
    """A waiting send, for every way of not answering; all at once, as each takes its half minute.
    What came of it, with the seconds since X was asked, and whether X, which is well from then on,
    was given the alert again within another half minute."""
    results: dict[str, tuple[Result, bool]] = {}
    homes = tmp_path_factory.mktemp("homes")

    def attempt(mode: Mode) -> None:
        with FakeX() as x:
            x.add_user("oncall", "2002")
            sentinel = Sentinel(homes / mode, x)
            sentinel.configure()
            x.answer(Answer(mode=mode), path=DMS)
            result = sentinel.run("send", "disk full")
            result = result._replace(seconds=time.time() - x.connects[0].at)
            again = 1 if mode == "stall-connect" else 2
            with contextlib.suppress(AssertionError):
                x.wait_for(lambda: attempts(x) == again and x.dms, 30)
            results[mode] = result, attempts(x) == again and "disk full" in x.dms[-1].text
            sentinel.kill()

    modes: tuple[Mode, ...] = ("stall", "trickle", "stall-connect")
    at_once(attempt, [(mode,) for mode in modes])
    yield results


class TestAServerThatNeverAnswers:
    @pytest.mark.parametrize("mode", ["stall", "trickle", "stall-connect"])
    def test_holds_a_waiting_send_for_less_than_30_seconds(
        self, held: dict[str, tuple[Result, bool]], mode: str
    ) -> None:
        result, _ = held[mode]
        assert (result.code, "kept" in result.err) == (75, True), result
        assert result.seconds < 30

    @pytest.mark.parametrize("mode", ["stall", "trickle", "stall-connect"])
    def test_is_given_the_alert_again(
        self, held: dict[str, tuple[Result, bool]], mode: str
    ) -> None:
        result, again = held[mode]
        assert again, result


# ---- a long wait: who ends it, and who does not ----


def test_flush_ends_a_long_back_off(sentinel: Sentinel, x: FakeX) -> None:
    in_back_off(sentinel, x)
    assert sentinel.run("flush").code == 0
    assert "a break-in at night" in alerts(x)


def test_flush_ends_a_long_back_off_whose_worker_is_gone(sentinel: Sentinel, x: FakeX) -> None:
    in_back_off(sentinel, x)
    sentinel.kill()
    assert sentinel.run("flush").code == 0
    assert "a break-in at night" in alerts(x)


def test_authorize_ends_a_long_back_off(sentinel: Sentinel, x: FakeX) -> None:
    token = re.findall("access_token = (.+)", sentinel.config.read_text())[0]
    x.revoke(token)
    assert sentinel.run("send", "a break-in at night").code == 77
    assert walk(sentinel, "--no-test").code == 0
    x.wait_for(lambda: "a break-in at night" in alerts(x), 30)


def test_a_new_alert_does_not_end_a_long_back_off(sentinel: Sentinel, x: FakeX) -> None:
    in_back_off(sentinel, x)
    assert sentinel.run("send", "another").code == 77
    send(sentinel, "and another")
    time.sleep(2)
    assert attempts(x) == 1


def test_a_new_alert_in_a_long_back_off_is_told_why_at_once(sentinel: Sentinel, x: FakeX) -> None:
    in_back_off(sentinel, x)
    done = sentinel.run("send", "another")
    assert (done.code, "credits" in done.err) == (77, True), done
    assert done.seconds < 10


def test_new_alerts_do_not_cut_the_pacing_short(sentinel: Sentinel, x: FakeX) -> None:
    for word in ("one", "two"):
        assert sentinel.run("send", word).code == 0
    for word in ("three", "four", "five"):
        send(sentinel, word)
        time.sleep(0.4)
    x.wait_for(lambda: len(x.dms) == 3, 30)
    assert x.requests[1].at - x.requests[0].at > 0.9
    assert x.requests[2].at - x.requests[1].at > 2.9
    assert all(word in x.dms[2].text for word in ("three", "four", "five"))


def test_an_alert_for_another_recipient_does_not_wait_for_the_first_ones_pacing(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"oncall": "2002", "second": "2003"})
    for word in ("one", "two"):
        assert sentinel.run("send", "--to", "oncall", word).code == 0
    send(sentinel, "--to", "oncall", "three")  # three seconds after "two"
    send(sentinel, "--to", "second", "four")
    x.wait_for(lambda: len(x.dms) == 4, 30)
    assert [dm.text.split()[-1] for dm in x.dms] == ["one", "two", "four", "three"]


def test_an_alert_for_another_recipient_does_not_wait_for_the_first_ones_back_off(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"shy": "2004", "second": "2003"})
    x.add_user("shy", "2004", accepts_dms=False)
    assert sentinel.run("send", "--to", "shy", "one").code == 77
    done = sentinel.run("send", "--to", "second", "two")
    assert done.code == 0, done


def limited(x: FakeX, seconds: float) -> float:
    """Answer the next DM with a 429. Returns the reset that it names."""
    reset = int(time.time() + seconds) + 1
    x.answer(
        Answer(429, json={"title": "Too Many Requests"}, headers={
            "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(reset)}),
        path=DMS,
    )  # fmt: skip
    return float(reset)


def test_flush_does_not_go_before_a_429s_reset(sentinel: Sentinel, x: FakeX) -> None:
    reset = limited(x, 4)
    send(sentinel, "disk full")
    until(lambda: sentinel.status()["last_error"], 30)
    sentinel.run("flush")
    sentinel.run("flush")
    x.wait_for(lambda: "disk full" in alerts(x), 30)
    assert [request.at >= reset for request in x.requests] == [False, True]


def test_authorize_does_not_go_before_a_429s_reset(sentinel: Sentinel, x: FakeX) -> None:
    reset = limited(x, 4)
    send(sentinel, "disk full")
    until(lambda: sentinel.status()["last_error"], 30)
    walk(sentinel, "--no-test")
    x.wait_for(lambda: "disk full" in alerts(x), 30)
    assert [r.at >= reset for r in x.requests if r.recipient_id] == [False, True]


def test_it_does_not_spend_a_request_where_x_said_that_none_is_left(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.limit, x.window = 1, 4.0
    for word in ("one", "two"):
        send(sentinel, word)
        x.wait_for(lambda: x.dms, 30)
    sentinel.run("flush")
    x.wait_for(lambda: len(x.dms) == 2, 30)
    assert x.refused_429 == []


# ---- it is killed ----


@pytest.mark.parametrize("state", ["in a back-off", "waiting for X"])
def test_sigterm_ends_it_soon_and_nothing_is_lost(sentinel: Sentinel, x: FakeX, state: str) -> None:
    if state == "in a back-off":
        in_back_off(sentinel, x)
    else:
        x.answer(Answer(mode="stall"), path=DMS)
        send(sentinel, "a break-in at night")
        x.wait_for(lambda: x.requests, 30)
    sentinel.kill(signal.SIGTERM)
    until(lambda: not sentinel.processes(), 5)
    assert sentinel.run("flush").code == 0
    assert "a break-in at night" in alerts(x)


def test_after_kill_9_flush_delivers(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(mode="stall"), path=DMS)
    send(sentinel, "a break-in at night")
    x.wait_for(lambda: x.requests, 30)
    sentinel.kill(signal.SIGKILL)
    assert sentinel.run("flush").code == 0
    assert "a break-in at night" in alerts(x)


def test_after_kill_9_the_next_send_delivers_both(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(mode="stall"), path=DMS)
    send(sentinel, "a break-in at night")
    x.wait_for(lambda: x.requests, 30)
    sentinel.kill(signal.SIGKILL)
    assert sentinel.run("send", "disk full").code == 0
    assert "a break-in at night" in alerts(x) and "disk full" in alerts(x)


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
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.at))
        self.socket.settimeout(0.2)
        self.lines: list[str] = []

    def run(self, sentinel: Sentinel, *words: str) -> int:
        """Run the command, which finds this daemon. Returns its exit status."""
        place = self.directory / uuid.uuid4().hex
        place.mkdir()
        command = ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", str(place), str(self.at)]
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
    match = re.match(r"<(\d+)>(?:\w+ +\d+ [\d:]+ )?bird_sentinel\[\d+\]: 1 alert for @oncall", line)
    assert match, line
    assert int(match[1]) >> 3 == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("402-credits", "credits"),
        ("403-349", "does not accept DMs"),
        ("503-130", "fault of its own"),
        ("403-151-other", "refuses the text"),
        ("429-v2", "rate limit"),
    ],
)
def test_it_tells_syslog_what_went_wrong(
    sentinel: Sentinel, x: FakeX, syslog: Syslog, answer: str, words: str
) -> None:
    x.answer(ERRORS[answer], path=DMS)
    assert syslog.run(sentinel, "send", "disk full") in (75, 77)
    syslog.wait_for(words)


def test_syslog_is_never_told_an_alerts_text(sentinel: Sentinel, x: FakeX, syslog: Syslog) -> None:
    echo = Answer(403, json={"title": "no", "detail": "I will not take: marmalade 4711"})
    for answer in (ERRORS["503-130"], ERRORS["403-151-other"], ERRORS["402-credits"], echo):
        x.answer(answer, path=DMS)
        for word in ("marmalade 4711", "marmalade on the server"):
            syslog.run(sentinel, "send", "--no-wait", word)
        before = len(x.dms)
        for _ in range(5):
            sentinel.run("status")
            if syslog.run(sentinel, "flush") == 0:
                break
        assert len(x.dms) > before
    assert syslog.read()
    assert not [line for line in syslog.lines if "marmalade" in line or "4711" in line]


def test_syslog_is_never_told_a_secret(sentinel: Sentinel, x: FakeX, syslog: Syslog) -> None:
    secrets = re.findall(r"(?:secret|token|key) = (\S+)", sentinel.config.read_text())
    x.answer(Answer(403, json={"title": " ".join(secrets)}), path=DMS)
    assert syslog.run(sentinel, "send", "disk full") == 77
    syslog.wait_for("next attempt")
    assert not [line for line in syslog.lines if any(secret in line for secret in secrets)]
