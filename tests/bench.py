"""How fast it is, beside what one would use in its place: prints the README's table.

    python tests/bench.py [--quick] [--only POINT]...

The bare interpreter, a script of ten lines with tweepy, apprise where pip can install it, and
bird_sentinel run in turn, in another order each round, on the same stand-in for X, which takes
150 ms for each answer and has a process of its own. Machines differ, and drift: a ratio is that of
two runs of the same round, and the median of all rounds is told. An alert is on disk before send
says so, and a disk may be the slowest part of all: TMPDIR names the one that is used.

It takes no part in the test suite, judges nothing, and leaves nothing. It needs Linux, trustme, pip
with something to install from, and swatchdog.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
ANSWER = 0.15  # seconds that X takes for an answer
PATIENCE = 3600  # seconds for everything
LINE = "Nov 23 14:03:22 web1 sshd[811]: Accepted password for root from 198.51.100.7 port 40022"
KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")

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
LAUNCHER = "import sys\nfrom bird_sentinel import run\nrun()\n"
# pip's until lately
OLDER_LAUNCHER = f"import re, sys\nre.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n{LAUNCHER}"


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def stand_in() -> None:
    """Be X for each that asks on standard input, one JSON value a line, until it ends."""
    from fake_x import ERRORS, Answer, FakeX

    all_: list[FakeX] = []
    for line in sys.stdin:
        what, number, *words = json.loads(line)
        answer: Any = None
        if what == "new":
            refusal, delay, limit = words
            x = FakeX(limit=limit)
            x.add_user("oncall", "2002")
            usual = ERRORS[refusal] if refusal else Answer()
            x.answer(Answer(usual.status, json=usual.json, delay=delay), times=None)
            all_.append(x.start())
            answer = x.env, dict(zip(KEYS, (x.consumer_key, x.consumer_secret, *x.token())))
        elif what == "seen":
            x = all_[number]
            requests = [request.at for request in list(x.requests) if request.recipient_id]
            wrong = [bad.reason for bad in x.bad_signatures] + x.strangers
            answer = requests, [dm.text.split("\n")[0] for dm in x.dms], wrong
        else:
            getattr(all_[number], what)()
        print(json.dumps(answer), flush=True)
    for x in all_:
        x.stop()


# ---- the contenders ----------------------------------------------------------------------------


class Bench:
    """A directory with all that is measured, and every process that comes of it."""

    def __init__(self, directory: Path, quick: bool) -> None:
        self.directory, self.quick, self.homes = directory, quick, 0
        say("installing bird_sentinel and apprise into environments of their own")
        self.python = self.environment("ours", str(PROJECT))
        self.script = directory / "plain.py"
        self.script.write_text(TWEEPY_SCRIPT)
        find = [self.python, "-c", "import bird_sentinel; print(bird_sentinel.__file__)"]
        self.file = subprocess.check_output(find, text=True, cwd=directory).strip()
        self.ours, self.older = self.launcher("bin", LAUNCHER), self.launcher("old", OLDER_LAUNCHER)
        self.apprise = self.environment("apprise", "apprise").replace("/python", "/apprise")
        # who loses its parent, as every worker does, becomes our child: it can be waited for
        PR_SET_CHILD_SUBREAPER = 36
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.stand_in = subprocess.Popen(
            [sys.executable, __file__, "--stand-in"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(directory)},
            start_new_session=True,  # Ctrl-C is ours; it ends with its standard input
        )  # fmt: skip

    def environment(self, name: str, package: str) -> str:
        """Install a package as a user would; returns the path of its interpreter."""
        python = str(self.directory / name / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", package]
        subprocess.run([sys.executable, "-m", "venv", self.directory / name], check=True)
        if subprocess.run(pip).returncode:
            say(f"{package} cannot be installed")
        return python

    def launcher(self, directory: str, text: str) -> str:
        path = self.directory / directory / "bird_sentinel"
        path.parent.mkdir()
        path.write_text(f"#!{self.python}\n{text}")
        path.chmod(0o755)
        return str(path)

    def children(self) -> list[int]:
        """Our children but for the stand-in: workers, and what a command left."""
        found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return [int(pid) for pid in found if int(pid) != self.stand_in.pid]

    def kill(self) -> None:
        """End all that we started; what loses its parent by that is there the next time."""
        while found := self.children():
            for pid in found:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def run(self, command: list[str], env: dict[str, str]) -> tuple[float, float]:
        """Run a command; returns the seconds from its start to its exit, and those of the CPU."""
        silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        began = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, env, file_actions=silent)
        _, status, used = os.wait4(pid, 0)
        took = time.perf_counter() - began
        if status:
            raise SystemExit(f"bench: {' '.join(command)} failed with {status}")
        return took, used.ru_utime + used.ru_stime

    def rest(self) -> tuple[float, float]:
        """Wait for workers; returns their CPU seconds, and the MB of the largest."""
        cpu = largest = 0.0
        while found := self.children():
            used = os.wait4(found[0], 0)[2]
            cpu += used.ru_utime + used.ru_stime
            largest = max(largest, used.ru_maxrss / 1024)
        return cpu, largest


class Home:
    """A home directory with a config, and an X of its own: usual, slow, or refusing everything."""

    def __init__(
        self, bench: Bench, refusal: str = "", delay: float = ANSWER, limit: int = 10**6
    ) -> None:
        self.bench, self.number = bench, bench.homes
        bench.homes += 1
        x, self.keys = self.ask("new", refusal, delay, limit)
        path = bench.directory / f"home{self.number}"
        self.config = path / ".config" / "bird_sentinel" / "config.ini"
        self.queue = self.config.parent / "queue"
        self.env = {"HOME": str(path), "XDG_RUNTIME_DIR": str(path), "LANG": "C.UTF-8",
                    "PATH": f"{Path(bench.ours).parent}:{os.environ['PATH']}", **x}  # fmt: skip
        for directory in ("new", "tmp", "refused", "to"):
            (self.queue / directory).mkdir(0o700, parents=True)
        self.queue.chmod(0o700)
        keys = "\n".join(f"{name} = {key}" for name, key in self.keys.items())
        self.config.touch(0o600)
        self.config.write_text(
            f"[account]\n{keys}\nscreen_name = sentinel_bot\n[recipients]\noncall = 2002\n"
        )

    def ask(self, what: str, *words: Any) -> Any:
        """Have the stand-in do something with our X (start, stop), or tell what it has seen: when
        each DM was handed in (seconds since the epoch), and the first lines of those it took."""
        assert self.bench.stand_in.stdin and self.bench.stand_in.stdout
        print(json.dumps([what, self.number, *words]), file=self.bench.stand_in.stdin, flush=True)
        answer = json.loads(self.bench.stand_in.stdout.readline())
        if what == "seen" and answer[2]:
            raise SystemExit(f"bench: a contender is not set up well: {answer[2][0]}")
        return answer

    def clear(self, *also: str) -> None:
        """No worker, and nothing pending; without these files of the queue, too."""
        self.bench.kill()
        for entry in [*self.queue.glob("*/**/*"), *(self.queue / name for name in also)]:
            if entry.is_file():
                entry.unlink()

    def send(self, launcher: str = "", no_wait: bool = True) -> list[str]:
        options = ["--no-wait"] * no_wait
        return [*(launcher or self.bench.ours).split(), "send", *options, "--", LINE]

    def others(self) -> dict[str, list[str]]:
        """The commands that do the same otherwise."""
        keys = "/".join(self.keys[name] for name in KEYS)
        url = f"twitter://{keys}/oncall?mode=dm"
        found = {"script": [self.bench.python, str(self.bench.script), str(self.config), LINE]}
        if os.path.exists(self.bench.apprise):
            found["apprise"] = [self.bench.apprise, "--body", LINE, url]
        return found


def accept(new: Path, texts: list[bytes]) -> None:
    """Put alerts where send does, but for the disk's syncs."""
    for text in texts:
        written = new.parent / f"{time.time_ns():019d}.1.web1"
        written.write_bytes(b"host: web1\nto: \ncut: 0\n\n" + text)
        written.rename(new / written.name)


# ---- what is measured --------------------------------------------------------------------------

Contenders = dict[str, Callable[[], float]]
Taken = dict[str, list[float]]


def in_turn(contenders: Contenders, rounds: int) -> Taken:
    """What contenders take, in another order each round; the first round is to warm up."""
    taken: Taken = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name in random.sample(list(contenders), len(contenders)):
            taken[name] += [contenders[name]()][:number]
    return taken


def ratio(taken: Taken, name: str, base: str) -> str:
    pairs = list(zip(taken.get(name, []), taken[base]))
    return short(statistics.median(mine / other for mine, other in pairs)) if pairs else ""


def short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.0f}"


def row(what: str, bare: str = "", ours: str = "", script: str = "", apprise: str = "") -> str:
    return f"| {what} | {bare} | {ours} | {script} | {apprise} |"


def held(bench: Bench) -> list[str]:
    """From the start of `send --no-wait` to its exit, by each way to start it, and in bad times."""
    quiet = Home(bench)
    bench.run(quiet.send(no_wait=False), quiet.env)  # the config was read, as on most days

    def usual(command: list[str]) -> float:
        quiet.clear()
        return bench.run(command, quiet.env)[0]

    def bad(home: Home, alerts: Path | None = None) -> float:
        home.clear("state", "trouble")
        for alert in alerts.iterdir() if alerts else ():
            os.link(alert, home.queue / "new" / alert.name)
        bench.run(home.send(), home.env)
        time.sleep(1)  # its worker is in the middle of what it does about that
        return bench.run(home.send(), home.env)[0]

    slow, down, refusing = Home(bench, delay=5.0), Home(bench), Home(bench, "401-code-32")
    down.ask("stop")
    many = Home(bench).queue / "new"
    accept(many, [LINE.replace("40022", str(n)).encode() for n in range(10_000)])
    worse: Contenders = {
        "X slow": partial(bad, slow),
        "down": partial(bad, down),
        "refusing": partial(bad, refusing),
        "10,000 pending": partial(bad, down, many),
    }
    commands = {
        "bare": [bench.python, "-c", "pass"],
        "ours": quiet.send(),
        "re": quiet.send(bench.older),
        "file": quiet.send(f"{bench.python} {bench.file}"),
        **quiet.others(),
    }
    contenders: Contenders = {name: partial(usual, command) for name, command in commands.items()}
    contenders.update(worse)
    taken = in_turn(contenders, 2 if bench.quick else 25)
    bare = {name: ratio(taken, name, "bare") for name in taken}
    bad_times = ", ".join(ratio(taken, name, "ours") for name in worse)
    say(f"the bare interpreter takes {1000 * statistics.median(taken['bare']):.0f} ms here")
    say(f"bird_sentinel holds swatch {ratio(taken, 'ours', 'script')} of the script's time")
    return [
        row("swatch is held up by an alert", "1", bare["ours"], bare["script"], bare["apprise"]),
        row("the same, through a launcher that imports `re`, as older pip's", "", bare["re"]),
        row("the same, as the bare script file", "", bare["file"]),
        row(f"the first again, {', '.join(worse)}: times the usual", "", bad_times),
    ]


def dm(bench: Bench) -> list[str]:
    """From the start of a process to X having its request."""
    home = Home(bench)

    def to_x(command: list[str]) -> float:
        home.clear("state")  # no pace to keep
        before, began = len(home.ask("seen")[0]), time.time()
        bench.run(command, home.env)
        return float(home.ask("seen")[0][before]) - began

    commands = {"ours": home.send(no_wait=False), **home.others()}
    contenders: Contenders = {name: partial(to_x, command) for name, command in commands.items()}
    taken = in_turn(contenders, 3 if bench.quick else 25)
    ours, apprise = (ratio(taken, name, "script") for name in ("ours", "apprise"))
    return [row("until X has the DM", "", ours, "1", apprise)]


def storm(bench: Bench) -> list[str]:
    """Lines that all matter through the real swatchdog, with the action of swatchrc.example."""
    lines = 40 if bench.quick else 1_000
    some = lines // 10
    action = 'bird_sentinel send --no-wait -- "\\$SWATCH_LINE"'
    example = (PROJECT / "swatchrc.example").read_text()
    assert action in example, "swatchrc.example has another action"

    def through(number: int, home: Home, instead: str) -> tuple[float, float, float]:
        """Have swatchdog read that many lines, with something in the place of its action."""
        bench.kill()
        directory = Path(tempfile.mkdtemp(dir=bench.directory))
        log = "".join(LINE.replace("40022", str(10_000 + n)) + "\n" for n in range(number))
        (directory / "log").write_text(log)
        (directory / "rc").write_text(example.replace(action, instead))
        command = ["swatchdog", f"--config-file={directory}/rc", f"--examine={directory}/log",
                   f"--script-dir={directory}"]  # fmt: skip
        took, cpu = bench.run(command, home.env)
        more, largest = bench.rest()
        return took, cpu + more, largest

    home, mine = Home(bench), Home(bench, limit=15)
    nothing = f"{bench.python} -c pass"
    plain = f'{bench.python} {bench.script} {home.config} "\\$SWATCH_LINE"'
    before = through(lines, home, nothing)  # and after: what else runs here meets them all
    ours, ours_cpu, memory = through(lines, mine, action)
    after = through(lines, home, nothing)
    script, script_cpu, _ = (lines / some * n for n in through(some, home, plain))
    bare, bare_cpu, _ = (statistics.mean(both) for both in zip(before, after))
    what = f"a storm of {lines:,} lines"
    return [
        row(f"{what}: swatch is through", "1", short(ours / bare), short(script / bare)),
        row(f"{what}: CPU time of everything, until the last DM", "1",
            short(ours_cpu / bare_cpu), short(script_cpu / bare_cpu)),
        row(f"{what}: DMs", "", str(len(mine.ask("seen")[1])), f"{lines:,}"),
        row(f"{what}: memory of the worker", "", f"{memory:.0f} MB"),
    ]  # fmt: skip


def backlog(bench: Bench) -> list[str]:
    """Lines of 10 KB of random words while X is away; then it is back, and somebody runs flush."""
    bench.kill()
    lines, batch = (2_000 if bench.quick else 20_000), 500
    home, disk = Home(bench), 0
    home.ask("stop")
    letters = bytes.maketrans(b"0123456789+/", 12 * b" ")
    for _ in range(lines // batch):
        random_words = (base64.b64encode(os.urandom(7_500)) for _ in range(batch - 1))
        accept(home.queue / "new", [words.translate(letters) for words in random_words])
        bench.run(home.send(), home.env)
        while os.listdir(home.queue / "new"):
            time.sleep(0.02)
        used = subprocess.run(["du", "-sk", home.queue], stdout=subprocess.PIPE).stdout
        disk = max(disk, int(used.split()[0]))
    home.ask("start")
    began = time.time()
    bench.run([bench.ours, "flush"], home.env)
    _, memory = bench.rest()
    requests, dms, _ = home.ask("seen")
    say(f"the DM of the backlog begins: {dms[0]}")
    what = f"{lines:,} lines of 10 KB while X is away"
    return [
        row(f"{what}: from `flush` to the DM", "", f"{requests[0] - began:.1f} s"),
        row(f"{what}: memory, disk", "", f"{memory:.0f} MB, {disk / 1024:.0f} MB"),
    ]


def asleep(bench: Bench) -> list[str]:
    """A worker which waits, because X refuses us, until the time for the next attempt."""
    bench.kill()
    home, seconds = Home(bench, "401-code-32"), 4 if bench.quick else 10
    bench.run(home.send(), home.env)
    while not (home.queue / "trouble").exists():
        time.sleep(0.1)
    time.sleep(2)
    (worker,) = bench.children()

    def spent() -> tuple[float, int]:
        running = int(Path(f"/proc/{worker}/schedstat").read_text().split()[0]) / 1e6
        status = Path(f"/proc/{worker}/status").read_text().splitlines()
        return running, sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    before, slept = spent()
    time.sleep(seconds)
    after, woken = spent()
    told = f"{after - before:.0f} ms CPU, woken {woken - slept} times"
    return [row(f"while it waits for a person, in {seconds} s", "", told)]


POINTS = {point.__name__: point for point in (held, dm, storm, backlog, asleep)}


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--quick", action="store_true", help="fewer runs and lines")
    parser.add_argument("--only", action="append", choices=POINTS, help="may be repeated")
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stand_in:
        return stand_in()
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: sys.exit("bench: terminated, or it took too long"))
    signal.alarm(PATIENCE)
    table: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(Path(directory), options.quick)
        try:
            for name in options.only or POINTS:
                say(f"measuring: {name}")
                table += POINTS[name](bench)
        finally:
            bench.kill()
            bench.stand_in.communicate()
    print(f"<!-- benchmark -->\nBy `tests/bench.py`, with a stand-in for X that answers after"
          f" {1000 * ANSWER:.0f} ms; ratios where there is no unit:\n\n"
          "| | bare interpreter | bird_sentinel | script of ten lines | apprise |\n"
          "|---|--:|--:|--:|--:|", *table, "<!-- /benchmark -->", sep="\n")  # fmt: skip


if __name__ == "__main__":
    main()
