"""Wherever a watcher starts it: it works, or says why not, and leaves nothing hanging.

Needs root, as it takes away what a process usually has; env (coreutils 8.31 or newer); prlimit,
setpriv, setsid and unshare (util-linux); localedef (Debian: locales).
"""

from __future__ import annotations

import itertools
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import COMMAND, Result, Sentinel, until
from fake_x import ERRORS, Answer, FakeX

EURO = "bell\u00fc \u20ac 50"


def under(sentinel: Sentinel, wrapper: list[str], *args: str | bytes, without: str = "",
          cwd: Path | None = None) -> Result:  # fmt: skip
    """Run the command through another that prepares its surroundings."""
    env = {name: value for name, value in sentinel.env.items() if name != without}
    done = subprocess.run(
        [*wrapper, str(COMMAND), *args],
        env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode(), 0.0)
    assert "Traceback" not in result.err, result.err
    return result


def shell(script: str) -> list[str]:
    """A wrapper which runs a line of shell; "$@" in it is the command."""
    return ["sh", "-c", script, "sh"]


def user(number: int) -> list[str]:
    """A wrapper which runs as a user of that number, who may still read our files."""
    caps = "-all,+dac_override,+fowner"
    return ["setpriv", f"--reuid={number}", "--clear-groups", f"--inh-caps={caps}",
            f"--ambient-caps={caps}"]  # fmt: skip


# ---- home ----


@pytest.fixture
def password_database(tmp_path: Path, fresh: Sentinel) -> list[str]:
    """A wrapper, under which the password database knows our home for root's."""
    path = tmp_path / "passwd"
    path.write_text(f"root:x:0:0:root:{fresh.home}:/bin/sh\n")
    return ["unshare", "--mount", *shell(f'mount --bind "{path}" /etc/passwd && exec "$@"')]


def test_without_home_it_is_found_in_the_password_database(
    x: FakeX, sentinel: Sentinel, password_database: list[str]
) -> None:
    result = under(sentinel, password_database, "send", "no HOME", without="HOME")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


@pytest.mark.parametrize("home", ["", "relative/home"])
def test_a_home_that_is_no_absolute_path_is_none(
    x: FakeX, sentinel: Sentinel, password_database: list[str], home: str
) -> None:
    result = under(sentinel, [*password_database, "env", f"HOME={home}"], "send", "odd HOME")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


def test_without_home_and_without_a_name_in_the_password_database_it_says_why(
    sentinel: Sentinel,
) -> None:
    result = under(sentinel, user(43210), "send", "nobody at all", without="HOME")
    assert result.code == 74
    assert "no place for a config" in result.err


def test_without_home_and_without_a_name_a_config_will_do(x: FakeX, sentinel: Sentinel) -> None:
    args = ["--config", str(sentinel.config), "send", "nobody at all"]
    assert under(sentinel, user(43211), *args, without="HOME").code == 0
    assert len(x.dms) == 1


def test_with_a_home_that_cannot_be_made_it_says_why(sentinel: Sentinel) -> None:
    result = sentinel.run("send", "no home", env={"HOME": "/proc/none"})
    assert result.code == 74
    assert "could not be stored" in result.err
    assert "not authorized" in result.err


def test_with_an_empty_environment_a_config_will_do(x: FakeX, sentinel: Sentinel) -> None:
    needed = [f"{name}={value}" for name, value in x.env.items()]
    args = ["--config", str(sentinel.config), "send", "env -i"]
    result = under(sentinel, ["env", "-i", *needed], *args)
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


# ---- standard input, output and error ----

CLOSED = [
    " ".join(names)
    for number in (1, 2, 3)
    for names in itertools.combinations(("<&-", ">&-", "2>&-"), number)
]


@pytest.mark.parametrize("closed", CLOSED)
def test_with_closed_descriptors_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, closed: str
) -> None:
    assert under(sentinel, shell(f'exec "$@" {closed}'), "send", "closed").code == 0
    assert [dm.text[-6:] for dm in x.dms] == ["closed"]


@pytest.mark.parametrize("closed", CLOSED)
def test_with_closed_descriptors_no_wait_is_delivered(
    x: FakeX, sentinel: Sentinel, closed: str
) -> None:
    result = under(sentinel, shell(f'exec "$@" {closed}'), "send", "--no-wait", "closed")
    assert (result.code, result.out, result.err) == (0, "", "")
    x.wait_for(lambda: x.dms)
    sentinel.wait_idle()
    assert sentinel.status()["pending"] == 0, "no output may get into the queue"


@pytest.mark.parametrize("closed", CLOSED)
def test_with_closed_descriptors_an_error_has_its_exit_status(fresh: Sentinel, closed: str) -> None:
    assert under(fresh, shell(f'exec "$@" {closed}'), "send", "not authorized").code == 78


@pytest.mark.parametrize("stdin", ["<&-", "0>/dev/null"])
def test_a_message_from_a_standard_input_that_cannot_be_read_is_a_usage_error(
    sentinel: Sentinel, stdin: str
) -> None:
    result = under(sentinel, shell(f'exec "$@" {stdin}'), "send", "-")
    assert result.code == 2
    assert "bird_sentinel: error: " in result.err


def test_authorize_without_a_standard_input_says_what_it_wants_to_know(fresh: Sentinel) -> None:
    result = under(fresh, shell('exec "$@" <&-'), "authorize")
    assert result.code == 2
    assert "consumer key" in result.err


@pytest.mark.parametrize("args", [["status"], ["status", "--json"], ["send", "broken"], ["--help"],
                                  ["flush"], ["--version"], ["send", "--dry-run", "broken"]],
                         ids=" ".join)  # fmt: skip
@pytest.mark.parametrize("output", ["a broken pipe", "/dev/full"])
def test_an_output_that_takes_nothing_changes_no_exit_status(
    sentinel: Sentinel, args: list[str], output: str
) -> None:
    if output == "/dev/full":
        write = os.open("/dev/full", os.O_WRONLY)
    else:
        read, write = os.pipe()
        os.close(read)
    process = sentinel.start(*args, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")


def test_an_error_output_that_is_full_changes_no_exit_status(fresh: Sentinel) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = fresh.start("send", "not authorized", stderr=full)
    os.close(full)
    assert process.wait(60) == 78


# ---- directories and umask ----


def test_from_a_directory_that_was_deleted_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    wrapper = shell('rmdir "$PWD"; exec "$@"')
    result = under(sentinel, wrapper, "send", "no directory", cwd=tmp_path / "gone")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


def test_a_relative_config_from_a_directory_that_was_deleted_says_why(
    sentinel: Sentinel, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    wrapper = shell('rmdir "$PWD"; exec "$@"')
    args = ["--config", "config.ini", "send", "no directory"]
    result = under(sentinel, wrapper, *args, cwd=tmp_path / "gone")
    assert result.code == 74
    assert "absolute path" in result.err


def test_a_relative_config_is_good_for_the_worker_too(
    x: FakeX, fresh: Sentinel, tmp_path: Path
) -> None:
    x.answer(ERRORS["503-empty"])  # the worker has to read it a second time
    fresh.configure(path=tmp_path / "here" / "account.ini")
    args = ["--config", "here/account.ini", "send", "--no-wait", "relative"]
    assert under(fresh, [], *args, cwd=tmp_path).code == 0
    x.wait_for(lambda: x.dms)


@pytest.mark.parametrize("mask", ["000", "777"])
def test_under_any_umask_an_alert_is_delivered(x: FakeX, sentinel: Sentinel, mask: str) -> None:
    sentinel.configure(queue=str(sentinel.home / "spool" / "queue.db"))
    result = under(sentinel, shell(f'umask {mask}; exec "$@"'), "send", "umask")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


@pytest.mark.parametrize("mask", ["000", "777"])
def test_under_any_umask_what_it_makes_is_private(sentinel: Sentinel, mask: str) -> None:
    spool = sentinel.home / "spool"
    sentinel.configure(queue=str(spool / "queue.db"))
    under(sentinel, shell(f'umask {mask}; exec "$@"'), "send", "umask")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [spool, *spool.iterdir()]}
    assert modes.pop("spool") == 0o700
    assert set(modes.values()) == {0o600}, modes


# ---- locale ----


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a locale that is not of UTF-8."""
    path = tmp_path_factory.mktemp("locales")
    subprocess.run(
        ["localedef", "--no-archive", "-i", "en_US", "-f", "ISO-8859-1", path / "en_US.ISO-8859-1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


LOCALES = {
    "C": {"LC_ALL": "C"},
    "C, taken at its word": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "POSIX, taken at its word": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "one that does not exist": {"LC_ALL": "xx_XX.nothing", "PYTHONUTF8": "0"},
    "ISO-8859-1": {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},
}


@pytest.fixture(params=LOCALES.values(), ids=list(LOCALES))
def in_locale(
    request: pytest.FixtureRequest, locales: Path, sentinel: Sentinel
) -> Iterator[Sentinel]:
    del sentinel.env["LANG"]
    sentinel.env.update(request.param, LOCPATH=str(locales))
    yield sentinel


def test_the_locale_that_is_not_of_utf_8_is_one(locales: Path) -> None:
    env = {"LOCPATH": str(locales), **LOCALES["ISO-8859-1"]}
    ask = "import sys; print(sys.getfilesystemencoding())"
    done = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, check=True)
    assert done.stdout == b"iso8859-1\n"


@pytest.mark.parametrize("how", ["argv", "stdin"])
def test_in_any_locale_the_bytes_of_an_alert_arrive_as_they_are(
    x: FakeX, in_locale: Sentinel, how: str
) -> None:
    if how == "argv":
        result = in_locale.run("send", EURO.encode())
    else:
        result = in_locale.run("send", input=EURO.encode())
    assert (result.code, result.err) == (0, "")
    assert [dm.text[-len(EURO) :] for dm in x.dms] == [EURO]


def test_in_any_locale_a_path_may_have_any_letters(x: FakeX, in_locale: Sentinel) -> None:
    config = in_locale.home / "\u20ac\u00fc" / "config.ini"
    in_locale.configure(path=config)
    result = in_locale.run("--config", str(config).encode(), "send", "an odd path")
    assert (result.code, len(x.dms)) == (0, 1), result.err
    assert config.with_name("queue.db").exists()


def test_in_any_locale_a_queue_named_in_the_config_is_used_or_it_says_why(
    x: FakeX, in_locale: Sentinel
) -> None:
    in_locale.configure(queue=str(in_locale.home / "\u20ac\u00fc" / "queue.db"))
    result = in_locale.run("send", "an odd path")
    assert (result.code == 0 and len(x.dms) == 1) or "bird_sentinel: error: " in result.err


def test_in_any_locale_status_and_dry_run_can_be_printed(in_locale: Sentinel) -> None:
    in_locale.configure(host=EURO)
    assert in_locale.run("status").code == 0
    printed = subprocess.run(
        [str(COMMAND), "send", "--dry-run", EURO.encode()],
        env=in_locale.env, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    assert (printed.returncode, printed.stderr) == (0, b"")


# ---- tweepy that cannot be used ----


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("raise ImportError('no module named oauthlib')", id="in parts"),
        pytest.param("raise AttributeError('module lib has no X509')", id="at odds with another"),
        pytest.param("__version__ = '3.10'\nclass Client: pass", id="too old"),
    ],
)
def test_a_tweepy_that_cannot_be_used_is_told_and_the_alert_kept(
    x: FakeX, sentinel: Sentinel, tmp_path: Path, source: str
) -> None:
    (tmp_path / "tweepy.py").write_text(source)
    broken = {"PYTHONPATH": str(tmp_path)}
    done = sentinel.run("send", "disk full", env=broken)
    assert done.code == 78, done
    assert "tweepy cannot be used" in done.err and "pip install" in done.err
    assert "tweepy cannot be used" in sentinel.status()["last_error"]
    assert sentinel.run("authorize", env=broken).code == 78
    sentinel.kill()
    assert sentinel.run("flush").code == 0
    assert len(x.dms) == 1


# ---- what the system refuses ----


def test_without_dev_log_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, tmp_path: Path
) -> None:
    (tmp_path / "dev").mkdir()
    wrapper = ["unshare", "--mount", *shell(
        f'cd "{tmp_path}/dev" && mount -t tmpfs none . && cd "{tmp_path}/dev" &&'
        " for name in null zero full random urandom tty; do"
        ' : > "$name" && mount --bind "/dev/$name" "$name" || exit 99; done &&'
        ' mount --move . /dev && cd / && [ ! -e /dev/log ] && exec "$@"')]  # fmt: skip
    result = under(sentinel, wrapper, "send", "no /dev/log")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


def refusing_forks(number: int) -> list[str]:
    return [*user(number), "prlimit", "--nproc=1"]


def test_when_fork_is_refused_the_alert_is_delivered_directly(
    x: FakeX, sentinel: Sentinel
) -> None:
    result = under(sentinel, refusing_forks(43220), "send", "no fork")
    assert (result.code, len(x.dms)) == (0, 1)
    assert "no worker can be started" in result.err


def test_when_fork_is_refused_and_x_is_ill_no_wait_does_not_claim_a_delivery_under_way(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(ERRORS["503-empty"])
    result = under(sentinel, refusing_forks(43230), "send", "--no-wait", "no fork")
    assert result.code == 75
    assert "bird_sentinel flush" in result.err


def test_when_fork_is_refused_each_recipient_gets_the_alert(x: FakeX, sentinel: Sentinel) -> None:
    sentinel.configure({"oncall": "2002", "second": "2003"})
    assert under(sentinel, refusing_forks(43240), "send", "--no-wait", "no fork").code == 0
    assert sorted(dm.recipient_id for dm in x.dms) == ["2002", "2003"]


@pytest.mark.parametrize("number", [4, 12, 16, 20])
def test_with_few_descriptors_it_delivers_or_says_why(
    x: FakeX, sentinel: Sentinel, number: int
) -> None:
    done = subprocess.run(
        ["prlimit", f"--nofile={number}", str(COMMAND), "send", "few descriptors"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    # with so few that Python itself cannot start, it is Python that says so
    assert (done.returncode == 0) == (len(x.dms) == 1), done.stderr.decode()
    assert done.returncode == 0 or done.stderr


@pytest.mark.parametrize("number", [7, 8, 10, 12, 16])
def test_what_was_accepted_with_few_descriptors_is_not_lost(
    x: FakeX, sentinel: Sentinel, number: int
) -> None:
    done = subprocess.run(
        ["prlimit", f"--nofile={number}", str(COMMAND), "send", "--no-wait", "few descriptors"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    sentinel.kill()  # the worker, which has no more descriptors than its caller
    sentinel.wait_idle()
    assert sentinel.run("flush").code == 0
    assert done.returncode or "few descriptors" in x.dms[0].text


@pytest.mark.parametrize("size", [0, 1000, 5000, 20000])
def test_with_a_limit_on_the_size_of_files_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, size: int
) -> None:
    result = under(sentinel, ["prlimit", f"--fsize={size}"], "send", "no large files")
    assert (result.code, len(x.dms)) == (0, 1), result.err


# ---- signals ----

SIGNALS = {
    "SIGCHLD ignored": ["env", "--ignore-signal=CHLD"],
    "all ignored": ["env", "--ignore-signal"],
    "all blocked": ["env", "--block-signal"],
}


@pytest.mark.parametrize("wrapper", SIGNALS.values(), ids=SIGNALS)
def test_whatever_signals_the_caller_ignores_or_blocks_an_alert_is_delivered(
    x: FakeX, sentinel: Sentinel, wrapper: list[str]
) -> None:
    result = under(sentinel, wrapper, "send", "signals")
    assert (result.code, result.err, len(x.dms)) == (0, "", 1)


@pytest.mark.parametrize("wrapper", SIGNALS.values(), ids=SIGNALS)
def test_whatever_signals_the_caller_ignores_or_blocks_sigterm_ends_the_worker(
    x: FakeX, sentinel: Sentinel, wrapper: list[str]
) -> None:
    x.answer(Answer(mode="stall"))
    under(sentinel, wrapper, "send", "--no-wait", "signals")
    x.wait_for(lambda: x.requests)
    sentinel.kill(signal.SIGTERM)
    sentinel.wait_idle(3)


# ---- the worker holds on to nothing ----


@pytest.fixture
def stalled(x: FakeX, sentinel: Sentinel) -> Sentinel:
    x.answer(Answer(mode="stall"), times=None)
    return sentinel


def worker_of(x: FakeX, sentinel: Sentinel) -> int:
    """The one process that is left when X stalls."""
    x.wait_for(lambda: x.requests)
    until(lambda: len(sentinel.processes()) == 1)
    return sentinel.processes()[0]


def test_a_caller_that_reads_its_output_to_the_end_does_not_wait_for_x(
    x: FakeX, stalled: Sentinel
) -> None:
    result = stalled.run("send", "--no-wait", "stalled", timeout=10)  # reads both to the end
    assert result.code == 0
    worker_of(x, stalled)


def test_a_caller_that_gave_it_some_other_pipe_gets_its_end_at_once(
    x: FakeX, stalled: Sentinel
) -> None:
    read, write = os.pipe()
    process = stalled.start("send", "--no-wait", "stalled", pass_fds=(write,))
    os.close(write)
    assert process.wait(20) == 0
    began = time.monotonic()
    assert os.read(read, 1) == b""
    assert time.monotonic() - began < 5
    os.close(read)
    worker_of(x, stalled)


def test_the_worker_has_nothing_of_the_caller_open(
    x: FakeX, stalled: Sentinel, tmp_path: Path
) -> None:
    with open(tmp_path / "of the caller", "w") as file:
        stalled.start("send", "--no-wait", "stalled", stdin=subprocess.DEVNULL, stdout=file,
                      stderr=file, pass_fds=(file.fileno(),)).wait(20)  # fmt: skip
    worker = worker_of(x, stalled)
    opened = [os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()]
    assert str(tmp_path / "of the caller") not in opened
    assert [os.readlink(f"/proc/{worker}/fd/{number}") for number in "012"] == ["/dev/null"] * 3


def test_the_worker_keeps_no_directory_of_the_caller_busy(
    x: FakeX, stalled: Sentinel, tmp_path: Path
) -> None:
    under(stalled, [], "send", "--no-wait", "stalled", cwd=tmp_path)
    assert os.readlink(f"/proc/{worker_of(x, stalled)}/cwd") == "/"


def test_the_worker_is_no_child_of_the_caller_and_has_a_session_of_its_own(
    x: FakeX, stalled: Sentinel
) -> None:
    process = stalled.start("send", "--no-wait", "stalled")
    assert process.wait(20) == 0
    worker = worker_of(x, stalled)
    _, parent, _, session, terminal = (
        Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[:5]
    )
    assert int(parent) not in (os.getpid(), process.pid)
    assert int(session) != os.getsid(0)
    assert terminal == "0"


def test_the_worker_leaves_no_zombie_to_the_caller(x: FakeX, sentinel: Sentinel) -> None:
    script = '"$@"; sleep 1; ps -o stat= --ppid $$'
    result = under(sentinel, shell(script), "send", "--no-wait", "zombie")
    sentinel.wait_idle()
    assert "Z" not in result.out
    assert len(x.dms) == 1


def test_the_worker_survives_the_hang_up_of_its_terminal(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(Answer(delay=1.5))
    master, slave = os.openpty()
    terminal = subprocess.Popen(
        ["env", "--default-signal=HUP", "setsid", "--ctty", str(COMMAND), "send", "hang up"],
        env=sentinel.env, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    x.wait_for(lambda: x.requests)
    os.close(master)  # the kernel sends SIGHUP
    assert terminal.wait(20) == -signal.SIGHUP
    x.wait_for(lambda: x.dms)
    sentinel.wait_idle()
    assert len(x.requests) == 1
    assert sentinel.status()["pending"] == 0
