"""A storm becomes one DM: each alert is quoted or counted, what is rare is on top, text stays text.

What stands in full (logs-dm.txt) was read as somebody would who is woken by it at three at night.
"""

from __future__ import annotations

import json
import random
import re
import string
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bird_sentinel import Alert, Digest, compose

LIMIT = 10_000
NIGHT = Path(__file__).with_name("logs.txt")  # 97 lines of one host, and the DM that they become
NIGHT_DM = Path(__file__).with_name("logs-dm.txt")
TIME = r"(?:[A-Z][a-z]{2} \d\d )?\d\d:\d\d:\d\d"
ENTRY = re.compile(rf"•{TIME} (.*)")  # a line of a DM that quotes an alert
COUNT = re.compile(rf"  ([\d,]+) more like this, last {TIME}(?:: (\S.*))?")
REST = re.compile(r"and ([\d,]+) more of other kinds")

def at(clock: str, day: str = "2026-11-23") -> float:
    return time.mktime(time.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S"))


NOW, BEGAN = at("14:30:00"), at("14:03:22")


def alerts_of(texts: Iterable[str], step: float = 0.01, host: str = "web1") -> list[Alert]:
    return [Alert(text, BEGAN + i * step, host) for i, text in enumerate(texts)]


def gathered(alerts: Iterable[Alert]) -> Digest:
    digest = Digest()
    for alert in alerts:
        digest.add(alert)
    return digest


def digest(*texts: str, step: float = 0.01) -> str:
    """The DM that these lines become."""
    return compose(gathered(alerts_of(texts, step)), "", NOW)


def stamped(lines: Iterable[str]) -> list[Alert]:
    """Alerts that were sent a second after the time of day which their lines tell."""
    moments = [(line, re.search(r"\d\d:\d\d:\d\d", line)) for line in lines]
    return [Alert(line, at(moment[0]) + 1.3, "web1") for line, moment in moments if moment]


def told(text: str) -> tuple[int, int]:
    """How many alerts a digest says that it has; how many its lines quote and count."""
    head, *lines = text.split("\n")
    several = re.fullmatch(rf"\[[^\]]*\] ([\d,]+) alerts, Nov 23 {TIME} to {TIME}", head)
    assert several, head
    total = 0
    for line in lines:
        counted = COUNT.fullmatch(line) or REST.fullmatch(line)
        if counted:
            total += int(counted[1].replace(",", ""))
        elif not line.startswith("    "):
            assert ENTRY.match(line), f"neither quotes nor counts: {line!r}"
            total += 1
    return int(several[1].replace(",", "")), total


def entries(text: str) -> list[str]:
    """What a digest quotes, from the top, each without its time."""
    return [found[1] for line in text.split("\n") if (found := ENTRY.match(line))]


def differing(text: str) -> str:
    """What the one count line of a digest says about those which it counts."""
    [found] = filter(None, map(COUNT.fullmatch, text.split("\n")))
    return found[2] or ""


def random_words(many: int, seed: int = 7, length: int = 8) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(string.ascii_lowercase, k=length)) for _ in range(many)]


# ---- the form: one alert ----

HEADS = {
    "a line without a time stamp": ("disk full", "[web1 14:03:22] "),
    "a time of day alone": ("14:03:20 disk full", "[web1 14:03:22] "),
    "a stamp behind an address": ("::1 [23/Nov/2026:14:03:20 +0100] x", "[web1 14:03:22] "),
    "the host's name without a stamp": ("web1 is alive", "[web1 14:03:22] "),
    "syslog's stamp and the host": ("Nov 23 14:03:20 web1 sshd[1]: x", ""),
    "syslog's stamp and the host with its domain": ("Nov  3 14:03:20 web1.example sshd: x", ""),
    "syslog's new stamp and the host": ("2026-11-23T14:03:20.12+01:00 web1 sshd[1]: x", ""),
    "a line of RFC 5424": ("<34>1 2026-11-23T14:03:20.003Z web1 su - - - denied", ""),
    "a priority, a stamp and the host": ("<38>Nov 23 14:03:20 web1 sshd[1]: x", ""),
    "a stamp and another host": ("Nov 23 14:03:20 db7 sshd: x", "[web1] "),
    "nginx's stamp": ("2026/11/23 14:03:20 [alert] 8#8: x", "[web1] "),
    "Apache's stamp": ("[Mon Nov 23 14:03:20.123456 2026] [core:notice] x", "[web1] "),
    "PHP's stamp": ("[23-Nov-2026 14:03:20] WARNING: [pool www] child 77 exited", "[web1] "),
    "fail2ban's stamp": ("2026-11-23 14:03:20,123 f2b x", "[web1] "),
    "snort's stamp": ("11/23-14:03:20.123456  [**] x", "[web1] "),
}


@pytest.mark.parametrize("form", HEADS)
def test_one_alert_has_at_its_head_what_its_line_does_not_say_itself(form: str) -> None:
    line, head = HEADS[form]
    assert digest(line) == head + line


@pytest.mark.parametrize(
    "label, hosts, head",
    [("", "web1", "[web1 "), ("", "web1 db7", "[db7, web1] "), ("shop", "web1", "[shop "),
     ("shop", "web1 db7", "[shop] ")],
)  # fmt: skip
def test_the_label_is_the_configured_one_or_the_hosts(label: str, hosts: str, head: str) -> None:
    alerts = [Alert(f"disk full on {host}", BEGAN, host) for host in hosts.split()]
    assert compose(gathered(alerts), label, NOW).startswith(head)


@pytest.mark.parametrize(
    "texts, head",
    [(["disk full"], "[web1 14:03:22, {}] disk full"),
     (["disk full\nand more"], "[web1 14:03:22, {}] disk full"),
     (["11/23-14:03:20.1 [**] x"], "[web1, {}] 11/23-14:03:20.1 [**] x"),
     (["Nov 23 14:03:20 web1 sshd[1]: x"], "[{}] Nov 23 14:03:20 web1 sshd[1]: x"),
     (["disk full", "fan stopped"], "[web1] 2 alerts, Nov 23 14:03:22 to 14:03:22, {}")],
)  # fmt: skip
def test_a_note_is_in_the_first_line(texts: list[str], head: str) -> None:
    note = "not to @second: does not accept DMs"
    text = compose(gathered(alerts_of(texts)), "", NOW, note)
    assert text.split("\n")[0] == head.format(note)


# ---- the form: several ----


def test_what_came_on_another_day_than_the_head_or_the_reader_has_its_date() -> None:
    moments = {"disk full": at("23:59:58"), "fan": at("00:01:00", "2026-11-24")}
    alerts = [Alert(text, sent, "web1") for text, sent in moments.items()]
    assert compose(gathered(alerts[1:]), "", NOW) == "[web1 Nov 24 00:01:00] fan"
    head, *lines = compose(gathered(alerts), "", at("00:02:00", "2026-11-24")).split("\n")
    assert head == "[web1] 2 alerts, Nov 23 23:59:58 to Nov 24 00:01:00"
    assert set(lines) == {"•Nov 24 00:01:00 fan", "•23:59:58 disk full"}


def test_a_quoted_line_has_its_own_time_and_neither_date_nor_host() -> None:
    quoted = {
        "<38>1 2026-11-23T14:03:20.123+01:00 web1 sshd 7 - - fan": "•14:03:20 sshd 7 - - fan",
        "[Mon Nov 23 14:03:21.1 2026] [core:error] disk": "•14:03:21 [core:error] disk",
        "Nov 23 14:03:22 db7 kernel: cpu": "•14:03:22 db7 kernel: cpu",
        "raid": "•14:03:22 raid",
    }
    head, *lines = digest(*quoted).split("\n")
    assert head == "[web1] 4 alerts, Nov 23 14:03:20 to 14:03:22"
    assert set(lines) == set(quoted.values())


@pytest.mark.parametrize("stamp", ["2026-11-23T13:03:22Z", "Nov 23 14:03:30", "Nov 22 02:00:00"])
def test_a_stamp_of_another_zone_or_of_long_ago_is_quoted_and_not_believed(stamp: str) -> None:
    text = digest(f"{stamp} web1 kernel: fan", "disk full")
    assert text.split("\n")[0].endswith("Nov 23 14:03:22 to 14:03:22")
    assert f"•14:03:22 {stamp} web1 kernel: fan" in text.split("\n")


def test_few_of_a_kind_are_each_quoted_but_no_text_twice_in_a_row() -> None:
    lines = digest("disk full", "disk full", "disk 7 full", step=24).split("\n")[1:]
    assert lines == ["•14:03:22 disk full", "•14:04:10 disk 7 full",
                     "  1 more like this, last 14:04:10"]  # fmt: skip


def test_of_many_alike_the_first_is_quoted_and_the_others_are_counted() -> None:
    texts = [f"Failed password for root from 203.0.113.9 port {n + 4000}" for n in range(1_001)]
    assert digest(*texts, step=48 / 1_000).split("\n") == [
        "[web1] 1,001 alerts, Nov 23 14:03:22 to 14:04:10",
        "•14:03:22 Failed password for root from 203.0.113.9 port 4000",
        "  1,000 more like this, last 14:04:10",
    ]


def test_a_night_with_an_attack_a_break_in_and_a_dying_disk_is_told_on_one_screen() -> None:
    text = compose(gathered(stamped(NIGHT.read_text().splitlines())), "", NOW)
    assert text == NIGHT_DM.read_text().rstrip("\n")


# ---- what differs in those that are counted is named ----


@pytest.mark.parametrize(
    "form, name",
    [("systemd[1]: {}: Failed with result 'exit-code'.", "app-{}.service"),
     ("fail2ban.actions [733]: NOTICE [sshd] Ban {}", "192.0.2.{}")],
)  # fmt: skip
def test_eight_services_and_eight_addresses_are_all_named(form: str, name: str) -> None:
    names = [name.format(n) for n in range(8)]
    text = digest(*map(form.format, names))
    assert not [name for name in names if name not in text], text


def test_addresses_are_named_with_how_often_each_came_the_most_frequent_first() -> None:
    addresses = ["203.0.113.1"] + ["203.0.113.2"] * 2 + ["203.0.113.3"] * 30 + ["2001:db8::7"]
    text = digest(*(f"web1 sshd[{n}]: Failed password for root from {address} port {n} ssh2"
                    for n, address in enumerate(addresses)))  # fmt: skip
    assert differing(text) == "203.0.113.3 ×30, 203.0.113.2 ×2, 2001:db8::7"


def test_many_different_values_are_named_in_part_and_the_rest_counted() -> None:
    users = [c * 3 for c in string.ascii_lowercase]
    text = digest(*(f"web1 sshd[1]: Invalid user {user} from 192.0.2.5" for user in users))
    assert re.fullmatch(r"bbb(, (.)\2\2){7}, 17 others", differing(text)), text


@pytest.mark.parametrize("others", [30, 45, 300])
def test_how_often_a_value_came_is_told_exactly(others: int) -> None:
    users = ["amy", "amy", "zoe", "zoe", *random_words(others), *["zoe"] * 400]
    text = digest(*map("web1 su: session was opened for user {} by root".format, users))
    assert differing(text).startswith("zoe ×402, amy, ")
    assert differing(text).endswith(f", {others - 6} others")


ALWAYS_DIFFERENT = {
    "a process id and a port": "web1 sshd[{n}]: Connection reset by peer port {n}",
    "a number with a unit": "web1 kernel: thermal: {n}ms above the limit",
    "a hexadecimal number": "web1 kernel: segfault at 0x{n:x} ip 00007f41465e{n:04x}",
    "a size behind a name": "web1 kernel: killed a process, total-vm:{n}kB",
    "how long each step took": "web1 postfix: timed out, delays={n}.1/0/{n}/0",
    "the id of a block": "dfs.DataNode: Receiving block blk_-16089996879{n} from here",
    "the id of a request": "nova: [req-38101a0b-2096-447d-96ea-a692162415{n}] took too long",
}


@pytest.mark.parametrize("value", ALWAYS_DIFFERENT)
def test_numbers_and_ids_are_not_named_and_make_no_kinds(value: str) -> None:
    form = ALWAYS_DIFFERENT[value]
    assert differing(digest(*(form.format(n=n) for n in range(10, 50)))) == ""


# ---- kinds ----


@pytest.mark.parametrize("failures", [9, 60])
@pytest.mark.parametrize(
    "form, word",
    [("<38>1 2026-11-23T03:10:22.4Z web1 sshd 2700 - - {} password for root from {}", "Accepted"),
     ('audit: op=login acct="root" hostname=? res={} addr={} terminal=ssh', "success")],
)  # fmt: skip
def test_a_login_that_differs_in_one_word_is_quoted(form: str, word: str, failures: int) -> None:
    login, failed = form.format(word, "203.0.113.66"), [form.format("failed", "192.0.2.1")]
    assert any(word in line for line in entries(digest(*failed * failures, login, *failed)))


def test_a_word_that_is_settled_makes_no_kind_for_each_of_its_values() -> None:
    form = "sshd: login failed while opening a door for {} today"
    text = digest(*(form.format(word) for word in random_words(40) for _ in range(25)))
    assert len(entries(text)) <= 3, text


def test_reports_with_the_same_beginning_are_each_quoted_in_full() -> None:
    start = "backup failed\n" + "a line that all of them have\n" * 20
    reports = [f"{start}the cause: {word}" for word in random_words(4)]
    text = digest(*reports)
    assert not [report for report in reports if report.replace("\n", "\n    ") not in text]


# ---- what is rare is on top, whoever wants to hide it ----


def test_rarer_kinds_stand_above_more_common_ones() -> None:
    text = digest(*["web1 aaa: common"] * 50, *["web1 bbb: seldom"] * 5, "web1 ccc: once")
    assert [line.split()[2] for line in entries(text)] == ["once", "seldom", "common"]


FORMS = {
    "syslog": "Nov 23 14:03:22 web1 sshd[{0}]: {1} password for {2} from {3} port {0} ssh2",
    "ISO 8601": "2026-11-23T14:03:22.1+01:00 web1 sshd[{0}]: {1} password for {2} from {3}",
    "RFC 5424": "<38>1 2026-11-23T14:03:22.1Z web1 sshd {0} - - {1} password for {2} from {3}",
}
NAMES = {"random": "{0}", "two words": "{0} {1}", "composed": "{0}-{1}"}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("form, at", list(zip(FORMS, [0, 9_000, 20_000])))
def test_one_root_login_among_20_000_failures_is_on_top(form: str, names: str, at: int) -> None:
    words, line = random_words(20_001), FORMS[form]
    users = map(NAMES[names].format, words[1:], words)
    lines = [line.format(n, "Failed", user, "192.0.2.1") for n, user in enumerate(users)]
    lines.insert(at, line.format(7, "Accepted", "root", "203.0.113.66"))
    text = digest(*lines)
    assert "Accepted password for root from 203.0.113.66" in entries(text)[0]
    assert told(text) == (20_001, 20_001)


ROOT = FORMS["syslog"].format(7, "Accepted", "root", "203.0.113.66")
FAILED = ROOT.replace("Accepted", "Failed")
FLOODS = {
    "first word": "{0}.example.net tried port 22",
    "first word behind a stamp": "Nov 23 14:03:22 web1 {0}: down",
    "second word": "Nov 23 14:03:22 web1 proftpd[9]: {0} failed to log in",
    "third word": "Nov 23 14:03:22 web1 sshd[2]: User {0} from 192.0.2.5 not allowed",
    "two words": "Nov 23 14:03:22 web1 httpd: {0} {1} not found",
    "three words": "{0} {1} {2} and so on",
    "three words behind sshd": "Nov 23 14:03:22 web1 sshd[2]: {0} {1} {2} from 192.0.2.5",
    "every word": "{0} {1} {2} {3} {4} {5}",
    "path": '2026/11/23 14:03:40 [error] 8#8: *7 open() "/srv/{0}" failed, client: 192.0.2.5',
}


@pytest.mark.parametrize("at", [0, 1_000, 2_000])
@pytest.mark.parametrize("form", FLOODS)
def test_a_root_login_among_lines_that_begin_otherwise_is_near_the_top(form: str, at: int) -> None:
    words = random_words(2_006)
    lines = [FLOODS[form].format(*words[n : n + 6]) for n in range(2_000)]
    lines.insert(at, ROOT)
    text = digest(FAILED, *lines, FAILED)
    assert any("Accepted" in line for line in entries(text)[:3]), text[:600]
    assert told(text) == (2_003, 2_003)


def test_hostile_lines_as_long_as_a_dm_do_not_crowd_a_root_login_out() -> None:
    text = digest(*(f"web1 prog{c}: " + c * 9_900 for c in string.ascii_lowercase), ROOT)
    assert "Accepted password for root" in text and len(entries(text)) == 27


def test_where_not_all_fits_ids_are_cut_before_words_and_words_before_a_kind() -> None:
    words, request = random_words(300, length=5), "req-38101a0b-2096-447d-96ea-a69216241234"
    lines = [f"{words[3 * n]} {words[3 * n + 1]} [{request} 54fadb412c4e40cdbaed9335e4c35a9e]"
             f" {words[3 * n + 2]} failed" for n in range(100)]  # fmt: skip
    text = digest(*lines)
    assert len(entries(text)) == 100 and not REST.search(text)
    assert all("failed" in line for line in entries(text)), text[:600]


# ---- text stays text ----

SMUGGLED = "first\n•14:03:22 an entry\n  9 more like this, last 14:03:22: an entry\n[web1] an entry"


@pytest.mark.parametrize("others", [0, 1, 5])
def test_a_line_within_an_alert_cannot_pass_for_a_line_of_ours(others: int) -> None:
    text = digest(SMUGGLED, *["disk full"] * others)
    ours = [line for line in text.split("\n") if not line.startswith("    ")]
    assert len(ours) == {0: 1, 1: 3, 5: 4}[others], text
    assert "an entry" not in "".join(ours)


@pytest.mark.parametrize("before", range(5))
def test_a_cut_leaves_no_line_that_is_indented_less(before: int) -> None:
    for many in (1, 20):
        text = digest(*("x" * before + f"y\n{n}" * 4_000 for n in range(many)))
        assert {line[:4] for line in text.split("\n")[1:]} <= {"    ", "•14:", "  9 "}


def test_a_long_alert_is_quoted_up_to_nearly_the_whole_dm_with_its_end() -> None:
    text = digest("x" * (LIMIT - 5) + "cause")
    assert text.count("x") > LIMIT * 0.9 and text.endswith("cause") and len(text) <= LIMIT
    text = digest("x" * (LIMIT - 5) + "cause", "fan")
    assert text.count("x") > LIMIT * 0.7 and "xcause" in text and len(text) <= LIMIT


# ---- it fits and its counts add up, whatever comes ----

LOG_WORDS = st.lists(
    st.sampled_from(["sshd[8]:", "failed", "root", "0x1f", "203.0.113.9", "42", "user=x", "[web1]",
                     "  98 more like this, last 14:00:00", "\nand 3 more of 2 other kinds", "🔥",
                     "Nov 23 14:03:22 ", "\n    ", "e\u0301\u0302\u0303" * 4, "•", "=", "'", "::"]),
    min_size=1, max_size=6,
).map(" ".join)  # fmt: skip
PRINTABLE = st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1, max_size=40)
PILE = st.tuples(LOG_WORDS | PRINTABLE, st.integers(1, 40), st.sampled_from([1, 1, 1, 400]))


@given(st.lists(PILE, min_size=1, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck], database=None)
def test_what_is_quoted_and_counted_adds_up_within_the_limit_and_survives_the_disk(
    piles: list[tuple[str, int, int]],
) -> None:
    texts = [(text * long)[:LIMIT] for text, many, long in piles for _ in range(many)]
    random.Random(len(texts)).shuffle(texts)
    gathering = gathered(alerts_of([*texts, "one more"]))
    text = compose(gathering, "", NOW)
    assert told(text) == (len(texts) + 1, len(texts) + 1) and len(text) <= LIMIT
    loaded = Digest.load(json.loads(json.dumps(gathering.dump())))
    assert compose(loaded, "", NOW) == text
    rarer, others = loaded.halves()
    assert rarer.count + others.count == len(texts) + 1


def test_a_digest_that_was_loaded_goes_on_counting_as_if_it_had_not_been() -> None:
    alerts = stamped(NIGHT.read_text().splitlines())
    loaded = Digest.load(json.loads(json.dumps(gathered(alerts[:50]).dump())))
    for alert in alerts[50:]:
        loaded.add(alert)
    assert compose(loaded, "", NOW) == compose(gathered(alerts), "", NOW)


@pytest.mark.parametrize("damage", [None, float("nan"), "missing"])
@pytest.mark.parametrize("key", ["count", "first", "last", "kinds", "samples", "words", "text"])
def test_what_is_damaged_is_told(key: str, damage: Any) -> None:
    data = json.loads(json.dumps(gathered(alerts_of(["disk full", "disk full"])).dump()))
    [kind] = data["kinds"]
    for where in (data, kind, kind["samples"][0]):
        if where.pop(key, None) is not None and damage != "missing":
            where[key] = damage
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        Digest.load(data)


HEAVY = {
    "endless lines": ["x" * 10_000, "y" * 10_000, "z" * 9_999],
    "emoji": ["🔥" * 10_000, "👩‍🚒" * 900],
    "lines within lines": ["x" + "\n" * 9_000 + "x", "a\n" * 5000],
    "many long kinds": [chr(0x4E00 + n) * 3333 for n in range(300)],
    "many values of many words": [
        " ".join(chr(97 + n * k % 26) * 60 for k in range(60)) for n in range(2_000)],
    "digits that end in a letter": ["1" * 9_999 + "g"] * 20,
    "hexadecimal that ends in a letter": ["a1" * 4_999 + "g"] * 20,
    "addresses without end": ["1.1.1.1:" * 1_200, "::1" * 3_000] * 20,
    "stamps": ["Nov 23 14:03:22 " * 600, "Nov 23 14:03:22" + " " * 9_900 + "x"] * 20,
    "colons and letters": ["a:" * 4_999 + "x", "a=" * 4_999] * 20,
    "lines of random words": [" ".join(random_words(1_100, seed=n)) for n in range(300)],
}  # fmt: skip


@pytest.mark.parametrize("what", HEAVY)
def test_a_dm_is_within_its_limit_and_made_within_seconds_of(what: str) -> None:
    began = time.process_time()
    assert len(digest(*HEAVY[what])) <= LIMIT
    assert len(digest(HEAVY[what][0])) <= LIMIT
    assert time.process_time() - began < 3


def test_many_long_lines_of_random_words_take_little_memory() -> None:
    words, chance, digest = random_words(30_000), random.Random(3), Digest()
    tracemalloc.start()
    for _ in range(400):
        text = " ".join(chance.choices(words, k=1_100))
        for length in (10_000, 9_000, 8_000):
            digest.add(Alert(text[:length], BEGAN, "web1"))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 15e6 and digest.count == 1_200
