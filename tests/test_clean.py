"""Whatever comes in a log line, what is kept of it is safe in a DM and on a terminal.

test_hostile_text.py takes such lines the whole way; here is the function that cleans them.
"""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bird_sentinel import clean

profile = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
)

TAGS = range(0xE0000, 0xE0080)
BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "replace")),
        st.sampled_from(
            ["\x1b", "\x1b[", "\x1b[31m", "\x1b]0;title\x07", "\x1b]0;title", "\x1bP", "\x1b\\",
             "\x9b", "\x9d", "\x90q", "\x9c", "\0", "\r", "\r\n", "\n", "\t", "\x7f", "\u202e",
             "\u2066", "\U000e0041", "\ud800", "[", "0", ";", "m", "\\", "]", "\x1b#8",
             "\x1b(B", "\x1bc"]
        ),
    ),
    max_size=20,
).map("".join)  # fmt: skip


@given(HOSTILE)
@profile
def test_clean_takes_any_text_there_is(raw: str) -> None:
    clean(raw).encode("utf-8")


@given(HOSTILE)
@profile
def test_no_control_character_survives_but_newline_and_tab(raw: str) -> None:
    left = {c for c in clean(raw) if unicodedata.category(c) == "Cc"}
    assert left <= {"\n", "\t"}


@given(HOSTILE)
@profile
def test_no_bidi_control_and_no_tag_survives(raw: str) -> None:
    assert not {ord(c) for c in clean(raw)} & {*BIDI, *TAGS}


@given(HOSTILE)
@profile
def test_what_is_clean_stays_as_it_is(raw: str) -> None:
    assert clean(clean(raw)) == clean(raw)


OUT = "".join(map(chr, [*BIDI, *TAGS, 0x2028, 0x2029]))
PRINTABLE = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=OUT), max_size=80
)


@given(PRINTABLE)
@profile
def test_printable_text_is_kept_byte_for_byte(text: str) -> None:
    assert clean(text) == text


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


BEGINNINGS = ["\x1b", "\x1b[", "\x9b", "\x1b]", "\x1bP", "\x1b_", "\x90", "\x98", "\x9d", "\x9f"]
COSTLY = [
    *BEGINNINGS,
    *(start + "x" * 255 for start in BEGINNINGS),
    *(start + "1;" * 9999 + " " * 9999 for start in BEGINNINGS[:3]),
    "\0", "\r\n", "\u202e", "\ud800", "\n", "".join(BEGINNINGS) + "\0x",
]  # fmt: skip


def cost(text: str) -> float:
    """Seconds that it takes to clean a text."""
    began = time.process_time()
    clean(text)
    return time.process_time() - began


@pytest.mark.parametrize("part", COSTLY, ids=lambda part: ascii(part)[1:14])
def test_what_it_takes_grows_no_faster_than_the_text(part: str) -> None:
    """A watcher waits for it. What is searched again and again takes 16 times as long for four
    times the text or, where that is bounded, many times as long as a plain text."""
    text = part * (1_000_000 // len(part))
    short, long = (min(cost(text[:length]) for _ in range(2)) for length in (250_000, 1_000_000))
    plain = cost("\x7f" + "x" * 999_999)
    assert long < 9 * short + 0.05 and long < 12 * plain + 0.25, (short, long, plain)
