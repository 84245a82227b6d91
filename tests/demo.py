"""A demonstration without an account on X: from the PIN to the digest, in half a minute.

X is played by the stand-in of the tests, on this machine. All else is real: bird_sentinel,
swatchdog, swatchrc.example. Everything happens in a temporary directory, which is removed.

    python3 tests/demo.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    from fake_x import DM, FakeX
except ImportError as error:
    print(f"demo: error: {error}", file=sys.stderr)
    sys.exit("demo: hint: in a virtual environment: pip install '.[demo]'")

PROJECT = Path(__file__).resolve().parent.parent
MARK = "BIRD_SENTINEL_DEMO"
WIDTH = 58  # of a DM on the phone, in columns
STORM = 40
HOST = os.uname().nodename.partition(".")[0]

SINGLE = "sshd[4711]: Accepted password for root from 203.0.113.66 port 40022 ssh2"
GUESSES = ("sshd[48{0:02}]: error: maximum authentication attempts exceeded for root from"
           " 198.51.100.{0} port {1} ssh2 [preauth]")  # fmt: skip
RARE = (
    "kernel: [55175.576870] nginx[1740126]: segfault at 0 ip 00007f41465edcc8 sp 00007ffda4c17f46"
    " error 4 in nginx[55d0c0a00000+f2000]",
    'sudo:  mallory : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/echo "'
    "; reboot; $(reboot)",
)


class Stage:
    """The temporary directory with all that happens in it, and the processes marked as its own."""

    def __init__(self, directory: Path, x: FakeX) -> None:
        self.x = x
        self.mark = uuid.uuid4().hex
        self.log = directory / "syslog"
        self.log.touch()
        # swatchrc.example runs `bird_sentinel`: the installed one, else the script itself
        command = Path(sys.executable).parent / "bird_sentinel"
        words = [str(command)] if command.exists() else [
            sys.executable, str(PROJECT / "bird_sentinel.py")]  # fmt: skip
        wrapper = directory / "bin" / "bird_sentinel"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, words))} "$@"\n')
        wrapper.chmod(0o755)
        self.directory = directory
        # the config is named, so that root stays root where there is a user bird_sentinel
        self.env = {
            "HOME": str(directory), "LANG": "C.UTF-8", MARK: self.mark, **x.env,
            "BIRD_SENTINEL_CONFIG": f"{directory}/.config/bird_sentinel/config.ini",
            "PATH": f"{wrapper.parent}:/usr/local/bin:/usr/bin:/bin",
        }  # fmt: skip

    def log_line(self, *lines: str) -> None:
        """Write to the log as rsyslog does."""
        stamp = time.strftime("%b %e %H:%M:%S")
        with self.log.open("a") as log:
            log.write("".join(f"{stamp} {HOST} {line}\n" for line in lines))

    def authorize(self) -> None:
        """Walk the PIN flow, in the place of the person and of the person's browser."""
        answers = [self.x.consumer_key, self.x.consumer_secret, "oncall"]
        process = subprocess.Popen(
            ["bird_sentinel", "authorize"], env=self.env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin and process.stdout
        process.stdin.write("".join(answer + "\n" for answer in answers))
        process.stdin.flush()
        for line in process.stdout:
            print("    " + line, end="", flush=True)
            page = re.search(r"oauth_token=([^&\s]+)", line)
            if page:
                pin = self.x.pin(page[1])
                print(f"    PIN: {pin}    (the page on X shows it; here the stand-in does)")
                process.stdin.write(pin + "\n")
                process.stdin.flush()
        if process.wait(30):
            raise Failure(f"authorize ended with exit status {process.returncode}")

    def watch(self) -> None:
        """Start swatchdog and wait until it reads the log."""
        output = self.directory / "swatchdog.out"
        try:
            subprocess.Popen(
                ["swatchdog", f"--config-file={PROJECT / 'swatchrc.example'}",
                 f"--script-dir={self.directory}", f"--tail-file={self.log}"],
                env=self.env, stdin=subprocess.DEVNULL, stdout=output.open("w"),
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        except FileNotFoundError:
            raise Failure("swatchdog is missing; install it, as with: apt install swatch") from None
        try:
            wait_for(self.is_read, 30, "swatchdog did not begin to read the log")
        except Failure:
            print(output.read_text(errors="replace"), file=sys.stderr)
            raise

    def is_read(self) -> bool:
        for pid in self.processes():
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    if os.path.realpath(f"/proc/{pid}/fd/{name}") == str(self.log):
                        time.sleep(0.3)  # it has opened it, and now goes to its end
                        return True
        return False

    def processes(self) -> list[int]:
        """All that was started here and still runs, detached or not."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + 2
            while self.processes() and time.monotonic() < deadline:
                time.sleep(0.05)


class Failure(Exception):
    """The demonstration cannot go on."""


def wait_for(true: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise Failure(otherwise)
        time.sleep(0.05)


def tell(text: str) -> None:
    print("\n" + textwrap.fill(" ".join(text.split()), 78), flush=True)


def phone(dm: DM) -> str:
    """A DM as a phone shows it: a bubble."""
    lines = []
    for line in dm.text.splitlines():
        lines += textwrap.wrap(line, WIDTH, break_on_hyphens=False) or [""]
    name, arrived = " @sentinel_bot ", time.strftime(" %H:%M:%S ", time.localtime(dm.at))
    bubble = [f"╭─{name:─<{WIDTH}}─╮", *(f"│ {line:<{WIDTH}} │" for line in lines)]
    return textwrap.indent("\n".join([*bubble, f"╰─{arrived:─>{WIDTH}}─╯"]), "    ")


def storm() -> list[str]:
    """The lines of the storm: one kind many times, and in the midst of it the rare ones."""
    guesses = [GUESSES.format(number, 40_000 + 7 * number) for number in range(STORM)]
    return [*guesses[: STORM // 2], *RARE, *guesses[STORM // 2 :]]


def alerts_in(dm: DM) -> int:
    counted = re.match(r"\[\S+\] ([\d,]+) alerts, ", dm.text)
    return int(counted[1].replace(",", "")) if counted else 1


def play(stage: Stage) -> None:
    shown: list[DM] = []

    def show(number: int, seconds: float) -> None:
        """Show what arrives until it is so many alerts."""
        while number > 0:
            wait_for(lambda: stage.x.dms[len(shown) :], seconds, f"{number} did not arrive")
            shown.append(stage.x.dms[len(shown)])
            print(phone(shown[-1]), flush=True)
            number -= alerts_in(shown[-1])

    tell("""This is a demonstration. X is played by a stand-in on this machine (tests/fake_x.py):
        no account is used and nothing leaves this machine. All else is real: bird_sentinel,
        swatchdog and swatchrc.example.""")

    tell("1. Authorize, once: bird_sentinel authorize")
    stage.authorize()
    tell("The phone of @oncall shows the test DM:")
    show(1, 30)

    tell("2. swatchdog watches a log with swatchrc.example. Into the log goes:")
    stage.watch()
    stage.log_line("CRON[77]: (root) CMD (true)", SINGLE)
    print("    " + "\n    ".join(textwrap.wrap(SINGLE, 72)))
    tell("and on the phone:")
    show(1, 30)

    tell(f"""3. A storm: {STORM} times somebody guesses passwords, and in the midst of it are a
        crash and a sudo line which tries to run a command as the watcher. X takes few DMs, and
        has a price for each. So what comes in a burst comes together: the rare first and in full,
        the common counted. Nothing is dropped.""")
    stage.log_line(*storm())
    show(len(storm()), 90)

    tell("4. bird_sentinel status")

    def status() -> str:
        return subprocess.run(["bird_sentinel", "status"], env=stage.env, text=True,
                              stdout=subprocess.PIPE, check=False).stdout  # fmt: skip

    wait_for(lambda: status().startswith("ok:"), 15, "alerts are still pending")
    print(textwrap.indent(status(), "    "), end="")
    tell(f"""{1 + len(storm())} log lines mattered; {len(shown) - 1} DMs told of all of them. With
        an account on X: see README.md.""")


@contextlib.contextmanager
def set_up() -> Iterator[Stage]:
    directory = Path(os.path.realpath(tempfile.mkdtemp(prefix="bird_sentinel-demo-")))
    try:
        with FakeX() as x:
            x.add_user("oncall", "2002")
            stage = Stage(directory, x)
            # Popen looks for commands in our own PATH, not in that of the `env` it is given
            os.environ["PATH"] = stage.env["PATH"]
            try:
                yield stage
            finally:
                stage.end()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with set_up() as stage:
            play(stage)
    except Failure as failure:
        print(f"demo: error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted, all is cleaned up", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
