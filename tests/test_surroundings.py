"""Wherever a watcher starts it: it works, or says why not, and is well when the cause is gone.

What takes away from a process what it usually has needs root and a mount name space, and is skipped
without.  Uses env (coreutils 8.31 or newer), prlimit, setpriv and unshare (util-linux).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
import tweepy  # type: ignore[import-untyped]
from conftest import COMMAND, Result, Sentinel, at_once, memory_of, until
from fake_x import ERRORS, Answer, FakeX
from test_command_line import told
from test_secrets import PROXY, can_mount

import bird_sentinel

CA = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs root and a mount name space")


def under(sentinel: Sentinel, wrapper: list[str], *args: str | bytes, without: str = "") -> Result:
    """Run the command through another that prepares its surroundings."""
    env = {name: value for name, value in sentinel.env.items() if name != without}
    began = time.monotonic()
    done = subprocess.run(
        [*wrapper, str(COMMAND), *args],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
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


def count(x: FakeX) -> int:
    """How many alerts arrived, quoted or counted."""
    heads = [re.match(r"\[[^]]*\] ([\d,]+) alerts, ", dm.text) for dm in x.dms]
    return sum(int(head[1].replace(",", "")) if head else 1 for head in heads)


# ---- whatever the caller has done to what a process inherits ----

EURO = "bell\u00fc \u20ac 50"
INHERITED = {
    "no standard input, output and error": shell('exec "$@" <&- >&- 2>&-'),
    "SIGCHLD ignored": ["env", "--ignore-signal=CHLD"],
    "all signals ignored": ["env", "--ignore-signal"],
    "all signals blocked": ["env", "--block-signal"],
    "nohup": ["nohup"],
    "umask 000": shell('umask 000; exec "$@"'),
    "umask 777": shell('umask 777; exec "$@"'),
    "a directory that was deleted": shell('cd "$(mktemp -d)" && rmdir "$PWD"; exec "$@"'),
    "ASCII for a locale": ["env", "LC_ALL=C", "PYTHONCOERCECLOCALE=0", "PYTHONUTF8=0"],
}


@pytest.mark.parametrize("wrapper", INHERITED.values(), ids=INHERITED.keys())
def test_whatever_it_inherits_an_alert_is_delivered_and_what_is_made_is_private(
    x: FakeX, sentinel: Sentinel, wrapper: list[str]
) -> None:
    sentinel.configure(interval="0.01")
    done = under(sentinel, wrapper, "send", EURO.encode())
    assert (done.code, [dm.text.partition("] ")[2] for dm in x.dms]) == (0, [EURO]), done
    assert [line for line in done.err.splitlines() if "nohup" not in line] == []
    assert under(sentinel, wrapper, "send", "--no-wait", "--", EURO.encode()).code == 0
    x.wait_for(lambda: count(x) == 2)
    sentinel.wait_idle()
    assert sentinel.run("status").code == 0, "no output may get into the queue"
    made = [sentinel.queue, *sentinel.queue.rglob("*")]
    assert {"new", "tmp", "refused", "lock", "trigger", "state"} <= {path.name for path in made}
    modes = {stat.S_IMODE(path.stat().st_mode) - 0o100 * path.is_dir() for path in made}
    assert modes == {0o600}


@pytest.mark.parametrize("output", ["| :", ">/dev/full"])
def test_an_output_that_takes_nothing_changes_no_exit_status(
    sentinel: Sentinel, output: str
) -> None:
    for words in (["status"], ["--help"], ["flush"], ["send", "--dry-run", "broken"]):
        script = f'{{ sleep 0.1; "$@"; echo $? >&2; }} {output}'
        assert under(sentinel, shell(script), *words).err == "0\n", words


@pytest.mark.parametrize("way", ["all signals ignored", "all signals blocked"])
def test_whatever_signals_the_caller_ignores_or_blocks_sigterm_ends_the_worker(
    x: FakeX, sentinel: Sentinel, way: str
) -> None:
    x.answer(Answer(mode="stall"))
    under(sentinel, INHERITED[way], "send", "--no-wait", "signals")
    x.wait_for(lambda: x.requests)
    sentinel.kill(signal.SIGTERM)
    sentinel.wait_idle(5)


def test_what_was_accepted_with_few_descriptors_is_not_lost(x: FakeX, sentinel: Sentinel) -> None:
    x.limit, accepted = 1000, 0
    for number in (5, 7, 9, 11, 13, 16):
        words = ["send", "--no-wait", f"with {number} descriptors"]
        accepted += under(sentinel, ["prlimit", f"--nofile={number}"], *words).code in (0, 75)
    sentinel.kill()  # the worker, which has no more descriptors than its caller
    sentinel.wait_idle()
    assert sentinel.run("flush").code == 0
    assert count(x) >= accepted > 2


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
    assert done.code == 74, "as it is kept nowhere"
    assert "no place for a config" in done.err and "--config" in done.err
    done = under(sentinel, nobody, "send", "--dry-run", "nobody at all", without="HOME")
    assert (done.code, "nobody at all" in done.out) == (0, True), done


def test_where_no_home_can_be_made_the_alert_is_kept_in_memory(fresh: Sentinel) -> None:
    memory = memory_of(Path("/proc/none/.config/bird_sentinel/config.ini"))
    fresh.memories.add(memory)
    done = fresh.run("send", "no home", env={"HOME": "/proc/none"})
    assert done.code == 78, done
    assert f"in memory, in {memory}" in done.err and "not authorized yet" in done.err
    assert stored(memory) == ["no home"]


def test_with_an_empty_environment_a_config_will_do(x: FakeX, sentinel: Sentinel) -> None:
    sentinel.configure(proxy=f"http://127.0.0.1:{x.port}", ca_bundle=x.ca_bundle)
    done = under(sentinel, ["env", "-i"], "--config", str(sentinel.config), "send", "env -i")
    assert (done.code, done.err, len(x.dms)) == (0, "", 1)


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
    "source, words",
    [
        ("raise ModuleNotFoundError('no module named tweepy')", "cannot be used"),
        ("raise AttributeError('module lib has no X509')", "cannot be used"),
        ("__version__ = '3.10'\nclass Client: pass", "3.10 is too old"),
    ],
    ids=["missing", "at odds with another", "too old"],
)
def test_a_tweepy_that_cannot_be_used_is_told_and_the_alert_kept_until_it_can(
    x: FakeX, sentinel: Sentinel, tmp_path: Path, source: str, words: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INSTEAD_OF_TWEEPY)
    (tmp_path / "not_tweepy.py").write_text(source)
    broken = {"PYTHONPATH": str(tmp_path)}
    done = sentinel.run("send", "disk full", env=broken)
    assert (done.code, f"tweepy {words}" in told(done)[0]) == (78, True), done
    assert "Install" in told(done)[1]
    status = sentinel.run("status", env=broken)
    assert (status.code, status.out[:8]) == (78, "problem:")
    assert f"tweepy {words}" in status.out.splitlines()[0]
    done = sentinel.run("authorize", env=broken)
    assert (done.code, f"tweepy {words}" in done.err) == (78, True), done
    assert sentinel.run("send", "--no-wait", "--", "still full").code == 0
    assert sentinel.run("flush").code == 0
    assert (count(x), sentinel.run("status").code) == (2, 0)


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
    assert sentinel.run("authorize", "--to", "second", "--no-test").code == 0


WRONG = {"no network": ["unshare", "--net"], "a wrong proxy": ["env", "https_proxy=127.0.0.1:1"]}


@needs_mounts
@pytest.mark.parametrize("wrapper", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("then", ["send", "flush"])
def test_what_began_in_surroundings_that_do_not_reach_x_goes_from_those_of_who_comes_next(
    x: FakeX, sentinel: Sentinel, wrapper: list[str], then: str
) -> None:
    done = under(sentinel, wrapper, "send", "--no-wait", "--", "from a unit's surroundings")
    assert done.code == 0, done
    until(lambda: "X cannot be reached" in sentinel.run("status").out, 20)
    done = sentinel.run(then, *["from my own"] * (then == "send"))
    assert (done.code, count(x)) == (0, 1 + (then == "send")), done


class Way(NamedTuple):
    """What is wrong on the way to X: by the config, the environment, the certificate of X, or what
    answers; what a person is told of it, and where to look."""

    error: str
    hint: str
    config: Mapping[str, str] = {}
    env: Mapping[str, str | None] = {}
    answer: Answer | None = None
    tls: Literal["good", "unknown-ca"] = "good"


NOWHERE, HERE = "/nowhere/ca.pem", "http://127.0.0.1:1"
PORTAL = {"location": "https://u:pass@portal.example/in?token=pass"}
WAYS = {
    "a CA file that is missing": Way(
        "CA certificates", rf"ca_bundle in \[delivery\] of \S*config\.ini: {NOWHERE}",
        {"ca_bundle": NOWHERE}),
    "a CA file of curl's that is missing": Way(
        "CA certificates", f"CURL_CA_BUNDLE in the environment: {NOWHERE}",
        env={"REQUESTS_CA_BUNDLE": None, "CURL_CA_BUNDLE": NOWHERE}),
    "a CA file of another CA": Way(
        "certificate cannot be verified", r"REQUESTS_CA_BUNDLE in the environment: /\S+\.pem",
        tls="unknown-ca"),
    "a malformed proxy": Way(
        "address of the proxy is malformed", r"proxy in \[delivery\] of \S*config\.ini",
        {"proxy": "http://user:pass@[::1:3128"}),
    "a closed proxy": Way(
        "proxy does not answer: connection refused",
        rf"proxy in \[delivery\] of \S*config\.ini: {HERE}", {"proxy": "http://u:pass@127.0.0.1:1"}),
    "a closed proxy in small letters, which goes before that in capitals": Way(
        "proxy does not answer", f"https_proxy in the environment: {HERE}",
        env={"https_proxy": HERE}),
    "an unknown proxy": Way(
        "proxy does not answer: .*name", "HTTPS_PROXY in the environment: http://proxy.invalid:31",
        env={"HTTPS_PROXY": "http://proxy.invalid:31", "https_proxy": None}),
    "a connection that is cut off": Way(
        "connection was (cut off|reset)", "https_proxy", answer=Answer(mode="reset")),
    "a portal": Way(
        "something else answers .*sends us to portal.example", "log-in page",
        answer=Answer(302, body="", headers=PORTAL)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_what_is_wrong_on_the_way_to_x_is_told_with_where_it_is_set_and_once_late_is_a_problem(
    x: FakeX, sentinel: Sentinel, way: Way
) -> None:
    x.tls = way.tls
    if way.answer:
        x.answer(way.answer, times=None)
    sentinel.configure(None, None, **way.config)
    sentinel.env.update({name: value for name, value in way.env.items() if value is not None})
    for name in [name for name, value in way.env.items() if value is None]:
        sentinel.env.pop(name, None)
    done = sentinel.run("send", "disk full")
    error, hint = told(done)
    assert (done.code, len(x.dms)) == (75, 0)
    assert re.search(way.error, error, re.IGNORECASE), error
    assert re.search(way.hint, hint), hint
    assert "kept and retried" in hint and "pass" not in error + hint
    lines = sentinel.run("status").out.splitlines()
    assert lines[0].startswith("busy: 1 alert") and re.search(way.error, lines[0], re.I), lines
    # what was sent a while ago
    sentinel.kill()
    (alert,) = sentinel.queue.glob("new/*")
    at = int(alert.name.partition(".")[0]) - 400 * 10**9
    alert.rename(alert.with_name(f"{at:019d}.1.web1"))
    assert sentinel.run("flush").code == 75
    lines = sentinel.run("status").out.splitlines()
    assert lines[0].startswith("problem: 1 alert") and re.search(way.error, lines[0], re.I), lines
    (to_do,) = [line for line in lines if line.startswith("to do")]
    assert re.search(way.hint, to_do), to_do


def test_a_child_that_crashed_is_told_as_that(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(Answer(mode="stall"), times=None)
    sending = sentinel.start("send", "disk full", stderr=subprocess.PIPE, text=True)
    x.wait_for(lambda: x.requests)
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[1])
               for pid in sentinel.processes() if pid != sending.pid}  # fmt: skip
    (asks,) = [pid for pid, parent in parents.items() if parent in parents]
    os.kill(asks, signal.SIGSEGV)
    err = sending.communicate(timeout=60)[1]
    assert (sending.returncode, "no answer" in err, "hint: " in err) == (75, False, True), err
    assert re.search("crash|bad end|signal", err), err


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
    wrappers = {"a proxy": [], "X, of authorize": [],
                "X, with all signals blocked": ["env", "--block-signal"]}  # fmt: skip
    if can_mount():
        wrappers["a resolver"] = ["unshare", "--mount", "--net", sys.executable, "-c",
                                  SILENT_RESOLVER, str(tmp_path / "resolv.conf")]  # fmt: skip
    results: dict[str, Result] = {}
    x.answer(Answer(mode="stall"), times=None)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def send(number: int, way: str) -> None:
            sentinel = Sentinel(tmp_path / str(number), x)
            sentinel.configure()
            if "proxy" in way:
                sentinel.configure(proxy=f"http://127.0.0.1:{silent.getsockname()[1]}")
            if "resolver" in way:
                for name in PROXY:
                    sentinel.env.pop(name, None)
            words = ["send", "disk full"]
            if "authorize" in way:
                sentinel.config.unlink()
                sentinel.env["BIRD_SENTINEL_CONSUMER_KEY"] = x.consumer_key
                sentinel.env["BIRD_SENTINEL_CONSUMER_SECRET"] = x.consumer_secret
                words = ["authorize", "--to", "second"]
            try:
                results[way] = under(sentinel, wrappers[way], *words)
            finally:
                sentinel.end()

        at_once(send, enumerate(wrappers))
    assert set(results) == set(wrappers)
    for way, done in results.items():
        assert done.code == 75, (way, done)
        assert "X cannot be reached: " in done.err and "no answer" in done.err, (way, done)
        assert 3 < done.seconds < 35, (way, done)


# ---- one user sends for the whole host ----

# as on a machine which has these users; nothing but a test sees it
OWN_USERS = """
{ cat /etc/passwd; for name in $2; do echo "$name::$1/${name%%:*}:/bin/sh"; done; } > "$1/passwd"
mount --bind "$1/passwd" /etc/passwd && mount --bind "$3" "$1/python" || exit 99
mount --bind "$4" "$1/packages" || exit 99
shift 4
exec "$@"
"""
USERS = {"bird_sentinel": 43217, "other": 43218}


class Host:
    """A machine on which these users may be: root, bird_sentinel, who sends, and other."""

    def __init__(self, root: Path, x: FakeX) -> None:
        self.root, self.x = root, x
        root.chmod(0o755)
        self.of = {name: Sentinel(root / name, x) for name in ("root", *USERS)}
        for name in ("python", "packages"):
            (root / name).mkdir()
        shutil.copy(x.ca_bundle, root / "ca.pem")
        shutil.copy(bird_sentinel.__file__, root)
        for name, one in self.of.items():
            one.home.mkdir(0o700)
            one.env["REQUESTS_CA_BUNDLE"] = f"{root}/ca.pem"
            os.chown(one.home, USERS.get(name, 0), USERS.get(name, 0))

    def configure(self, user: str) -> None:
        path = self.of[user].configure(ca_bundle=f"{self.root}/ca.pem")
        for one in (path, *path.parents[:2]):
            os.chown(one, USERS.get(user, 0), USERS.get(user, 0))

    def run(self, user: str, *args: str, users: Iterable[str] = USERS, env: Mapping[str, str] = {},
            input: str = "") -> Result:  # fmt: skip
        """Run the bare script as a user who may read neither our checkout nor our home, nor where
        this Python lies."""
        lines = " ".join(f"{name}:x:{USERS[name]}:{USERS[name]}" for name in users)
        wrapper = ["unshare", "--mount", *shell(OWN_USERS), str(self.root), lines, sys.base_prefix,
                   str(Path(tweepy.__file__).parents[1])]
        env = {"PYTHONPATH": f"{self.root}/packages", "LD_LIBRARY_PATH": f"{self.root}/python/lib",
               **env}
        uid = USERS.get(user)
        wrapper += ["setpriv", "--groups=0,4"]  # as root has where it logged in
        if uid:
            wrapper[-1:] = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        python = Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
        script = [f"{self.root}/python/{python}", f"{self.root}/bird_sentinel.py"]
        done = subprocess.run([*wrapper, *script, *args], env={**self.of[user].env, **env}, cwd="/",
                              input=input, capture_output=True, text=True, timeout=60)  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr, 0.0)

    def made_by(self, user: str) -> set[str]:
        """What a user has, in the home and in memory; nobody else has a part in it."""
        places = [self.of[user].home, *Path("/dev/shm").glob(f"bird_sentinel-{USERS.get(user)}-*")]
        found = {path for place in places for path in place.rglob("*")}
        assert {path.stat().st_uid for path in found} <= {USERS.get(user, 0)}
        return {path.name for path in found}


@pytest.fixture
def host(x: FakeX) -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as root:
        made = Host(Path(root), x)
        yield made
        for one in made.of.values():
            one.end()
        for left in Path("/dev/shm").glob("bird_sentinel-4321[78]-*"):
            shutil.rmtree(left)


@needs_mounts
def test_what_root_runs_becomes_the_user_who_sends_for_the_host(x: FakeX, host: Host) -> None:
    """authorize too, so that neither keys nor worker are ever root's."""
    host.configure("bird_sentinel")
    assert host.run("root", "authorize", "--to", "second", "--no-test").code == 0
    seen = host.of["bird_sentinel"].home / "seen"
    with open(host.of["bird_sentinel"].config, "a") as config:
        config.write(f"on_trouble = (id; env) > {seen}.tmp; mv {seen}.tmp {seen}\n")
    x.answer(ERRORS["402-credits"], times=None)
    done = host.run("root", "send", "disk full", env={"XDG_CONFIG_HOME": f"{host.root}/root/xdg"})
    assert (done.code, "credits" in done.err) == (77, True), done
    until(seen.exists)
    user, *variables = seen.read_text().splitlines()
    assert re.fullmatch(r"uid=43217(\(bird_sentinel\))? gid=43217( groups=43217)?", user)
    assert f"HOME={host.root}/bird_sentinel" in variables
    assert not [one for one in variables if one.startswith("XDG_CONFIG_HOME=/")]
    x.clear_answers()
    assert host.run("bird_sentinel", "flush").code == 0
    assert {dm.recipient_id for dm in x.dms} == {"2002", "2003"}
    assert host.run("root", "status").out.startswith("ok")
    assert "state" in host.made_by("bird_sentinel") and host.made_by("root") == set()


@needs_mounts
@pytest.mark.parametrize("named", [False, True], ids=["", "named"])
def test_root_with_a_config_of_its_own_stays_root(x: FakeX, host: Host, named: bool) -> None:
    host.configure("bird_sentinel")
    host.configure("root")
    options = []
    if named:
        path = host.of["root"].config.rename(host.of["root"].home / "named.ini")
        options = ["--config", str(path)]
    done = host.run("root", "send", "disk full", *options)
    assert (done.code, len(x.dms)) == (0, 1), done
    assert "state" in host.made_by("root") and "queue" not in host.made_by("bird_sentinel")


@needs_mounts
@pytest.mark.parametrize("options", [(), ("--no-wait", "--")], ids=["", "--no-wait"])
def test_another_user_without_a_config_is_told_to_run_it_as_who_sends(
    x: FakeX, host: Host, options: tuple[str, ...]
) -> None:
    host.configure("bird_sentinel")
    done = host.run("other", "send", *options, "disk full")
    assert (done.code, "not kept" in done.err) == (78, True), done
    assert "-u bird_sentinel " in told(done)[-1] and "authorize" not in done.err
    assert host.made_by("other") == set() and not x.connects
    host.configure("other")  # who has one sends
    assert host.run("other", "send", *options, "disk full").code == 0
    x.wait_for(lambda: len(x.dms) == 1)


@needs_mounts
def test_nothing_is_made_in_another_users_home(x: FakeX, host: Host) -> None:
    """As of root, with the HOME of whom it was called by, where nobody sends for the host."""
    env = {"HOME": str(host.of["other"].home)}
    for words in (["send", "x"], ["send", "--no-wait", "--", "x"], ["authorize", "--to", "oncall"]):
        done = host.run("root", *words, env=env, users=["other"])
        assert done.code == 78 and "-u other " in done.err, done
    assert host.made_by("other") == set() and not x.connects
