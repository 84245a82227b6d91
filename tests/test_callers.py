"""What README.md shows for swatch, systemd, cron and others works as it stands there.

This system is booted once more in a container, under a layer in memory, and there the README is
followed word for word: by root, whose programs all become the one user who sends.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import COMMAND, PROJECT, until
from fake_x import ERRORS, Answer, FakeX
from test_end_to_end import walk
from test_readme import EXAMPLE, README, block, flat, section

HOSTILE = """-n --to x '"$(touch /pwned)`touch /pwned`; touch /pwned # * ~ \\ %s %% \\n é <ip>"""
TREES = [tree for tree in map(Path("/sys/fs/cgroup").joinpath, (".", "systemd", "unified"))
         if (tree / "cgroup.procs").exists()]  # fmt: skip
HOME = "/var/lib/bird_sentinel"
CONFIG = f"{HOME}/.config/bird_sentinel/config.ini"


class Machine:
    """This system in a container.  What is done there is gone with it; the network is that of this
    system, so that the stand-in for X can be reached."""

    def __init__(self, directory: Path, x: FakeX) -> None:
        self.x, self.started = x, 0
        self.group = f"readme-{os.getpid()}"
        root = directory / "root"
        # whoever runs there must be able to come to the command, wherever this checkout is; and a
        # system that starts clears /tmp, but for what is mounted there
        ours = [PROJECT, Path(sys.prefix), Path(sys.base_prefix)]
        opened = {f"{root}{path}" for our in ours for path in (our, *our.parents)}
        here = os.stat("/").st_dev
        binds = [f"--bind-ro={root if our.stat().st_dev == here else ''}{our}:{our}"
                 for our in ours[:2]]  # fmt: skip
        # and a control group of its own, as several such machines may run side by side
        start = f"""
            for tree in {" ".join(map(str, TREES))}; do
                mkdir $tree/{self.group}
                echo 0 >$tree/{self.group}/cgroup.procs
            done
            mount -t tmpfs tmpfs /run
            mount -t tmpfs tmpfs {directory}
            mkdir {directory}/upper {directory}/work {root}
            mount -t overlay overlay {root} \
                -o lowerdir=/,upperdir={directory}/upper,workdir={directory}/work
            cd {root}
            rm -rf etc/machine-id etc/cron.d/* etc/fail2ban/jail.d/* root/.config/bird_sentinel
            chmod o+rx {" ".join(opened)}
            exec systemd-nspawn --quiet --register=no --keep-unit --resolv-conf=off \
                --link-journal=no --machine=readme \
                {" ".join(binds)} --boot --directory={root} systemd.unit=basic.target
        """
        # in name spaces of its own, of which nothing is left when the process above them ends
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.console = directory.parent / "console"
        with self.console.open("w") as console:
            self.process = subprocess.Popen(
                [*unshare, "sh", "-ec", start],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_TMPFS_TMP": "0"},
            )  # fmt: skip

    def leader(self) -> str:
        """The process that is number 1 in the machine."""
        pid = str(self.process.pid)
        for _ in ("systemd-nspawn", "what it starts"):
            pid = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        return pid

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.console.read_text(errors="replace")
        with contextlib.suppress(OSError, IndexError):
            return self.run("systemctl", "is-active", "basic.target", check=False) == "active\n"
        return False

    def enter(self, *words: str) -> list[str]:
        """What runs a command there, as root."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        env = ["env", "-i", path, "HOME=/root", "LANG=C.UTF-8"]
        return ["nsenter", "--target", self.leader(), *spaces, "--wdns=/root", "--", *env, *words]

    def run(self, *words: str, input: str = "", check: bool = True) -> str:
        """Run a command there; returns what it prints."""
        done = subprocess.run(
            self.enter(*words), input=input.encode(), timeout=60, check=check,
            stdout=subprocess.PIPE, stderr=None if check else subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout.decode()

    def sh(self, command: str, check: bool = True) -> str:
        return self.run("sh", "-ec", command, check=check)

    def put(self, path: str, text: str, mode: str = "644") -> None:
        self.run("install", "-D", f"-m{mode}", "/dev/stdin", path, input=text)

    def as_written(self, mark: str) -> None:
        """Make the file whose name and lines the README gives."""
        text = block(mark)
        name = re.match(r"# (/\S+)\n", text)
        assert name
        self.put(name[1], text)

    def authorize(self) -> None:
        """Set it up by the README's own commands, with the answers of a person at X's page."""
        until(self.is_up, 60, "the machine did not come up")
        self.run("ln", "-s", str(COMMAND), "/usr/local/bin/bird_sentinel")
        self.put("/etc/ssl/x.pem", Path(self.x.env["REQUESTS_CA_BUNDLE"]).read_text())
        adduser, authorize = block("as-written:user").splitlines()
        self.sh(adduser)
        way = [f"HTTPS_PROXY={self.x.env['HTTPS_PROXY']}", "REQUESTS_CA_BUNDLE=/etc/ssl/x.pem"]
        walk(self.x, self.enter(*way, "sh", "-ec", authorize))

    def dm(self, words: str) -> str:
        """The only DM with these words in it, when it is there."""
        until(lambda: [dm for dm in self.x.dms if words in dm.text], 30, f"no DM with {words}")
        (text,) = [dm.text for dm in self.x.dms if words in dm.text]
        return text

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[None]:
        """A program as a service, which is stopped in the end with all that it started."""
        self.started += 1
        unit = f"for-a-test-{self.started}"
        self.run("systemd-run", "--quiet", "--collect", f"--unit={unit}", *words)
        try:
            yield
        finally:
            self.run("systemctl", "stop", unit)

    def cron(self) -> contextlib.AbstractContextManager[None]:
        """Cron, which runs the lines for @reboot when it starts."""
        self.sh("rm -f /run/crond.reboot")
        return self.running("cron", "-f")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        until(self.is_gone, 30, "something of the machine is left")

    def is_gone(self) -> bool:
        """Remove its control groups, in which there is no process any more."""
        groups = [group for tree in TREES for group in tree.glob(f"{self.group}/**")]
        for group in sorted(groups, reverse=True):
            with contextlib.suppress(OSError):
                group.rmdir()
        return not any(group.exists() for group in groups)


def required(*programs: str) -> None:
    """Skip a test whose programs are not here; where CI is set, that is a failure."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    why = [f"there is no {name}" for name in programs if not shutil.which(name, path=path)]
    if os.geteuid():
        why.append("a container wants root")
    if why:
        (pytest.fail if "CI" in os.environ else pytest.skip)(why[0])


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    required("systemd-nspawn")
    with FakeX(limit=10**6) as x:
        x.add_user("oncall", "2002")
        directory = tmp_path_factory.mktemp("machine") / "layer"
        directory.mkdir()
        machine = Machine(directory, x)
        try:
            machine.authorize()
            yield machine
        finally:
            machine.end()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine, authorized, with nothing queued and nothing waiting."""
    booted.sh(f"pkill -KILL -u bird_sentinel || true; rm -rf {Path(CONFIG).parent}/queue")
    booted.x.clear_answers()
    booted.x.dms.clear()
    yield booted
    # what a log line says was not run, and nothing was kept but by the one user who sends
    assert booted.sh("ls -d /pwned /root/.config/bird_sentinel 2>/dev/null || true") == ""


def at_once(table: str) -> str:
    """A crontab whose lines are for now, that is, for cron's start."""
    return re.sub(r"^([\d*/]+ ){5}", "@reboot ", table, flags=re.MULTILINE)


# ---- swatch ----


def watched(machine: Machine, reader: str, before: str = "") -> str:
    """The process which reads for swatch, once it does, and it is not the one of before."""
    pids = f"pgrep -u bird_sentinel -x {reader} || true"
    until(lambda: machine.sh(pids).split() not in ([], [before]), 20, "nobody reads")
    time.sleep(0.5)  # it goes to the end of what it reads
    (found,) = machine.sh(pids).split()
    return found


def test_the_swatch_unit_alerts_once_after_a_reload_a_crash_and_a_restart(machine: Machine) -> None:
    def alert(name: str, before: str) -> str:
        reader = watched(machine, "journalctl", before)
        machine.run("logger", "-t", "arpwatch", "--", f"flip flop {name} {HOSTILE}")
        assert HOSTILE in machine.dm(f"flip flop {name}")
        return reader

    machine.put("/etc/swatchdogrc", EXAMPLE)
    machine.as_written("caller:swatch-unit")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "swatchdog")
    reader = alert("at first", "")
    machine.run("systemctl", "reload", "swatchdog")
    reader = alert("reloaded", reader)
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", "swatchdog")
    alert("after an unclean end", reader)

    machine.x.answer(Answer(mode="refuse-connect"), times=None)
    machine.run("logger", "-t", "arpwatch", "flip flop unsent")
    until(lambda: " pending since " in machine.sh("bird_sentinel status || true"), 10, "no alert")
    machine.run("systemctl", "stop", "swatchdog")
    assert machine.sh("pgrep -u bird_sentinel || true") == ""
    machine.x.clear_answers()
    machine.run("systemctl", "start", "swatchdog")
    assert machine.dm("flip flop unsent")
    machine.run("systemctl", "stop", "swatchdog")


def test_without_systemd_swatch_starts_at_boot_and_again_when_it_dies(machine: Machine) -> None:
    required("cron")
    reload, stop = re.findall(r"`(pkill [^`]*)`", README)

    def alert(name: str, before: str) -> str:
        reader = watched(machine, "tail", before)
        machine.sh(f"echo Nov 23 14:03:22 web1 arpwatch: flip flop {name} >>/var/log/syslog")
        assert machine.dm(f"flip flop {name}")
        return reader

    machine.put("/etc/swatchdogrc", EXAMPLE)
    machine.sh("cd /var/log && install -g adm -m 640 /dev/null syslog && cp -p syslog auth.log")
    machine.as_written("caller:boot")
    with machine.cron():
        reader = alert("at boot", "")
        machine.sh(reload)
        reader = alert("reloaded", reader)
        machine.sh("pkill -KILL -u bird_sentinel -x tail")
        reader = alert("after its reader died", reader)
        # what it had started goes on, and no second one beside it
        machine.sh("pkill -KILL -u bird_sentinel -x swatchdog")
        time.sleep(6)
        assert alert("after its own end", "") == reader
        machine.sh(stop)
        until(lambda: not machine.sh("pgrep -u bird_sentinel || true"), 10, "some were left")
    machine.sh("rm /etc/cron.d/swatchdog")


def test_a_sign_of_life_comes_and_what_a_killed_worker_left_is_delivered(machine: Machine) -> None:
    required("cron")
    machine.x.answer(Answer(mode="refuse-connect"), times=None)
    machine.sh("bird_sentinel send --no-wait left behind; pkill -KILL -u bird_sentinel")
    machine.x.clear_answers()
    _, alive, flush = at_once(block("caller:cron.d")).splitlines()
    for line, words in ((flush, "left behind"), (alive, "is alive")):
        machine.put("/etc/cron.d/bird_sentinel", line + "\n")
        with machine.cron():
            machine.dm(words)
    machine.sh("rm /etc/cron.d/bird_sentinel")


@pytest.mark.parametrize("program", ["mail", "wall", "curl"])
def test_when_dms_do_not_go_a_word_reaches_its_reader(machine: Machine, program: str) -> None:
    machine.put(f"/usr/local/bin/{program}", f"#!/bin/sh\ncat >{HOME}/told\n", "755")
    machine.put("/usr/local/bin/jq", "#!/bin/sh\ncat\n", "755")
    (line,) = [line for line in block("on_trouble").splitlines() if program in line]
    machine.put("/run/line", line + "\n")
    machine.sh(f"cp -p {CONFIG} /run/config; sed -i '/^.delivery/r /run/line' {CONFIG}")
    machine.x.answer(ERRORS["402-credits"], times=None)
    machine.sh("bird_sentinel send nobody hears this || true")
    told = f"cat {HOME}/told || true"
    until(lambda: "nobody hears this" in machine.sh(told), 20, "no word")
    machine.sh(f"cp -p /run/config {CONFIG}; rm -f {HOME}/told")


# ---- other callers ----


def test_what_root_runs_becomes_the_user_who_sends_and_others_are_told(machine: Machine) -> None:
    assert "runuser" not in README and "sudo" not in section("## Other callers")
    for mark in ("swatch-unit", "systemd"):
        assert "\nUser=bird_sentinel\n" in block(f"caller:{mark}")
    machine.x.answer(Answer(delay=3), times=None)
    machine.run("bird_sentinel", "send", "--no-wait", "from root")
    assert machine.sh(f"stat -c %U {Path(CONFIG).parent}/queue/new/*") == "bird_sentinel\n"
    until(lambda: machine.x.requests, 10, "no worker")
    worker = "grep -h ^Groups: /proc/$(pgrep -o -u bird_sentinel -f ' worker ')/status"
    assert machine.sh(worker).split() == ["Groups:"]  # none of root's
    machine.x.clear_answers()
    assert machine.dm("from root")
    other = "export HOME=/run/other; install -d -o daemon $HOME; runuser -u daemon -- bird_sentinel"
    told = machine.sh(f"{other} send not kept 2>&1 || echo $?")
    assert "-u bird_sentinel" in told and told.endswith("\n78\n")
    assert machine.sh("ls -A /run/other") == ""


def test_cron_sends_what_a_failed_job_printed(machine: Machine) -> None:
    required("cron")
    machine.put("/root/output", HOSTILE + "\nand more\n")
    machine.put("/usr/local/sbin/backup", "#!/bin/sh\ncat /root/output >&2; exit 3\n", "755")
    machine.run("crontab", "-", input=at_once(block("caller:cron")))
    with machine.cron():
        text = machine.dm("backup failed")
    machine.run("crontab", "-r")
    assert flat(text).endswith(flat(f"backup failed: {HOSTILE}\nand more"))


def test_a_failed_service_is_told_with_the_end_of_its_log(machine: Machine) -> None:
    machine.as_written("caller:systemd")
    (line,) = re.findall(r"`(OnFailure=.*?)`", README)
    machine.put("/root/output", HOSTILE + "\n")
    machine.put("/etc/systemd/system/bad.service", f"[Unit]\n{line}\n[Service]\n"
                # journald may not know whose words they were of one that ends at once
                "ExecStart=/bin/sh -c 'cat /root/output; sleep 1; exit 3'\n")  # fmt: skip
    machine.run("systemctl", "daemon-reload")
    machine.x.answer(Answer(mode="refuse-connect"), times=None)
    machine.run("systemctl", "start", "bad.service")
    ended = "systemctl show -P ActiveState alert@bad.service.service"
    until(lambda: machine.x.requests and machine.sh(ended) == "inactive\n", 20, "no alert")
    machine.x.clear_answers()  # and the worker is still there
    text = machine.dm("bad.service")
    assert HOSTILE in text and "status=3" in text


def test_fail2ban_tells_of_a_ban_with_the_lines_that_led_to_it(machine: Machine) -> None:
    required("fail2ban-server")
    machine.as_written("caller:fail2ban")
    machine.put("/etc/fail2ban/filter.d/test.conf", "[Definition]\nfailregex = no: <HOST>\n")
    machine.put("/etc/fail2ban/jail.d/test.conf", "[DEFAULT]\nbanaction = dummy\n[test]\n"
                "enabled = true\nbackend = polling\nlogpath = /var/log/test.log\nmaxretry = 2\n"
                "action = %(action_)s\n         bird-sentinel\n")  # fmt: skip
    machine.put("/var/log/test.log", "")
    with machine.running("fail2ban-server", "-xf", "start"):
        log = "cat /var/log/fail2ban.log || true"
        until(lambda: "Jail 'test' started" in machine.sh(log, check=False), 20, "no jail")
        stamp = time.strftime("%Y-%m-%d %H:%M:%S no: 192.0.2.7")
        machine.put("/var/log/test.log", f"{stamp}\n{stamp} {HOSTILE}\n")
        text = machine.dm("192.0.2.7")
    assert "fail2ban: test banned 192.0.2.7 after 2 failures: " in text and HOSTILE in text


def test_monit_tells_what_it_found(machine: Machine) -> None:
    required("monit")
    machine.put("/root/output", HOSTILE + "\n")
    machine.put("/usr/local/sbin/check_raid", "#!/bin/sh\ncat /root/output; exit 3\n", "755")
    machine.put("/etc/monitrc", "set daemon 1\n" + block("caller:monit"), "600")
    with machine.running("monit", "-I", "-c", "/etc/monitrc"):
        text = machine.dm("raid")
    assert "Status failed" in text and HOSTILE in text


def test_sec_pipes_a_line_as_it_is(machine: Machine) -> None:
    required("sec")
    line = f"Nov 23 14:03:22 web1 kernel: x[1]: segfault at {HOSTILE}"
    machine.put("/etc/sec.conf", block("caller:sec"))
    machine.put("/var/log/sec-in", line + "\n")
    with machine.running("--uid=bird_sentinel", "sec", "--conf=/etc/sec.conf",
                         "--input=/var/log/sec-in", "--fromstart", "--tail"):  # fmt: skip
        text = machine.dm("segfault")
    assert text.endswith(line)


def test_nagios_gets_one_of_its_exit_statuses(machine: Machine) -> None:
    machine.put("/usr/local/bin/check", block("caller:nagios"), "755")

    def result() -> tuple[str, str]:
        lines = machine.sh("check && echo 0 || echo $?").splitlines()
        return lines[0], lines[-1]

    assert result() == ("ok: nothing pending", "0")
    machine.x.answer(Answer(mode="refuse-connect"), times=None)
    machine.sh("bird_sentinel send hello || true")
    line, code = result()
    assert "1 alert pending since " in line and code == "1"
    machine.x.clear_answers()
    machine.x.answer(ERRORS["402-credits"], times=None)
    machine.sh("bird_sentinel flush || true")
    assert result()[1] == "2"
