"""The keys of an account, its tokens, the PIN and a proxy's password stay between config and X.

Whole runs are traced, system call by system call, and searched for each of them.

Uses strace and, where it is run by root, unshare (util-linux).
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from conftest import COMMAND, Sentinel, until
from fake_x import ERRORS, Answer, FakeX
from test_authorize import walk

KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
ALERT = "an alert that belongs into no log"
PASSWORD = "the-proxys-passw0rd"
DMS = "/2/dm_conversations/"
PROXY = ("HTTPS_PROXY", "https_proxy")
# a /dev of its own, in which /dev/log is the socket of a test
OWN_SYSLOG = """
cd "$1" && mount -t tmpfs none . && cd "$1" || exit 99
for name in null zero full random urandom tty; do
    : > "$name" && mount --bind "/dev/$name" "$name" || exit 99
done
ln -s /proc/self/fd fd && ln -s "$2" log && mount --move . /dev && cd / || exit 99
shift 2
exec "$@"
"""


def can_mount() -> bool:
    """Whether we may make a mount name space, as root may outside of many containers."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


# ---- whole runs ----


class Traced(NamedTuple):
    """All that could be seen of authorize, of sends that X took and refused, and of status."""

    secrets: dict[str, str]
    calls: list[str]  # system calls
    seen: dict[str, str]  # what was told or kept, by its place
    home: Path


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    if not shutil.which("strace") and not os.environ.get("CI"):
        pytest.skip("strace is not installed")
    path = tmp_path_factory.mktemp("traced")
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(path / "log"))
    log.setblocking(False)
    (path / "dev").mkdir()
    wrapper: tuple[str, ...] = ("sh", "-c", 'umask 000; exec "$@"', "sh")
    if can_mount():
        wrapper += ("unshare", "--mount", "sh", "-c", OWN_SYSLOG, "sh", str(path / "dev"),
                    str(path / "log"))  # fmt: skip

    def strace(name: str) -> tuple[str, ...]:
        calls = "%file,%process,write,writev,pwrite64,sendto,sendmsg,umask,fchmod"
        return (*wrapper, "strace", "-f", "-qq", "-v", "-y", "-s", "65535",
                "-o", str(path / f"{name}.trace"), "-e", f"trace={calls}", "--")  # fmt: skip

    with FakeX(limit=1000) as x:
        x.add_user("oncall", "2002")
        sentinel = Sentinel(path / "home", x)
        sentinel.directory.mkdir(mode=0o700, parents=True)
        for name in PROXY:  # which an environment cannot hide; the config can
            sentinel.env.pop(name, None)
        sentinel.config.write_text(
            f"[delivery]\nproxy = http://sentinel:{PASSWORD}@127.0.0.1:{x.port}\n"
            f"on_trouble = cat >> {path}/on_trouble; env >> {path}/on_trouble\n"
        )
        sentinel.config.chmod(0o600)
        done = walk(sentinel, "--to", "oncall", answers=[x.consumer_key, x.consumer_secret],
                    wrapper=strace("authorize"))  # fmt: skip
        assert done.code == 0, done
        (pin,) = [token.pin for token in x._request_tokens.values()]
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(sentinel.config)
        keys = {name: parser["account"][name] for name in KEYS}
        said = " ".join(keys.values())  # as something in between may send back what we sent
        x.answer(Answer(403, json={"title": said, "detail": said}), times=None, path=DMS)
        output = path / "output"
        (path / "on_trouble").touch()

        def begin(*args: str) -> subprocess.Popen[bytes]:
            with open(output, "ab") as file:
                return subprocess.Popen(
                    [*strace(args[-1]), str(COMMAND), *args], env=sentinel.env,
                    stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                )  # fmt: skip

        try:
            sending = begin("send", ALERT)  # strace stays until the worker has ended
            until(lambda: "next attempt" in output.read_text(), 30)
            until(lambda: "PATH=" in (path / "on_trouble").read_text(), 30)
            begin("status").wait(30)
            begin("status", "--json").wait(30)
            begin("send", "--no-wait", "--", "another").wait(30)
            kept = [file for file in sentinel.queue.rglob("*") if file.is_file()]
            seen = {f"queue/{file.name}": file.read_text() for file in kept}
            x.clear_answers()
            begin("flush").wait(30)
            sending.wait(30)
        finally:
            sentinel.end()
        seen["DMs"] = "\n".join(dm.text for dm in x.dms)
    seen["output"] = done.out + done.err + output.read_text()
    seen["on_trouble"] = (path / "on_trouble").read_text()
    seen["syslog"] = ""
    while True:
        try:
            seen["syslog"] += log.recv(65536).decode() + "\n"
        except BlockingIOError:
            break
    log.close()
    calls = [line for trace in path.glob("*.trace") for line in trace.read_text().splitlines()]
    secrets = {**keys, "PIN": pin, "proxy": PASSWORD}
    yield Traced(secrets, calls, seen, path / "home")


def test_no_secret_is_told_or_kept_anywhere_but_in_the_config(traced: Traced) -> None:
    seen = traced.seen
    assert ALERT in seen["DMs"] and ALERT in seen["on_trouble"]
    assert "queue/state" in seen and ("bird_sentinel[" in seen["syslog"] or not can_mount())
    assert "kept in the queue" in seen["output"] and "X says: …" in seen["output"]
    found = [
        (place, name)
        for place, text in seen.items()
        for name, secret in traced.secrets.items()
        if secret in text
    ]
    assert found == []


def test_no_secret_is_in_a_system_call_but_the_one_that_writes_the_config(traced: Traced) -> None:
    # TLS is ciphertext here, and what goes through a pipe is looked for at its other end
    found = {
        (name, re.sub(r"\A\d+ +(\w+)\(\w+<?([^>,(]*).*", r"\1 \2", line.split(" = ")[0]))
        for line in traced.calls
        for name, secret in traced.secrets.items()
        if secret in line
    }
    assert any("execve(" in line and '"authorize"' in line for line in traced.calls)
    into_config = re.compile(r"write .*/\.?config\.ini\.[^/]*tmp\Z")
    assert {name for name, call in found if into_config.match(call)} == {*KEYS, "proxy"}
    others = [where for where in found if not into_config.match(where[1])]
    assert [where for where in others if not where[1].startswith("write pipe:")] == []


def test_no_file_is_made_with_a_mode_looser_than_0600_not_even_for_an_instant(
    traced: Traced,
) -> None:
    # a child begins with its parent's mask; the line of the fork may come after the child's first
    forked = re.compile(r"(\d+) +(?:<\.\.\. )?(?:clone3?|v?fork)[( ].* = (\d+)$")
    creation = re.compile(
        r'\d+ +(?:openat\(AT_FDCWD[^,]*, |mk\w+\()"([^"]*)", (.*\bO_CREAT\b.*, |S_IFIFO\|)?(0\d*)\)'
    )
    parents = {fork[2]: fork[1] for fork in filter(None, map(forked.match, traced.calls))}
    masks: dict[str, int] = {}
    loose, made = [], 0
    for line in traced.calls:
        pid = line.split()[0]
        if mask := re.match(r"\d+ +umask\((0\d*)\)", line):
            masks[pid] = int(mask[1], 8)
        found = creation.match(line)
        if found and found[1].startswith(str(traced.home)):
            made += 1
            while pid not in masks and pid in parents:
                pid = parents[pid]
            mode = int(found[3], 8) & ~masks.get(pid, 0)
            if mode & (0o077 if "mkdir(" in line else 0o177):
                loose.append(f"{mode:o}: {line}")
        changed = re.match(r"\d+ +f?chmod(?:at)?\(.*, (0\d*)\)", line)
        if changed and int(changed[1], 8) & 0o177:
            loose.append(line)
    assert made > 8  # how many DMs there are depends on when each alert came
    assert loose == []


# ---- a proxy's password, in whatever form ----


@pytest.mark.parametrize(
    "proxy",
    ["http://us%20er:{}@127.0.0.1:1", "user:{}@127.0.0.1:1", "socks5h://user:{}@127.0.0.1:1",
     "HTTP://user:a@b{}@127.0.0.1:1", "http://user:{}@127.0.0.1:99999", "http://user:{}@[::1:3128",
     "http://user:{}/3128", "user:{}"],
)  # fmt: skip
def test_a_proxys_password_is_told_nowhere(sentinel: Sentinel, proxy: str) -> None:
    sentinel.env.update(dict.fromkeys(PROXY, proxy.format(PASSWORD)))
    done = sentinel.run("send", "disk full")
    assert done.code == 75, done
    assert "X cannot be reached" in done.err and "https_proxy" in done.err.lower()
    said = done.err + sentinel.run("status").out
    said += "".join(path.read_text() for path in sentinel.queue.rglob("*") if path.is_file())
    done = walk(sentinel)
    assert (done.code, "X cannot be reached" in done.err) == (75, True), done
    assert PASSWORD not in said + done.out + done.err


# ---- X and nobody else ----


@pytest.mark.parametrize("tls", ["unknown-ca", "wrong-name", "expired"])
def test_who_has_no_certificate_of_xs_gets_nothing(
    x: FakeX, sentinel: Sentinel, tls: Literal["unknown-ca", "wrong-name", "expired"]
) -> None:
    x.tls = tls
    done = sentinel.run("send", "disk full")
    assert (done.code, "certificate" in done.err) == (75, True), done
    x.wait_for(lambda: x.tls_failures)
    assert not x.requests
    x.tls = "good"
    x.wait_for(lambda: x.dms, 20)


@pytest.mark.parametrize(
    "location", ["https://evil.example/2/dm", "http://api.twitter.com/2/dm", "/2/elsewhere"]
)
def test_a_redirect_is_not_followed(x: FakeX, sentinel: Sentinel, location: str) -> None:
    x.answer(Answer(307, body="", headers={"location": location}))
    assert sentinel.run("send", "disk full").code == 75
    assert x.strangers == []
    assert {request.path for request in x.requests} == {"/2/dm_conversations/with/2002/messages"}


def test_a_netrc_is_not_used(x: FakeX, sentinel: Sentinel) -> None:
    netrc = sentinel.home / ".netrc"
    netrc.write_text("default login anybody password netrc-secret\n")
    netrc.chmod(0o600)
    assert sentinel.run("send", "x").code == 0
    assert [r.headers["authorization"].split()[0] for r in x.requests] == ["OAuth"]


def test_the_apps_keys_from_the_environment_of_authorize_reach_no_other_command(
    x: FakeX, sentinel: Sentinel
) -> None:
    seen = sentinel.home / "seen"
    sentinel.configure(on_trouble=f"env >{seen}.tmp; mv {seen}.tmp {seen}")
    sentinel.config.chmod(0o644)
    assert sentinel.run("send", "--no-wait", "--", "of which authorize finds").code == 78
    sentinel.config.chmod(0o600)
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    env = {"BIRD_SENTINEL_CONSUMER_KEY": x.consumer_key,
           "BIRD_SENTINEL_CONSUMER_SECRET": x.consumer_secret}  # fmt: skip
    assert sentinel.run("authorize", "--to", "oncall", env=env).code == 77
    until(seen.exists)
    assert x.consumer_key not in seen.read_text() and x.consumer_secret not in seen.read_text()
