"""Wherever a watcher starts it: it works, or says why not, and is well when the cause is gone.

What takes away from a process what it usually has needs root and a mount name space, and is skipped
without.  Uses env (coreutils 8.31 or newer), prlimit, setpriv and unshare (util-linux) and, for a
locale that is not of UTF-8, localedef (Debian: locales).
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import COMMAND, Result, Sentinel, at_once, until
from fake_x import Answer, FakeX
from test_command_line import told
from test_secrets import PROXY, can_mount

DMS = "/2/dm_conversations/"
EURO = "bell\u00fc \u20ac 50"
CA = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs root and a mount name space")


def under(sentinel: Sentinel, wrapper: list[str], *args: str | bytes, without: str = "",
          cwd: Path | None = None) -> Result:  # fmt: skip
    """Run the command through another that prepares its surroundings."""
    env = {name: value for name, value in sentinel.env.items() if name != without}
    began = time.monotonic()
    done = subprocess.run(
        [*wrapper, str(COMMAND), *args],
        env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    took = time.monotonic() - began
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode(), took)
    assert "Traceback" not in result.err, result.err
    return result


def shell(script: str) -> list[str]:
    """A wrapper which runs a line of shell; "$@" in it is the command."""
    return ["sh", "-c", script, "sh"]


def stored(queue: Path) -> list[str]:
    """The texts of the alerts that nobody has looked at yet, the oldest first."""
    return [path.read_text().split("\n\n", 1)[1] for path in sorted(queue.glob("new/*"))]


# ---- home ----


@needs_mounts
@pytest.mark.parametrize("home", [None, "", "relative/home"])
def test_without_a_home_it_is_found_in_the_password_database(
    x: FakeX, sentinel: Sentinel, tmp_path: Path, home: str | None
) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(f"root:x:0:0:root:{sentinel.home}:/bin/sh\n")
    wrapper = ["unshare", "--mount", *shell(f'mount --bind "{passwd}" /etc/passwd && exec "$@"')]
    if home is not None:
        wrapper += ["env", f"HOME={home}"]
    done = under(sentinel, wrapper, "send", "no HOME", without="HOME")
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes a user without a name, which needs root")
def test_who_has_no_home_and_no_name_is_told_that_a_config_has_to_be_named(
    sentinel: Sentinel,
) -> None:
    caps = "-all,+dac_override"
    nobody = ["setpriv", "--reuid=43210", "--clear-groups", f"--inh-caps={caps}",
              f"--ambient-caps={caps}"]  # fmt: skip
    done = under(sentinel, nobody, "send", "nobody at all", without="HOME")
    assert done.code == 74  # as it is kept nowhere
    assert "no place for a config" in done.err and "--config" in done.err
    done = under(sentinel, nobody, "send", "--dry-run", "nobody at all", without="HOME")
    assert (done.code, "nobody at all" in done.out) == (0, True)


def test_where_no_home_can_be_made_the_alert_is_kept_in_memory(
    fresh: Sentinel, tmp_path: Path
) -> None:
    env = {"HOME": "/proc/none", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = fresh.run("send", "no home", env=env)
    assert done.code == 78, done
    assert f"in memory, in {tmp_path}/" in done.err and "not authorized yet" in done.err
    assert stored(next(tmp_path.glob("bird_sentinel-*.queue"))) == ["no home"]


def test_with_an_empty_environment_a_config_will_do(x: FakeX, sentinel: Sentinel) -> None:
    sentinel.configure(proxy=f"http://127.0.0.1:{x.port}", ca_bundle=x.ca_bundle)
    done = under(sentinel, ["env", "-i"], "--config", str(sentinel.config), "send", "env -i")
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)


# ---- standard input, output and error ----

CLOSED = [
    " ".join(names)
    for number in (1, 2, 3)
    for names in itertools.combinations(("<&-", ">&-", "2>&-"), number)
]


def test_with_any_closed_descriptors_an_alert_is_delivered(x: FakeX, sentinel: Sentinel) -> None:
    x.limit = 1000
    for number, closed in enumerate(CLOSED):
        words = ["send", *["--no-wait", "--"] * (number > 0), f"closed {closed}"]
        assert under(sentinel, shell(f'exec "$@" {closed}'), *words).code == 0, closed
    x.wait_for(lambda: all(c in " ".join(dm.text for dm in x.dms) for c in CLOSED), 20)
    sentinel.wait_idle()
    assert sentinel.run("status").code == 0, "no output may get into the queue"


def test_with_any_closed_descriptors_an_error_has_its_exit_status(fresh: Sentinel) -> None:
    for closed in CLOSED:
        done = under(fresh, shell(f'exec "$@" {closed}'), "send", "not authorized")
        assert done.code == 78, closed
    assert stored(fresh.queue) == ["not authorized"] * len(CLOSED)


@pytest.mark.parametrize("stdin", ["<&-", "0>/dev/null"])
def test_a_standard_input_that_cannot_be_read_is_a_usage_error(
    fresh: Sentinel, stdin: str
) -> None:
    done = under(fresh, shell(f'exec "$@" {stdin}'), "send", "--no-wait", "-")
    assert done.code == 2, done
    assert told(done)
    done = under(fresh, shell(f'exec "$@" {stdin}'), "authorize")
    assert (done.code, "consumer key" in done.err) == (2, True), done


@pytest.mark.parametrize("output", ["a broken pipe", "/dev/full"])
def test_an_output_that_takes_nothing_changes_no_exit_status(
    sentinel: Sentinel, output: str
) -> None:
    for words in (["status"], ["status", "--json"], ["--help"], ["flush"], ["--version"],
                  ["send", "--dry-run", "broken"]):  # fmt: skip
        if output == "/dev/full":
            write = os.open("/dev/full", os.O_WRONLY)
        else:
            read, write = os.pipe()
            os.close(read)
        process = sentinel.start(*words, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, b""), words


def test_an_error_output_that_is_full_changes_no_exit_status(fresh: Sentinel) -> None:
    with open("/dev/full", "w") as full:
        assert fresh.start("send", "not authorized", stderr=full).wait(60) == 78


# ---- directories and umask ----


def test_from_a_directory_that_was_deleted_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    wrapper = shell('rmdir "$PWD"; exec "$@"')
    done = under(sentinel, wrapper, "send", "no directory", cwd=tmp_path / "gone")
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)
    (tmp_path / "gone").mkdir()
    words = ["--config", "config.ini", "send", "no directory"]
    done = under(sentinel, wrapper, *words, cwd=tmp_path / "gone")
    assert done.code in (74, 78)
    assert "absolute path" in told(done)[1]


@pytest.mark.parametrize("mask", ["000", "777"])
def test_under_any_umask_an_alert_is_delivered_and_what_is_made_is_private(
    x: FakeX, sentinel: Sentinel, mask: str
) -> None:
    done = under(sentinel, shell(f'umask {mask}; exec "$@"'), "send", "umask")
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)
    sentinel.wait_idle()
    made = [sentinel.queue, *sentinel.queue.rglob("*")]
    assert {"new", "to", "2002", "lock", "trigger", "state"} <= {path.name for path in made}
    for path in made:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


# ---- locale ----

LOCALES = {
    "C": {"LC_ALL": "C"},
    "C, taken at its word": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "one that does not exist": {"LC_ALL": "xx_XX.nothing", "PYTHONUTF8": "0"},
    "ISO-8859-1": {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("locale", LOCALES.values(), ids=list(LOCALES))
def test_in_any_locale_the_bytes_of_an_alert_stay_as_they_are(
    fresh: Sentinel, tmp_path: Path, locale: dict[str, str]
) -> None:
    if "ISO" in locale["LC_ALL"]:
        if not shutil.which("localedef") and not os.environ.get("CI"):
            pytest.skip("localedef is not installed")
        command = ["localedef", "--no-archive", "-i", "en_US", "-f", "ISO-8859-1"]
        made = subprocess.run([*command, tmp_path / locale["LC_ALL"]], capture_output=True)
        if made.returncode and not os.environ.get("CI"):
            pytest.skip("the sources of locales are not installed")
    del fresh.env["LANG"]
    fresh.env.update(locale, LOCPATH=str(tmp_path))
    config = str(fresh.home / "\u20ac\u00fc.ini").encode()  # a path may have any letters, too
    words: list[str | bytes] = ["send", "--no-wait", b"--config=" + config]
    for more, input in (([EURO.encode()], b""), ([], EURO.encode())):
        code = subprocess.run([COMMAND, *words, *more], env=fresh.env, input=input,
                              stderr=subprocess.DEVNULL, check=False).returncode  # fmt: skip
        assert code == 78
    queue = Path(os.fsdecode(config) + ".queue")
    assert [text.encode() for text in stored(queue)] == [EURO.encode()] * 2
    # and what it prints does not fail, whatever the locale can show of it
    done = subprocess.run([COMMAND, "send", "--dry-run", EURO.encode()], env=fresh.env,
                          capture_output=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr, b" 50\n" in done.stdout) == (0, b"", True)


# ---- a Python without tweepy ----

# Python runs a sitecustomize at its start; so wherever the command and the true tweepy are
INSTEAD_OF_TWEEPY = """
import importlib.util, os, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        file = os.path.join(os.path.dirname(__file__), "not_tweepy.py")
        return importlib.util.spec_from_file_location(name, file) if name == "tweepy" else None
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("raise ModuleNotFoundError('no module named tweepy')", id="missing"),
        pytest.param("raise AttributeError('module lib has no X509')", id="at odds with another"),
        pytest.param("__version__ = '3.10'\nclass Client: pass", id="too old"),
    ],
)
def test_a_tweepy_that_cannot_be_used_is_told_and_the_alert_kept_until_it_can(
    x: FakeX, sentinel: Sentinel, tmp_path: Path, source: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INSTEAD_OF_TWEEPY)
    (tmp_path / "not_tweepy.py").write_text(source)
    broken = {"PYTHONPATH": str(tmp_path)}
    done = sentinel.run("send", "disk full", env=broken)
    assert (done.code, "tweepy cannot be used" in told(done)[0]) == (78, True), done
    assert "install" in told(done)[1]
    later = sentinel.run("send", "--no-wait", "--", "still full", env=broken)
    assert "tweepy cannot be used" in later.err
    status = sentinel.run("status", env=broken)
    assert (status.code, status.out[:8]) == (78, "problem:")
    assert "tweepy cannot be used" in status.out.splitlines()[0]
    done = sentinel.run("authorize", env=broken)
    assert (done.code, "tweepy cannot be used" in done.err) == (78, True), done
    done = sentinel.run("flush")
    assert (done.code, done.out) == (0, "delivered: 2 alerts\n"), done
    assert sentinel.run("status").code == 0


# ---- the way to X: proxy and certificates ----


def test_the_configs_proxy_and_certificates_go_before_the_environments(
    x: FakeX, sentinel: Sentinel
) -> None:
    shutil.copy(x.ca_bundle, sentinel.directory / "our-ca.pem")
    sentinel.configure(proxy=f"http://127.0.0.1:{x.port}", ca_bundle="our-ca.pem")
    sentinel.env.update(dict.fromkeys(PROXY, "http://127.0.0.1:1"), NO_PROXY="*", no_proxy="*")
    sentinel.env.update(dict.fromkeys(CA, "/dev/null"))
    done = sentinel.run("send", "disk full")
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)


def test_a_relative_path_to_certificates_is_that_of_the_caller(
    x: FakeX, sentinel: Sentinel
) -> None:
    directory, name = os.path.split(x.ca_bundle)
    sentinel.env.update(dict.fromkeys(CA, name))
    done = sentinel.run("send", "disk full", cwd=directory)
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)


def test_certificates_that_are_not_there_are_told(x: FakeX, sentinel: Sentinel) -> None:
    sentinel.configure(ca_bundle="/nowhere/ca.pem")
    done = sentinel.run("send", "disk full")
    assert (done.code, "ca_bundle" in told(done)[0]) == (75, True), done


def test_a_flush_with_the_right_surroundings_takes_over_from_a_worker_that_fails(
    x: FakeX, sentinel: Sentinel
) -> None:
    right = {name: sentinel.env[name] for name in PROXY if name in sentinel.env}
    sentinel.env.update(dict.fromkeys(PROXY, "http://127.0.0.1:1"))
    assert sentinel.run("send", "--no-wait", "--", "disk full").code == 0
    until(lambda: "X cannot be reached" in sentinel.run("status").out, 20)
    failing = sentinel.processes()
    done = sentinel.run("flush", env=right)
    assert (done.code, done.out) == (0, "delivered: 1 alert\n"), done
    assert len(x.dms) == 1
    until(lambda: not set(failing) & set(sentinel.processes()), 10)


@pytest.fixture
def answering_proxy() -> Iterator[socket.socket]:
    """A socket that listens, for a proxy in a test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("answer", ["403 Forbidden", "407 Proxy Authentication Required"])
def test_a_proxy_that_refuses_is_told_as_the_proxy(
    sentinel: Sentinel, answering_proxy: socket.socket, answer: str
) -> None:
    def serve() -> None:
        while True:
            try:
                connection, _ = answering_proxy.accept()
            except OSError:
                return
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    sentinel.configure(proxy=f"http://127.0.0.1:{answering_proxy.getsockname()[1]}")
    done = sentinel.run("send", "disk full")
    assert done.code == 75, done
    assert f"the proxy refuses the connection ({answer.lower()})" in told(done)[0]
    assert "keys" not in done.err
    answering_proxy.shutdown(socket.SHUT_RDWR)


# ---- what never answers ----

SILENT_RESOLVER = """
import fcntl, os, socket, struct, subprocess, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(one, 0x8914, struct.pack("16sH14s", b"lo", 1, b""))  # SIOCSIFFLAGS: up
one.bind(("127.0.0.1", 53))
one.set_inheritable(True)
open(sys.argv[1], "w").write("nameserver 127.0.0.1\\noptions timeout:30 attempts:5\\n")
subprocess.run(["mount", "--bind", sys.argv[1], os.path.realpath("/etc/resolv.conf")], check=True)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_whatever_never_answers_a_person_is_told_within_half_a_minute(
    x: FakeX, tmp_path: Path
) -> None:
    ways = ["a proxy that is silent", "all signals blocked, and an X that is silent"]
    wrappers: dict[str, list[str]] = {ways[1]: ["env", "--block-signal"]}
    if can_mount():
        ways.append("a resolver that is silent")
        wrappers[ways[2]] = ["unshare", "--mount", "--net", sys.executable, "-c", SILENT_RESOLVER,
                             str(tmp_path / "resolv.conf")]  # fmt: skip
    results: dict[str, Result] = {}
    x.answer(Answer(mode="stall"), times=None)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def send(number: int, way: str) -> None:
            sentinel = Sentinel(tmp_path / str(number), x)
            sentinel.configure()
            if "proxy" in way:
                sentinel.configure(proxy=f"http://127.0.0.1:{silent.getsockname()[1]}")
            elif "resolver" in way:
                for name in PROXY:
                    sentinel.env.pop(name, None)
            try:
                results[way] = under(sentinel, wrappers.get(way, []), "send", "disk full")
            finally:
                sentinel.kill()

        at_once(send, enumerate(ways))
    assert set(results) == set(ways)
    for way, done in results.items():
        assert done.code == 75, (way, done)
        assert "X cannot be reached: " in done.err and "no answer" in done.err, (way, done)
        assert 3 < done.seconds < 35, (way, done)


# ---- what the system refuses ----

OWN_DEV = (
    'cd "{0}" && mount -t tmpfs {1} none . && cd "{0}" && for name in zero full random urandom tty;'
    ' do : > "$name" && mount --bind "/dev/$name" "$name" || exit 99; done'
    ' && ln -s /proc/self/fd fd && {2} && mount --move . /dev && cd / && exec "$@"'
)


@needs_mounts
@pytest.mark.parametrize(
    "options, null",
    [
        pytest.param("", "true", id="missing"),
        pytest.param("", ": > null", id="a plain file"),
        pytest.param("", "mkdir null", id="a directory"),
        pytest.param("-o nodev", "mknod null c 1 3", id="not to be opened"),
    ],
)
def test_without_a_dev_null_that_is_one_an_alert_is_delivered_or_it_says_why_not(
    x: FakeX, sentinel: Sentinel, tmp_path: Path, options: str, null: str
) -> None:
    (tmp_path / "dev").mkdir()
    wrapper = ["unshare", "--mount", *shell(OWN_DEV.format(tmp_path / "dev", options, null))]
    done = under(sentinel, wrapper, "send", "--no-wait", "--", "no /dev/null")
    if done.code:
        assert (done.code, "no worker can be started" in done.err) == (75, True), done
        assert sentinel.run("flush").code == 0
    x.wait_for(lambda: x.dms, 20)
    sentinel.wait_idle()
    assert ["no /dev/null" in dm.text for dm in x.dms] == [True]


@needs_mounts
def test_without_dev_log_and_dev_shm_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    (tmp_path / "dev").mkdir()
    own = OWN_DEV.format(tmp_path / "dev", "", ": > null && mount --bind /dev/null null")
    done = under(sentinel, ["unshare", "--mount", *shell(own)], "send", "no /dev/log")
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)


def test_what_was_accepted_with_few_descriptors_is_not_lost(x: FakeX, sentinel: Sentinel) -> None:
    x.limit = 1000
    accepted = []
    for number in (5, 7, 9, 11, 13, 16):
        words = ["send", "--no-wait", f"with {number} descriptors"]
        if under(sentinel, ["prlimit", f"--nofile={number}"], *words).code in (0, 75):
            accepted.append(words[-1])
    sentinel.kill()  # the worker, which has no more descriptors than its caller
    sentinel.wait_idle()
    assert sentinel.run("flush").code == 0
    counts = [re.search(r"(\d+) alerts", dm.text) for dm in x.dms]
    assert sum(int(count[1]) if count else 1 for count in counts) >= len(accepted) > 2


# ---- signals ----

SIGNALS = {
    "SIGCHLD ignored": ["env", "--ignore-signal=CHLD"],
    "all ignored": ["env", "--ignore-signal"],
    "all blocked": ["env", "--block-signal"],
    "nohup": ["nohup"],
}


@pytest.mark.parametrize("wrapper", SIGNALS.values(), ids=SIGNALS)
def test_whatever_signals_the_caller_ignores_or_blocks_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, wrapper: list[str]
) -> None:
    done = under(sentinel, wrapper, "send", "signals")
    assert (done.code, len(x.dms)) == (0, 1), done
    assert [line for line in done.err.splitlines() if "nohup" not in line] == []


@pytest.mark.parametrize("way", ["all ignored", "all blocked"])
def test_whatever_signals_the_caller_ignores_or_blocks_sigterm_ends_the_worker(
    x: FakeX, sentinel: Sentinel, way: str
) -> None:
    x.answer(Answer(mode="stall"))
    under(sentinel, SIGNALS[way], "send", "--no-wait", "signals")
    x.wait_for(lambda: x.requests)
    sentinel.kill(signal.SIGTERM)
    sentinel.wait_idle(5)
