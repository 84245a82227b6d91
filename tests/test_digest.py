"""A storm becomes one DM: each alert is quoted or counted, what is rare is on top, text stays text.

The text of a DM is made by functions without a disk, a network or a clock, so this needs none
either.  The lines and the DM that stand in full below were read as somebody would who is woken by
them at three in the morning.
"""

from __future__ import annotations

import random
import re
import string
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bird_sentinel import Alert, Digest, clean, compose

LIMIT = 10_000
NIGHT = Path(__file__).with_name("logs.txt")  # 97 lines of one host, and the DM that they become
NIGHT_DM = NIGHT.with_name("logs-dm.txt")
TIME = r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"
# what a line of a DM begins with that quotes an alert: a time, ours or a stamp of its own
ENTRY = re.compile(
    rf"{TIME} |\[?(?:[A-Z][a-z]{{2}} )?[A-Z][a-z]{{2}} [ \d]\d {TIME}[\d.]* "
    rf"|\d{{4}}[-/]\d\d[-/]\d\d[T ]{TIME}\S* |\d\d/\d\d-{TIME}"
)
COUNT = re.compile(rf"  ([\d,]+) more like this, last {TIME}(?:: (\S.*))?")
REST = re.compile(rf"and ([\d,]+) more of [\d,]+ other kinds?, last {TIME}")

profile = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def at(clock: str, day: str = "2026-11-23") -> float:
    return time.mktime(time.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S"))


NOW = at("14:30:00")
BEGAN = at("14:03:22")


def alerts_of(texts: Iterable[str], step: float = 0.01, host: str = "web1") -> list[Alert]:
    return [Alert(clean(text), BEGAN + i * step, host) for i, text in enumerate(texts)]


def digest_of(alerts: Iterable[Alert], host: str = "web1", now: float = NOW) -> str:
    digest = Digest()
    for alert in alerts:
        digest.add(alert)
    return compose(digest, host, now)


def digest(*texts: str, step: float = 0.01) -> str:
    """The DM that these lines become."""
    return digest_of(alerts_of(texts, step))


def number(digits: str) -> int:
    return int(digits.replace(",", ""))


def told(text: str) -> tuple[int, int]:
    """How many alerts a digest says at its head that it has, and what its lines add up to. Fails
    where a line neither quotes nor counts nor continues one that does."""
    head, *lines = text.split("\n")
    several = re.fullmatch(rf"\[[^\]]*\] ([\d,]+) alerts, {TIME} to {TIME}", head)
    assert several, head
    total = 0
    for line in lines:
        counted = COUNT.fullmatch(line) or REST.fullmatch(line)
        if counted:
            total += number(counted[1])
        elif not line.startswith("    "):
            assert ENTRY.match(line), f"neither quotes nor counts: {line!r}"
            total += 1
    return number(several[1]), total


def entries(text: str) -> list[str]:
    """The alerts that a digest of one-line alerts quotes, from the top, without our time."""
    lines = [line for line in text.split("\n")[1:] if ENTRY.match(line)]
    return [re.sub(rf"^{TIME} ", "", line) for line in lines]


def differing(text: str) -> str:
    """What the one count line of a digest says about those which it counts."""
    found = [counted for line in text.split("\n") if (counted := COUNT.fullmatch(line))]
    assert len(found) == 1, text
    return found[0][2] or ""


# what makes a DM longer than a phone shows at once
OTHERS = [f"web1 {tag}: link {end}" for tag in "pqrstuv" for end in ("up", "down now")]
SESSION = "web1 {}[{}]: session opened for user {} by (uid=0)"
FAILURE = "web1 sshd[7]: authentication failure; logname= uid=0 tty=ssh rhost=192.0.2.{}"


# ---- the form: one alert ----

FPM = "[23-Nov-2026 14:03:20] WARNING: [pool www] child 77 exited on signal 11 (SIGSEGV)"
HEADS = {
    "a line of RFC 5424": ("<34>1 2026-11-23T14:03:20.003Z web1 su - - - denied", None),
    "a line without a time stamp": ("disk full", "[web1 14:03:22] disk full"),
    "a time of day alone": ("14:03:20 disk full", "[web1 14:03:22] 14:03:20 disk full"),
    "a stamp behind an address": (
        '192.0.2.7 - - [23/Nov/2026:14:03:20 +0100] "GET /"',
        '[web1 14:03:22] 192.0.2.7 - - [23/Nov/2026:14:03:20 +0100] "GET /"',
    ),
    "the host's name without a stamp": ("web1 is alive", "[web1 14:03:22] web1 is alive"),
    "syslog's stamp and the host": ("Nov 23 14:03:20 web1 sshd[1]: x", None),
    "syslog's stamp and the host with its domain": ("Nov  3 14:03:20 web1.example sshd: x", None),
    "syslog's new stamp and the host": ("2026-11-23T14:03:20.12+01:00 web1 sshd[1]: x", None),
    "a priority, a stamp and the host": ("<38>Nov 23 14:03:20 web1 sshd[1]: x", None),
    "a stamp and another host": (
        "Nov 23 14:03:20 db7 sshd: x", "[web1] Nov 23 14:03:20 db7 sshd: x"
    ),
    "nginx's stamp": (
        "2026/11/23 14:03:20 [alert] 8#8: x", "[web1] 2026/11/23 14:03:20 [alert] 8#8: x"
    ),
    "Apache's stamp": (
        "[Mon Nov 23 14:03:20.123456 2026] [core:notice] x",
        "[web1] [Mon Nov 23 14:03:20.123456 2026] [core:notice] x",
    ),
    "PHP's stamp": (FPM, "[web1] " + FPM),
    "fail2ban's stamp": ("2026-11-23 14:03:20,123 f2b x", "[web1] 2026-11-23 14:03:20,123 f2b x"),
    "snort's stamp": ("11/23-14:03:20.123456  [**] x", "[web1] 11/23-14:03:20.123456  [**] x"),
}  # fmt: skip


@pytest.mark.parametrize("form", HEADS)
def test_one_alert_has_at_its_head_what_its_line_does_not_say_itself(form: str) -> None:
    line, wanted = HEADS[form]
    assert digest(line) == (wanted or line)


@pytest.mark.parametrize("day", ["2026-11-22", "2025-11-23"])
def test_an_alert_of_another_day_says_the_date(day: str) -> None:
    text = digest_of([Alert("disk full", at("14:03:22", day), "web1")])
    assert text == f"[web1 {day} 14:03:22] disk full"


@pytest.mark.parametrize(
    "label, hosts, head",
    [("", ["web1"], "[web1 "), ("", ["web1", "db7"], "[db7, web1] "), ("shop", ["web1"], "[shop "),
     ("shop", ["web1", "db7"], "[shop] ")],
)  # fmt: skip
def test_the_label_is_the_configured_one_or_else_the_hosts_that_sent(
    label: str, hosts: list[str], head: str
) -> None:
    alerts = [Alert(f"disk full on {host}", BEGAN, host) for host in hosts]
    assert digest_of(alerts, label).startswith(head)


# ---- the form: several ----


def test_a_digest_begins_with_its_exact_count_and_its_first_and_last_time() -> None:
    text = digest(*(f"request {n} failed" for n in range(1000)), step=48 / 999)
    assert text.split("\n")[0] == "[web1] 1,000 alerts, 14:03:22 to 14:04:10"


def test_a_digest_over_midnight_says_the_date_of_yesterday() -> None:
    alerts = [
        Alert("disk full", at("23:59:58"), "web1"),
        Alert("fan", at("00:01:00", "2026-11-24"), "web1"),
    ]
    head = digest_of(alerts, now=at("00:02:00", "2026-11-24")).split("\n")[0]
    assert head == "[web1] 2 alerts, 2026-11-23 23:59:58 to 00:01:00"


def test_each_quoted_alert_has_one_time_its_own_or_ours() -> None:
    stamped = "Nov 23 14:03:24 web1 kernel: fan stopped"
    assert digest("disk full", stamped, step=2).split("\n")[1:] == ["14:03:22 disk full", stamped]


def test_up_to_three_that_are_alike_are_each_quoted() -> None:
    texts = [f"cpu{n} at {n}0 degrees" for n in range(3)]
    assert sorted(entries(digest("disk full", *texts))) == [*texts, "disk full"]


def test_the_same_text_again_is_counted_and_not_quoted_again() -> None:
    lines = digest("disk full", "disk full", step=48).split("\n")[1:]
    assert lines == ["14:03:22 disk full", "  1 more like this, last 14:04:10"]


def test_of_many_alike_the_first_is_quoted_and_the_others_are_counted() -> None:
    texts = [f"Failed password for root from 203.0.113.9 port {n + 4000}" for n in range(40)]
    assert digest(*texts, step=48 / 39).split("\n") == [
        "[web1] 40 alerts, 14:03:22 to 14:04:10",
        "14:03:22 Failed password for root from 203.0.113.9 port 4000",
        "  39 more like this, last 14:04:10",
    ]


def test_where_two_digests_have_all_they_fit_neither_says_that_there_is_more() -> None:
    assert "more" not in digest("disk full", "fan stopped", "cpu hot")


def test_few_alerts_make_no_more_lines_than_there_are_alerts() -> None:
    texts = NIGHT.read_text().splitlines()
    for first in range(0, len(texts), 8):
        assert len(digest(*texts[first : first + 8]).split("\n")) <= 9


# ---- what differs in those that are counted is named ----


def test_eight_services_that_failed_are_all_named() -> None:
    text = digest(
        *(f"systemd[1]: app-{n}.service: Failed with result 'exit-code'." for n in range(1, 9))
    )
    assert not [n for n in range(1, 9) if f"app-{n}.service" not in text], text


def test_seven_bans_name_seven_addresses() -> None:
    text = digest(
        *(f"fail2ban.actions [733]: NOTICE [sshd] Ban 192.0.2.{n}" for n in range(10, 17))
    )
    assert not [n for n in range(10, 17) if f"192.0.2.{n}" not in text], text


def test_addresses_are_named_with_how_often_each_came_the_most_frequent_first() -> None:
    addresses = ["203.0.113.1"] + ["203.0.113.2"] * 2 + ["203.0.113.3"] * 30 + ["2001:db8::7"]
    text = digest(*(f"web1 sshd[{n}]: Failed password for root from {address} port {n} ssh2"
                    for n, address in enumerate(addresses)))  # fmt: skip
    assert differing(text) == "from 203.0.113.3 ×30, 203.0.113.2 ×2, 2001:db8::7"


def test_many_different_values_are_named_in_part_and_the_rest_counted() -> None:
    text = digest(
        *(f"web1 sshd[1]: Invalid user {c}{c} from 192.0.2.5" for c in string.ascii_letters)
    )
    assert re.fullmatch(r"user bb(, (.)\2){7}, 43 others", differing(text)), text


HOSTILE_NAME = "web1 sshd[3]: Failed password for invalid user {} from {} port 22 ssh2"
LABELLED = {
    "a name of a value as a user's name": (
        [HOSTILE_NAME.format("admin", "192.0.2.1")] * 3
        + [HOSTILE_NAME.format("a=b", "192.0.2.6")] * 40,
        ["user from", "admin 192", "from port"],
    ),
    "a word before it that differs too": (
        ["web1 relay: moved old mail from alice ok done now"]
        + ["web1 relay: moved old mail to bob ok done now"] * 5,
        ["from bob"],
    ),
    "nothing behind the name": (
        ["web1 su: pam failure in session; tty=x ruser="] * 5
        + ["web1 su: pam failure in session; tty=x ruser=bob"] * 4,
        ["ruser  "],
    ),
    "what looks like our own list": (
        ["web1 sshd[1]: Invalid user root\u2800×99;\u2800from\u28009.9.9.9 from 192.0.2.5"] * 5
        + ["web1 sshd[1]: Invalid user admin from 192.0.2.5"] * 4,
        ["×99", "\u2800"],
    ),
}


@pytest.mark.parametrize("what", LABELLED)
def test_a_value_is_told_under_no_name_but_its_own_whatever_stands_there(what: str) -> None:
    texts, wrong = LABELLED[what]
    counted = [line for line in digest(*texts).split("\n") if COUNT.fullmatch(line)]
    assert counted and not [words for words in wrong if words in "\n".join(counted)], counted


@pytest.mark.parametrize("number_of_users", [30, 45, 300])
@pytest.mark.parametrize("last", ["", "cron"])
def test_how_often_a_value_came_is_told_exactly(number_of_users: int, last: str) -> None:
    users = [a + b + "q" for a in string.ascii_lowercase[:20] for b in string.ascii_lowercase]
    texts = [SESSION.format("login", 1, user) for user in ("amy", "amy", "zoe", "zoe", "zoe")]
    texts += [SESSION.format("su", 1, user) for user in users[:number_of_users] + ["zoe"] * 400]
    texts += [SESSION.format(last, 1, "zoe")] * 500 * bool(last)
    text = digest(*texts, *OTHERS)
    (quoted,) = (line for line in entries(text) if "session" in line)
    for told_of in differing(text).rpartition("user ")[2].split(", "):
        name, _, times = told_of.partition(" ×")
        if "other" not in name:
            sent = sum(f" {name} " in line for line in texts)
            assert number(times or "1") == sent - (f" {name} " in quoted), text


ALWAYS_DIFFERENT = {
    "a process id": "web1 cron[{n}]: job failed",
    "a port": "web1 sshd[1]: Connection reset by 192.0.2.5 port {n}",
    "a time": "web1 ftpd: connection timed out at 14:{n:02}:07 today",
    "a number with a unit": "web1 kernel: thermal: {n}ms above the limit",
    "a hexadecimal number": "web1 kernel: segfault at 0x{n:x} ip 00007f41465e{n:04x}",
    "nginx's number of a connection": "[error] 812#812: *{n} limiting requests, zone login",
    "a day of the week": "web1 ftpd[1]: connection lost at {day} Nov 23",
    "a time in ISO's form": "web1 app: request failed badly ts=2026-11-23T14:{n:02}:10Z",
    "a port with a name of two words": "web1 app: request failed badly client-port={n}",
    "a port and its protocol": "web1 kernel: dropped a packet on {n}/tcp",
    "a port behind an address": "web1 app: request failed for 192.0.2.7:{n} badly",
    "a request's time": '192.0.2.7 - - [23/Nov/2026:14:03:{n:02} +0100] "GET / HTTP/1.1" 200',
    "numbers of a thread": "[core:error] [pid 77{n}:tid 88{n}] [client 192.0.2.7:{n}] no such file",
    "a process and its connection": "[error] {n}#{n}: *{n} limiting requests, zone login",
    "a size behind a name": "web1 kernel: killed a process, total-vm:{n}kB",
    "an address in memory": "web1 kernel: segfault in libc at 4f{n:02}ab sp 7ffe{n}",
    "how long each step took": "web1 postfix: timed out, delays={n}.1/0/{n}/0",
    "the serial number of an audit line": "type=AVC msg=audit(1700000000.1:{n}): avc: denied x",
}


@pytest.mark.parametrize("value", ALWAYS_DIFFERENT)
def test_what_differs_always_is_not_named(value: str) -> None:
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    form = ALWAYS_DIFFERENT[value]
    assert differing(digest(*(form.format(n=n, day=days[n % 7]) for n in range(40)))) == ""


PAM = "web1 CRON[5]: pam_unix(cron:session): session opened for user {} by (uid=0)"


@pytest.mark.parametrize("user", ["{}", "{}(uid={})"])
def test_users_are_told_as_users_with_their_ids_and_without(user: str) -> None:
    names = ["root"] * 9 + ["www-data"] * 4 + ["backup"] * 2
    text = digest(*(PAM.format(user.format(name, len(name))) for name in names))
    assert differing(text) == "user root ×8, www-data ×4, backup ×2"


def test_values_of_one_name_are_told_with_that_name_once() -> None:
    text = digest(*(f"web1 su: pam_unix: failure; rhost=192.0.2.{n % 4}" for n in range(40)))
    assert differing(text).count("rhost") == 1


def test_long_values_are_cut() -> None:
    names = [chr(97 + n) * 200 for n in range(9)]
    text = digest(*(f"web1 sshd[1]: Invalid user {name} from 192.0.2.5" for name in names))
    assert max(map(len, differing(text).split(", "))) < 80


def test_where_all_must_be_short_what_differs_is_left_out_before_a_kind() -> None:
    hosts = [f"host-{letter}.customers.provider.example" for letter in "abcdefghi"]
    texts = [
        f"web1 {tag}: {tag * 300} from {host}" for tag in string.ascii_lowercase for host in hosts
    ] + [f"web1 {tag}{tag}: {tag * 900}" for tag in string.ascii_lowercase]  # fmt: skip
    text = digest(*texts)
    assert len(entries(text)) == 52 and not REST.fullmatch(text.split("\n")[-1])


# ---- kinds ----


def test_numbers_make_no_difference_between_kinds() -> None:
    texts = [f"segfault at 0x{n:x} ip {n:08x} from 00:1a:{n % 256:02x}:bb:cc:dd" for n in range(50)]
    assert len(entries(digest(*texts))) == 1


def test_the_first_words_make_a_difference_between_kinds() -> None:
    text = digest(*["web1 kernel: link down on eth0"] * 10, *["web1 kernel: link up on eth0"] * 10)
    assert len(entries(text)) == 2


def test_lines_whose_other_words_mostly_differ_are_of_two_kinds() -> None:
    begin = "LabSZ sshd[7]: Received disconnect from 192.0.2.5: 11:"
    text = digest(*[f"{begin} Bye Bye [preauth]"] * 40, f"{begin} disconnected by user")
    assert any("disconnected by user" in line for line in entries(text)), text


def test_a_word_that_ends_a_part_of_the_message_makes_a_difference_between_kinds() -> None:
    form = "web1 sshd[7]: PAM {} more authentication {}; uid=0 euid=0 tty=ssh rhost=192.0.2.{}"
    one = form.format(1, "failure", 1)
    text = digest(*(form.format(n, "failures", n) for n in range(2, 40)), one)
    assert one in entries(text)
    assert len(entries(text)) == 2


def test_in_a_long_digest_one_message_of_two_programs_is_told_once_with_both_named() -> None:
    texts = [SESSION.format("su", n, "cyrus") for n in range(5)]
    texts += [SESSION.format("sshd", n, "news") for n in range(7)]
    assert len(entries(digest(*texts))) == 2
    text = digest(*texts, *OTHERS)
    assert len([line for line in entries(text) if "session" in line]) == 1
    assert differing(text) == "sshd ×7, su ×4; user news ×7, cyrus ×4"
    assert told(text) == (26, 26)


def test_in_a_long_digest_lines_with_the_host_and_without_it_do_not_mix_their_words() -> None:
    line = "sshd[1]: Failed password for bob from {} port 1 ssh2"
    texts = [("web1 " * (n % 2)) + line.format(f"192.0.2.{n % 2}") for n in range(80)]
    text = digest(*texts, *OTHERS)
    assert "web1" not in "".join(line for line in text.split("\n") if COUNT.fullmatch(line))


def test_in_a_long_digest_a_value_that_only_some_lines_have_makes_no_kind_of_its_own() -> None:
    texts = [FAILURE.format(4)] * 6 + [FAILURE.format(5) + "  user=root"] * 9
    text = digest(*texts, *OTHERS)
    assert len([line for line in entries(text) if "failure" in line]) == 1
    assert differing(text) == "rhost 192.0.2.5 ×9, 192.0.2.4 ×5; user root ×9"
    assert told(text) == (29, 29)


@pytest.mark.parametrize("others", [2, 90])
@pytest.mark.parametrize("times", [1, 2])
def test_in_a_long_digest_what_came_at_most_twice_stays_quoted(times: int, others: int) -> None:
    usual, rare = FAILURE.format(4), FAILURE.format(5) + "  user=root"
    text = digest(*[usual] * others, *[rare] * times, *OTHERS)
    assert {rare, *[usual] * (others == 2)} <= set(entries(text))


@pytest.mark.parametrize("others", [1, 90])
def test_in_a_long_digest_the_one_session_of_a_program_stays_quoted(others: int) -> None:
    alone, usual = SESSION.format("login", 3, "root"), SESSION.format("su", 3, "cyrus")
    text = digest(*[usual] * others, alone, *OTHERS)
    assert {usual, alone} <= set(entries(text))


APART = {
    "two programs": [SESSION.format(tag, 3, tag) for tag in ("login", "gdm") for _ in range(2)],
    "a ban and its end": [
        f"2026-11-23 14:03:2{n},1 fail2ban.actions [945]: NOTICE [recidive] {what} 192.0.2.7"
        for what in ("Ban", "Unban") for n in range(2)
    ],
    "lines of name=value alone": [
        line for line in ("level=error msg=raid_failed disk=sdb", "unit=db state=dead code=9")
        for _ in range(9)
    ],
    "an audit line that names what it is first": [
        f"type=AVC msg=audit(17.1:{n}): avc: {what} {{ execute }} for pid=1 comm=x"
        for what in ("denied", "granted") for n in range(40, 50)
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", APART)
def test_in_a_long_digest_these_stay_apart(what: str) -> None:
    texts = APART[what]
    text = digest(*texts, *OTHERS)
    assert {re.sub(r"\d", "", line) for line in texts} <= {
        re.sub(r"\d", "", line) for line in entries(text)
    }, text


def test_in_a_long_digest_messages_of_which_most_words_differ_are_told_each() -> None:
    texts = ["web1 a: link is gone for good now"] * 9 + ["web1 b: link is back since a while"] * 9
    text = digest(*texts, *OTHERS)
    assert {texts[0], texts[-1]} <= set(entries(text))


# ---- what is rare is on top, whoever wants to hide it ----

ROOT = "Nov 23 14:03:50 web1 sshd[41]: Accepted password for root from 203.0.113.66 port 522 ssh2"
FAILED = "Nov 23 14:03:40 web1 sshd[{n}]: Failed password for invalid user {} from 203.0.113.5"


def test_rarer_kinds_stand_above_more_common_ones() -> None:
    text = digest(
        *["web1 a: common thing"] * 50, *["web1 b: seldom thing"] * 5, "web1 c: one thing"
    )
    assert [line.split()[2] for line in entries(text)] == ["one", "seldom", "common"]


@pytest.mark.parametrize("joint", ["", "-", ".", "_", " "], ids=ascii)
def test_user_names_made_of_two_words_do_not_push_a_root_login_down(joint: str) -> None:
    words = [
        "red", "blue", "green", "big", "small", "old", "new", "fast", "slow", "cat", "dog", "fish",
        "bird", "tree", "rock",
    ]  # fmt: skip
    chance = random.Random(3)
    texts = [FAILED.format(joint.join(chance.sample(words, 2)), n=n) for n in range(120)]
    text = digest(*texts[:70], ROOT, *texts[70:])
    assert entries(text)[0] == ROOT
    assert told(text) == (121, 121)


SNORT = (
    "11/23-14:03:01.123456  [**] [1:{}:3] {} [**] [Classification: Attempted Admin]"
    " [Priority: 1] {{TCP}} 203.0.113.7:{} -> 192.0.2.1:80"
)
APACHE = (
    "[Mon Nov 23 14:03:51.123456 2026] [core:error] [pid {}:tid {}] [client 203.0.113.7:{}] {}"
)
ODD = {
    "a rule of snort's": (
        [SNORT.format(2001, "ET SCAN Nmap", n) for n in range(290)],
        [SNORT.format(3867, "Reverse shell established", 7)],
    ),
    "errors of Apache's, each with a number": (
        [APACHE.format(n, n, n, "AH00128: File does not exist") for n in range(290)],
        [APACHE.format(n, n, n, text) for n, text in enumerate(
            ["AH00126: Invalid URI in request", "AH00037: Symbolic link not allowed",
             "AH00046: child process exited abnormally"])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_of_many_lines_of_the_same_decoration_those_of_another_meaning_are_quoted(
    what: str,
) -> None:
    usual, odd = ODD[what]
    text = digest(*usual, *odd, *OTHERS)
    assert set(odd) <= set(text.split("\n")) and told(text)[0] == told(text)[1]


def test_mail_that_does_not_reach_three_hundred_people_is_told_once() -> None:
    chance = random.Random(9)
    form = (
        "web1 postfix/smtp[1]: 2344{:06X}: to=<{}@{}.example>, relay=none, delay=4, status=deferred"
        " (connect: timed out)"
    )
    words = ["".join(chance.choices(string.ascii_lowercase, k=8)) for _ in range(600)]
    text = digest(*(form.format(n, words[n], words[-n]) for n in range(1, 301)), *OTHERS)
    (line,) = (line for line in entries(text) if "postfix" in line)
    assert line.endswith("timed out)") and "to " in differing(text)
    assert line == entries(text)[-1]  # it is what there is most of


RANDOM_WORDS = {
    "a user name": FAILED,
    "a user name soon after the tag": "Nov 23 14:03:40 web1 sshd[2]: Invalid user {} from 1.2.3.4",
    "a user name as the first word": "2026-11-23T14:03:40+01:00 web1 su: {} failed on pts",
    "a user name as long as it likes": "Nov 23 14:03:40 web1 sshd[2]: Invalid user " + "{}" * 8,
    "a path": '2026/11/23 14:03:40 [error] 8#8: *{n} open() "/srv/{}" failed, client: 192.0.2.5',
    "a host name": "Nov 23 14:03:40 web1 named[2]: client 192.0.2.5: query {}.example.net refused",
    "a host name at the start of the line": "{}.example.net tried port 22",
}


@pytest.mark.parametrize("form", RANDOM_WORDS)
def test_twenty_thousand_random_words_do_not_crowd_a_root_login_out_as(form: str) -> None:
    chance = random.Random(7)

    def word() -> str:
        return "".join(chance.choices(string.ascii_lowercase + " " * form.endswith("likes"), k=8))

    texts = [RANDOM_WORDS[form].format(*(word() for _ in range(8)), n=n) for n in range(20_000)]
    text = digest(*texts[:9_000], ROOT, *texts[9_000:])
    assert ROOT in entries(text)[:3]
    assert told(text) == (20_001, 20_001)


def test_random_words_of_two_programs_do_not_crowd_a_root_login_out() -> None:
    chance = random.Random(7)
    su = RANDOM_WORDS["a user name as the first word"]
    sshd = "Nov 23 14:03:40 web1 sshd[2]: User {} from 192.0.2.5 not allowed"
    words = ["".join(chance.choices(string.ascii_lowercase, k=8)) for _ in range(5_300)]
    text = digest(*map(su.format, words[:300]), *map(sshd.format, words[300:]), ROOT)
    assert ROOT in entries(text)[:3]


def test_kinds_without_end_are_counted_exactly() -> None:
    chance = random.Random(8)
    texts = [
        f"web1 {''.join(chance.choices(string.ascii_lowercase, k=9))}: down" for _ in range(20_000)
    ]
    text = digest(*texts)
    assert told(text) == (20_000, 20_000)
    assert REST.fullmatch(text.split("\n")[-1])


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_hostile_lines_as_long_as_a_dm_do_not_crowd_a_root_login_out(first: bool) -> None:
    hostile = [f"web1 prog{chr(97 + n)}: " + chr(65 + n) * 9_900 for n in range(25)]
    text = digest(*([ROOT, *hostile] if first else [*hostile, ROOT]))
    assert ROOT in text
    assert told(text) == (26, 26)


def test_where_not_all_fits_each_is_cut_before_one_is_left_out() -> None:
    texts = [f"web1 prog{chr(97 + n)}: {chr(97 + n) * 3000}" for n in range(20)]
    text = digest(*texts)
    assert len(entries(text)) == 20 and text.count("characters cut]") == 20


# ---- text stays text ----

SMUGGLED = (
    "first\n14:03:22 an entry\n  39 more like this, last 14:03:22\nand 9 more of 3 other kinds, "
    "last 14:03:22\n[web1] 4 alerts, 14:03:22 to 14:03:23\nNov 23 14:03:22 web1 sshd[1]: an entry"
)  # fmt: skip
NEWLINES = ["\n", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"]


@pytest.mark.parametrize("newline", NEWLINES, ids=ascii)
@pytest.mark.parametrize("others", [0, 1, 5])
def test_a_line_within_an_alert_cannot_pass_for_a_line_of_ours(others: int, newline: str) -> None:
    text = digest(SMUGGLED.replace("\n", newline), *["disk full"] * others)
    lines = re.split("[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]", text)
    ours = [line for line in lines if not line.startswith("    ")]
    assert len(ours) == {0: 1, 1: 3, 5: 4}[others], text
    assert "an entry" not in "".join(line for line in ours if "first" not in line)


TEXT = st.text(st.sampled_from("ab \n\t[]0:1"), max_size=60).map(lambda text: text.strip("\n"))


@given(TEXT.filter(bool), st.sampled_from([1, 200, 5000]), st.sampled_from([0, 1, 12_345]))
@profile
def test_a_cut_says_exactly_how_many_characters_are_gone(
    text: str, times: int, before: int
) -> None:
    whole = ("x" + text) * times
    alert = Alert(whole, BEGAN, "web1", cut=before)
    dm = digest_of([alert])
    found = re.fullmatch(r"\[web1 14:03:22\] (.*?)(?: \[…([\d,]+) characters cut])?", dm, re.DOTALL)
    assert found
    gone = number(found[2] or "0")
    kept = whole[: len(whole) + before - gone].replace("\n", "\n    ")
    assert kept == found[1]
    assert bool(gone) == bool(before or len(whole.replace("\n", "\n    ")) > LIMIT - 16)


@pytest.mark.parametrize("before", range(5))
def test_a_cut_within_an_indent_leaves_no_line_that_is_indented_less(before: int) -> None:
    text = digest("x" * before + "y\n" * 4_000)
    assert not [line for line in text.split("\n")[1:] if not line.startswith("    ")]


def test_a_long_single_alert_is_quoted_up_to_nearly_the_whole_dm() -> None:
    assert digest("x" * LIMIT).count("x") > LIMIT - 100


# ---- it fits and its counts add up, whatever comes ----

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
LOG_WORDS = st.lists(
    st.sampled_from(["sshd[8]:", "failed", "root", "0x1f", "203.0.113.9", "42", "user=x", "[web1]",
                     "  98 more like this, last 14:00:00", "\nand 3 more of 2 other kinds", "🔥",
                     "Nov 23 14:03:22 ", "\n    ", "e\u0301\u0302\u0303" * 4]),
    min_size=1, max_size=6,
).map(" ".join)  # fmt: skip
PILES = st.lists(
    st.tuples(st.one_of(LOG_WORDS, ANY_TEXT), st.integers(1, 40), st.sampled_from([1, 1, 1, 400])),
    min_size=1, max_size=40,
)  # fmt: skip


@given(
    PILES, st.text(max_size=99).map(lambda host: clean(host).replace("\n", " ").replace("]", ""))
)
@profile
def test_what_is_quoted_and_counted_adds_up_and_the_dm_is_within_its_limit(
    piles: list[tuple[str, int, int]], host: str
) -> None:
    texts = [clean(text * long) or "?" for text, many, long in piles for _ in range(many)]
    random.Random(len(texts)).shuffle(texts)
    text = digest_of(alerts_of([*texts, "one more"]), host)
    assert told(text) == (len(texts) + 1, len(texts) + 1)
    assert len(text) <= LIMIT


FLOODS = {
    "endless lines": ["x" * 10_000, "y" * 10_000, "z" * 9_999],
    "emoji": ["🔥" * 10_000, "👩‍🚒" * 900],
    "lines within lines": ["x" + "\n" * 9_000 + "x", "a\n" * 5000],
    "very many kinds": ["".join(chr(97 + int(c)) for c in str(n)) for n in range(10_000)],
    "many long kinds": [chr(0x4E00 + n) * 3333 for n in range(300)],
    "many values of many words": [
        " ".join(f"{chr(97 + (n * k) % 26) * 60}" for k in range(1, 60)) for n in range(2_000)
    ],
}


@pytest.mark.parametrize("number_of_alerts", [1, None], ids=["one", "all"])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_dm_stays_within_its_limit_under_a_flood_of(
    flood: str, number_of_alerts: int | None
) -> None:
    texts = FLOODS[flood][:number_of_alerts]
    text = digest_of(alerts_of(texts), "a-host-of-a-long-name-" * 3)
    assert len(text) <= LIMIT


# ---- no input makes it slow ----

MEGABYTE = 10**6
HEAVY = {
    "digits that end in a letter": "1" * MEGABYTE + "g",
    "hexadecimal that ends in a letter": "a1" * (MEGABYTE // 2) + "g",
    "words of hexadecimal": "abcdef " * (MEGABYTE // 7),
    "0x": "0x" * (MEGABYTE // 2),
    "an address without end": "1.1.1.1:" * (MEGABYTE // 8),
    "colons": "Nov 23 14:03:22 x " + ":" * MEGABYTE,
    "colons and letters": "a:" * (MEGABYTE // 2) + "x",
    "names of values": "a=" * (MEGABYTE // 2),
    "a stamp without end": "Nov 23 14:03:22" + "." * MEGABYTE,
    "stamps": "Nov 23 14:03:22 " * (MEGABYTE // 16),
    "spaces": "Nov 23 14:03:22" + " " * MEGABYTE + "x",
    "newlines": "x" + "\n" * MEGABYTE + "x",
    "single letters": "a " * (MEGABYTE // 2),
    "sequences which only begin": "\x1b[" * (MEGABYTE // 2),
    "parameters without an end": "\x1b[" + "1;" * (MEGABYTE // 2),
    "strings without an end": ("\x9d" + "x" * 250) * (MEGABYTE // 250),
    "escapes with intermediates": ("\x1b" + " " * 1000) * (MEGABYTE // 1000),
    "bidi controls": "x" + "\u202e" * MEGABYTE,
}


@pytest.mark.parametrize("text", HEAVY)
def test_a_megabyte_is_cleaned_and_put_into_a_dm_within_seconds_even_of(text: str) -> None:
    began = time.process_time()
    cleaned = clean(HEAVY[text])
    digest(*(f"{n % 3} {cleaned}" for n in range(20)))
    assert time.process_time() - began < 4


def seconds(texts: list[str]) -> float:
    """What a digest of them costs, at the best of two."""
    costs = []
    for _ in range(2):
        began = time.process_time()
        digest(*texts)
        costs.append(time.process_time() - began)
    return min(costs)


def random_lines(number: int, words: int) -> list[str]:
    """Lines of one beginning and one length, in which no other word repeats for long."""
    chance = random.Random(9)
    known = ["".join(chance.choices("ghijkl", k=6)) for _ in range(300)]
    return [
        "web1 app: cannot do " + " ".join(chance.choices(known, k=words)) for _ in range(number)
    ]


def test_ten_times_as_many_alerts_take_about_ten_times_as_long() -> None:
    lines = random_lines(4_000, 36)
    assert seconds(lines) < 30 * seconds(lines[:400]) + 0.2


def test_lines_as_long_as_a_dm_take_little_longer_than_lines_of_a_few_hundred_characters() -> None:
    assert seconds(random_lines(1_000, 1_400)) < 4 * seconds(random_lines(1_000, 40)) + 0.1


# ---- real lines ----

# what an sshd under attack writes, and how often each kind comes in 300 lines
SSHD = {
    "Failed password for root from {ip} port {port} ssh2": 62,
    "Failed password for invalid user {user} from {ip} port {port} ssh2": 50,
    "Invalid user {user} from {ip}": 44,
    "input_userauth_request: invalid user {user} [preauth]": 43,
    "pam_unix(sshd:auth): check pass; user unknown": 30,
    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser="
    " rhost={ip}": 20,
    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}"
    "  user=root": 18,
    "Received disconnect from {ip}: 11: Bye Bye [preauth]": 12,
    "Connection closed by {ip} port {port} [preauth]": 8,
    "Disconnected from authenticating user root {ip} port {port} [preauth]": 4,
    "Did not receive identification string from {ip}": 2,
    "error: maximum authentication attempts exceeded for root from {ip} port {port} ssh2"
    " [preauth]": 2,
    "error: Received disconnect from {ip}: 3: com.jcraft.jsch.JSchException: Auth fail"
    " [preauth]": 1,
    "reverse mapping checking getaddrinfo for {user}.example [{ip}] failed - POSSIBLE BREAK-IN"
    " ATTEMPT!": 1,
    "Accepted publickey for deploy from {ip} port {port} ssh2: ED25519 SHA256:x{port}": 1,
    "pam_unix(sshd:session): session opened for user deploy(uid=1000) by (uid=0)": 1,
    "fatal: Timeout before authentication for {ip} port {port}": 1,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_of_three_hundred_lines_of_an_attacked_sshd_each_kind_is_quoted_in_few_lines(
    seed: int,
) -> None:
    chance = random.Random(seed)
    users = ["admin", "oracle", "test", "ubuntu", "postgres", "git", "ftpuser", "hadoop"]
    lines = [
        f"Nov 23 14:03:40 web1 sshd[{chance.randrange(10**5)}]: " + form.format(
            ip=f"203.0.113.{chance.randrange(20)}", port=chance.randrange(10**5),
            user=chance.choice(users) + chance.choice(["", "", "1", "_old", "-test"]))
        for form, times in SSHD.items() for _ in range(times)
    ]  # fmt: skip
    chance.shuffle(lines)
    text = digest(*lines)
    assert told(text) == (len(lines), len(lines)) == (300, 300)
    quoted = "\n".join(entries(text))
    starts = [re.sub(r"\{.*", "", form) for form in SSHD]
    assert not [start for start in starts if start not in quoted]
    assert len(text.split("\n")) <= 40


MORNING = """\
Nov 23 14:03:22 web1 sshd[41290]: Accepted password for root from 203.0.113.66 port 40022 ssh2
2026-11-23 14:03:25,118 fail2ban.actions        [733]: NOTICE  [sshd] Ban 198.51.100.7
Nov 23 14:03:26 web1 kernel: Out of memory: Killed process 2231 (mariadbd) total-vm:8123456kB
Nov 23 14:03:26 web1 systemd[1]: mariadb.service: Failed with result 'oom-kill'.
Nov 23 14:03:27 web1 systemd[1]: shop-1.service: Failed with result 'exit-code'.
2026-11-23 14:03:28,840 fail2ban.actions        [733]: NOTICE  [sshd] Ban 192.0.2.150
Nov 23 14:03:30 web1 systemd[1]: shop-2.service: Failed with result 'exit-code'.
Nov 23 14:03:31 web1 sudo:   deploy : user NOT in sudoers ; TTY=pts/0 ; USER=root ; COMMAND=/bin/id
"""
MORNING_DM = """\
[web1] 8 alerts, 14:03:22 to 14:03:31
Nov 23 14:03:22 web1 sshd[41290]: Accepted password for root from 203.0.113.66 port 40022 ssh2
Nov 23 14:03:26 web1 kernel: Out of memory: Killed process 2231 (mariadbd) total-vm:8123456kB
Nov 23 14:03:31 web1 sudo:   deploy : user NOT in sudoers ; TTY=pts/0 ; USER=root ; COMMAND=/bin/id
Nov 23 14:03:26 web1 systemd[1]: mariadb.service: Failed with result 'oom-kill'.
2026-11-23 14:03:25,118 fail2ban.actions        [733]: NOTICE  [sshd] Ban 198.51.100.7
2026-11-23 14:03:28,840 fail2ban.actions        [733]: NOTICE  [sshd] Ban 192.0.2.150
Nov 23 14:03:27 web1 systemd[1]: shop-1.service: Failed with result 'exit-code'.
Nov 23 14:03:30 web1 systemd[1]: shop-2.service: Failed with result 'exit-code'."""


def stamped(lines: Iterable[str]) -> list[Alert]:
    """Alerts that were sent at the time of day which their lines tell."""
    alerts = []
    for line in lines:
        moment = re.search(r"\d\d:\d\d:\d\d", line)
        assert moment, line
        alerts.append(Alert(line, at(moment[0]), "web1"))
    return alerts


def test_eight_alerts_of_several_kinds_are_each_quoted_the_rarest_first() -> None:
    assert digest_of(stamped(MORNING.splitlines())) == MORNING_DM


def test_a_night_with_an_attack_a_break_in_and_a_dying_disk_is_told_on_one_screen() -> None:
    """Found good: the dying disk, the new root account, the sudo and the root login are the first
    four of 97; every unit that fell is named; the attack is eight lines, with whom and whence."""
    assert digest_of(stamped(NIGHT.read_text().splitlines())) == NIGHT_DM.read_text().rstrip("\n")


def test_in_a_long_digest_few_of_the_differing_values_are_named_and_in_a_short_one_eight() -> None:
    hosts = [f"host-{letter}.customers.provider.example" for letter in "abcdefghi"]
    stamp = "Nov 23 03:02:15 web1"
    attack = [f"{stamp} ftpd: connection from {host} refused by policy" for host in hosts]
    others = [line.replace("web1", stamp) for line in OTHERS]
    short, long = digest_of(stamped(attack)), digest_of(stamped([*attack, *others]))
    assert [host in short for host in hosts] == [True] * 9 and "other" not in short
    assert [host in long for host in hosts] == [True] * 3 + [False] * 6 and "6 others" in long


# ---- what is rare, in more forms ----

P = "Nov 23 14:03:22 web1 "
STORMS = {
    "of repeated messages": (
        P + "sshd[{0}]: message repeated 2 times: [ Failed password for root from 192.0.2.{0}]",
        P + "sshd[9]: message repeated 3 times: [ Accepted password for root from 192.0.2.9]",
    ),
    "of vsftpd": (
        'Mon Nov 23 14:03:22 2026 [pid {0}] [{1}] FAIL LOGIN: Client "192.0.2.{0}"',
        'Mon Nov 23 14:03:22 2026 [pid 9] [root] OK LOGIN: Client "203.0.113.66"',
    ),
    "in the form of RFC 5424": (
        "<38>1 2026-11-23T14:03:22.123Z web1 sshd {0} - - Failed password for {1} from 192.0.2.{0}",
        "<38>1 2026-11-23T14:03:22.123Z web1 sshd 9 - - Accepted password for root from 192.0.2.9",
    ),
    "of JSON": (
        '{{"c": "ACCESS", "m": "Authentication failed", "user": "{1}", "remote": "192.0.2.{0}:9"}}',
        '{"c": "ACCESS", "m": "Authentication succeeded", "user": "root", "remote": "192.0.2.9:9"}',
    ),
    "of auditd": (
        "type=USER_AUTH msg=audit(17.{0}:{0}): pid={0} acct=\"{1}\" addr=192.0.2.{0} res=failed",
        "type=USER_LOGIN msg=audit(17.9:9): pid=9 acct=\"root\" addr=192.0.2.9 res=success",
    ),
    "of auditd, which tells it at the end": (
        "type=USER_LOGIN msg=audit(17.{0}:{0}): pid={0} uid=0 ses=4 msg='op=login acct=\"x\""
        " hostname=? addr=192.0.2.{0} terminal=ssh res=failed'",
        "type=USER_LOGIN msg=audit(17.9:9): pid=9 uid=0 ses=4 msg='op=login acct=\"root\""
        " hostname=? addr=192.0.2.9 terminal=ssh res=success'",
    ),
    "which a word of the attacker's begins": (
        P + "user={1}{0} sshd: Failed password from 192.0.2.{0}",
        P + "user=root sshd: Accepted password from 203.0.113.66",
    ),
    "whose names the attacker chooses": (
        P + "proftpd[{0}]: 192.0.2.1 ({1}.example[192.0.2.{0}]) - USER {1}: no such user",
        P + "proftpd[9]: 192.0.2.1 (its.example[203.0.113.66]) - USER root: Login successful.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", STORMS)
@pytest.mark.parametrize("place", [30, 60])
def test_one_login_among_many_failures_is_on_top(form: str, place: int) -> None:
    storm, rare = STORMS[form]
    lines = [storm.format(i, word) for i, word in zip(range(60), random_words(60))]
    text = digest(*lines[:place], rare, *lines[place:], *OTHERS)
    assert any(rare in line for line in text.split("\n")[: len(OTHERS) + 2]), text


def random_words(number: int) -> list[str]:
    chance = random.Random(7)
    return ["".join(chance.choices(string.ascii_lowercase, k=6)) for _ in range(number)]


@pytest.mark.parametrize(
    "line",
    [
        P + "postfix/smtp[{0}]: 4{1}R8{1}: to=<u{0}@x.example>, status=deferred (timed out)",
        P + "sendmail[{0}]: xAN{1}0000{0:04}: to=<u@x.example>, stat=Deferred: timed out",
        "2026-11-23 14:03:22 1{1:.5}-{1:.6}-wJ ** u@x.example T=remote_smtp: timed out",
    ],
)
def test_messages_that_differ_by_the_id_of_a_mail_are_of_one_kind(line: str) -> None:
    lines = [line.format(i, word) for i, word in enumerate(random_words(300))]
    text = digest(*lines, P + "exim: no disk space")
    assert len(entries(text)) == 2 and "299 more like this" in text, text


def test_a_kernel_message_counts_as_itself_however_its_clock_is_padded() -> None:
    rare = P + "kernel: [ 5175.5] EXT4-fs (sda1): Remounting filesystem read-only"
    noise = [P + f"kernel: [ 51{i:02}.5] [UFW BLOCK] SRC=192.0.2.{i} LEN=40" for i in range(99)]
    common = [P + f"sshd[{i}]: Connection reset by 192.0.2.{i}" for i in range(30)]
    assert entries(digest(*noise, rare, *common))[0] == rare


def test_one_long_line_takes_no_text_away_from_its_neighbours() -> None:
    start = P + "sudo: bob : user NOT in sudoers ; TTY=pts/{} ; PWD=/ ; COMMAND="
    long = start.format(0) + "/bin/echo " + "x" * 9_900
    short = [start.format(1) + "/bin/cat /etc/shadow", start.format(2) + "/sbin/insmod /tmp/kit.ko"]
    text = digest(P + "first: alert", long, *short)
    assert all(line in text for line in short), text


def test_of_more_values_than_are_counted_the_quoted_one_is_not_told_as_another() -> None:
    few = [SESSION.format("su", i, word) for i, word in enumerate(random_words(5))]
    many = [SESSION.format("sshd", i, word[::-1]) for i, word in enumerate(random_words(60))]
    text = digest(*few, *many, *OTHERS)
    counted = re.search(r"([\d,]+) more like this, last .*; user (.*)", text)
    assert counted, text
    *named, others = counted[2].split(", ")
    assert number(counted[1]) == 64 == len(named) + number(others.split()[0]), text


@pytest.mark.parametrize(
    "line, named, not_named",
    [
        ('time="2026-11-23T14:03:{0:02}Z" level=error msg="{1} is down"', "msg bnalbc", "2026"),
        ("named[1]: client @0x7f{0:06x} 192.0.2.{0}#597{0}: denied", "192.0.2.", "@0x"),
        ('app[1]: login failed from tty on host acct="({1})" res=failed', "acct bnalbc", 'acct "'),
        ('nginx: 7#7: *1 open() "/a?id{1}=1" failed (2: No such file or directory), client: '
         "192.0.2.{0}, server: www", "; 192.0.2.1", " failed"),
    ],
)  # fmt: skip
def test_what_differs_is_named_as_what_it_is(line: str, named: str, not_named: str) -> None:
    text = digest(*(line.format(i, word) for i, word in enumerate(random_words(30))))
    assert named in differing(text) and not_named not in differing(text), text


def test_a_label_with_a_domain_stands_once_too() -> None:
    text = "Nov 23 14:03:22 web1.example.com sshd[7]: denied"
    assert digest_of(alerts_of([text]), host="web1.example.com") == text


@pytest.mark.parametrize(
    "rare, common",
    [
        (P + "supervisord: authservice2 exited unexpectedly",
         P + "supervisord: mailworker3abc exited unexpectedly"),
        (P + "monit[1]: postgresql15 failed protocol test",
         P + "monit[1]: elasticsearch7 failed protocol test"),
    ],
)  # fmt: skip
def test_a_name_with_a_number_is_no_id(rare: str, common: str) -> None:
    assert entries(digest(*[common] * 50, rare))[0] == rare


def test_a_word_that_differs_once_settled_makes_no_kind_for_each_of_its_values() -> None:
    lines = [
        f'{{"c": "ACCESS", "m": "login failed", "user": "{word}", "remote": "192.0.2.{i}:9"}}'
        for word in random_words(40) for i in range(25)
    ]  # fmt: skip
    rare = '{"c": "ACCESS", "m": "login succeeded", "user": "root", "remote": "192.0.2.9:9"}'
    text = digest(*lines, rare)
    assert rare in text.split("\n")[1] and len(text.split("\n")) <= 6, text
    hosts = [f"Nov 23 14:03:22 {word} cron: job failed on disk" for word in random_words(40)
             for _ in range(25)]  # fmt: skip
    assert len(entries(digest(*hosts))) == 1


def test_what_there_is_no_kind_left_for_is_counted_with_what_it_is_like() -> None:
    words = random_words(31 * 7)
    lines = [P + "job failed " + " ".join(words[7 * n : 7 * n + 7]) for n in range(31)]
    for what in ("tape", "disk"):
        lines += [P + f"job failed while writing block to {what} drive {n}" for n in range(30)]
    text = digest(*lines)
    found = re.findall(r"(?:tape|disk) drive \d+\n  (\d+) more", text)
    assert sum(number(more) + 1 for more in found) == 60, text


def test_a_rare_line_is_not_cut_so_that_more_of_a_common_kind_are_quoted() -> None:
    rare = P + "sudo: bob: " + "x" * 5_900
    common = [P + f"app[{i}]: request failed with trace " + f"{i} " + "y" * 2_900 for i in range(3)]
    assert rare in digest(*common, rare)
