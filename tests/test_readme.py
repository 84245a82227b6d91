"""What README.md says is what the program does, and what it shows works as it stands there."""

from __future__ import annotations

import ast
import configparser
import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import demo
import pytest
from conftest import COMMAND, PROJECT, Sentinel, processes, until
from fake_x import DM, ERRORS, Answer, FakeX

import bird_sentinel

README = (PROJECT / "README.md").read_text()
EXAMPLE = (PROJECT / "swatchrc.example").read_text()
SOURCE = (PROJECT / "bird_sentinel.py").read_text()
COMMANDS = ("authorize", "send", "flush", "status")
HOSTILE = """-n --to x '"$(touch pwned)`touch pwned`; touch pwned # * ~ \\ \\c %s %% \\n é <ip>"""
INSTALLED = "/usr/local/bin/bird_sentinel"  # where the README has it


def flat(text: str) -> str:
    """Text without its line breaks and without Markdown's code marks."""
    return " ".join(text.replace("`", "").split())


def reference() -> str:
    return README.partition("<!-- reference -->")[2].partition("<!-- /reference -->")[0]


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the table below a title, without its head."""
    lines = iter(text.partition(f"\n### {title}\n")[2].splitlines())
    cells = []
    for line in lines:
        if line.startswith("#"):
            break
        if line.startswith("|"):
            cells.append([cell.strip() for cell in line.strip("|").split("|")])
    assert len(cells) > 2, f"there is no table below {title}"
    return cells[2:]


def blocks() -> list[str]:
    """All that stands in fences."""
    return re.findall(r"^```\w+\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def caller(name: str) -> str:
    """The lines the README gives for a caller, with the command where the tests have it."""
    found = re.search(rf"<!-- caller: {name} -->\n```\w+\n(.*?)^```$", README, re.M | re.S)
    assert found, f"the README has no lines for {name}"
    assert INSTALLED in found[1]
    return found[1].replace(INSTALLED, shlex.quote(str(COMMAND)))


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What --help prints, by command; '' for that without a command."""
    return {
        name: subprocess.run(
            [str(COMMAND), *([name] if name else []), "--help"],
            capture_output=True, text=True, check=True,
        ).stdout
        for name in ("", *COMMANDS)
    }  # fmt: skip


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*|(?<![\w-])-h\b", text))


# ---- help ----


def test_each_help_fits_80_columns(helps: dict[str, str]) -> None:
    wide = [line for text in helps.values() for line in text.splitlines() if len(line) > 80]
    assert wide == []


def test_each_help_has_a_usage_an_example_and_the_exit_statuses(helps: dict[str, str]) -> None:
    for name, text in helps.items():
        assert text.startswith("usage: bird_sentinel " + name), name
        assert re.search(r"^examples?:$", text, re.MULTILINE), name
        assert text.endswith(helps[""].partition("exit status:\n")[2]), name


# ---- reference ----


def test_the_commands_are_those_of_help(helps: dict[str, str]) -> None:
    told = helps[""].partition("\ncommands:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (\w+)", told, re.MULTILINE) == list(COMMANDS)
    shown = [row[0] for row in rows(reference(), "Commands and options") if len(row) == 2]
    usages = [text.partition("usage: ")[2].partition("\n\n")[0] for text in helps.values()][1:]
    assert [flat(row) for row in shown] == [flat(usage) for usage in usages]


def test_the_options_are_those_of_help(helps: dict[str, str]) -> None:
    told = {
        (name, option)
        for name, text in helps.items()
        for option in options_in(text.partition("\noptions:\n")[2].partition("\n\n")[0])
    }
    shown = set()
    for row in rows(reference(), "Commands and options"):
        if len(row) == 3:
            names = {"all": ["", *COMMANDS], "": [""]}.get(row[1], [row[1]])
            shown |= {(name, option) for name in names for option in options_in(row[0])}
    assert shown == told


def test_the_usage_line_of_each_command_has_all_its_options(helps: dict[str, str]) -> None:
    for name in COMMANDS:
        usage, _, rest = helps[name].partition("\n\n")
        told = options_in(rest.partition("\noptions:\n")[2].partition("\n\n")[0])
        assert options_in(usage) - {"--"} == told - {"--config", "--help", "-h"}, name


def test_the_exit_statuses_are_those_of_help_in_the_same_words(helps: dict[str, str]) -> None:
    told: dict[str, str] = {}
    for line in helps[""].partition("exit status:\n")[2].splitlines():
        number, words = re.fullmatch(r" {,5}(\d*) +(.*)", line).groups()  # type: ignore[union-attr]
        if number:
            told[number] = words
        elif words:
            told[list(told)[-1]] += " " + words
    shown = {number: words for number, words in rows(reference(), "Exit status")}
    punctuation = str.maketrans("", "", ".;")
    assert {number: flat(words).translate(punctuation) for number, words in shown.items()} == {
        number: flat(words).translate(punctuation) for number, words in told.items()
    }


def test_the_keys_of_status_json_are_named(sentinel: Sentinel) -> None:
    (row,) = [row for row in rows(reference(), "Commands and options") if row[0] == "`--json`"]
    assert re.findall(r"`(\w+)`", row[2]) == list(sentinel.status())


def test_the_environment_variables_are_those_of_help(helps: dict[str, str]) -> None:
    told = set(re.findall(r"\b[A-Z][A-Z_]{5,}\b", helps[""].partition("environment:")[2]))
    shown = {row[0].strip("`") for row in rows(reference(), "Environment")}
    assert shown == told
    ours = set(re.findall(r"\bBIRD_SENTINEL_[A-Z_]+", README))
    assert ours - shown == {"BIRD_SENTINEL_ROUNDS"}  # which is for the tests
    for name in shown:
        assert name in SOURCE


def test_the_config_keys_are_those_which_are_read() -> None:
    shown = {(row[0].strip("`[]"), row[1].strip("`")) for row in rows(reference(), "Config")}
    read = {("delivery", key) for key in re.findall(r'delivery\.get\("(\w+)"', SOURCE)}
    read |= {("account", key) for key in bird_sentinel.KEYS}
    read |= {("account", key) for key in re.findall(r'account\.get\("(\w+)"\)', SOURCE)}
    assert shown == read | {("recipients", "a handle")}


def test_the_config_shown_is_taken_as_it_stands(sentinel: Sentinel, x: FakeX) -> None:
    shown = README.partition("<!-- config -->\n```ini\n")[2].partition("```")[0]
    keys = configparser.ConfigParser(interpolation=None)
    keys.read(sentinel.config)
    queue = sentinel.home / "spool" / "queue.db"
    for name in bird_sentinel.KEYS:
        shown = re.sub(rf"^{name} = .*$", f"{name} = {keys['account'][name]}", shown, flags=re.M)
    sentinel.config.write_text(shown.replace("/var/spool/sentinel/queue.db", str(queue)))
    done = sentinel.run("send", "hello")
    assert (done.code, done.out) == (0, "delivered to @oncall, @second\n"), done.err
    assert {dm.recipient_id for dm in x.dms} == {"2002", "2003"}
    assert all(dm.text.startswith("[web1 ") for dm in x.dms)
    status = sentinel.status()
    assert (status["queue"], status["account"]) == (str(queue), "sentinel_bot")


# ---- every command shown ----


def test_every_command_shown_anywhere_exists_with_its_options(helps: dict[str, str]) -> None:
    found = re.findall(r"\bbird_sentinel(?:\.py)?((?: [^\s`'|;&)]+)+)", README)
    checked = 0
    for words in (text.split() for text in found):
        if words[0] == "--config":
            del words[:2]
        if not words or not (words[0] in COMMANDS or words[0].startswith("-")):
            continue
        name = words[0] if words[0] in COMMANDS else ""
        given = options_in(" ".join(words).partition(" -- ")[0])
        assert given <= options_in(helps[name]), words
        checked += 1
    assert checked > 40


def test_words_in_code_marks_behind_the_program_name_are_commands() -> None:
    shown = re.findall(r"`bird_sentinel (\w+)", README)
    assert len(shown) > 12
    assert set(shown) <= set(COMMANDS)


def test_the_lines_which_authorize_prints_are_those_of_the_readme_and_the_example() -> None:
    printed = transcript()
    (perlcode,) = re.findall(r"^perlcode .*$", printed, re.MULTILINE)
    assert README.count(perlcode) == 2 and perlcode in EXAMPLE
    (action,) = re.findall(r"^    exec .*$", printed, re.MULTILINE)
    action = action.replace(INSTALLED, "bird_sentinel")
    assert action in EXAMPLE and README.count(action.strip()) >= 2
    pipe = 'pipe "bird_sentinel send --no-wait -"'
    assert pipe in README and pipe in EXAMPLE
    for line in (
        "--tail-file='/var/log/syslog /var/log/auth.log'",
        "--read-pipe='journalctl -f -n 0 -a'",
        "logger -t arpwatch 'flip flop, a test'",
    ):
        assert line in README and line in EXAMPLE  # fmt: skip


def test_links_inside_the_readme_lead_somewhere() -> None:
    titles = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
              for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}  # fmt: skip
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in titles
        elif not target.startswith("https://"):
            assert (PROJECT / target).exists(), target


# ---- what is shown of its output ----


def transcript() -> str:
    return README.partition("<!-- transcript: authorize -->\n```console\n")[2].partition("```")[0]


def without_chance(text: str) -> str:
    """A transcript without what differs each time: keys, tokens, PINs, paths, blanks at an end."""
    text = re.sub(r"(consumer key: |PIN: |oauth_token=)\S+", r"\1…", text)
    text = re.sub(r"the keys are in \S+", "the keys are in …", text)
    text = re.sub(r"exec '.* send --no-wait", "exec '… send --no-wait", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()


def test_the_transcript_of_authorize_is_what_a_terminal_shows(fresh: Sentinel, x: FakeX) -> None:
    child, terminal = pty.fork()
    if not child:
        with contextlib.suppress(OSError):
            os.execve(COMMAND, [str(COMMAND), "authorize"], fresh.env)
        os._exit(127)
    seen = ""

    def answer(prompt: str, line: str) -> None:
        nonlocal seen
        deadline, begin = time.monotonic() + 20, len(seen)
        while not re.search(prompt, seen[begin:]):
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096).decode()
        if line:
            os.write(terminal, line.encode() + b"\n")

    answer("consumer key: $", x.consumer_key)
    answer("consumer secret: $", x.consumer_secret)
    answer("recipients .*: $", "oncall second")
    answer("PIN: $", "")
    page = re.search(r"oauth_token=(\S+)", seen)
    assert page
    os.write(terminal, x.pin(page[1]).encode() + b"\n")
    answer("A test DM .*\n", "")
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert without_chance("$ bird_sentinel authorize\n" + seen) == without_chance(transcript())


def pictures() -> list[str]:
    return [re.sub(r"\d\d:\d\d:\d\d", "T", block) for block in blocks() if block.startswith("╭")]


def test_the_pictures_of_dms_are_what_it_makes_of_these_lines() -> None:
    def alert(number: int, line: str) -> bird_sentinel.Alert:
        return bird_sentinel.Alert(number, now, f"Nov 23 14:03:22 web1 {line}")

    now = time.mktime((2026, 11, 23, 14, 3, 24, 0, 0, -1))
    single = [alert(1, demo.SINGLE)]
    storm = [alert(2 + number, line) for number, line in enumerate(demo.storm())]
    shown = [
        demo.phone(DM("2002", bird_sentinel.compose(alerts, "web1", now), now, ""), indent="")
        for alerts in (single, storm)
    ]
    assert [re.sub(r"\d\d:\d\d:\d\d", "T", text) + "\n" for text in shown] == pictures()


def messages() -> set[str]:
    """The words of all that the program has to tell a person, with … for what varies."""

    def words(node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(map(words, node.values))
        if isinstance(node, ast.BinOp):
            return words(node.left) + words(node.right)
        return "…"

    found = {entry[2] for entry in bird_sentinel.MEANINGS}
    found |= {entry[1] for entry in bird_sentinel.BY_STATUS.values()}
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            kind = node.args[0]
            told = isinstance(kind, ast.Constant) and kind.value in ("error", "warning")
            if node.func.id in ("Problem", "Outcome") or (node.func.id == "say" and told):
                found.add(words(node.args[1]))
    return found


def pieces(message: str) -> list[str]:
    """The parts of a message between what varies."""
    return [part.strip(" :;,()'\"") for part in message.split("…") if len(part.strip()) > 2]


def test_each_message_is_explained() -> None:
    explained = flat(README.partition("\n## When something is wrong\n")[2])
    known = [message for message in messages() if pieces(message)]
    assert len(known) > 50
    missing = [m for m in known if max(pieces(m), key=len) not in explained]
    assert missing == []


def test_each_message_that_is_explained_exists() -> None:
    section = README.partition("\n## When something is wrong\n")[2].partition("\n## ")[0]
    code = flat(re.sub(r'"\n?\s*f?"', "", SOURCE)) + " ".join(messages())
    shown = [
        message
        for row in re.findall(r"^\| (`.*?) \| ", section, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", row)
    ]
    assert len(shown) > 50
    missing = [m for m in shown for piece in pieces(m) if piece not in code]
    assert missing == []


# ---- the demonstration ----


def test_the_demo_named_in_the_readme_shows_all_alerts_and_cleans_up(tmp_path: Path) -> None:
    (words,) = re.findall(r"^/usr/bin/python3 (tests/demo\.py)$", README, re.MULTILINE)
    mark = f"demo-{tmp_path.name}-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, words], cwd=PROJECT, capture_output=True, text=True, timeout=200,
        env={**os.environ, "TMPDIR": str(tmp_path), "BIRD_SENTINEL_TEST": mark}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "played by a stand-in" in done.stdout
    shown = re.sub(r"[│╭╮╰╯─\s]+", " ", done.stdout)
    for line in (demo.SINGLE, *demo.RARE):
        assert flat(line) in flat(shown)
    counts = [int(count) for count in re.findall(r"\[\S+\] (\d+) alerts, ", shown)]
    singles = len(re.findall(r"\[\S+ [\d:]{8}\] ", shown))
    assert singles - 1 + sum(counts) == 1 + len(demo.storm())  # 1: the test DM
    assert "ok: nothing pending" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes(mark) == []


# ---- other callers, as the README has them ----


@pytest.fixture
def bin(sentinel: Sentinel) -> Path:
    """A directory for commands that stand in for the host's own, first in PATH."""
    directory = sentinel.home / "bin"
    directory.mkdir()
    sentinel.env["PATH"] = f"{directory}:{sentinel.env['PATH']}"
    return directory


def script(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def shell(sentinel: Sentinel, command: str, input: str = "", **env: str) -> tuple[int, str, str]:
    """What /bin/sh makes of a command: exit status, standard output and standard error."""
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={**sentinel.env, **env}, cwd=sentinel.home,
        input=input.encode(), capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert not (sentinel.home / "pwned").exists()
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def the_dm(x: FakeX) -> str:
    """The text of the only DM, without its label."""
    x.wait_for(lambda: x.dms, 20, "a DM")
    (dm,) = x.dms
    return dm.text.partition("] ")[2]


def crontab(name: str) -> str:
    """The command of a crontab line, as cron hands it to the shell."""
    line = caller(name).strip()
    command = re.sub(r"^(@\w+|(\S+ ){5})\s*", "", line)
    assert not re.search(r"(?<!\\)%", command), "cron would cut it there"
    return command.replace("\\%", "%")


def test_cron_sends_what_a_failing_job_printed(sentinel: Sentinel, x: FakeX, bin: Path) -> None:
    (bin / "output").write_text(HOSTILE + "\nand more\n")
    job = script(bin / "backup", f"cat {bin}/output >&2; exit 3\n")
    command = crontab("cron").replace("/usr/local/sbin/backup", str(job))
    assert shell(sentinel, command) == (0, "", "")
    assert the_dm(x) == f"backup failed: {HOSTILE}\nand more"


def test_cron_sends_nothing_for_a_job_that_succeeds(
    sentinel: Sentinel, x: FakeX, bin: Path
) -> None:
    job = script(bin / "backup", "echo 17 files\n")
    command = crontab("cron").replace("/usr/local/sbin/backup", str(job))
    assert shell(sentinel, command) == (0, "", "")
    assert sentinel.run("status").code == 0
    assert x.requests == []


def test_the_reboot_line_delivers_what_was_left(sentinel: Sentinel, x: FakeX) -> None:
    x.answer(Answer(mode="refuse-connect"))
    assert sentinel.run("send", "left behind").code == 75
    sentinel.kill()
    assert shell(sentinel, crontab("reboot")) == (0, "", "")
    assert the_dm(x) == "left behind"


def unit(name: str) -> dict[str, str]:
    """The [Service] section of a unit. Of %% and $$ it understands what ours use."""
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(caller(name))
    return dict(parser["Service"])


def exec_start(line: str, instance: str = "") -> list[str]:
    """A command line as systemd splits it (systemd.service(5), "Command lines")."""
    assert not re.search(r"\$", line.replace("$$", "")), "systemd would expand it"
    return [word.replace("$$", "$").replace("%i", instance) for word in shlex.split(line)]


def test_the_systemd_unit_sends_the_status_of_what_failed(
    sentinel: Sentinel, x: FakeX, bin: Path
) -> None:
    instance = "a\\x2db  $(touch pwned)'\"@1.service"
    (bin / "output").write_text(HOSTILE)
    script(bin / "systemctl", f'echo "$@"; cat {bin}/output\n')
    service = unit("systemd")
    assert service["KillMode"] == "process" and service["Type"] == "oneshot"
    del sentinel.env["HOME"]  # systemd sets none for a service of root's
    sentinel.env["BIRD_SENTINEL_CONFIG"] = str(sentinel.config)
    words = exec_start(service["ExecStart"], instance)
    done = subprocess.run(words, env=sentinel.env, cwd=sentinel.home, check=False)
    assert done.returncode == 0
    expected = "status --full --no-pager --lines=10 -- " + instance.replace("\\x", "\\\\x")
    assert the_dm(x).replace("\\\\", "\\") == f"{expected}\n{HOSTILE}".replace("\\\\", "\\")
    assert not (sentinel.home / "pwned").exists()


def fail2ban(sentinel: Sentinel, **tags: str) -> tuple[int, str, str]:
    """Run the ban action as fail2ban does: a tag with a special character in its value becomes a
    variable of the shell, any other is put in place (fail2ban.server.action, replaceDynamicTags).
    """
    parser = configparser.ConfigParser()  # its % rules are those of fail2ban's reader
    parser.read_string(caller("fail2ban"))
    variables = {}

    def put(tag: re.Match[str]) -> str:
        value = tags[tag[1]]
        if re.search(r"""[\\#&;`|*?~<>^()\[\]{}$'"\n\r]""", value):
            variables["f2bV_" + tag[1]] = value
            return "$f2bV_" + tag[1]
        return value

    command = re.sub(r"<([\w-]+)>", put, parser["Definition"]["actionban"])
    return shell(sentinel, command, **variables)


def test_fail2ban_tells_of_a_ban(sentinel: Sentinel, x: FakeX) -> None:
    tags = {"name": "sshd", "ip": "192.0.2.7", "failures": "5", "matches": "5 plain failures"}
    assert fail2ban(sentinel, **tags) == (0, "", "")
    assert the_dm(x) == "fail2ban: sshd banned 192.0.2.7 after 5 failures: 5 plain failures"


def test_fail2ban_hands_over_hostile_lines_as_text(sentinel: Sentinel, x: FakeX) -> None:
    matches = f"{HOSTILE}\n{HOSTILE}"
    tags = {"name": "sshd", "ip": "2001:db8::7", "failures": "5", "matches": matches}
    assert fail2ban(sentinel, **tags) == (0, "", "")
    assert the_dm(x) == f"fail2ban: sshd banned 2001:db8::7 after 5 failures: {matches}"


def test_monit_sends_what_it_found(sentinel: Sentinel, x: FakeX) -> None:
    (line,) = re.findall(r'then exec "(.*)"$', caller("monit"), re.MULTILINE)
    assert '"' not in line and "\\" not in line  # monit takes neither inside its quotes
    told = {
        "MONIT_SERVICE": "raid",
        "MONIT_EVENT": "Status failed",
        "MONIT_DESCRIPTION": f"status failed (1) -- {HOSTILE}",
    }
    done = subprocess.run(
        shlex.split(line), env={**sentinel.env, **told}, cwd=sentinel.home, check=False
    )
    assert done.returncode == 0
    assert the_dm(x) == "\n".join(told.values())
    assert not (sentinel.home / "pwned").exists()


def test_sec_pipes_a_line_as_it_is(sentinel: Sentinel, x: FakeX) -> None:
    (command,) = re.findall(r"^action=pipe '%s' (.*)$", caller("sec"), re.MULTILINE)
    assert shell(sentinel, command, HOSTILE + "\n") == (0, "", "")
    assert the_dm(x) == HOSTILE


def test_nagios_gets_one_of_its_exit_statuses(sentinel: Sentinel, x: FakeX) -> None:
    check = script(sentinel.home / "check", caller("nagios"))

    def result() -> tuple[int, str]:
        code, out, _ = shell(sentinel, shlex.quote(str(check)))
        return code, out.splitlines()[0]

    assert result() == (0, "ok: nothing pending")
    x.answer(Answer(mode="refuse-connect"), times=None)
    assert sentinel.run("send", "hello").code == 75
    code, line = result()
    assert code == 1 and line.startswith("problem: 1 alert pending since ")
    x.clear_answers()
    x.answer(ERRORS["402-credits"], times=None)
    assert sentinel.run("flush").code == 77
    assert result()[0] == 2
    sentinel.config.chmod(0o644)
    assert result()[0] == 2


def test_the_swatch_unit_alerts_from_the_journal_and_stops_without_a_trace(
    sentinel: Sentinel, x: FakeX, bin: Path
) -> None:
    journal = sentinel.home / "journal"
    line = f"Nov 23 14:03:22 web1 arpwatch: flip flop {HOSTILE}"
    journal.write_text(line + "\n")
    script(bin / "journalctl", f'echo "$@" >{bin}/words; exec tail -n +1 -f {journal}\n')
    (bin / "bird_sentinel").symlink_to(COMMAND)
    service = unit("swatch unit")
    assert service["KillMode"] == "process" and "Type" not in service
    (sentinel.home / "run").mkdir()
    places = {"/etc/swatchdogrc": PROJECT / "swatchrc.example",
              "/run/" + service["RuntimeDirectory"]: sentinel.home / "run"}  # fmt: skip
    command = service["ExecStart"]
    for place, ours in places.items():
        assert place in command
        command = command.replace(place, str(ours))
    with open(os.devnull, "w") as null:
        main = subprocess.Popen(exec_start(command), env=sentinel.env, cwd=sentinel.home,
                                stdin=subprocess.DEVNULL, stdout=null, stderr=null)  # fmt: skip
    assert the_dm(x) == line
    assert (bin / "words").read_text() == "-f -n 0 -a\n"

    before = exec_start(service["ExecStartPost"].removeprefix("-"))
    assert subprocess.run(before, env=sentinel.env, check=False).returncode == 0

    main.send_signal(signal.SIGTERM)  # as systemd does with KillMode=process: to this one alone
    main.wait(10)
    until(lambda: not sentinel.processes(), 10, "something was left behind")
    assert list((sentinel.home / "run").iterdir()) == []
    assert not (sentinel.home / "pwned").exists()
