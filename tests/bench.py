"""How fast it is, beside what one would use in its place: prints the README's table.

    python tests/bench.py [--quick] [--only POINT]...

The bare interpreter, a script of ten lines with tweepy, apprise where pip can install it, and
bird_sentinel run in turn, in another order each round, on the same stand-in for X, a process of its
own. A ratio is that of two runs of the same round, as machines drift, and the median of all rounds
is told. TMPDIR names the disk that is used, which may be the slowest part of all.

It takes no part in the test suite, judges nothing, and leaves nothing. It needs Linux, trustme, pip
with something to install from, and swatchdog.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import dataclasses
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
ANSWER = 0.15  # seconds that X takes for an answer
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
# pip's until lately
OLDER_LAUNCHER = r"""import re, sys
from bird_sentinel import run
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\.pyw|\.exe)?$', '', sys.argv[0])
    sys.exit(run())
"""


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
            refusal, limit = words
            x = FakeX(limit=limit)
            x.add_user("oncall", "2002")
            usual = ERRORS[refusal] if refusal else Answer()
            x.answer(dataclasses.replace(usual, delay=ANSWER), times=None)
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


# ---- the contenders ----------------------------------------------------------------------------


class Bench:
    """A directory with all that is measured, and every process that comes of it."""

    def __init__(self, directory: Path, quick: bool) -> None:
        self.directory, self.quick, self.homes, self.told = directory, quick, 0, ""
        say("installing bird_sentinel and apprise into environments of their own")
        self.ours, self.python = self.install()
        self.script = directory / "plain.py"
        self.script.write_text(TWEEPY_SCRIPT)
        find = [self.python, "-c", "import bird_sentinel; print(bird_sentinel.__file__)"]
        self.file = subprocess.check_output(find, text=True, cwd=directory).strip()
        self.older = directory / "older"
        self.older.write_text(OLDER_LAUNCHER)
        subprocess.run([sys.executable, "-m", "venv", directory / "apprise"], check=True)
        self.apprise, pip = (f"{directory}/apprise/bin/{name}" for name in ("apprise", "pip"))
        subprocess.run([pip, "install", "-qq", "--disable-pip-version-check", "apprise"])
        # PR_SET_CHILD_SUBREAPER: who loses its parent, as every worker does, becomes our child
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        self.stand_in = subprocess.Popen(
            [sys.executable, __file__, "--stand-in"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(directory)},
            start_new_session=True,  # Ctrl-C is ours; it ends with its standard input
        )  # fmt: skip

    def install(self) -> tuple[str, str]:
        """Run the lines of the README for a virtual environment, but for the apt-get, with places
        of ours; returns the paths of the launcher and of its interpreter."""
        readme = (PROJECT / "README.md").read_text()
        lines = readme.partition("<!--install:venv-->\n```sh\n")[2].partition("```")[0]
        lines = lines.partition("\n")[2].replace("python3 -m venv", f"{sys.executable} -m venv")
        for place in ("/opt", "/usr/local/bin"):
            (self.directory / place[1:]).mkdir(parents=True)
            lines = lines.replace(f"{place}/", f"{self.directory}{place}/")
        env = {**os.environ, "PIP_QUIET": "2", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run(["sh", "-ec", lines], cwd=PROJECT, env=env, check=True)
        launcher = self.directory / "usr/local/bin/bird_sentinel"
        return str(launcher), f"{self.directory}/opt/bird_sentinel/bin/python"

    def children(self) -> list[int]:
        """Our children but for the stand-in: workers, and what a command left."""
        found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return [int(pid) for pid in found if int(pid) != self.stand_in.pid]

    def end(self, kill: bool = True) -> float:
        """End all that we started, or wait for its own end; what loses its parent by that is there
        the next time.  Returns the MB of the largest."""
        largest = 0.0
        while found := self.children():
            if kill:
                os.kill(found[0], signal.SIGKILL)
            largest = max(largest, os.wait4(found[0], 0)[2].ru_maxrss / 1024)
        return largest

    def run(self, command: list[str], env: dict[str, str]) -> float:
        """Run a command; returns the seconds from its start to its exit."""
        silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        began = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, env, file_actions=silent)
        status = os.waitpid(pid, 0)[1]
        took = time.perf_counter() - began
        if status:
            raise SystemExit(f"bench: {' '.join(command)} failed with {status}")
        return took


class Home:
    """A home directory with a config, and an X of its own: usual, or refusing everything."""

    def __init__(self, bench: Bench, refusal: str = "", limit: int = 10**6) -> None:
        self.bench, self.number = bench, bench.homes
        bench.homes += 1
        x, self.keys = self.ask("new", refusal, limit)
        path = bench.directory / f"home{self.number}"
        self.config = path / ".config" / "bird_sentinel" / "config.ini"
        self.queue = self.config.parent / "queue"
        self.env = {"HOME": str(path), "LANG": "C.UTF-8", **x,
                    "PATH": f"{Path(bench.ours).parent}:{os.environ['PATH']}"}  # fmt: skip
        for directory in ("new", "tmp", "refused"):
            (self.queue / directory).mkdir(0o700, parents=True)
        self.queue.chmod(0o700)
        keys = "\n".join(f"{name} = {key}" for name, key in self.keys.items())
        self.config.touch(0o600)
        self.config.write_text(f"[account]\n{keys}\nscreen_name = x\n[recipients]\noncall = 2002\n")

    def ask(self, what: str, *words: Any) -> Any:
        """Have the stand-in do something with our X (start, stop), or tell what it has seen: when
        each DM was handed in (seconds since the epoch), and the first lines of those it took."""
        assert self.bench.stand_in.stdin and self.bench.stand_in.stdout
        print(json.dumps([what, self.number, *words]), file=self.bench.stand_in.stdin, flush=True)
        answer = json.loads(self.bench.stand_in.stdout.readline())
        if what == "seen" and answer[2]:
            raise SystemExit(f"bench: a contender is not set up well: {answer[2][0]}")
        return answer

    def clear(self) -> None:
        """No worker, nothing pending, and no pace to keep."""
        self.bench.end()
        for name in ("new/*", "tmp/*", "refused/*", "folded", "state"):
            for entry in self.queue.glob(name):
                entry.unlink()

    def send(self, *launcher: str) -> list[str]:
        """What swatch runs."""
        return [*(launcher or [self.bench.ours]), "send", "--no-wait", "--", LINE]

    def others(self) -> dict[str, list[str]]:
        """The commands that do the same otherwise."""
        keys = "/".join(self.keys[name] for name in KEYS)
        url = f"twitter://{keys}/oncall?mode=dm"
        found = {"script": [self.bench.python, str(self.bench.script), str(self.config), LINE]}
        if os.path.exists(self.bench.apprise):  # pip may have had nothing to install it from
            found["apprise"] = [self.bench.apprise, "--body", LINE, url]
        return found


def accept(new: Path, texts: Iterable[bytes]) -> None:
    """Put alerts where send does, but for the disk's syncs."""
    for text in texts:
        written = new.parent / f"{time.time_ns():019d}.1.web1"
        written.write_bytes(b"host: web1\n\n" + text)
        written.rename(new / written.name)


# ---- what is measured --------------------------------------------------------------------------

Taken = dict[str, list[float]]


def in_turn(take: Callable[[list[str]], float], commands: dict[str, list[str]], n: int) -> Taken:
    """What commands take, in another order each of n rounds, and one more to warm up."""
    taken: Taken = {name: [] for name in commands}
    for number in range(n + 1):
        for name in random.sample(list(commands), len(commands)):
            taken[name] += [take(commands[name])][:number]
    return taken


def ratio(taken: Taken, name: str, base: str) -> str:
    pairs = list(zip(taken.get(name, []), taken[base]))
    return short(statistics.median(mine / other for mine, other in pairs)) if pairs else ""


def short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.0f}"


def row(what: str, bare: str = "", ours: str = "", script: str = "", apprise: str = "") -> str:
    return f"|{what}|{bare}|{ours}|{script}|{apprise}|"


def held(bench: Bench) -> list[str]:
    """From the start of `send --no-wait` to its exit, by each way to start it."""
    home = Home(bench)
    bench.run([bench.ours, "send", LINE], home.env)  # the config was read, as on most days

    def alone(command: list[str]) -> float:
        home.clear()
        return bench.run(command, home.env)

    commands = {
        "bare": [bench.python, "-c", "pass"],
        "ours": home.send(),
        "re": home.send(bench.python, str(bench.older)),
        "file": home.send(bench.python, bench.file),
        **home.others(),
    }
    taken = in_turn(alone, commands, 2 if bench.quick else 25)
    say(f"send --no-wait takes {ratio(taken, 'ours', 'script')} of the script's time")
    bare = {name: ratio(taken, name, "bare") for name in (*taken, "apprise")}
    ours, start = (1000 * statistics.median(taken[name]) for name in ("ours", "bare"))
    bench.told = f"An alert takes some {ours:.0f} ms here, Python's start {start:.0f} of them."
    first = row("swatch is held up by an alert", "1", bare["ours"], bare["script"],
                bare["apprise"])
    return [first, row("the same, through pip's older launcher", "", bare["re"]),
            row("the same, as the bare script", "", bare["file"])]  # fmt: skip


def dm(bench: Bench) -> list[str]:
    """From the start of a process to X having its request."""
    home = Home(bench)

    def to_x(command: list[str]) -> float:
        home.clear()
        before, began = len(home.ask("seen")[0]), time.time()
        bench.run(command, home.env)
        return float(home.ask("seen")[0][before]) - began

    commands = {"ours": [bench.ours, "send", "--", LINE], **home.others()}
    taken = in_turn(to_x, commands, 3 if bench.quick else 25)
    ours, apprise = (ratio(taken, name, "script") for name in ("ours", "apprise"))
    return [row("until X has the DM", "", ours, "1", apprise)]


def storm(bench: Bench) -> list[str]:
    """Lines that all matter through the real swatchdog, with the action of swatchrc.example."""
    lines = 40 if bench.quick else 1_000
    action = 'bird_sentinel send --no-wait -- "\\$SWATCH_LINE"'
    example = (PROJECT / "swatchrc.example").read_text()
    assert action in example

    def through(number: int, home: Home, instead: str) -> tuple[float, float]:
        """Have swatchdog read that many lines, with something in the place of its action; returns
        the seconds, and the MB of the worker."""
        bench.end()
        directory = Path(tempfile.mkdtemp(dir=bench.directory))
        log = "".join(LINE.replace("40022", str(10_000 + n)) + "\n" for n in range(number))
        (directory / "log").write_text(log)
        (directory / "rc").write_text(example.replace(action, instead))
        command = ["swatchdog", f"--config-file={directory}/rc", f"--examine={directory}/log",
                   f"--script-dir={directory}"]  # fmt: skip
        return bench.run(command, home.env), bench.end(kill=False)

    home, mine = Home(bench), Home(bench, limit=15)
    nothing = f"{bench.python} -c pass"
    plain = f'{bench.python} {bench.script} {home.config} "\\$SWATCH_LINE"'
    before = through(lines, home, nothing)[0]  # and after: what else runs here meets them all
    ours, memory = through(lines, mine, action)
    bare = (before + through(lines, home, nothing)[0]) / 2
    script = through(lines // 10, home, plain)[0] * 10
    say(f"the storm: {len(mine.ask('seen')[1])} DMs, {memory:.0f} MB")
    return [row(f"swatch through {lines:,} lines", "1", short(ours / bare), short(script / bare))]


def backlog(bench: Bench) -> list[str]:
    """Lines of 10 KB of random words while X is away; then it is back, and somebody runs flush."""
    bench.end()
    lines, batch = (2_000 if bench.quick else 20_000), 1_000  # as many as are folded
    home, disk = Home(bench), 0
    home.ask("stop")
    letters = bytes.maketrans(b"0123456789+/", 12 * b" ")
    for _ in range(lines // batch):
        random_words = (base64.b64encode(os.urandom(7_500)) for _ in range(batch - 1))
        accept(home.queue / "new", (words.translate(letters) for words in random_words))
        bench.run(home.send(), home.env)
        while os.listdir(home.queue / "new"):
            time.sleep(0.02)
        used = subprocess.run(["du", "-sk", home.queue], stdout=subprocess.PIPE).stdout
        disk = max(disk, int(used.split()[0]))
    home.ask("start")
    began = time.time()
    bench.run([bench.ours, "flush"], home.env)
    memory = bench.end()
    requests, dms, _ = home.ask("seen")
    say(f"the backlog took {disk / 1024:.0f} MB on the disk; its DM begins: {dms[0]}")
    told = f"{requests[0] - began:.1f} s, {memory:.0f} MB"
    return [row(f"{lines:,} lines of 10 KB, X back: to the DM", "", told)]


def asleep(bench: Bench) -> list[str]:
    """A worker which waits, because X refuses us, until the time for the next attempt."""
    bench.end()
    home, seconds = Home(bench, "401-code-32"), 4 if bench.quick else 10
    bench.run(home.send(), home.env)
    time.sleep(4)
    (worker,) = bench.children()

    def spent() -> tuple[float, int]:
        running = int(Path(f"/proc/{worker}/schedstat").read_text().split()[0]) / 1e6
        status = Path(f"/proc/{worker}/status").read_text().splitlines()
        return running, sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    before, slept = spent()
    time.sleep(seconds)
    after, woken = spent()
    told = f"{after - before:.0f} ms CPU, woken {woken - slept} times"
    return [row("while it waits", "", told)]


POINTS = {point.__name__: point for point in (held, dm, storm, backlog, asleep)}


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast it is: prints the README's table.")
    parser.add_argument("--quick", action="store_true", help="fewer runs and lines")
    parser.add_argument("--only", action="append", choices=POINTS, help="may be repeated")
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stand_in:
        return stand_in()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    table: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(Path(directory), options.quick)
        try:
            for name in options.only or POINTS:
                say(f"measuring: {name}")
                table += POINTS[name](bench)
        finally:
            bench.end()
            bench.stand_in.communicate()
    print(f"<!-- benchmark -->\nBy `tests/bench.py`, with a stand-in for X that answers after"
          f" {1000 * ANSWER:.0f} ms; ratios where there is no unit:\n\n"
          "||bare interpreter|bird_sentinel|script of ten lines|apprise|\n"
          "|---|--:|--:|--:|--:|", *table, f"\n{bench.told}\n<!-- /benchmark -->",
          sep="\n")  # fmt: skip


if __name__ == "__main__":
    main()
