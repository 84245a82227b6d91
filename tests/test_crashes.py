"""Nothing is lost when processes die, and nothing twice when they crowd.

Real processes are killed, at random moments and at exact system calls.  The ordinary run takes a
sample; BIRD_SENTINEL_ROUNDS=200 runs 200 random rounds, and kills at every one of the steps.

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
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX

ROUNDS = int(os.environ.get("BIRD_SENTINEL_ROUNDS", "24"))
TOGETHER = 4  # homes in which rounds run at the same time
LATE = 2.0  # seconds within which X takes what it was asked for
LETTERS = str.maketrans("0123456789", "klmnopqrst")


def word(*numbers: int) -> str:
    """A word that stands for these numbers: lines that differ in digits alone would be grouped."""
    return "alert-" + "-".join(str(number).translate(LETTERS) for number in numbers) + "."


def alerts_in(text: str) -> int:
    """How many alerts a DM says it stands for."""
    several = re.match(r"\[web1\] ([0-9,]+) alerts, ", text)
    return int(several.group(1).replace(",", "")) if several else 1


@pytest.fixture
def big() -> Iterator[FakeX]:
    """A stand-in for X whose limit nobody reaches, so that no DM waits for another."""
    with FakeX(limit=10**6) as fake:
        fake.add_user("oncall", "2002")
        yield fake


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Homes]:
    made = Homes(tmp_path)
    yield made
    for sentinel in made.made:
        sentinel.kill()


class Homes:
    """Makes homes, each with an authorized sentinel, and cleans up behind them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: list[Sentinel] = []

    def new(self, x: FakeX) -> Sentinel:
        sentinel = Sentinel(self.path / f"home{len(self.made)}", x)
        self.made.append(sentinel)
        sentinel.home.mkdir()
        sentinel.configure()
        return sentinel


# ---- random moments ----


class Kill(NamedTuple):
    at: float  # when it was over
    began: float
    worker: bool


class Round(NamedTuple):
    sentinel: Sentinel
    acknowledged: list[str]
    kills: list[Kill]
    flush: int


def detached(pid: int) -> bool:
    """Whether a process has left our session, as workers do."""
    try:
        return os.getsid(pid) != os.getsid(0)
    except ProcessLookupError:
        return False


def play(x: FakeX, sentinel: Sentinel, number: int) -> Round:
    """Send four alerts and kill whatever runs, at three random moments; then flush."""
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
        senders.append((text, sentinel.start("send", "--no-wait", text)))
    acknowledged = [text for text, process in senders if process.wait(60) == 0]
    for thread in killers:
        thread.join()
    return Round(sentinel, acknowledged, kills, sentinel.run("flush").code)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeX, list[Round]]]:
    """All the rounds, some at a time."""
    homes = Homes(tmp_path_factory.mktemp("rounds"))
    with FakeX(limit=10**6) as x:
        x.add_user("oncall", "2002")
        sentinels = [homes.new(x) for _ in range(ROUNDS)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            played = list(pool.map(lambda n: play(x, sentinels[n], n), range(ROUNDS)))
        for sentinel in sentinels:
            sentinel.wait_idle(60)
        yield x, played
        for sentinel in sentinels:
            sentinel.kill()


def test_the_rounds_killed_senders_and_workers(rounds: tuple[FakeX, list[Round]]) -> None:
    kills = [kill.worker for round in rounds[1] for kill in round.kills]
    assert kills.count(True) >= ROUNDS // 8, kills
    assert kills.count(False) >= ROUNDS // 8, kills


def test_each_acknowledged_alert_is_delivered_after_kill_9(
    rounds: tuple[FakeX, list[Round]],
) -> None:
    everything = "\n".join(dm.text for dm in rounds[0].dms)
    lost = [text for round in rounds[1] for text in round.acknowledged if text not in everything]
    assert not lost
    assert sum(len(round.acknowledged) for round in rounds[1]) > ROUNDS


def test_flush_after_kill_9_delivers_all(rounds: tuple[FakeX, list[Round]]) -> None:
    assert [round.flush for round in rounds[1]] == [0] * ROUNDS


def test_an_alert_comes_twice_only_if_a_worker_was_killed_in_between(
    rounds: tuple[FakeX, list[Round]],
) -> None:
    x, played = rounds
    for number, round in enumerate(played):
        for text in (word(number, index) for index in range(4)):
            times = [dm.at for dm in x.dms if text in dm.text]
            for first, second in zip(times, times[1:]):
                # what a worker had asked X for when it was killed, X may take a moment later
                assert any(
                    k.worker and k.at > first - LATE and k.began < second for k in round.kills
                )
        assert repeats(x, number) <= sum(kill.worker for kill in round.kills)


def repeats(x: FakeX, number: int) -> int:
    """How many DMs of a round hold an alert that an earlier one held."""
    seen: set[int] = set()
    again = 0
    for dm in x.dms:
        holds = {index for index in range(4) if word(number, index) in dm.text}
        again += bool(holds & seen)
        seen |= holds
    return again


# ---- exact steps ----

STEPS = ("openat", "fcntl", "flock", "pwrite64", "fdatasync", "fsync", "ftruncate", "fork")
FORKS = "clone,clone3,fork,vfork,setsid"


class Step(NamedTuple):
    call: str  # the system call, or "fork"
    number: int  # of how many of its kind


def traced(sentinel: Sentinel, step: Step | None, log: Path, calls: Iterable[str]) -> list[str]:
    """A command line that runs `send` under strace, killing the process at that step."""
    names = ",".join(FORKS if call == "fork" else call for call in calls)
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={names}"]
    if not step or step.call != "fork":  # of openat and fcntl only those on the queue count
        for end in ("", "-journal", ".lock"):
            command += ["-P", f"{sentinel.queue}{end}"]
        command += ["-P", str(sentinel.directory)]
    if step:
        command += ["-e", f"inject={names}:signal=KILL:when={step.number}"]
    return [*command, "--", str(COMMAND), "send", "--no-wait"]


def steps_of_a_send(sentinel: Sentinel, log: Path) -> list[Step]:
    """Every step at which a first `send` touches the queue."""
    calls = [call for call in STEPS if call != "fork"]
    text = word(0)
    subprocess.run([*traced(sentinel, None, log, calls), text], env=sentinel.env, check=True)
    sentinel.wait_idle()
    lines = [line.split(None, 1) for line in log.read_text().splitlines()]
    sender = lines[0][0]
    count = collections.Counter(rest.split("(")[0] for pid, rest in lines if pid == sender)
    found = [Step(call, n) for call in calls for n in range(1, count[call] + 1)]
    return [*found, Step("fork", 1), Step("fork", 2)]


def sample(steps: list[Step], most: int) -> list[Step]:
    """All of them in a full run, else `most`, with the first and last of each system call."""
    if len(steps) <= most or ROUNDS >= 200:
        return steps
    ends = [s for s in steps if s.number == 1 or Step(s.call, s.number + 1) not in steps]
    rest = [step for step in steps if step not in ends]
    random.Random(most).shuffle(rest)
    return ends + rest[: max(0, most - len(ends))]


def test_a_sender_killed_at_any_step_leaves_a_queue_that_works(big: FakeX, homes: Homes) -> None:
    log = homes.path / "trace"
    steps = steps_of_a_send(homes.new(big), log)
    assert {step.call for step in steps} == set(STEPS)
    chosen = sample(steps, 28)
    sentinels = [homes.new(big) for _ in chosen]

    def killed(number: int) -> str:
        step, sentinel = chosen[number], sentinels[number]
        # the killed `send` is the first of its home, so that the making of the queue is met too
        command = traced(sentinel, step, homes.path / f"trace{number}", [step.call])
        first = subprocess.run(
            [*command, word(number, 1)], env=sentinel.env, capture_output=True, check=False
        )
        second = sentinel.run("send", "--no-wait", word(number, 2))
        flush = sentinel.run("flush")
        texts = "\n".join(dm.text for dm in big.dms)
        if step.call != "fork" and first.returncode == 0:
            return f"{step}: was not killed"
        if first.returncode == 0 and texts.count(word(number, 1)) != 1:
            return f"{step}: the first alert came {texts.count(word(number, 1))} times"
        if (second.code, flush.code, texts.count(word(number, 2))) != (0, 0, 1):
            return f"{step}: {second} {flush} {texts.count(word(number, 2))}"
        return ""

    with ThreadPoolExecutor(TOGETHER) as pool:
        assert [fault for fault in pool.map(killed, range(len(chosen))) if fault] == []


# what a worker does from the moment X comes back to its end; far enough that some meet its end
WORKER_STEPS = [
    *(Step("pwrite64", n) for n in range(1, 26)),
    *(Step("fdatasync", n) for n in range(1, 6)),
    *(Step("ftruncate", n) for n in (1, 2)),
    *(Step("flock", n) for n in (1, 2)),
    *(Step("sendto,write", n) for n in range(1, 8)),
    *(Step("recvfrom,read", n) for n in range(1, 8)),
    *(Step("connect,sendmsg", n) for n in range(1, 5)),
]  # fmt: skip


def test_a_worker_killed_at_any_step_loses_nothing(big: FakeX, homes: Homes) -> None:
    chosen = sample(WORKER_STEPS, 20)
    sentinels = [homes.new(big) for _ in chosen]
    big.answer(ERRORS["503-empty"], times=None)
    for number, sentinel in enumerate(sentinels):
        assert sentinel.run("send", "--no-wait", word(number)).code == 0
    tracers = []
    for number, (step, sentinel) in enumerate(zip(chosen, sentinels)):
        until(lambda s=sentinel: s.status()["last_error"], 30)  # type: ignore[misc]
        (worker,) = sentinel.processes()
        tracer = subprocess.Popen(
            ["strace", "-o", str(homes.path / f"trace{number}"), "-p", str(worker),
             "-e", f"trace={step.call}",
             "-e", f"inject={step.call}:signal=KILL:when={step.number}"],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        tracers.append(tracer)
        assert tracer.stderr
        assert b"attached" in tracer.stderr.readline()
    big.clear_answers()

    def deliver(number: int) -> str:
        waking = sentinels[number].start("flush", stdout=subprocess.DEVNULL)
        tracers[number].communicate(timeout=60)  # until its worker died, or had nothing to do
        waking.kill()
        waking.wait()
        flush = sentinels[number].run("flush")
        return "" if flush.code == 0 else f"{chosen[number]}: {flush}"

    try:
        with ThreadPoolExecutor(TOGETHER) as pool:
            assert [fault for fault in pool.map(deliver, range(len(chosen))) if fault] == []
    finally:
        for tracer in tracers:
            tracer.kill()
            tracer.communicate()
    everything = "\n".join(dm.text for dm in big.dms)
    assert [step for n, step in enumerate(chosen) if word(n) not in everything] == []
    traces = [(homes.path / f"trace{n}").read_text() for n in range(len(chosen))]
    assert sum("killed by SIGKILL" in trace for trace in traces) > len(chosen) // 2


def test_when_sender_and_worker_are_killed_as_they_end_the_alert_comes_once(
    big: FakeX, homes: Homes
) -> None:
    sentinel = homes.new(big)
    big.answer(Answer(delay=1), times=None)
    # each of the two is killed when all its work is done
    subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=exit_group",
         "-e", "inject=exit_group:signal=KILL:when=1",
         "--", str(COMMAND), "send", "--no-wait", "once"],
        env=sentinel.env, check=False, timeout=60,
    )  # fmt: skip
    sentinel.wait_idle()
    assert [dm.text[-4:] for dm in big.dms] == ["once"]


# ---- SIGTERM ----


def test_sigterm_ends_a_worker_at_once_while_x_stalls(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(Answer(mode="stall"))
    assert sentinel.run("send", "--no-wait", "stalled").code == 0
    x.wait_for(lambda: x.requests)
    sentinel.kill(signal.SIGTERM)
    sentinel.wait_idle(2)
    assert sentinel.status()["pending"] == 1


def test_sigterm_ends_a_worker_at_once_while_it_waits_to_retry(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(ERRORS["401-code-89"])
    assert sentinel.run("send", "refused for a quarter of an hour").code == 77
    assert sentinel.processes()
    sentinel.kill(signal.SIGTERM)
    sentinel.wait_idle(2)
    assert sentinel.status()["pending"] == 1


def test_after_sigterm_the_next_send_delivers_what_was_left(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(Answer(mode="stall"))
    sentinel.run("send", "--no-wait", "left behind")
    x.wait_for(lambda: x.requests)
    sentinel.kill(signal.SIGTERM)
    sentinel.wait_idle(2)
    assert sentinel.run("send", "come after").code == 0
    assert "left behind" in x.dms[0].text
    assert "come after" in x.dms[0].text


# ---- crowds ----

CROWD = 200
HELD = 0.25  # seconds X takes to answer


@pytest.fixture(scope="module")
def crowd(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[FakeX, list[int], list[bytes]]]:
    """200 `send --no-wait` started at once: X, their exit statuses, and what they said."""
    homes = Homes(tmp_path_factory.mktemp("crowd"))
    with FakeX(limit=10**6) as x:
        x.add_user("oncall", "2002")
        x.answer(Answer(delay=HELD), times=None)
        sentinel = homes.new(x)
        senders = [
            sentinel.start("send", "--no-wait", word(n), stderr=subprocess.PIPE)
            for n in range(CROWD)
        ]
        said = [sender.communicate(timeout=120)[1] for sender in senders]
        until(lambda: sum(alerts_in(dm.text) for dm in x.dms) >= CROWD, 60)
        sentinel.wait_idle(60)
        yield x, [sender.returncode for sender in senders], said
        sentinel.kill()


def test_of_200_sends_at_once_each_returns_0(
    crowd: tuple[FakeX, list[int], list[bytes]],
) -> None:
    assert crowd[1] == [0] * CROWD


def test_200_sends_at_once_have_nothing_to_complain_of(
    crowd: tuple[FakeX, list[int], list[bytes]],
) -> None:
    assert set(crowd[2]) == {b""}


def test_of_200_sends_at_once_each_is_quoted_exactly_once(
    crowd: tuple[FakeX, list[int], list[bytes]],
) -> None:
    everything = "\n".join(dm.text for dm in crowd[0].dms)
    assert [everything.count(word(n)) for n in range(CROWD)] == [1] * CROWD


def test_of_200_sends_at_once_each_is_counted_exactly_once(
    crowd: tuple[FakeX, list[int], list[bytes]],
) -> None:
    assert sum(alerts_in(dm.text) for dm in crowd[0].dms) == CROWD


def test_200_sends_at_once_have_one_worker(crowd: tuple[FakeX, list[int], list[bytes]]) -> None:
    times = [request.at for request in crowd[0].requests]
    # two workers would ask while X still holds its answer to the other
    assert [b - a for a, b in zip(times, times[1:]) if b - a < HELD] == []


def test_an_alert_that_comes_while_a_worker_ends_is_not_left_behind(
    big: FakeX, homes: Homes
) -> None:
    sentinel = homes.new(big)
    dice = random.Random("ending")
    for number in range(24):
        assert sentinel.run("send", "--no-wait", word(number)).code == 0
        until(lambda n=number: any(word(n) in dm.text for dm in big.dms), 30)  # type: ignore[misc]
        time.sleep(dice.uniform(0, 0.03))  # from X's answer to the worker's end
    everything = "\n".join(dm.text for dm in big.dms)
    assert [everything.count(word(n)) for n in range(24)] == [1] * 24


def test_sending_while_a_worker_delivers_never_waits_for_the_network(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(Answer(mode="stall"), times=None)
    assert sentinel.run("send", "--no-wait", "first").code == 0
    x.wait_for(lambda: x.requests)
    results = [sentinel.run("send", "--no-wait", word(n)) for n in range(5)]
    assert [result.code for result in results] == [0] * 5
    assert max(result.seconds for result in results) < 5, "X holds its answer for 25 seconds"
    assert len(x.requests) == 1
