"""The main job on real input: swatchdog, the shipped swatchrc.example, the installed command."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, PROJECT, Sentinel, until
from fake_x import FakeX

ALERTS = [
    "11/23-14:03:22.123456  [**] [1:2001219:20] ET SCAN Potential SSH Scan [**] [Classification:"
    " Attempted Information Leak] [Priority: 1] {TCP} 203.0.113.9:52312 -> 192.0.2.10:22",
    "Nov 23 14:03:23 web1 kernel: [12345.678901] TCP: request_sock_TCP: Possible SYN flooding on"
    " port 443. Sending cookies.  Check SNMP counters.",
    "[Mon Nov 23 14:03:24.123456 2026] [core:notice] [pid 812:tid 140] AH00051: child pid 2231 exit"
    " signal Segmentation fault (11), possible coredump in /etc/apache2",
    "2026-11-23T14:03:25.123456+01:00 web1 sshd[4711]: reverse mapping checking getaddrinfo for"
    " evil.example [203.0.113.9] failed - POSSIBLE BREAK-IN ATTEMPT!",
    "Nov 23 14:03:26 web1 sshd[4712]: Accepted password for root from 203.0.113.9 port 4242 ssh2",
]
ORDINARY = [
    "Nov 23 14:03:22 web1 CRON[812]: (root) CMD (run-parts /etc/cron.hourly)",
    "Nov 23 14:03:23 web1 sshd[4713]: Accepted publickey for alice from 192.0.2.7 port 4242 ssh2",
    "Nov 23 14:03:24 web1 systemd[1]: Started Daily apt upgrade and clean activities.",
    "Nov 23 14:03:25 web1 bird_sentinel[99]: 3 alerts for @oncall: delivered in one DM",
]


def walk(x: FakeX, command: list[str], **options: Any) -> None:
    """Authorize as a person does: open the page that is printed, type the PIN which it gives."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )
    assert process.stdin and process.stdout
    process.stdin.write(f"{x.consumer_key}\n{x.consumer_secret}\noncall\n")
    process.stdin.flush()
    for line in process.stdout:
        page = re.search(r"oauth_token=([^&\s]+)", line)
        if page:
            process.stdin.write(x.pin(page[1]) + "\n")
            process.stdin.flush()
    process.stdin.close()
    process.stdout.close()
    assert process.wait(timeout=30) == 0


@pytest.fixture
def log(fresh: Sentinel, x: FakeX, tmp_path: Path) -> Iterator[Path]:
    """A log file which swatchdog follows, on a machine that was authorized a moment before."""
    walk(x, [str(COMMAND), "authorize", "--no-test"], env=fresh.env)
    log = tmp_path / "syslog"
    log.touch()
    watcher = subprocess.Popen(
        ["swatchdog", f"--config-file={PROJECT / 'swatchrc.example'}", f"--tail-file={log}",
         "--tail-args=-n +1 -F", f"--script-dir={tmp_path}"],
        env=fresh.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield log
    watcher.terminate()
    assert watcher.stderr
    errors = watcher.stderr.read()
    watcher.wait(timeout=10)
    fresh.wait_idle()
    assert "Caught a SIGTERM" in errors, errors


def test_what_matters_in_the_log_is_on_the_phone_byte_for_byte(log: Path, x: FakeX) -> None:
    lines = [line for pair in zip(ORDINARY, ALERTS) for line in pair] + ALERTS[len(ORDINARY) :]
    with log.open("a") as file:
        file.write("\n".join(lines) + "\n")
    until(lambda: all(any(a in dm.text for dm in x.dms) for a in ALERTS), 30, "not all arrived")
    assert {dm.recipient_id for dm in x.dms} == {"2002"}
    assert x.bad_signatures == []
    # each once: either alone in a DM or as one line of a digest; and no ordinary one at all
    texts = "\n".join(dm.text for dm in x.dms)
    assert [texts.count(line) for line in ALERTS] == [1] * len(ALERTS)
    assert not [line for line in ORDINARY if line in texts]


def test_the_first_alert_is_alone_in_its_dm_and_stands_there_unchanged(
    log: Path, x: FakeX
) -> None:
    line = "Nov 23 14:03:26 web1 sshd[1]: Accepted password for root from 203.0.113.9 port 1 ssh2"
    with log.open("a") as file:
        file.write(line + "\n")
    until(lambda: x.dms, 30, "nothing arrived")
    # the host's name at its head, where that is not the one in the line
    assert re.sub(r"^\[\S+\] ", "", x.dms[0].text) == line
