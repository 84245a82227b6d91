"""The keys of an account stay between its config and X.

Whole runs are traced, system call by system call, and searched for every key, token and PIN.

Needs root; strace; unshare (util-linux).
"""

from __future__ import annotations

import configparser
import os
import re
import socket
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Literal, NamedTuple

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX

KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
ALERT = "an alert that belongs into no log"
# a /dev of its own, in which /dev/log is the socket of a test
OWN_SYSLOG = """
cd "$1" && mount -t tmpfs none . && cd "$1" || exit 99
for name in null zero full random urandom tty; do
    : > "$name" && mount --bind "/dev/$name" "$name" || exit 99
done
ln -s /proc/self/fd fd && ln -s "$2" log && mount --move . /dev && cd / || exit 99
shift 2
umask 000
exec "$@"
"""


class Authorization:
    """An `authorize` that runs; the person opens the page and types the PIN."""

    def __init__(self, sentinel: Sentinel, *args: str, wrapper: tuple[str, ...] = (),
                 keys: bool = True) -> None:  # fmt: skip
        assert sentinel.x
        self.x = sentinel.x
        self.process = subprocess.Popen(
            [*wrapper, str(COMMAND), "authorize", *args], env=sentinel.env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if keys:
            self.type(self.x.consumer_key, self.x.consumer_secret)
        self.printed, self.pin = "", ""

    def type(self, *lines: str) -> None:
        assert self.process.stdin
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def finish(self) -> tuple[int, str]:
        """Give the PIN; return the exit status and all that was printed."""
        assert self.process.stdout
        while "oauth_token=" not in self.printed:
            line = self.process.stdout.readline()
            if not line:
                break
            self.printed += line
        else:
            self.pin = self.x.pin(self.printed.rsplit("oauth_token=", 1)[1].strip())
            self.type(self.pin)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, self.printed + out + err


def keys_in(config: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(config.read_text())
    return {name: parser["account"][name] for name in KEYS}


# ---- whole runs ----

CREATION = re.compile(
    r'\d+ +(?:openat\(AT_FDCWD[^,]*, |mkdir\()"([^"]*)", (.*\bO_CREAT\b.*, )?(0\d*)\)'
)


class Traced(NamedTuple):
    """All that could be seen of authorize, of sends that X took and refused, and of status."""

    home: Path
    secrets: dict[str, str]
    calls: list[str]
    printed: str
    syslog: str
    queue: bytes

    def with_secret(self, call: str) -> list[str]:
        """The calls of these names, a regular expression, that hold a secret."""
        pattern = re.compile(rf"\d+ +(?:{call})\(")
        return [
            f"{name}: {line}"
            for line in self.calls
            if pattern.match(line)
            for name, secret in self.secrets.items()
            if secret in line
        ]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    path = tmp_path_factory.mktemp("traced")
    (path / "dev").mkdir()
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(path / "log"))
    log.setblocking(False)
    own_syslog = (
        "unshare", "--mount", "sh", "-c", OWN_SYSLOG, "sh", str(path / "dev"), str(path / "log"),
    )  # fmt: skip

    def strace(name: str) -> tuple[str, ...]:
        calls = "%file,%process,write,writev,pwrite64,sendto,sendmsg,umask,fchmod"
        return (*own_syslog, "strace", "-f", "-qq", "-v", "-y", "-s", "65535",
                "-o", str(path / f"{name}.trace"), "-e", f"trace={calls}", "--")  # fmt: skip

    with FakeX() as x:
        x.add_user("oncall", "2002")
        sentinel = Sentinel(path / "home", x)
        sentinel.home.mkdir()
        authorization = Authorization(sentinel, "--to", "oncall", wrapper=strace("authorize"))
        code, printed = authorization.finish()
        assert code == 0, printed
        keys = keys_in(sentinel.config)
        said = " ".join(keys.values())  # as something in between may send back what we sent
        x.answer(Answer(404, json={"title": said, "detail": said}))
        output = path / "output"

        def begin(*args: str) -> subprocess.Popen[bytes]:
            with open(output, "ab") as file:
                return subprocess.Popen(
                    [*strace(args[-1]), str(COMMAND), *args], env=sentinel.env,
                    stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                )  # fmt: skip

        try:
            sending = begin("send", ALERT)  # strace stays until the worker has ended
            until(lambda: "next attempt" in output.read_text(), 30)
            begin("status").wait(30)
            begin("status", "--json").wait(30)
            queue = sentinel.queue.read_bytes()
            begin("flush").wait(30)
            sending.wait(30)
        finally:
            sentinel.kill()
        assert ALERT in x.dms[-1].text
    printed += output.read_text()
    syslog = b""
    while True:
        try:
            syslog += log.recv(65536) + b"\n"
        except BlockingIOError:
            break
    log.close()
    calls = [line for trace in path.glob("*.trace") for line in trace.read_text().splitlines()]
    secrets = {**keys, "PIN": authorization.pin}
    return Traced(path / "home", secrets, calls, printed, syslog.decode(), queue)


def test_the_trace_shows_what_it_should(traced: Traced) -> None:
    assert [line for line in traced.calls if "execve(" in line and "authorize" in line]
    assert len(traced.secrets) == 5
    assert "bird_sentinel[" in traced.syslog
    assert ALERT.encode() in traced.queue
    assert "kept in the queue" in traced.printed


def test_no_secret_is_in_arguments_or_environment_of_any_process(traced: Traced) -> None:
    assert traced.with_secret("execve|execveat") == []


def test_no_other_program_is_run(traced: Traced) -> None:
    runs = [line for line in traced.calls if re.match(r"\d+ +execve\(", line)]
    assert [line for line in runs if f'"{COMMAND}"' not in line] == []
    assert len(runs) == 5


def test_a_secret_is_written_only_into_the_config_before_it_is_in_its_place(
    traced: Traced,
) -> None:
    # TLS is ciphertext here; what is left is the one file
    found = traced.with_secret(r"writev?|pwrite64|sendto|sendmsg")
    names = {line.split(":")[0] for line in found}
    assert names == set(KEYS), "the config, which must be seen, and nothing else"
    writes = {line.split(": ", 1)[1] for line in found}
    assert len(writes) == 1
    assert re.match(r"\d+ +write\(\d+<[^>]*/config\.ini\.[^/>]*tmp>, ", writes.pop())


def test_no_secret_is_in_a_path(traced: Traced) -> None:
    assert traced.with_secret("open|openat|creat|stat|newfstatat|rename|unlink|access|mkdir") == []


def test_no_secret_is_printed(traced: Traced) -> None:
    assert [name for name, secret in traced.secrets.items() if secret in traced.printed] == []


def test_no_secret_is_in_syslog(traced: Traced) -> None:
    assert [name for name, secret in traced.secrets.items() if secret in traced.syslog] == []


def test_no_alert_is_in_syslog(traced: Traced) -> None:
    assert ALERT not in traced.syslog


def test_no_secret_is_in_the_queue(traced: Traced) -> None:
    assert [n for n, secret in traced.secrets.items() if secret.encode() in traced.queue] == []


def test_no_file_is_made_with_a_mode_looser_than_0600_not_even_for_an_instant(
    traced: Traced,
) -> None:
    # a child begins with its parent's mask; the line of the fork may come after the child's first
    forked = re.compile(r"(\d+) +(?:<\.\.\. )?(?:clone3?|v?fork)[( ].* = (\d+)$")
    forks = filter(None, map(forked.match, traced.calls))
    parents = {fork.group(2): fork.group(1) for fork in forks}
    masks: dict[str, int] = {}
    loose = []
    made = 0
    for line in traced.calls:
        pid = line.split()[0]
        if mask := re.match(r"\d+ +umask\((0\d*)\)", line):
            masks[pid] = int(mask.group(1), 8)
        creation = CREATION.match(line)
        if creation and creation.group(1).startswith(str(traced.home)):
            made += 1
            while pid not in masks and pid in parents:
                pid = parents[pid]
            mode = int(creation.group(3), 8) & ~masks.get(pid, 0)
            if mode & (0o077 if "mkdir(" in line else 0o177):
                loose.append(f"{mode:o}: {line}")
        changed = re.match(r"\d+ +f?chmod(?:at)?\(.*, (0\d*)\)", line)
        if changed and int(changed.group(1), 8) & 0o177:
            loose.append(line)
    assert made > 5
    assert loose == []


def test_no_secret_is_told_of_a_config_with_errors(sentinel: Sentinel) -> None:
    keys = keys_in(sentinel.config)
    text = sentinel.config.read_text().replace("access_token =", "acess_token =", 1)
    sentinel.config.write_text(text + keys["consumer_secret"] + "\n[" + keys["access_token"])
    results = [sentinel.run("status"), sentinel.run("send", "x"), sentinel.run("flush")]
    said = "".join(result.out + result.err for result in results)
    assert [name for name, secret in keys.items() if secret in said] == []
    assert "config" in said


# ---- a config that is not safe ----


def loosen(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


def give_away(path: Path) -> None:
    os.chown(path, 12345, -1)


def symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def dangling_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


UNSAFE: dict[str, Callable[[Path], None]] = {
    "readable by its group": loosen(0o640),
    "readable by others": loosen(0o604),
    "writable by others": loosen(0o602),
    "open to all": loosen(0o777),
    "somebody else's": give_away,
    "a symbolic link": symlink,
    "a symbolic link to nothing": dangling_symlink,
    "a FIFO": fifo,
    "a directory": directory,
}
COMMANDS = re.compile(r"hint: .*?: ((?:chmod|chown|rm|mv|cp) [^;]*)")


@pytest.mark.parametrize("make", UNSAFE.values(), ids=list(UNSAFE))
def test_an_unsafe_config_is_refused_and_the_alert_kept(
    x: FakeX, sentinel: Sentinel, make: Callable[[Path], None]
) -> None:
    make(sentinel.config)
    for args in (["send", "kept"], ["send", "--no-wait", "kept too"]):
        result = sentinel.run(*args)
        assert result.code == 78
        assert "kept in the queue" in result.err
        assert str(sentinel.config) in result.err
    assert not x.requests
    assert sentinel.status()["pending"] == 2


@pytest.mark.parametrize("make", UNSAFE.values(), ids=list(UNSAFE))
def test_the_hint_mends_an_unsafe_config_and_what_was_kept_is_delivered(
    x: FakeX, sentinel: Sentinel, make: Callable[[Path], None]
) -> None:
    good = sentinel.config.read_text()
    make(sentinel.config)
    command = COMMANDS.search(sentinel.run("send", "kept").err)
    assert command
    subprocess.run(["sh", "-c", command.group(1)], check=True)
    if not sentinel.config.exists():  # out of the way: now a person puts the file there
        sentinel.config.write_text(good)
        sentinel.config.chmod(0o600)
    assert sentinel.run("flush").code == 0
    assert "kept" in x.dms[0].text


@pytest.mark.parametrize("make", UNSAFE.values(), ids=list(UNSAFE))
def test_authorize_writes_through_no_unsafe_config(
    x: FakeX, sentinel: Sentinel, make: Callable[[Path], None]
) -> None:
    make(sentinel.config)
    before = sorted(sentinel.directory.iterdir())
    code, printed = Authorization(sentinel, "--no-test", "--to", "oncall", keys=False).finish()
    assert code == 78, printed
    assert sorted(sentinel.directory.iterdir()) == before
    assert not x.requests


def test_a_worker_does_not_use_a_config_that_became_unsafe(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(ERRORS["503-empty"])
    assert sentinel.run("send", "pending").code == 75
    sentinel.config.chmod(0o644)
    until(lambda: "chmod" in sentinel.run("status").out)
    asked = len(x.requests)
    sentinel.run("send", "pending too")
    assert sentinel.status()["pending"] == 2
    assert len(x.requests) == asked <= 2
    sentinel.config.chmod(0o600)
    assert sentinel.run("flush").code == 0


# ---- X and nobody else ----


@pytest.mark.parametrize("tls", ["unknown-ca", "wrong-name", "expired"])
def test_a_certificate_that_is_not_xs_gets_nothing(
    x: FakeX, sentinel: Sentinel, tls: Literal["unknown-ca", "wrong-name", "expired"]
) -> None:
    x.tls = tls
    result = sentinel.run("send", "secret")
    assert result.code == 75
    assert "certificate" in result.err
    assert not x.requests
    assert x.tls_failures


def test_after_a_certificate_that_is_not_xs_it_tries_again_by_itself(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.tls = "unknown-ca"
    assert sentinel.run("send", "--no-wait", "secret").code == 0
    x.wait_for(lambda: x.tls_failures)
    x.tls = "good"
    x.wait_for(lambda: x.dms, 20)


@pytest.mark.parametrize("tls", ["unknown-ca", "wrong-name", "expired"])
def test_authorize_talks_to_no_certificate_that_is_not_xs(
    x: FakeX, fresh: Sentinel, tls: Literal["unknown-ca", "wrong-name", "expired"]
) -> None:
    x.tls = tls
    code, printed = Authorization(fresh, "--to", "oncall").finish()
    assert code == 75
    assert "certificate" in printed
    assert not x.requests
    assert not fresh.config.exists()


ELSEWHERE = ["https://evil.example/2/dm", "http://api.twitter.com/2/dm", "https://api.x.com/2/dm",
             "https://api.twitter.com/2/elsewhere", "//evil.example/", "/2/elsewhere"]  # fmt: skip


@pytest.mark.parametrize("location", ELSEWHERE)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(
    x: FakeX, sentinel: Sentinel, status: int, location: str
) -> None:
    x.answer(Answer(status, body="", headers={"location": location}))
    result = sentinel.run("send", "secret")
    assert result.code == 75
    assert x.strangers == []
    assert {(request.host, request.path) for request in x.requests} == {
        ("api.twitter.com", "/2/dm_conversations/with/2002/messages")
    }


@pytest.mark.parametrize("path", ["/oauth/request_token", "/oauth/access_token", "/2/users"])
def test_authorize_follows_no_redirect(x: FakeX, fresh: Sentinel, path: str) -> None:
    x.answer(Answer(307, body="", headers={"location": "https://evil.example/"}), path=path)
    code, _ = Authorization(fresh, "--to", "oncall").finish()
    assert code == 75
    assert x.strangers == []
    assert not fresh.config.exists()


def test_only_xs_own_host_is_ever_asked(x: FakeX, fresh: Sentinel) -> None:
    assert Authorization(fresh, "--to", "oncall").finish()[0] == 0
    assert fresh.run("send", "x").code == 0
    assert x.strangers == []
    assert {connect.host for connect in x.connects} <= {"api.twitter.com", "api.x.com"}


def test_a_netrc_is_not_used(x: FakeX, sentinel: Sentinel) -> None:
    netrc = sentinel.home / ".netrc"
    netrc.write_text(
        "machine api.twitter.com login somebody password netrc-secret\n"
        "default login anybody password netrc-secret\n"
    )
    netrc.chmod(0o600)
    assert sentinel.run("send", "x").code == 0
    assert [r.headers["authorization"].split()[0] for r in x.requests] == ["OAuth"]


# ---- authorize, while others send or authorize ----


def test_while_authorize_replaces_the_config_no_send_finds_half_of_it(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.limit = 10**6
    done = threading.Event()
    codes: list[int] = []
    halves: list[str] = []

    def send() -> None:
        while not done.is_set():
            codes.append(sentinel.run("send", "--no-wait", "storm").code)

    def look() -> None:
        while not done.is_set():
            text = sentinel.config.read_text()
            if not all(f"\n{key} = " in text for key in KEYS) or "oncall = 2002" not in text:
                halves.append(text)

    with ThreadPoolExecutor(4) as pool:
        watching = [pool.submit(send), pool.submit(send), pool.submit(look)]
        try:
            tokens = []
            for _ in range(4):
                code, printed = Authorization(sentinel, "--no-test", keys=False).finish()
                assert code == 0, printed
                tokens.append(keys_in(sentinel.config)["access_token"])
        finally:
            done.set()
        for task in watching:
            task.result(60)
    assert len(set(tokens)) == 4
    assert len(codes) > 10
    assert set(codes) == {0}
    assert halves == []


def test_two_authorize_at_once_leave_one_whole_config(x: FakeX, fresh: Sentinel) -> None:
    # from the environment: what one has saved already, the other does not ask for
    fresh.env["BIRD_SENTINEL_CONSUMER_KEY"] = x.consumer_key
    fresh.env["BIRD_SENTINEL_CONSUMER_SECRET"] = x.consumer_secret
    both = [
        Authorization(fresh, "--no-test", "--to", who, keys=False) for who in ("oncall", "second")
    ]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(Authorization.finish, both))
    assert [code for code, _ in results] == [0, 0], results
    assert sorted(path.name for path in fresh.directory.glob("config*")) == ["config.ini"]
    assert stat.S_IMODE(fresh.config.stat().st_mode) == 0o600
    assert fresh.run("send", "whole").code == 0, "token and secret belong together"
    assert "whole" in x.dms[-1].text
