"""What the tests share: the stand-in for X, and the installed command in an environment of its own.

Nothing here reaches into the program.  It is started as its users start it, and watched from
outside: exit status, output, files, and what arrives at the stand-in.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_x import FakeX  # noqa: E402

PROJECT = Path(__file__).parent.parent
# a shell that starts the suite in the background may have it ignored, for all its children too
signal.signal(signal.SIGINT, signal.default_int_handler)
COMMAND = Path(sys.executable).parent / "bird_sentinel"
MARK = "BIRD_SENTINEL_TEST"


class Result(NamedTuple):
    """What a finished command left: exit status, standard output, standard error, seconds."""

    code: int
    out: str
    err: str
    seconds: float


def processes(mark: str) -> list[int]:
    """Every process, detached ones too, that was started with this mark in its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    with contextlib.suppress(IndexError):
                        stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                        if stat[0] != "Z":
                            found.append(int(entry.name))
    return found


def memory_of(config: Path) -> Path:
    """The directory of the queue in memory of a config."""
    mark = binascii.crc32(os.fsencode(os.path.realpath(config)))
    return Path(f"/dev/shm/bird_sentinel-{os.geteuid()}-{mark:08x}.queue")


class Sentinel:
    """The installed `bird_sentinel` with a home directory, and processes, of its own."""

    def __init__(self, home: Path, x: FakeX | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.home, self.x = home, x
        self.directory = home / ".config" / "bird_sentinel"
        self.config = self.directory / "config.ini"
        self.queue = self.directory / "queue"
        # where a second queue goes when that one cannot be written
        self.memory = memory_of(self.config)
        self.memories = {self.memory}
        self.env = {
            "HOME": str(home),
            "PATH": f"{COMMAND.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            MARK: self.mark,
            **(x.env if x else {}),
        }

    def configure(self, recipients: Mapping[str, str] | None = None, path: Path | None = None,
                  **delivery: str) -> Path:  # fmt: skip
        """Write a config as `authorize` would, with tokens of the stand-in."""
        assert self.x
        token, secret = self.x.token()
        path = path or self.config
        self.memories.add(memory_of(path))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [
            "[account]",
            f"consumer_key = {self.x.consumer_key}",
            f"consumer_secret = {self.x.consumer_secret}",
            f"access_token = {token}",
            f"access_token_secret = {secret}",
            "screen_name = sentinel_bot",
            "[recipients]",
            *(f"{k} = {v}" for k, v in (recipients or {"oncall": "2002"}).items()),
            "[delivery]",
            *(f"{k} = {v}" for k, v in {"host": "web1", **delivery}.items()),
        ]
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        return path

    def start(self, *args: str | bytes, env: Mapping[str, str] | None = None,
              **options: Any) -> subprocess.Popen[Any]:  # fmt: skip
        """Start the command and do not wait for it."""
        return subprocess.Popen([str(COMMAND), *args], env={**self.env, **(env or {})}, **options)

    def run(self, *args: str | bytes, input: str | bytes | None = None, timeout: float = 60,
            env: Mapping[str, str] | None = None, **options: Any) -> Result:  # fmt: skip
        """Run the command to its end; standard input is empty unless `input` is given."""
        given = input.encode() if isinstance(input, str) else input or b""
        began = time.monotonic()
        done = subprocess.run(
            [str(COMMAND), *args], env={**self.env, **(env or {})}, input=given,
            capture_output=True, timeout=timeout, check=False, **options,
        )  # fmt: skip
        took = time.monotonic() - began
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode(), took)
        assert "Traceback" not in result.err, result.err
        return result

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json").out))

    def processes(self) -> list[int]:
        return processes(self.mark)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to all that runs of it; what is in its exec shows at a second look."""
        for _ in range(2):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.01)

    def end(self) -> None:
        """Leave no process, and nothing in memory."""
        while self.processes():
            self.kill()
        for memory in self.memories:
            shutil.rmtree(memory, ignore_errors=True)

    def wait_idle(self, timeout: float = 20) -> None:
        """Wait until no process of it is left."""
        until(lambda: not self.processes(), timeout, "a process is still running")


def at_once(attempt: Callable[..., None], ways: Iterable[tuple[Any, ...]]) -> None:
    """Make attempts that take long side by side: one for each tuple of arguments."""
    threads = [threading.Thread(target=attempt, args=way) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)


def until(true: Callable[[], object], timeout: float = 10, why: str = "it did not happen") -> None:
    """Wait for a condition; fail when it does not come true in time."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"{why} within {timeout} seconds")
        time.sleep(0.02)


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """The tests are worth something only if they run the installed command."""
    if not COMMAND.exists():
        pytest.exit(f"{COMMAND} is missing; install first: pip install -e '.[test]'", 3)


@pytest.fixture
def x() -> Iterator[FakeX]:
    """The stand-in for X, with two people who take DMs."""
    with FakeX() as fake:
        fake.add_user("oncall", "2002")
        fake.add_user("second", "2003")
        yield fake


@pytest.fixture
def busy_x() -> Iterator[FakeX]:
    """A stand-in for X whose limit nobody reaches, so that no DM waits for another."""
    with FakeX(limit=10**6) as fake:
        fake.add_user("oncall", "2002")
        fake.add_user("second", "2003")
        yield fake


@pytest.fixture
def homes(tmp_path: Path, busy_x: FakeX) -> Iterator[Callable[[], Sentinel]]:
    """Makes homes, each with an authorized command that does not pause between DMs."""
    made: list[Sentinel] = []

    def new() -> Sentinel:
        made.append(Sentinel(tmp_path / f"home{len(made)}", busy_x))
        made[-1].configure(interval="0.01")
        return made[-1]

    yield new
    for sentinel in made:
        sentinel.end()


@pytest.fixture
def fresh(tmp_path: Path, x: FakeX) -> Iterator[Sentinel]:
    """The command on a machine where it was never authorized."""
    sentinel = Sentinel(tmp_path / "home", x)
    sentinel.home.mkdir()
    yield sentinel
    sentinel.end()


@pytest.fixture
def sentinel(fresh: Sentinel) -> Sentinel:
    """The command, authorized, with one recipient: oncall."""
    fresh.configure()
    return fresh
