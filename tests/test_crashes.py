"""Nothing accepted is lost when processes die.

Real processes are killed, at random moments and at exact system calls.  The ordinary run takes a
sample; BIRD_SENTINEL_ROUNDS=350 plays 350 rounds of three kills each, and kills at every step.

Needs strace.
"""

from __future__ import annotations

import collections
import os
import random
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, NamedTuple, TypeVar

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX

ROUNDS = int(os.environ.get("BIRD_SENTINEL_ROUNDS", "9"))
LATE = 2.0  # seconds within which X takes what it was asked for
LETTERS = str.maketrans("0123456789", "klmnopqrst")

T = TypeVar("T")
Homes = Callable[[], Sentinel]


def word(*numbers: int) -> str:
    """A word that stands for these numbers: lines that differ in digits alone would be grouped."""
    return "alert-" + "-".join(str(number).translate(LETTERS) for number in numbers) + "."


def texts(x: FakeX, recipient: str = "2002") -> str:
    return "\n".join(dm.text for dm in x.dms if dm.recipient_id == recipient)


def alerts_in(text: str) -> int:
    """How many alerts a DM says it stands for."""
    several = re.match(r"\[web1\] ([0-9,]+) alerts, ", text)
    return int(several.group(1).replace(",", "")) if several else 1


def make_queue(sentinel: Sentinel) -> None:
    for name in ("tmp", "new", "refused"):
        (sentinel.queue / name).mkdir(mode=0o700, parents=True, exist_ok=True)


def put(sentinel: Sentinel, text: str) -> Path:
    """Accept an alert as `send` does, but leave it to others to have it delivered."""
    make_queue(sentinel)
    path = sentinel.queue / "new" / f"{time.time_ns():019d}.1.web1"
    path.write_text(f"host: web1\n\n{text}")
    return path


def pending(sentinel: Sentinel) -> list[Path]:
    """The files of what has yet to be delivered, in the queue and in its place in memory."""
    return [path for place in (sentinel.queue, sentinel.memory)
            for path in (*place.glob("new/*"), *place.glob("folded"))]  # fmt: skip


def together(attempt: Callable[[int], T], times: int) -> list[T]:
    """What each attempt of so many returns, some of which run side by side."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(attempt, range(times)))


# ---- random moments ----


class Kill(NamedTuple):
    at: float  # when it was over
    began: float
    worker: bool


EVERYBODY = {"oncall": "2002", "second": "2003", "shy": "2004"}  # of whom shy takes no DMs


class Round(NamedTuple):
    accepted: list[str]
    kills: list[Kill]
    flush: int


def detached(pid: int) -> bool:
    """Whether a process has left our session, as workers do."""
    try:
        return os.getsid(pid) != os.getsid(0)
    except ProcessLookupError:
        return False


def play(sentinel: Sentinel, number: int) -> Round:
    """Send four alerts and kill whatever runs, at three random moments; then flush."""
    sentinel.configure(EVERYBODY, interval="0.01")
    dice = random.Random(f"round {number}")
    moments = sorted(dice.uniform(0.0, 0.5) for _ in range(3))
    starts = [0.0, *sorted(dice.uniform(0.0, 0.4) for _ in range(3))]
    began = time.monotonic()
    senders: list[tuple[str, subprocess.Popen[bytes]]] = []
    kills: list[Kill] = []

    def kill(moment: float) -> None:
        time.sleep(max(0.0, began + moment - time.monotonic()))
        running = sentinel.processes()
        if number % 3 == 0:  # it is workers that hold what X has taken: wait for one, and a little
            deadline = time.monotonic() + 3
            while not any(map(detached, running)) and time.monotonic() < deadline:
                time.sleep(0.01)
                running = sentinel.processes()
            time.sleep(dice.uniform(0.0, 0.2))
            running = [pid for pid in running if detached(pid)]
        if running:
            victim = dice.choice(running)
            worker, before = detached(victim), time.time()
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                return
            kills.append(Kill(time.time(), before, worker))

    killers = [threading.Thread(target=kill, args=(moment,)) for moment in moments]
    for thread in killers:
        thread.start()
    for index, moment in enumerate(starts):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        text = word(number, index)
        senders.append((text, sentinel.start("send", "--no-wait", "--", text)))
    accepted = [text for text, process in senders if process.wait(60) == 0]
    for thread in killers:
        thread.join()
    return Round(accepted, kills, sentinel.run("flush").code)


def repeats(x: FakeX, number: int, recipient: str) -> int:
    """How many DMs of a round hold an alert that an earlier one to this recipient held."""
    seen: set[int] = set()
    again = 0
    for dm in x.dms:
        if dm.recipient_id == recipient:
            holds = {index for index in range(4) if word(number, index) in dm.text}
            again += bool(holds & seen)
            seen |= holds
    return again


def test_each_accepted_alert_reaches_each_recipient_after_kill_9_and_only_that_repeats_one(
    busy_x: FakeX, homes: Homes
) -> None:
    busy_x.add_user("shy", "2004", accepts_dms=False)
    sentinels = [homes() for _ in range(ROUNDS)]
    played = together(lambda number: play(sentinels[number], number), ROUNDS)
    for sentinel in sentinels:
        sentinel.wait_idle(60)
    # delivered to those who take it; or that was over before `flush` looked
    assert {round.flush for round in played} <= {0, 77}
    assert [path for sentinel in sentinels for path in pending(sentinel)] == []
    for recipient in ("2002", "2003"):
        everything = texts(busy_x, recipient)
        assert [text for round in played for text in round.accepted if text not in everything] == []
        for number, round in enumerate(played):
            for text in (word(number, index) for index in range(4)):
                times = [dm.at for dm in busy_x.dms
                         if text in dm.text and dm.recipient_id == recipient]  # fmt: skip
                for first, second in zip(times, times[1:]):
                    # what a worker had asked X for when it was killed, X may take a moment later
                    assert any(
                        k.worker and k.at > first - LATE and k.began < second for k in round.kills
                    )
            kills = sum(kill.worker for kill in round.kills)
            assert repeats(busy_x, number, recipient) <= kills
    every = [kill.worker for round in played for kill in round.kills]
    assert min(every.count(True), every.count(False)) >= max(1, ROUNDS // 8), "too few were killed"
    assert sum(len(round.accepted) for round in played) > ROUNDS


# ---- exact steps ----

# whatever changes what is on the disk, or who runs
STEPS = ("mkdir,mkdirat", "mknod,mknodat", "rename,renameat,renameat2",
         "unlink,unlinkat", "fsync", "flock", "vfork,fork,clone,clone3", "setsid")  # fmt: skip


class Step(NamedTuple):
    calls: str  # system calls
    number: int  # of how many of them in one process


def strace(log: Path, step: Step | None = None) -> list[str]:
    """The beginning of a command line that runs it, and what it starts, under strace: each process
    is killed at that step."""
    calls = step.calls if step else ",".join(STEPS)
    command = ["strace", "-f", "-q", "-o", str(log), "-e", f"trace={calls}"]
    if step:
        command += ["-e", f"inject={step.calls}:signal=KILL:when={step.number}"]
    return [*command, "--", str(COMMAND)]


def steps(log: Path, of_worker: bool) -> list[Step]:
    """Every step that the first process of a trace took, or those of its worker and of what that
    started."""
    lines = [line.split(None, 1) for line in log.read_text().splitlines()]
    first = lines[0][0]
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    for pid, call in lines:
        name = call.split("(")[0]
        for calls in STEPS:
            if name in calls.split(",") and (pid != first) == of_worker:
                count[calls, pid] += 1
    most = {calls: max(n for (c, _), n in count.items() if c == calls) for calls, _ in count}
    return [Step(calls, n) for calls in STEPS for n in range(1, most.get(calls, 0) + 1)]


def sample(found: list[Step], most: int) -> list[Step]:
    """All of them in a full run, else `most`, with the last of each system call."""
    if ROUNDS >= 300:
        return found
    dice = random.Random()
    ends = [step for step in found if Step(step.calls, step.number + 1) not in found]
    rest = [step for step in found if step not in ends]
    ends, rest = dice.sample(ends, min(most, len(ends))), dice.sample(rest, len(rest))
    return (ends + rest)[:most]


def test_an_accepted_alert_is_on_the_disk_its_name_too_before_send_returns(
    sentinel: Sentinel, tmp_path: Path
) -> None:
    assert sentinel.run("send", "before").code == 0
    sentinel.wait_idle()
    log = tmp_path / "trace"
    subprocess.run([*strace(log), "send", "--no-wait", "--", "x"], env=sentinel.env, check=True)
    sender = log.read_text().split(None, 1)[0]
    calls = [re.split(r"[ (]+", line)[1] for line in log.read_text().splitlines()
             if line.startswith(sender)]  # fmt: skip
    assert [call for call in calls if call in ("fsync", "rename")] == ["fsync", "rename", "fsync"]


def test_a_sender_killed_at_any_step_leaves_a_queue_that_works(
    busy_x: FakeX, homes: Homes, tmp_path: Path
) -> None:
    log = tmp_path / "trace"
    sentinel = homes()
    sentinel.run("--version")  # Python compiles it
    subprocess.run([*strace(log), "send", "--no-wait", "--", "x"], env=sentinel.env, check=True)
    found = steps(log, of_worker=False)
    assert {"mkdir,mkdirat", "rename,renameat,renameat2", "fsync"} <= {s.calls for s in found}
    # the worker, killed before it has left the session in which it was started
    found.append(Step("setsid", 1))
    chosen = sample(found, 8)
    sentinels = [homes() for _ in chosen]

    def killed(number: int) -> str:
        step, sentinel = chosen[number], sentinels[number]
        # the killed `send` is the first of its home, so that the making of the queue is met too
        command = [*strace(tmp_path / f"trace{number}", step), "send", "--no-wait", "--"]
        first = subprocess.run(
            [*command, word(number, 1)], env=sentinel.env, capture_output=True, check=False
        )
        sentinel.wait_idle()
        second = sentinel.run("send", "--no-wait", "--", word(number, 2))
        flush = sentinel.run("flush")
        came = [texts(busy_x).count(word(number, which)) for which in (1, 2)]
        if "killed by SIGKILL" not in (tmp_path / f"trace{number}").read_text():
            return f"{step}: nothing was killed"
        if came[0] > 1 or (first.returncode == 0 and came[0] == 0):
            return f"{step}: {first}, and the alert came {came[0]} times"
        if (second.code, flush.code, came[1]) != (0, 0, 1):
            return f"{step}: {second} {flush} {came}"
        return ""

    assert [fault for fault in together(killed, len(chosen)) if fault] == []


def killed_at(sentinel: Sentinel, step: Step, log: Path) -> bool:
    """Have `flush` start a worker that is killed at a step; whether it was."""
    flush = subprocess.Popen([*strace(log, step), "flush"], env=sentinel.env,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def killed() -> bool:
        return log.exists() and "killed by SIGKILL" in log.read_text()

    until(lambda: flush.poll() is not None or killed(), 60)
    sentinel.kill()
    flush.wait()
    sentinel.wait_idle()
    return killed()


def test_a_worker_killed_at_any_step_loses_nothing(
    busy_x: FakeX, homes: Homes, tmp_path: Path
) -> None:
    def prepare(number: int) -> Sentinel:
        sentinel = homes()
        sentinel.configure({"oncall": "2002", "second": "2003"}, interval="0.01")
        for which in range(3):
            put(sentinel, word(number, which))
        return sentinel

    log, sentinel = tmp_path / "trace", prepare(999)
    subprocess.run([*strace(log), "flush"], env=sentinel.env, check=True)
    sentinel.wait_idle()
    found = steps(log, of_worker=True)
    assert {"rename,renameat,renameat2", "unlink,unlinkat", "fsync"} <= {s.calls for s in found}
    chosen = sample(found, 9)
    sentinels = [prepare(number) for number in range(len(chosen))]

    def killed(number: int) -> str:
        step, sentinel = chosen[number], sentinels[number]
        was = killed_at(sentinel, step, tmp_path / f"trace{number}")
        flush = sentinel.run("flush")
        missing = [
            (recipient, which) for recipient in ("2002", "2003") for which in range(3)
            if word(number, which) not in texts(busy_x, recipient)
        ]  # fmt: skip
        left = pending(sentinel)
        if flush.code or missing or left:
            return f"{step}: {flush}, {missing} are missing, {left} are left"
        return "" if was else f"{step}: nothing was killed"

    assert [fault for fault in together(killed, len(chosen)) if fault] == []


def test_a_worker_killed_while_it_folds_a_long_backlog_changes_no_count(
    busy_x: FakeX, homes: Homes, tmp_path: Path
) -> None:
    number_of_alerts = 1_100
    busy_x.answer(ERRORS["503-empty"], times=None)
    chosen = [Step("unlink,unlinkat", n) for n in (1, 600)] + [Step("fsync", n) for n in (1, 2)]
    if ROUNDS >= 300:
        chosen += [Step("unlink,unlinkat", n) for n in range(2, 1_100, 100)]
        chosen += [Step("fsync", n) for n in range(3, 10)]
        chosen += [Step("rename,renameat,renameat2", n) for n in (1, 2, 3)]
    sentinels = [homes() for _ in chosen]

    def killed(number: int) -> bool:
        for which in range(number_of_alerts):
            put(sentinels[number], f"kernel: eth0: fault {which} of port {word(number, which)}")
        was = killed_at(sentinels[number], chosen[number], tmp_path / f"trace{number}")
        sentinels[number].start("flush", stderr=subprocess.DEVNULL)
        until(lambda: not list(sentinels[number].queue.glob("new/*")), 60)
        sentinels[number].kill()
        return was

    killings = together(killed, len(chosen))
    busy_x.clear_answers()
    counts = []
    for sentinel in sentinels:
        before = len(busy_x.dms)
        assert sentinel.run("flush").code == 0
        counts.append(sum(alerts_in(dm.text) for dm in busy_x.dms[before:]))
    assert counts == [number_of_alerts] * len(chosen)
    assert sum(killings) >= 3


def test_what_a_killed_sender_left_half_written_is_removed_when_it_is_a_day_old(
    sentinel: Sentinel,
) -> None:
    put(sentinel, "whole")
    for name, age in (("old", 90_000), ("new", 3_600)):
        (sentinel.queue / "tmp" / name).write_text("host: web1\n\nha")
        os.utime(sentinel.queue / "tmp" / name, (time.time() - age,) * 2)
    assert sentinel.run("flush").code == 0
    sentinel.wait_idle()
    assert [path.name for path in (sentinel.queue / "tmp").iterdir()] == ["new"]


# ---- ended by SIGTERM, as at a shutdown ----


@pytest.mark.parametrize("state", ["while X stalls", "in a back-off"])
def test_sigterm_ends_a_worker_at_once_and_the_next_send_delivers_what_it_left(
    x: FakeX, sentinel: Sentinel, state: str
) -> None:
    x.answer(Answer(mode="stall") if state == "while X stalls" else ERRORS["503-empty"])
    assert sentinel.run("send", "--no-wait", "left behind").code == 0
    x.wait_for(lambda: x.requests)
    if state == "in a back-off":
        until(lambda: sentinel.status()["last_error"])
    sentinel.kill(signal.SIGTERM)
    sentinel.wait_idle(5)
    assert sentinel.status()["pending"] == 1
    sentinel.run("send", "come after")
    assert "left behind" in x.dms[0].text and "come after" in x.dms[0].text
