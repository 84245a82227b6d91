"""How fast it is, beside what one would use in its place.

    python tests/bench.py [--quick] [--only N]... [--markdown]

All contenders run in turn, on the same stand-in for X, which takes 150 ms for each answer and has a
process of its own: the bare interpreter, a script of ten lines with tweepy, apprise, and
bird_sentinel as pip installs it. A number is the median of its runs. What is worth something is
the ratios: machines differ, and the targets beside them are ratios, told and not enforced. An alert
is on disk before send says so, and a disk may be the slowest part of all: TMPDIR names the one that
is used (/dev/shm is none).

It takes no part in the test suite. It needs Linux, trustme, pip with something to install from,
and for the storm swatchdog.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import resource
import select
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
ANSWER = 0.15  # seconds that X takes for an answer
HANDLE, USER_ID = "oncall", "2002"
LINE = (
    "Nov 23 14:03:22 web1 sshd[811]: Accepted password for root from 198.51.100.7 port 40022 ssh2"
)

TWEEPY_SCRIPT = """\
import configparser
import sys
import tweepy

config = configparser.ConfigParser(interpolation=None)
config.read(sys.argv[1])
keys = {name: key for name, key in config["account"].items() if name != "screen_name"}
client = tweepy.Client(**keys)
for user_id in config["recipients"].values():
    client.create_direct_message(participant_id=user_id, text=sys.argv[2])
"""


# ---- X, in a process of its own ----------------------------------------------------------------


def stand_in() -> None:
    """Serve as many X as are asked for on standard input, one JSON value a line, until it ends."""
    from fake_x import ERRORS, Answer, FakeX

    running: list[FakeX] = []
    for line in sys.stdin:
        request = json.loads(line)
        if "new" in request:
            refusal, delay, limit = request["new"]
            x = FakeX(limit=limit)
            x.add_user(HANDLE, USER_ID)
            refused = ERRORS[refusal] if refusal else Answer()
            x.answer(
                Answer(refused.status, json=refused.json, body=refused.body, delay=delay),
                times=None,
            )
            running.append(x.start())
            keys = dict(zip(("access_token", "access_token_secret"), x.token()))
            keys.update(consumer_key=x.consumer_key, consumer_secret=x.consumer_secret)
            answer: Any = {"number": len(running) - 1, "env": x.env, "keys": keys}
        else:
            x = running[request["seen"]]
            answer = {
                "requests": [r.at for r in list(x.requests) if r.recipient_id],
                "dms": len(x.dms),
                "wrong": [bad.reason for bad in x.bad_signatures] + x.strangers,
            }
        print(json.dumps(answer), flush=True)
    for x in running:
        x.stop()


class StandIn:
    """The process in which X is, seen from here."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--stand-in"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours; it ends with its standard input
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))

    def stop(self) -> None:
        self.process.communicate()


class X:
    """One X: usual, or slow, or refusing everything, or (`down`) not there."""

    def __init__(
        self, stand_in: StandIn, refusal: str = "", delay: float = ANSWER, limit: int = 1_000_000,
        down: bool = False,
    ) -> None:  # fmt: skip
        self.stand_in = stand_in
        told = stand_in.ask(new=[refusal, delay, limit])
        self.number, self.keys, self.env = told["number"], told["keys"], told["env"]
        if down:
            self.env.update(HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")

    def requests(self) -> list[float]:
        """When each DM was handed in, seconds since the epoch."""
        seen = self.stand_in.ask(seen=self.number)
        if seen["wrong"]:
            raise SystemExit(f"bench: a contender is not set up well: {seen['wrong'][0]}")
        return [float(at) for at in seen["requests"]]

    def dms(self) -> int:
        return int(self.stand_in.ask(seen=self.number)["dms"])


# ---- the contenders ----------------------------------------------------------------------------


class Bench:
    """A directory with all that is measured: environments, commands, homes."""

    def __init__(self, directory: Path, quick: bool) -> None:
        self.directory, self.quick = directory, quick
        self.stand_in = StandIn()
        self.facts: dict[str, float] = {}  # for the README's table
        self.homes = 0

        say("installing bird_sentinel and apprise into environments of their own")
        self.bin = self.environment("ours", str(PROJECT))
        self.python = str(self.bin / "python")
        self.ours = str(self.bin / "bird_sentinel")
        self.script = directory / "plain.py"
        self.script.write_text(TWEEPY_SCRIPT)
        self.apprise = str(self.environment("apprise", "apprise") / "apprise")
        self.usual = X(self.stand_in)

    def environment(self, name: str, package: str) -> Path:
        """Install a package as a user would, with the newest pip."""
        directory = self.directory / name
        quiet = ["--quiet", "--disable-pip-version-check"]
        pip = [str(directory / "bin" / "pip"), "install", *quiet]
        for command in (
            [sys.executable, "-m", "venv", str(directory)],
            [str(directory / "bin" / "python"), "-m", "pip", "install", *quiet, "-U", "pip"],
            [*pip, package],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"bench: {' '.join(command)} failed:\n{done.stderr}")
        return directory / "bin"

    def home(self, x: X) -> Home:
        self.homes += 1
        return Home(self, self.directory / f"home{self.homes}", x)

    def processes(self) -> list[int]:
        """All bird_sentinel processes, detached ones too."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                    if self.ours.encode() in words:
                        found.append(int(entry))
        return found

    def stop_workers(self) -> None:
        while found := self.processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)


class Home:
    """A home directory with a config for one X, and a queue with so many alerts pending."""

    def __init__(self, bench: Bench, path: Path, x: X) -> None:
        self.bench, self.x = bench, x
        self.state = path / ".config" / "bird_sentinel"
        self.config = self.state / "config.ini"
        self.state.mkdir(0o700, parents=True)
        self.env = {"HOME": str(path), "PATH": f"{bench.bin}:{os.environ['PATH']}",
                    "LANG": "C.UTF-8", **x.env}  # fmt: skip
        keys = "\n".join(f"{name} = {key}" for name, key in x.keys.items())
        self.config.touch(0o600)
        self.config.write_text(
            f"[account]\n{keys}\nscreen_name = sentinel_bot\n[recipients]\n{HANDLE} = {USER_ID}\n"
        )

    def reset(self, pending: int = 0) -> None:
        """No worker, and a queue as it was filled by send: of one alert, multiplied."""
        self.bench.stop_workers()
        template = self.bench.directory / f"queue.{pending}"
        for file in self.state.glob("queue.db*"):
            file.unlink()
        if not pending:
            return
        queue = self.state / "queue.db"
        if not template.exists():
            down = {**self.env, "HTTPS_PROXY": "http://127.0.0.1:9"}
            down["https_proxy"] = down["HTTPS_PROXY"]
            run([self.bench.ours, "send", "--no-wait", LINE], down)
            self.bench.stop_workers()
            database = sqlite3.connect(queue)
            columns = [row[1] for row in database.execute("PRAGMA table_info(alert)")]
            columns.remove("id")
            values = ", ".join(columns).replace("text", "replace(text, '40022', 10000 + n)")
            database.execute(
                "WITH RECURSIVE number (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM number"
                f" WHERE n < {pending}) INSERT INTO alert ({', '.join(columns)})"
                f" SELECT {values} FROM alert, number"
            )
            database.execute("DELETE FROM state")  # its back-off
            database.commit()
            database.close()
            shutil.copy(queue, template)
        shutil.copy(template, queue)

    def send(self, *options: str) -> list[str]:
        return [self.bench.ours, "send", *options, "--", LINE]

    def tweepy_script(self) -> list[str]:
        return [self.bench.python, str(self.bench.script), str(self.config), LINE]

    def apprise(self) -> list[str]:
        keys = self.x.keys
        order = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
        url = "/".join(keys[name] for name in order)
        return [self.bench.apprise, "--body", LINE, f"twitter://{url}/{HANDLE}?mode=dm"]


class Took(NamedTuple):
    """Seconds, and seconds of CPU time: on a busy machine the steadier of the two."""

    seconds: float
    cpu: float


def run(command: list[str], env: dict[str, str]) -> Took:
    """Run a command and return what it took from its start to its exit."""
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, env, file_actions=silent)
    _, status, used = os.wait4(pid, 0)
    took = time.perf_counter() - began
    if status:
        raise SystemExit(f"bench: {' '.join(command)} failed with {status}")
    return Took(took, used.ru_utime + used.ru_stime)


class Whole(NamedTuple):
    """What a command and all that it left behind took, until the last of them ended."""

    seconds: float  # of the command itself
    cpu: float  # seconds, of everything
    largest: float  # MB, resident, of the largest process
    together: float  # MB, shared pages counted in parts, of all bird_sentinel processes at a time


def run_whole(bench: Bench, command: list[str], env: dict[str, str], limit: float) -> Whole:
    """Run a command and wait for its detached processes too, at most `limit` seconds."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(run_and_reap(command, env)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    together, deadline = 0.0, time.monotonic() + limit
    try:
        while not select.select([reader], [], [], 0.1)[0]:
            together = max(together, sum(map(proportional, bench.processes())))
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: {command[0]} took longer than {limit} seconds")
        text = os.read(reader, 1000)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
    if not text:
        raise SystemExit(f"bench: {command[0]} failed")
    seconds, cpu, largest = json.loads(text)
    return Whole(seconds, cpu, largest, together)


def run_and_reap(command: list[str], env: dict[str, str]) -> tuple[float, float, float]:
    """The same for a process of its own, but for the memory of all."""
    os.setpgid(0, 0)
    # a subreaper: who loses its parent becomes our child, and its CPU time is counted here
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    seconds = run(command, env).seconds
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def proportional(pid: int) -> float:
    """A process's memory in MB, in which a page of several processes counts in parts."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


# ---- numbers and words -------------------------------------------------------------------------

Contender = tuple[str, Callable[[], Took]]


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def interleaved(contenders: list[Contender], rounds: int) -> dict[str, Took]:
    """The medians of what the contenders take, run in turn, in another order each round."""
    taken: dict[str, list[Took]] = {name: [] for name, _ in contenders}
    for number in range(rounds + 1):
        for name, contender in random.sample(contenders, len(contenders)):
            took = contender()
            if number:  # the first is to warm up
                taken[name].append(took)
    return {name: Took(*map(statistics.median, zip(*all_))) for name, all_ in taken.items()}


def table(title: str, medians: dict[str, Took], base: str) -> None:
    """Print what each took, and how many times what the base took."""
    print(f"\n{title}; times {base}\n{'':44}   seconds          CPU seconds")
    for name, took in medians.items():
        columns = [f"  {name:42}"]
        for mine, other in zip(took, medians[base]):
            columns.append(f"{mine:9.4f} {mine / other:7.2f}" if other else "")
        print("  ".join(columns).rstrip())


def target(words: str, reached: float, at_most: float) -> None:
    verdict = "reached" if reached <= at_most else "MISSED"
    print(f"  {verdict:8} {words}: {reached:.3g} (at most {at_most:.3g})")


# ---- the five points ---------------------------------------------------------------------------


def watcher_held(bench: Bench) -> None:
    """From the start of `send --no-wait` to its exit, whatever X does, however much is pending."""
    usual, down = bench.home(bench.usual), bench.home(X(bench.stand_in, down=True))
    slow = bench.home(X(bench.stand_in, delay=5.0))
    refusing = bench.home(X(bench.stand_in, "401-code-32"))
    busy = bench.home(refusing.x)

    def ours(home: Home, pending: int = 0) -> Took:
        home.reset(pending)
        return run(home.send("--no-wait"), home.env)

    def ours_busy() -> Took:
        run(busy.send("--no-wait"), busy.env)  # a worker is there now, if it was not
        time.sleep(0.3)
        return run(busy.send("--no-wait"), busy.env)

    def other(command: list[str]) -> Callable[[], Took]:
        def held() -> Took:
            bench.stop_workers()
            return run(command, usual.env)

        return held

    def disk() -> Took:
        began = time.perf_counter()
        with (bench.directory / "synced").open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        return Took(time.perf_counter() - began, 0.0)

    bare, script = "bare interpreter", "script of ten lines"
    contenders: list[Contender] = [
        (bare, other([bench.python, "-c", "pass"])),
        ("ours", lambda: ours(usual)),
        ("ours, a worker there", ours_busy),
        ("ours, X slow", lambda: ours(slow)),
        ("ours, X refusing", lambda: ours(refusing)),
        ("ours, X down, 0 pending", lambda: ours(down)),
        ("ours, X down, 1,000 pending", lambda: ours(down, 1_000)),
        ("ours, X down, 10,000 pending", lambda: ours(down, 10_000)),
        (script, other(usual.tweepy_script())),
        ("apprise", other(usual.apprise())),
        ("(this disk: 4 kB, written and synced)", disk),
    ]
    medians = interleaved(contenders, 7 if bench.quick else 31)
    table("1. The watcher is held (send --no-wait, start to exit)", medians, bare)
    of_ours = [took for name, took in medians.items() if name.startswith("ours")]
    slowest, cpu = max(took.seconds for took in of_ours), max(took.cpu for took in of_ours)
    by_pending = [took.seconds for name, took in medians.items() if "pending" in name]
    held = {name: took.seconds / medians[bare].seconds for name, took in medians.items()}
    target("ours, at its slowest, × bare interpreter", slowest / medians[bare].seconds, 2.5)
    target("the same, CPU time", cpu / medians[bare].cpu, 2.5)
    target("ours, at its slowest, × script", slowest / medians[script].seconds, 1 / 8)
    target("0, 1,000, 10,000 pending apart", max(by_pending) / min(by_pending), 1.2)
    bench.facts.update(
        held_ours=held["ours"], held_worst=slowest / medians[bare].seconds,
        held_script=held[script], held_apprise=held["apprise"],
    )  # fmt: skip


def to_the_dm(bench: Bench) -> None:
    """From the start of a process to X having its request."""
    home = bench.home(bench.usual)

    def to_x(command: list[str]) -> Callable[[], Took]:
        def until_request() -> Took:
            home.reset()
            before = len(home.x.requests())
            began = time.time()
            run(command, home.env)  # whose worker, if any, has its own CPU time
            return Took(home.x.requests()[before] - began, 0.0)

        return until_request

    script = "script of ten lines"
    contenders: list[Contender] = [
        (script, to_x(home.tweepy_script())),
        ("ours, waiting", to_x(home.send())),
        ("apprise", to_x(home.apprise())),
    ]
    medians = interleaved(contenders, 7 if bench.quick else 25)
    table("2. To the DM (start of the process to X having the request)", medians, script)
    ours, other, apprise = (medians[name].seconds for name in ("ours, waiting", script, "apprise"))
    target("ours × script", ours / other, 1.15)
    target("ours × apprise", ours / apprise, 1.0)
    bench.facts.update(dm_ours=ours / other, dm_apprise=apprise / other)


def storm(bench: Bench) -> None:
    """Lines that all matter through the real swatchdog, with the action of swatchrc.example."""
    if not shutil.which("swatchdog"):
        print("\n3. A storm: left out, there is no swatchdog")
        return
    lines = 100 if bench.quick else 1_000
    action = 'bird_sentinel send --no-wait -- "\\$SWATCH_LINE"'
    example = (PROJECT / "swatchrc.example").read_text()
    assert action in example, "swatchrc.example has another action"
    bench.stop_workers()

    def through(number: int, instead: str = "", x: X | None = None) -> Whole:
        """Have swatchdog read that many lines, with something else in the place of its action."""
        directory = Path(tempfile.mkdtemp(dir=bench.directory))
        (directory / "log").write_text(
            "".join(LINE.replace("40022", str(10_000 + n)) + "\n" for n in range(number))
        )
        (directory / "rc").write_text(example.replace(action, instead or action))
        command = ["swatchdog", f"--config-file={directory}/rc", f"--examine={directory}/log",
                   f"--script-dir={directory}"]  # fmt: skip
        env = bench.home(x or bench.usual).env
        return run_whole(bench, command, env, 600)

    some = max(lines // 10, 20)
    bare = [through(lines, f"{bench.python} -c pass")]  # and again: what else runs meets them all
    home = bench.home(bench.usual)
    script = through(some, f'{bench.python} {bench.script} {home.config} "\\$SWATCH_LINE"')
    x = X(bench.stand_in, limit=15)
    ours = through(lines, x=x)
    bare.append(through(lines, f"{bench.python} -c pass"))
    dms, scale = x.dms(), lines / some
    medians = {
        "bare interpreter": Took(*(statistics.mean(w[n] for w in bare) for n in (0, 1))),
        "ours": Took(ours.seconds, ours.cpu),
        f"script, of {some} lines, × {scale:g}": Took(script.seconds * scale, script.cpu * scale),
    }
    bare_took, _, script_took = medians.values()
    title = f"3. {lines:,} lines through swatchdog; CPU time of everything, until the last DM"
    table(title, medians, "bare interpreter")
    print(f"\n  {dms} DMs; {ours.together:.0f} MB, all our processes together, at most")
    target("DMs", dms, 10)
    target("CPU time × script", ours.cpu / script_took.cpu, 1 / 4)
    target("swatchdog through × bare interpreter", ours.seconds / bare_took.seconds, 2.5)
    target("MB, all our processes", ours.together, 80)
    bench.facts.update(
        storm_ours=ours.seconds / bare_took.seconds, storm_lines=lines, storm_dms=dms,
        storm_script=script_took.seconds / bare_took.seconds,
        storm_cpu=ours.cpu / script_took.cpu, storm_cpu_bare=bare_took.cpu / script_took.cpu,
        storm_mb=ours.together,
    )  # fmt: skip


def backlog(bench: Bench) -> None:
    """What is pending when a worker starts becomes one DM."""
    home = bench.home(bench.usual)
    largest = 0.0

    def deliver(pending: int) -> Callable[[], Took]:
        def until_request() -> Took:
            nonlocal largest
            home.reset(pending)
            before, began = len(home.x.requests()), time.time()
            whole = run_whole(bench, [bench.ours, "flush"], home.env, 60)
            largest = max(largest, whole.largest)
            return Took(home.x.requests()[before] - began, whole.cpu)

        return until_request

    names = {pending: f"{pending:,} pending" for pending in (1, 1_000, 10_000)}
    contenders: list[Contender] = [(name, deliver(pending)) for pending, name in names.items()]
    medians = interleaved(contenders, 5 if bench.quick else 11)
    title = "4. A backlog: from the start of flush, and its worker, to X having it; CPU of all"
    table(title, medians, names[1_000])
    _, thousand, ten = medians.values()
    print(f"\n  {largest:.0f} MB resident, at most")
    target("seconds to the DM, 10,000 pending", ten.seconds, 1.5)
    target("10,000 × 1,000 pending, to the DM", ten.seconds / thousand.seconds, 12)
    target("MB resident", largest, 100)
    bench.facts.update(backlog=ten.seconds, backlog_mb=largest)


def asleep(bench: Bench) -> None:
    """A worker which waits, because X refuses us, until the time for the next attempt."""
    home = bench.home(X(bench.stand_in, "401-code-32"))
    seconds = 5 if bench.quick else 10
    home.reset()
    run(home.send("--no-wait"), home.env)
    deadline = time.monotonic() + 20
    while not home.x.requests() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    workers = bench.processes()
    if len(workers) != 1:
        raise SystemExit(f"bench: there is not one worker asleep, but {len(workers)}")

    def spent() -> tuple[float, int]:
        running = int(Path(f"/proc/{workers[0]}/schedstat").read_text().split()[0]) / 1e6
        status = Path(f"/proc/{workers[0]}/status").read_text().splitlines()
        return running, sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    before = spent()
    time.sleep(seconds)
    after = spent()
    bench.stop_workers()
    cpu, woken = after[0] - before[0], after[1] - before[1]
    print(f"\n5. A worker asleep, for {seconds} seconds\n  {cpu:.1f} ms CPU, woken {woken} times")
    target("times woken a second", woken / seconds, 1)
    bench.facts.update(asleep_ms=cpu, asleep_woken=woken, asleep_seconds=seconds)


POINTS = (watcher_held, to_the_dm, storm, backlog, asleep)


def markdown(facts: dict[str, float]) -> str:
    """The README's table, of all that was measured."""
    rows = [
        ("swatch is held up by an alert",
         "1", "{held_ours:.1f}", "{held_script:.0f}", "{held_apprise:.0f}"),
        ("the same, X slow, down or refusing, or 10,000 alerts pending",
         "", "{held_worst:.1f} at most", "", ""),
        ("until X has the DM", "", "{dm_ours:.2f}", "1", "{dm_apprise:.1f}"),
        ("a storm of {storm_lines:,.0f} lines: swatch is through",
         "1", "{storm_ours:.1f}", "{storm_script:.0f}", ""),
        ("the same: CPU time of everything",
         "{storm_cpu_bare:.2f}", "{storm_cpu:.2f}", "1", ""),
        ("the same: DMs", "", "{storm_dms:.0f}", "{storm_lines:,.0f}", ""),
        ("the same: memory of all its processes", "", "{storm_mb:.0f} MB", "", ""),
        ("10,000 pending alerts become a DM", "", "{backlog:.2f} s, {backlog_mb:.0f} MB", "", ""),
        ("while it waits, in {asleep_seconds:.0f} s",
         "", "{asleep_ms:.0f} ms CPU, woken {asleep_woken:.0f} times", "", ""),
    ]  # fmt: skip
    lines = [
        "| | bare interpreter | bird_sentinel | script of ten lines | apprise |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        with contextlib.suppress(KeyError):  # not measured this time
            lines.append("| " + " | ".join(row).format(**facts) + " |")
    return "\n".join(["<!-- benchmark -->", *lines, "<!-- /benchmark -->"])


@contextlib.contextmanager
def prepared(quick: bool) -> Iterator[Bench]:
    """A Bench, of which nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(Path(directory), quick)
        try:
            yield bench
        finally:
            bench.stop_workers()
            bench.stand_in.stop()


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--quick", action="store_true", help="fewer runs and lines")
    parser.add_argument("--only", type=int, action="append", choices=range(1, len(POINTS) + 1),
                        help="this point alone; may be repeated")  # fmt: skip
    parser.add_argument("--markdown", action="store_true", help="end with the README's table")
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stand_in:
        stand_in()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    with prepared(options.quick) as bench:
        for number, point in enumerate(POINTS, 1):
            if not options.only or number in options.only:
                say(f"measuring {number} of {len(POINTS)}")
                point(bench)
                sys.stdout.flush()
        if options.markdown:
            print("\n" + markdown(bench.facts))


if __name__ == "__main__":
    main()
