"""A storm becomes one DM, in which each alert is quoted or counted, and the odd one out is seen.

The text of a DM is made by functions without a disk, a network or a clock, so most of this needs
none either.  The last test goes the whole way, through a queue that is over its limit.
"""

from __future__ import annotations

import random
import re
import string
import subprocess
import sys
import time
import unicodedata

import pytest
from conftest import Sentinel
from fake_x import ERRORS, FakeX
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bird_sentinel import Alert, clean, clock, compose, cut, quote, rough_shape, shape, size

NOW = time.mktime((2026, 11, 23, 14, 30, 0, 0, 0, -1))
LIMIT = 10_000
NEEDLE = "web1 sshd[3001]: Accepted password for root from 203.0.113.66 port 52222 ssh2"
TIME = r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"

profile = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def alerts_of(*texts: str, began: float = NOW - 100, step: float = 0.01) -> list[Alert]:
    """Alerts of this day, in this order."""
    return [Alert(i + 1, began + i * step, text) for i, text in enumerate(texts)]


def digest(*texts: str) -> str:
    return compose(alerts_of(*texts), "web1", NOW)


def number(digits: str) -> int:
    return int(digits.replace(",", ""))


def told(text: str) -> tuple[int, int]:
    """What a digest of one-line alerts says at its head, and what its lines add up to."""
    head, *lines = text.split("\n")
    several = re.fullmatch(rf"\[.*\] ([\d,]+) alerts, {TIME} to {TIME}", head)
    assert several, head
    total = 0
    for line in lines:
        more = re.fullmatch(rf"  ×([\d,]+) like this, last {TIME}", line)
        rest = re.fullmatch(rf"and ([\d,]+) more, of [\d,]+ other kinds, last {TIME}", line)
        if more or rest:
            total += number((more or rest or line)[1])
        else:
            assert re.match(rf"{TIME} ", line), f"neither quotes nor counts: {line!r}"
            total += 1
    return number(several[1]), total


# ---- the form of a DM ----


def test_a_single_alert_is_its_host_its_time_and_its_text() -> None:
    moment = time.mktime((2026, 11, 23, 14, 3, 22, 0, 0, -1))
    assert compose([Alert(1, moment, "disk full")], "web1", NOW) == "[web1 14:03:22] disk full"


def test_a_single_alert_of_another_day_says_the_date() -> None:
    moment = time.mktime((2026, 11, 22, 14, 3, 22, 0, 0, -1))
    text = compose([Alert(1, moment, "disk full")], "web1", NOW)
    assert text == "[web1 2026-11-22 14:03:22] disk full"


def test_the_same_day_of_another_year_says_the_date() -> None:
    moment = time.mktime((2025, 11, 23, 14, 3, 22, 0, 0, -1))
    assert "2025-11-23 14:03:22" in compose([Alert(1, moment, "disk full")], "web1", NOW)


def test_a_digest_begins_with_its_exact_count_and_its_first_and_last_time() -> None:
    first = time.mktime((2026, 11, 23, 14, 3, 22, 0, 0, -1))
    texts = (f"request {n} failed" for n in range(1000))
    alerts = alerts_of(*texts, began=first, step=48 / 999)
    assert compose(alerts, "web1", NOW).split("\n")[0] == (
        "[web1] 1,000 alerts, 14:03:22 to 14:04:10"
    )


def test_each_alert_in_a_digest_has_a_line_with_its_own_time() -> None:
    alerts = [Alert(1, NOW - 60, "disk full"), Alert(2, NOW - 30, "fan stopped")]
    lines = compose(alerts, "web1", NOW).split("\n")
    assert lines[1:] == ["14:29:00 disk full", "14:29:30 fan stopped"]


def test_alerts_that_are_all_quoted_stand_in_the_order_in_which_they_came() -> None:
    texts = ["cpu 1 hot", "disk full", "cpu 2 hot", "fan stopped", "cpu 3 hot"]
    assert [line[9:] for line in digest(*texts).split("\n")[1:]] == texts


@pytest.mark.parametrize("times", [1, 2, 3])
def test_up_to_three_that_differ_in_digits_alone_are_each_quoted(times: int) -> None:
    texts = [f"cpu{n} at {n}0 degrees" for n in range(times)]
    text = digest("disk full", *texts)
    assert all(line in text for line in texts) and "like this" not in text


def test_of_four_alike_the_first_is_quoted_and_the_others_are_counted() -> None:
    began = time.mktime((2026, 11, 23, 14, 3, 22, 0, 0, -1))
    alerts = alerts_of(*(f"cpu{n} at {n}0 degrees" for n in range(4)), began=began, step=16)
    assert compose(alerts, "web1", NOW).split("\n")[1:] == [
        "14:03:22 cpu0 at 00 degrees",
        "  ×3 like this, last 14:04:10",
    ]


def test_a_great_many_alike_are_two_lines() -> None:
    began = time.mktime((2026, 11, 23, 14, 3, 22, 0, 0, -1))
    texts = (f"Failed password for root from 203.0.113.{n} port {n + 4000}" for n in range(999))
    lines = compose(alerts_of(*texts, began=began, step=48 / 998), "web1", NOW).split("\n")
    assert lines == [
        "[web1] 999 alerts, 14:03:22 to 14:04:10",
        "14:03:22 Failed password for root from 203.0.113.0 port 4000",
        "  ×998 like this, last 14:04:10",
    ]


def test_hexadecimal_numbers_make_no_difference_between_kinds() -> None:
    texts = [f"segfault at 0x{n:x} ip {n:08x} from 00:1a:{n % 256:02x}:bb:cc:dd" for n in range(50)]
    assert "×49 like this" in digest(*texts)


def test_a_word_makes_a_difference_between_kinds() -> None:
    text = digest(*["link eth up"] * 10, *["link eth down"] * 10)
    assert "link eth up" in text and "link eth down" in text


def test_rare_kinds_stand_above_common_ones() -> None:
    text = digest(*["common thing"] * 50, *["seldom thing"] * 5, "unique thing")
    assert text.index("unique") < text.index("seldom") < text.index("common")


def test_an_alert_of_a_full_queue_which_stands_for_many_is_counted_as_many() -> None:
    folded = Alert(1, NOW - 90, "cpu 1 hot", count=500, last=NOW - 10)
    text = compose([folded, Alert(2, NOW - 50, "disk full")], "web1", NOW)
    assert text.split("\n")[0] == "[web1] 501 alerts, 14:28:30 to 14:29:50"
    assert "  ×499 like this, last 14:29:50" in text


def test_a_text_that_was_cut_says_how_many_characters_are_gone() -> None:
    text = compose([Alert(1, NOW, "x" * LIMIT, gone=50)], "web1", NOW)
    kept = text.count("x")
    assert f"[…{LIMIT + 50 - kept:,} characters cut]" in text


# ---- counts add up, and it fits, whatever comes ----

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
LOG_WORDS = st.lists(
    st.sampled_from(["sshd", "failed", "root", "0x1f", "203.0.113.9", "42", "×998 like this",
                     "and 3 more", "[web1]", "🔥", "e\u0301\u0302\u0303" * 4]),
    min_size=1, max_size=6,
).map(" ".join)  # fmt: skip
PILES = st.lists(
    st.tuples(st.one_of(LOG_WORDS, ANY_TEXT), st.integers(1, 40), st.sampled_from([1, 1, 1, 400])),
    min_size=1,
    max_size=40,
)


def heap(piles: list[tuple[str, int, int]]) -> list[Alert]:
    """As many alerts of each text as are asked for, each text so many times as long."""
    texts = [clean(text * long) or "?" for text, many, long in piles for _ in range(many)]
    random.Random(len(texts)).shuffle(texts)
    return alerts_of(*texts)


@given(PILES)
@profile
def test_what_is_quoted_and_counted_adds_up_to_the_first_line(
    piles: list[tuple[str, int, int]],
) -> None:
    alerts = heap([*piles, ("one more", 1, 1)])
    assert told(compose(alerts, "web1", NOW)) == (len(alerts), len(alerts))


@given(PILES, st.integers(2, 5000))
@profile
def test_the_counts_of_folded_alerts_add_up_too(
    piles: list[tuple[str, int, int]], folded: int
) -> None:
    alerts = heap(piles)
    alerts[-1].count = folded
    total = len(alerts) - 1 + folded
    assert told(compose(alerts, "web1", NOW)) == (total, total)


@given(PILES, st.text(max_size=300))
@profile
def test_no_digest_is_longer_than_a_dm_even_counted_in_bytes(
    piles: list[tuple[str, int, int]], host: str
) -> None:
    text = compose(heap(piles), clean(host), NOW)
    assert 0 < len(text.encode("utf-8")) <= LIMIT


FLOODS = {
    "one endless line": ["x" * 10_000],
    "endless lines": ["x" * 10_000, "y" * 10_000, "z" * 9_999],
    "emoji": ["🔥" * 2500, "🚒" * 2500, "👩‍🚒" * 900],
    "combining marks": ["e" + "\u0301" * 4999, "o" + "\u0302\u0303" * 2400],
    "lines within lines": ["\n" * 5000 + "x", "a\n" * 5000],
    "very many kinds": ["".join(chr(97 + int(c)) for c in str(n)) for n in range(10_000)],
    "nothing but digits": [str(n) for n in range(10_000)],
    "many long kinds": [chr(0x4E00 + n) * 3333 for n in range(200)],
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_dm_stays_within_its_limit_under_a_flood_of(flood: str) -> None:
    text = compose(alerts_of(*FLOODS[flood]), "a-host-of-a-long-name-" * 30, NOW)
    assert len(text.encode("utf-8")) <= LIMIT


def test_a_long_single_alert_is_quoted_up_to_nearly_the_whole_dm() -> None:
    text = compose([Alert(1, NOW, "x" * LIMIT)], "web1", NOW)
    assert text.count("x") > LIMIT - 100


def test_a_text_is_never_cut_within_a_character() -> None:
    for room in range(100, 120):
        assert "\ufffd" not in quote("start ", "🔥é" * 500, 0, room)


@given(st.text(max_size=60), st.integers(0, 200))
@profile
def test_what_is_kept_and_what_is_told_to_be_gone_add_up(text: str, room: int) -> None:
    text = clean(text)
    kept, gone = cut(text, room)
    assert text.startswith(kept) and len(kept) + gone == len(text) and size(kept) <= room


def test_a_time_of_day_never_hides_another_day() -> None:
    assert clock(NOW, NOW + 86_400) == "2026-11-23 14:30:00" and clock(NOW, NOW) == "14:30:00"


# ---- a needle is seen in any haystack ----


def noise(lines: int, seed: int = 1) -> list[str]:
    """What a brute-force attack writes."""
    chance = random.Random(seed)
    forms = (
        "web1 sshd[{a}]: Failed password for root from 203.0.113.{b} port {c} ssh2",
        "web1 sshd[{a}]: Failed password for invalid user admin from 203.0.113.{b} port {c} ssh2",
        "web1 sshd[{a}]: Connection closed by 203.0.113.{b} port {c} [preauth]",
        "web1 kernel: [UFW BLOCK] IN=eth0 SRC=203.0.113.{b} DPT=22 SPT={c}",
    )
    return [
        chance.choice(forms).format(
            a=chance.randrange(99_999), b=chance.randrange(256), c=chance.randrange(65_536)
        )
        for _ in range(lines)
    ]


@pytest.mark.parametrize("place", [0, 10_000, 20_000], ids=["first", "middle", "last"])
def test_one_different_line_among_twenty_thousand_is_quoted_in_full(place: int) -> None:
    texts = noise(20_000)
    texts.insert(place, NEEDLE)
    text = digest(*texts)
    assert NEEDLE in text
    assert told(text) == (20_001, 20_001)


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_hostile_line_as_long_as_a_dm_does_not_crowd_a_needle_out(place: str) -> None:
    hostile = "web1 sshd[1]: Invalid user " + "A" * 9_900
    texts = [NEEDLE, hostile, hostile + "B"]
    text = digest(*(texts if place == "first" else reversed(texts)), *noise(100))
    assert NEEDLE in text
    assert told(text) == (103, 103)


def test_twenty_long_lines_of_different_kinds_do_not_crowd_a_needle_out() -> None:
    hostile = [f"web1 prog{chr(97 + n)}: " + chr(65 + n) * 9_000 for n in range(20)]
    text = digest(*hostile, NEEDLE)
    assert NEEDLE in text and told(text) == (21, 21)


RANDOM_WORDS = {
    "a user name": "web1 sshd[3000]: Failed password for invalid user {} from 203.0.113.5 ssh2",
    "a user name soon after the tag": "Nov 23 14:28:20 db1 sshd[2]: Invalid user {} from 192.0.2.5",
    "a user name at the start of the message": "2026-11-23T14:28:20+01:00 a su: {} failed on pts",
    "a path": 'Nov 23 14:28:20 a nginx: 203.0.113.7 "GET /{} HTTP/1.1" 404',
    "a host name": "{}.example.net tried port 22",
}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("form", RANDOM_WORDS)
def test_a_flood_in_which_no_line_repeats_does_not_crowd_a_needle_out_when_it_varies(
    form: str, place: str
) -> None:
    chance = random.Random(7)
    texts = [
        RANDOM_WORDS[form].format("".join(chance.choices(string.ascii_lowercase, k=8)))
        for _ in range(5000)
    ]
    needle = "Nov 23 14:28:41 db1 sshd[3001]: Accepted password for root from 203.0.113.66 port 522"
    texts.insert(0 if place == "first" else len(texts), needle)
    text = digest(*texts)
    assert needle in text
    assert told(text) == (5001, 5001)


def test_a_digest_of_twenty_thousand_is_made_within_seconds() -> None:
    texts = [*noise(10_000), *("".join(random.choices("ghijkl ", k=200)) for _ in range(10_000))]
    began = time.process_time()
    digest(*texts)
    assert time.process_time() - began < 10


# ---- clean ----

BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["\x1b", "\x1b[", "\x1b[31m", "\x1b]0;title\x07", "\x1b]0;title", "\x1bP", "\x1b\\",
             "\x9b", "\x9d", "\x90q", "\x9c", "\0", "\r", "\r\n", "\n", "\t", "\x7f", "\u202e",
             "\u2066", "\ud800", "[", "0", ";", "m", "\\", "]", "\x1b#8", "\x1b(B", "\x1bc"]
        ),
    ),
    max_size=20,
).map("".join)  # fmt: skip


@given(st.one_of(st.binary(max_size=200), HOSTILE))
@profile
def test_clean_takes_any_bytes_and_text_there_are(raw: str | bytes) -> None:
    clean(raw).encode("utf-8")


@given(st.one_of(st.binary(max_size=200), HOSTILE))
@profile
def test_no_control_character_survives_but_newline_and_tab(raw: str | bytes) -> None:
    left = {c for c in clean(raw) if unicodedata.category(c) == "Cc"}
    assert left <= {"\n", "\t"}


@given(HOSTILE)
@profile
def test_no_bidi_control_survives(raw: str) -> None:
    assert not {ord(c) for c in clean(raw)} & set(BIDI)


@given(st.one_of(st.binary(max_size=200), HOSTILE))
@profile
def test_what_is_clean_stays_as_it_is(raw: str | bytes) -> None:
    assert clean(clean(raw)) == clean(raw)


PRINTABLE = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters="".join(chr(c) for c in BIDI)
    ),
    max_size=80,
)


@given(PRINTABLE)
@profile
def test_printable_text_is_kept_byte_for_byte(text: str) -> None:
    assert clean(text) == text and clean(text.encode("utf-8")) == text


@pytest.mark.parametrize(
    "start",
    ["\x1b]0;", "\x1bP", "\x1bX", "\x1b^", "\x1b_", "\x9d0;", "\x90", "\x98", "\x9e", "\x9f",
     "\x1b[", "\x9b", "\x1b"],
    ids=ascii,
)  # fmt: skip
def test_a_control_sequence_that_is_not_ended_does_not_swallow_what_follows(start: str) -> None:
    kept = clean(f"before {start} Accepted password for root" + " from 203.0.113.66" * 30)
    assert kept.startswith("before ")
    assert "ccepted password for root" in kept and kept.endswith(" from 203.0.113.66" * 30)


def test_a_control_string_does_not_swallow_a_whole_line_between_two_others() -> None:
    kept = clean("first \x1b]0;\nAccepted password for root\nlast \x07")
    assert "Accepted password for root" in kept


@pytest.mark.parametrize(
    "raw, wanted",
    [
        (b"caf\xe9 down", "caf\ufffd down"),
        (b"a\r\nb", "a\nb"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://x.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\tb\nc", "a\tb\nc"),
        ("user \u202egnp.exe", "user gnp.exe"),
        ("a\0b", "ab"),
        ("lone \ud800 half", "lone \ufffd half"),
    ],
    ids=ascii,
)
def test_clean_leaves_what_a_reader_would_see(raw: str | bytes, wanted: str) -> None:
    assert clean(raw) == wanted


# ---- no input makes it slow ----

MEGABYTE = 10**6
HEAVY = {
    "digits that end in a letter": "1" * MEGABYTE + "g",
    "hexadecimal that ends in a letter": "a1" * (MEGABYTE // 2) + "g",
    "letters that look like hexadecimal": "a" * MEGABYTE + "g",
    "words of hexadecimal": "abcdef " * (MEGABYTE // 7),
    "0x": "0x" * (MEGABYTE // 2),
    "digits and words": "1g" * (MEGABYTE // 2),
    "sequences which only begin": "\x1b[" * (MEGABYTE // 2),
    "parameters without an end": "\x1b[" + "1;" * (MEGABYTE // 2),
    "intermediates without an end": "\x1b[" + " " * MEGABYTE,
    "sequences with parameters without an end": "\x1b[11111111" * (MEGABYTE // 10),
    "strings which only begin": "\x1b]" * (MEGABYTE // 2),
    "a string without an end": "\x1b]" + "x" * MEGABYTE,
    "strings without an end": ("\x9d" + "x" * 250) * (MEGABYTE // 250),
    "escapes": "\x1b" * MEGABYTE,
    "escapes with intermediates": ("\x1b" + " " * 1000) * (MEGABYTE // 1000),
    "newlines": "\n" * MEGABYTE + "x" + "\n" * MEGABYTE,
    "bidi controls": "\u202e" * MEGABYTE,
}


@pytest.mark.parametrize("text", HEAVY)
def test_a_megabyte_is_cleaned_and_put_into_a_dm_within_seconds_even_of(text: str) -> None:
    began = time.process_time()
    cleaned = clean(HEAVY[text])
    shape(cleaned)
    compose(alerts_of(cleaned or "nothing", "disk full"), "web1", NOW)
    assert time.process_time() - began < 5


# ---- the shape by which a queue over its limit counts alerts ----

NUMBER = st.one_of(
    st.integers(0, 10**6).map(str), st.integers(0, 10**9).map(hex),
    st.integers(0, 10**9).map("{:x}".format), st.integers(0, 10**9).map("0x{:X}".format),
)  # fmt: skip
PIECE = st.one_of(
    st.tuples(NUMBER, NUMBER),
    st.one_of(st.sampled_from([" ", "=", "-", "x", "[", "0x", "_"]), st.text(max_size=5)).map(
        lambda text: (text, text)
    ),
)


@settings(profile, max_examples=300)
@example(pieces=[("0x", "1x")])
@given(pieces=st.lists(PIECE, max_size=12))
def test_lines_of_one_shape_have_one_rough_shape(pieces: list[tuple[str, str]]) -> None:
    one, other = ("".join(versions) for versions in zip(*pieces)) if pieces else ("", "")
    if shape(one) == shape(other):
        assert rough_shape(one) == rough_shape(other)


@pytest.mark.parametrize(
    "one, other",
    [("sshd[811]: Accepted password", "sshd[811]: Failed password"),
     ("cron[811]: session opened", "sshd[811]: session opened"),
     ("user bad logged in", "user dad logged in"),
     ("I/O error on sda1 sector 7", "I/O error on sdb1 sector 7"),
     ("eth0: link down", "lo0: link down"),
     ("disk 7-8", "disk 7+8"),
     ("user \u00e9 1", "user \u00e8 1"),
     ("disk full", "disk full: sda1")],
)  # fmt: skip
def test_lines_that_differ_in_words_have_two_rough_shapes(one: str, other: str) -> None:
    assert rough_shape(one) != rough_shape(other)


# ---- the whole way, with a queue that is over its limit ----

FILL = """
import sys
import time

import bird_sentinel

path, number = sys.argv[1], int(sys.argv[2])
queue = bird_sentinel.Queue(path)
for kind in range(100):  # in a hundred strokes, as ten thousand would take a minute
    queue.add(["oncall"] * (number // 100), time.time(), f"Failed password for root, port {kind}")
queue.close()
for line in sys.stdin.read().splitlines():
    if bird_sentinel.main(["send", "--no-wait", "--", line]):
        sys.exit("an alert was not accepted")
"""


class TestAQueueOverItsLimit:
    def test_a_needle_that_comes_after_it_is_quoted_in_the_next_dm_and_all_are_counted(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.answer(ERRORS["503-empty"], times=None)
        lines = "\n".join([*noise(50), NEEDLE, *noise(20, seed=2)])
        done = subprocess.run(
            [sys.executable, "-c", FILL, str(sentinel.queue), "10000"], env=sentinel.env, cwd="/",
            input=lines, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        sentinel.kill()  # a worker that may have made a DM of fewer, and be just sending it
        sentinel.wait_idle()
        x.clear_answers()
        assert sentinel.run("flush").code == 0
        assert NEEDLE in x.dms[0].text
        assert told(x.dms[0].text) == (10_071, 10_071)
