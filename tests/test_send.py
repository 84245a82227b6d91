"""send: who gets an alert, what the exit status says of it, and whose config and queue it is.

What makes a message of the command line is in test_command_line.py.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from binascii import crc32
from pathlib import Path
from typing import Callable

import pytest
from conftest import PROJECT, Sentinel
from fake_x import ERRORS, Answer, FakeX
from test_command_line import told

DMS = "/2/dm_conversations/"


def texts(x: FakeX, recipient_id: str = "2002") -> list[str]:
    """The DMs to a recipient, each without the host and the time at its head."""
    return [
        re.sub(r"\A\[[^]]*\] ", "", dm.text) for dm in x.dms if dm.recipient_id == recipient_id
    ]


def stored(queue: Path) -> list[str]:
    """The texts of the alerts that nobody has looked at yet, the oldest first."""
    return [path.read_text().split("\n\n", 1)[1] for path in sorted(queue.glob("new/*"))]


# ---- a long message ----


def told_gone(text: str) -> tuple[str, int]:
    """What is left of a cut message, and how many characters it says are gone."""
    match = re.fullmatch(r"(?s)\[[^]]*\] (.*) \[…([0-9,]+) characters cut\]\n?", text)
    assert match, text[-80:]
    return match[1], int(match[2].replace(",", ""))


@pytest.mark.parametrize("character", ["a", "é", "🐦"])
def test_a_message_too_long_for_a_dm_is_cut_and_says_how_many_characters_are_gone(
    fresh: Sentinel, character: str
) -> None:
    done = fresh.run("send", "--dry-run", character * 12_345)
    kept, gone = told_gone(done.out)
    assert set(kept) == {character} and len(kept) + gone == 12_345
    assert 9_000 < len(done.out) <= 10_001


def test_megabytes_on_standard_input_are_counted_to_the_last_character(
    sentinel: Sentinel, x: FakeX
) -> None:
    message = "a warning: " + "né " * 1_300_001 + "end"
    done = sentinel.run("send", "-", input=message)
    assert done.code == 0, done
    kept, gone = told_gone(x.dms[0].text)
    assert message.startswith(kept) and len(kept) + gone == len(message)
    assert len(x.dms[0].text) <= 10_000


def test_megabytes_of_escape_sequences_cost_no_gigabytes(sentinel: Sentinel, x: FakeX) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))

    done = sentinel.run("send", "--no-wait", "-", input=b"a\x1b[0mb" * 10_000_000, preexec_fn=limit)
    assert done.code == 0, done
    x.wait_for(lambda: x.dms)
    assert x.dms[0].text.count("ab") > 4_000 and told_gone(x.dms[0].text)[1] > 50_000_000


# ---- who gets it ----


@pytest.fixture
def two(sentinel: Sentinel) -> Sentinel:
    """Authorized, with two recipients."""
    sentinel.configure({"oncall": "2002", "second": "2003"})
    return sentinel


def test_all_recipients_get_it_by_default(two: Sentinel, x: FakeX) -> None:
    done = two.run("send", "disk full")
    assert (done.code, done.out, done.err) == (0, "delivered to @oncall, @second\n", "")
    assert texts(x, "2002") == texts(x, "2003") == ["disk full"]


@pytest.mark.parametrize("handle", ["second", "@SecOnd"])
def test_to_picks_one_with_or_without_at_in_any_case(two: Sentinel, x: FakeX, handle: str) -> None:
    done = two.run("send", "--to", handle, "disk full")
    assert (done.code, done.out) == (0, "delivered to @second\n"), done
    assert [dm.recipient_id for dm in x.dms] == ["2003"]


def test_to_may_be_repeated_and_nobody_gets_it_twice(two: Sentinel, x: FakeX) -> None:
    done = two.run("send", "--to=second", "--to", "oncall", "--to", "@second", "disk full")
    assert done.code == 0, done
    assert sorted(dm.recipient_id for dm in x.dms) == ["2002", "2003"]


def test_an_unknown_recipient_is_a_usage_error_that_names_the_known(two: Sentinel) -> None:
    for way in ("--no-wait", "--dry-run"):
        done = two.run("send", way, "--to", "oncall", "--to", "nobody", "disk full")
        assert done.code == 2, done
        assert "nobody" in done.err and "oncall" in done.err and "second" in done.err
    assert not two.queue.exists()


def test_whoever_does_not_get_it_is_named_and_the_others_get_theirs(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"shy": "2004", "oncall": "2002"})
    x.add_user("shy", "2004", accepts_dms=False)
    done = sentinel.run("send", "disk full")
    assert done.code == 77, done
    assert "@shy" in told(done)[0] and "@oncall" not in done.err
    assert texts(x) == ["disk full"]


def test_with_several_recipients_the_status_is_the_worst_and_names_all_who_wait(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure({"oncall": "2002", "shy": "2004"})
    x.add_user("shy", "2004", accepts_dms=False)
    x.answer(ERRORS["503-130"], times=None, path=f"{DMS}with/2002/")
    done = sentinel.run("send", "disk full")
    assert done.code == 77, done
    assert "@shy" in told(done)[0] and "@oncall" in told(done)[0]
    assert "does not accept" in told(done)[0]


# ---- --dry-run and --no-wait ----


def test_a_dry_run_needs_no_config_queue_or_network(fresh: Sentinel, x: FakeX) -> None:
    done = fresh.run("send", "--dry-run", "--to", "anybody", "disk", "full")
    assert done.code == 0, done
    host = re.escape(socket.gethostname().partition(".")[0])
    assert re.fullmatch(rf"\[{host} \d\d:\d\d:\d\d\] disk full\n", done.out)
    assert list(fresh.home.iterdir()) == []
    assert x.connects == []


def test_a_dry_run_on_an_authorized_machine_sends_and_stores_nothing(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure(host="the 100%(host)s box")
    done = sentinel.run("send", "--dry-run", "disk full")
    assert re.fullmatch(r"\[the 100%\(host\)s box \d\d:\d\d:\d\d\] disk full\n", done.out), done
    assert [path.name for path in sentinel.directory.iterdir()] == ["config.ini"]
    assert x.connects == []


def test_no_wait_waits_for_nothing_of_x_and_says_nothing_when_all_is_well(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(delay=15), path=DMS)
    for words in (["--no-wait", "disk full"], ["--no-wait", "--", "disk full"]):
        done = sentinel.run("send", *words)  # which reads both outputs to their ends
        assert (done.code, done.out, done.err) == (0, "", "")
        assert done.seconds < 10
    x.wait_for(lambda: x.requests, 30)


# ---- the short way that a watcher takes ----


def never_authorized(sentinel: Sentinel) -> None:
    sentinel.config.unlink()


def half_authorized(sentinel: Sentinel) -> None:
    text = sentinel.config.read_text()
    sentinel.config.write_text(text[: text.index("[recipients]")])


def put_back_with_its_old_date(sentinel: Sentinel) -> None:
    """A config that went bad without a newer date: a copy of the one before, as `cp -p` makes."""
    half_authorized(sentinel)
    os.utime(sentinel.config, (10**9, 10**9))


def readable_by_others(sentinel: Sentinel) -> None:
    sentinel.config.chmod(0o644)


def unsafe_queue(sentinel: Sentinel) -> None:
    sentinel.queue.chmod(0o777)


def no_queue(sentinel: Sentinel) -> None:
    shutil.rmtree(sentinel.queue)
    sentinel.queue.write_text("somebody's file")


def another_config(sentinel: Sentinel) -> None:
    sentinel.env["BIRD_SENTINEL_CONFIG"] = str(sentinel.home / "night shift.ini")


@pytest.mark.parametrize(
    "change, code, said",
    [
        (never_authorized, 78, "not authorized yet"),
        (half_authorized, 78, "[recipients]"),
        (put_back_with_its_old_date, 78, "[recipients]"),
        (readable_by_others, 78, "chmod 600"),
        (unsafe_queue, 78, "chmod go-w"),
        (no_queue, 0, "kept in memory"),
        (another_config, 78, "authorize --config '{home}/night shift.ini'"),
    ],
)
def test_the_short_way_sees_what_changed_since_the_last_alert_as_the_long_way_does(
    sentinel: Sentinel, x: FakeX, change: Callable[[Sentinel], None], code: int, said: str
) -> None:
    sentinel.env["XDG_RUNTIME_DIR"] = str(sentinel.home)
    assert sentinel.run("send", "all is well").code == 0
    sentinel.wait_idle()
    change(sentinel)
    short = sentinel.run("send", "--no-wait", "--", "disk full")
    long = sentinel.run("send", "--no-wait", "disk full")
    assert (short.code, short.err) == (code, long.err), (short, long)
    assert long.code == code
    assert said.format(home=sentinel.home) in short.err
    if code and change is not unsafe_queue:  # which keeps no worker from delivering from memory
        kept = {path.parent.parent for path in sentinel.home.rglob("new/*")}
        assert stored(kept.pop()) == ["disk full"] * 2
    sentinel.wait_idle()


@pytest.mark.parametrize("form", ["short", "long"])
def test_without_waiting_it_warns_of_what_a_person_has_to_act_on(
    sentinel: Sentinel, x: FakeX, form: str
) -> None:
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    assert sentinel.run("send", "one").code == 77
    done = sentinel.run("send", "--no-wait", *["--"] * (form == "short"), "two")
    assert done.code == 0, done
    warning, hint = told(done)
    assert warning.startswith("bird_sentinel: warning: ") and "credits" in warning
    assert "buy credits" in hint
    x.clear_answers()
    assert sentinel.run("flush").code == 0
    sentinel.wait_idle()
    assert sentinel.run("send", "--no-wait", "--", "three").err == ""
    sentinel.wait_idle()


def loaded(*words: str, env: dict[str, str]) -> set[str]:
    """The modules that Python loads when it is started with these words."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_on_the_short_way_a_watcher_waits_for_no_module_that_is_not_needed(
    sentinel: Sentinel,
) -> None:
    assert sentinel.run("send", "all is well").code == 0
    bare = loaded("-c", "pass", env=sentinel.env)
    script = "import bird_sentinel; bird_sentinel.run()"
    words = ("send", "--no-wait", "--", "disk\tfull: sda1 at 99%")
    names = loaded("-c", script, *words, env=sentinel.env) - bare
    assert "bird_sentinel" in names
    heavy = {"argparse", "configparser", "enum", "json", "logging", "random", "re", "signal",
             "sqlite3", "subprocess", "syslog", "tempfile", "threading", "tweepy"}  # fmt: skip
    assert names & heavy == set()
    sentinel.wait_idle()


# ---- exit status ----


def test_74_is_stored_nowhere_and_leaves_nothing(sentinel: Sentinel, x: FakeX) -> None:
    done = subprocess.run(  # where no file can be written
        ["prlimit", "--fsize=0", "bird_sentinel", "send", "--no-wait", "--", "disk full"],
        env=sentinel.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 74, done
    assert "could not be stored anywhere" in done.stderr and "hint: " in done.stderr
    last = Path(f"/dev/shm/bird_sentinel-{os.geteuid()}-{crc32(bytes(sentinel.config)):08x}.queue")
    try:
        for queue in (sentinel.queue, *sentinel.memory.iterdir(), last):
            assert [path for path in queue.rglob("*") if path.is_file()] == []
    finally:
        shutil.rmtree(last, ignore_errors=True)
    assert not x.connects


def test_75_is_kept_and_retried_and_says_when(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["503-130"], path=DMS)
    done = sentinel.run("send", "disk full")
    assert done.code == 75, done
    error, hint = told(done)
    assert "kept in the queue for @oncall: X has a fault of its own" in error
    assert re.search(r"the next attempt is at \d\d:\d\d:\d\d", hint)
    x.wait_for(lambda: texts(x) == ["disk full"], 30)


def test_77_is_kept_until_a_person_acts_and_says_how(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(ERRORS["401-code-89"], times=None, path=DMS)
    done = sentinel.run("send", "disk full")
    assert (done.code, "token" in told(done)[0]) == (77, True), done
    assert "bird_sentinel authorize" in told(done)[1]
    assert sentinel.status()["pending"] == 1


def test_78_is_kept_and_says_where_and_how_to_go_on(fresh: Sentinel) -> None:
    done = fresh.run("send", "disk full")
    assert done.code == 78, done
    assert f"kept in the queue {fresh.queue}" in told(done)[0]
    assert "bird_sentinel authorize" in told(done)[1]
    assert stored(fresh.queue) == ["disk full"]


def test_130_is_interrupted_and_the_alert_is_delivered_all_the_same(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(Answer(delay=2), path=DMS)
    process = sentinel.start("send", "disk full", stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)  # fmt: skip
    x.wait_for(lambda: x.requests, 30)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1].decode()
    assert (process.returncode, err) == (130, "bird_sentinel: error: interrupted\n")
    sentinel.wait_idle(30)
    assert texts(x) == ["disk full"]


@pytest.mark.parametrize("by", ["flush", "send"])
def test_what_came_while_the_config_was_of_no_use_is_delivered_later(
    two: Sentinel, x: FakeX, by: str
) -> None:
    two.config.chmod(0o644)
    assert two.run("send", "a break-in at night").code == 78
    assert two.run("send", "--to", "@Second", "for the second alone").code == 78
    two.config.chmod(0o600)
    done = two.run("flush") if by == "flush" else two.run("send", "--no-wait", "--", "disk full")
    assert done.code == 0, done
    x.wait_for(lambda: len(x.dms) == 2, 30)
    of_first, of_second = texts(x, "2002")[0], texts(x, "2003")[0]
    assert "a break-in at night" in of_first and "a break-in at night" in of_second
    assert "for the second alone" in of_second and "for the second alone" not in of_first


# ---- how it is called ----


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "bird_sentinel"],
        [sys.executable, str(PROJECT / "bird_sentinel.py")],
    ],
    ids=["module", "script"],
)
def test_it_runs_as(sentinel: Sentinel, x: FakeX, command: list[str]) -> None:
    done = subprocess.run([*command, "send", "disk full"], env=sentinel.env, cwd="/",
                          stdin=subprocess.DEVNULL, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0
    assert texts(x) == ["disk full"]


# ---- which config, which queue ----


def other_config(sentinel: Sentinel, *names: str) -> Path:
    """Another config than the usual one, which goes to another recipient."""
    return sentinel.configure({"second": "2003"}, path=sentinel.home.joinpath(*names))


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "{}", "send"],
        ["--config={}", "send"],
        ["send", "--config", "{}"],
        ["send", "disk", "--config={}"],
    ],
    ids=" ".join,
)
def test_config_is_taken_before_and_behind_the_command(fresh: Sentinel, words: list[str]) -> None:
    path = fresh.home / "for the night = x" / "night shift.ini"
    path.parent.mkdir(mode=0o700)
    done = fresh.run(*(word.format(path) for word in words), "full")
    assert done.code == 78, done
    assert f"kept in the queue {path}.queue: " in done.err  # who mistyped it is told where it is
    assert f"authorize --config '{path}'" in told(done)[1]
    assert stored(Path(f"{path}.queue")) == ["disk full" if "disk" in words else "full"]
    assert not fresh.queue.exists()


def test_an_alert_goes_to_whom_the_named_config_says(sentinel: Sentinel, x: FakeX) -> None:
    path = other_config(sentinel, "other", "night shift.ini")
    done = sentinel.run("send", "--no-wait", "--config", path.name, "disk full", cwd=path.parent)
    assert (done.code, done.err) == (0, ""), done
    x.wait_for(lambda: [dm.recipient_id for dm in x.dms] == ["2003"], 30)


def where(sentinel: Sentinel, *args: str, **env: str) -> tuple[str, str]:
    """The config and the queue that status tells."""
    full = json.loads(sentinel.run("status", "--json", *args, env=env).out)
    return full["config"], full["queue"]


def test_the_config_is_named_by_option_environment_or_custom_in_that_order(
    fresh: Sentinel,
) -> None:
    xdg, named, option = (str(fresh.home / name) for name in ("xdg", "named.ini", "option.ini"))
    custom = f"{xdg}/bird_sentinel/config.ini"
    assert where(fresh) == (str(fresh.config), str(fresh.queue))
    assert where(fresh, XDG_CONFIG_HOME=xdg) == (custom, f"{xdg}/bird_sentinel/queue")
    assert where(fresh, XDG_CONFIG_HOME="relative") == where(fresh)
    env = {"XDG_CONFIG_HOME": xdg, "BIRD_SENTINEL_CONFIG": named}
    assert where(fresh, **env) == (named, f"{named}.queue")
    assert where(fresh, "--config", option, **env) == (option, f"{option}.queue")
    assert where(fresh, "--config", "~/option.ini", **env)[0] == option


def test_two_configs_beside_each_other_never_share_a_queue(fresh: Sentinel) -> None:
    names = ["config.ini", "other.ini", "a", "a.ini", "a.conf", "config", "queue", "queue.ini"]
    queues = [where(fresh, "--config", str(fresh.home / name))[1] for name in names]
    assert len(set(queues)) == len(names), queues


def test_the_alerts_of_two_configs_stay_apart(sentinel: Sentinel, x: FakeX) -> None:
    path = other_config(sentinel, "other.ini")
    x.answer(ERRORS["402-credits"], times=None, path=DMS)
    sentinel.run("send", "of the one")
    sentinel.run("send", "--config", str(path), "of the other")
    x.clear_answers()
    assert sentinel.run("flush", "--config", str(path)).code == 0
    assert (texts(x, "2002"), texts(x, "2003")) == ([], ["of the other"])
    assert sentinel.run("status").code == 77


@pytest.mark.parametrize("way", ["option", "BIRD_SENTINEL_CONFIG", "XDG_CONFIG_HOME"])
def test_what_to_do_is_about_the_config_in_use(fresh: Sentinel, way: str) -> None:
    path = fresh.home / "night shift" / "bird_sentinel" / "config.ini"
    path.parent.mkdir(mode=0o700, parents=True)
    words = ["--config", str(path)] if way == "option" else []
    value = str(path if way == "BIRD_SENTINEL_CONFIG" else path.parent.parent)
    for command in (["send", "--no-wait", "x"], ["flush"], ["status"]):
        done = fresh.run(*command, *words, env={} if words else {way: value})
        assert done.code == 78, done
        assert f"bird_sentinel authorize --config '{path}'" in done.out + done.err, command


def test_the_label_is_the_short_host_name_where_none_is_configured(
    sentinel: Sentinel, x: FakeX
) -> None:
    sentinel.configure(host="")
    sentinel.run("send", "disk full")
    assert x.dms[0].text.startswith(f"[{socket.gethostname().partition('.')[0]} ")


@pytest.mark.parametrize("before", [b"", b"sshd: "], ids=["at its beginning", "in its midst"])
def test_a_line_of_a_log_with_a_hole_is_told(sentinel: Sentinel, x: FakeX, before: bytes) -> None:
    line = before + bytes(1_500_000) + b"Accepted password for root"
    assert sentinel.run("send", "-", input=line).code == 0
    assert x.dms[0].text.endswith("] " + before.decode() + "Accepted password for root")


@pytest.mark.parametrize("words", [["--no-wait", "--help"], ["--config", "/a", "-h"]])
def test_help_is_there_beside_other_options(fresh: Sentinel, words: list[str]) -> None:
    done = fresh.run("send", *words)
    assert (done.code, "exit status" in done.out) == (0, True), done
