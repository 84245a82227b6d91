"""Whatever X answers, the alert is delivered or kept, and a person is told what it means.

The table of answers in short: what X took is delivered; what may pass is tried again soon; what a
person has to mend is kept, told, and tried again late; one recipient's refusal holds up nobody
else; and a text that X refuses is sought out and put aside.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from conftest import Result, Sentinel
from fake_x import ERRORS, Answer, FakeX
from hypothesis import given, settings
from hypothesis import strategies as st

import bird_sentinel
from bird_sentinel import judge

DELIVERED, KEPT, REFUSED = 0, 75, 77


class Row(NamedTuple):
    """What an answer is to be taken for, and a word each of what is said and of what is advised."""

    kind: str
    words: str = ""
    hint: str = ""


AUTHORIZE = "bird_sentinel authorize"
PERMISSION = "Read and write and Direct message"
UNKNOWN = Row("account", "reason of its own", "developer portal")
FAULT = Row("retry", "fault of its own", "next attempt")
LIMIT = Row("limit", "rate limit", "next attempt")
ROWS = {
    "401-code-32": Row("account", "does not accept our keys", AUTHORIZE),
    "401-v2-unauthorized": Row("account", "does not accept our keys", AUTHORIZE),
    "401-code-89": Row("account", "access token is invalid", AUTHORIZE),
    "401-code-135": Row("account", "clock is wrong", "set the clock"),
    "401-empty": Row("account", "does not accept our keys", AUTHORIZE),
    "401-code-417": Row("account", "callback URL", "developer portal"),
    "403-code-415": Row("account", "callback URL", "developer portal"),
    "401-wrong-pin": Row("account", "does not accept our keys", AUTHORIZE),
    "402-credits": Row("account", "credits", "buy credits"),
    "403-spend-cap": Row("account", "spending cap", "raise the cap"),
    "403-93": Row("account", "no permission to send DMs", PERMISSION),
    "403-oauth1-permissions": Row("account", "no permission to send DMs", PERMISSION),
    "403-oauth1-permissions-x-com": Row("account", "no permission to send DMs", PERMISSION),
    "403-261": Row("account", "barred the app", "developer portal"),
    "403-client-not-enrolled": Row("account", "no access", "attach the app to a project"),
    "403-client-not-enrolled-type": Row("account", "no access", "attach the app to a project"),
    "403-453": Row("account", "no access", "access level"),
    "403-64": Row("account", "suspended", "appeal"),
    "403-226": Row("account", "automated", "log in"),
    "403-326": Row("account", "locked", "unlock"),
    "403-349": Row("recipient", "does not accept DMs", "DM first"),
    "403-150": Row("recipient", "does not accept DMs", "DM first"),
    "403-476": Row("recipient", "does not accept DMs", "DM first"),
    "403-no-permission-to-dm": Row("recipient", "does not accept DMs", "DM first"),
    "403-354-too-long": Row("content", "too long", "bird_sentinel status"),
    "403-151-already-said": Row("already said"),
    "403-151-other": Row("content", "refuses the text", "bird_sentinel status"),
    "400-invalid-request": Row("content", "refuses the text", "bird_sentinel status"),
    "413": Row("content", "too long", "bird_sentinel status"),
    "413-empty": Row("content", "too long", "bird_sentinel status"),
    "403-not-permitted": UNKNOWN,
    "403-html": UNKNOWN,
    "403-empty": UNKNOWN,
    "403-list-shaped": UNKNOWN,
    "404": UNKNOWN,
    "404-v2": UNKNOWN,
    "410-gone": UNKNOWN,
    "429-88": LIMIT,
    "429-v2": LIMIT,
    "429-usage-capped": Row("limit", "monthly cap", "raise the cap"),
    "429-empty": LIMIT,
    "500-html": FAULT,
    "500-131": FAULT,
    "502-html": FAULT,
    "503-empty": FAULT,
    "503-130": FAULT,
    "503-v2": FAULT,
    "504-html": FAULT,
    "list-shaped": FAULT,
    "non-utf8": FAULT,
    "truncated-json": FAULT,
    "302-elsewhere": Row("retry", "something else answers", "next attempt"),
    "200-not-json": Row("delivered"),
    "201-empty-body": Row("delivered"),
    "201-list-shaped": Row("delivered"),
    "201-json-null": Row("delivered"),
    "201-non-utf8": Row("delivered"),
    "201-truncated-json": Row("delivered"),
    "204": Row("delivered"),
}


def rows(*kinds: str) -> list[str]:
    return [name for name, row in ROWS.items() if row.kind in kinds]


def seconds_ahead(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp() - time.time()


def assert_told(done: Result, code: int, row: Row) -> None:
    """The exit status is right; an error says what it means, and a hint says what to do."""
    assert done.code == code, done.err
    error = re.search("^bird_sentinel: error: (.*)$", done.err, re.MULTILINE)
    hint = re.search("^bird_sentinel: hint: (.*)$", done.err, re.MULTILINE)
    assert error and row.words in error[1], done.err
    assert hint and row.hint in hint[1], done.err


def test_every_answer_that_the_stand_in_knows_has_its_row() -> None:
    assert set(ROWS) == set(ERRORS)


# ---- what an answer is taken for, in whatever form it comes ----

ODD_BODIES = {
    "nothing": b"",
    "HTML": b"<html><body><h1>Forbidden</h1></body></html>",
    "cut short": b'{"errors":[{"code":93,"mess',
    "a list": b'[{"code": 93}]',
    "a string": b'"already said"',
    "a number": b"93",
    "null": b"null",
    "no UTF-8": b'{"title": "\xff\xfe\xc3"}',
    "errors that are no list": b'{"errors": {"code": 93}}',
    "a list of no objects": b'{"errors": [93, null, "x", [93]]}',
    "codes that are no numbers": b'{"errors": [{"code": "93", "message": 93}]}',
    "a nest": b"[" * 100_000,
    "a huge number": b'{"errors": [{"code": ' + b"9" * 10_000 + b"}]}",
    "NUL": b"\0" * 100,
}


@pytest.mark.parametrize("body", ODD_BODIES)
@pytest.mark.parametrize(
    "status, kind",
    [(200, "delivered"), (201, "delivered"), (204, "delivered"), (301, "retry"), (307, "retry"),
     (400, "content"), (401, "account"), (402, "account"), (403, "account"), (404, "account"),
     (413, "content"), (418, "account"), (429, "limit"), (500, "retry"), (503, "retry"),
     (599, "retry")],
)  # fmt: skip
def test_a_status_has_its_meaning_even_where_the_body_is(status: int, kind: str, body: str) -> None:
    answer = bird_sentinel.Answer(status, {})
    answer.body = ODD_BODIES[body]
    assert judge(answer).kind == kind


@given(st.integers(100, 999), st.binary(max_size=200))
@settings(max_examples=200, deadline=None, database=None)
def test_any_bytes_under_any_status_are_understood(status: int, body: bytes) -> None:
    answer = bird_sentinel.Answer(status, {})
    answer.body = body
    outcome = judge(answer)
    assert outcome.kind in ("delivered", "retry", "limit", "account", "content")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["errors", "code", "message", "title", "detail", "type", "status"]),
            inner,
            max_size=5,
        ),
    ),
)


@given(st.sampled_from([400, 401, 403, 404, 500]), JSON)
@settings(max_examples=200, deadline=None, database=None)
def test_a_refusal_of_any_form_is_told_in_words_of_ours(status: int, body: object) -> None:
    answer = bird_sentinel.Answer(status, {})
    answer.body = json.dumps(body).encode()
    outcome = judge(answer)
    ours = re.sub(r"\(?HTTP \d+\)?", "", outcome.words)
    assert len(re.findall("[a-zA-Z]{2,}", ours)) >= 3, outcome.words


@pytest.mark.parametrize("name", rows("account", "recipient", "content", "retry", "limit"))
def test_no_answer_is_told_as_a_bare_code(name: str) -> None:
    given_answer = ERRORS[name]
    answer = bird_sentinel.Answer(given_answer.status or 0, {})
    body = given_answer.body
    if body is None:
        body = json.dumps(given_answer.json)
    answer.body = body if isinstance(body, bytes) else body.encode()
    ours = re.sub(r"\(?HTTP \d+\)?", "", judge(answer).words)
    assert len(re.findall("[a-zA-Z]{2,}", ours)) >= 3, judge(answer).words


# ---- the whole way: what `send` says, and what X gets to see ----


class TestWhatAPersonHasToMend:
    @pytest.mark.parametrize("name", rows("account", "recipient"))
    def test_is_told_and_kept_and_asked_once(self, sentinel: Sentinel, x: FakeX, name: str) -> None:
        x.answer(ERRORS[name], times=None)
        assert_told(sentinel.run("send", "disk full"), REFUSED, ROWS[name])
        status = sentinel.status()
        assert status["pending"] == 1
        assert ROWS[name].words in status["last_error"]
        assert 13 * 60 < seconds_ahead(status["next_attempt"]) < 17 * 60
        assert len(x.requests) == 1


class TestWhatMayPass:
    @pytest.mark.parametrize("name", rows("retry"))
    def test_is_told_and_tried_again_after_a_second(
        self, sentinel: Sentinel, x: FakeX, name: str
    ) -> None:
        x.answer(ERRORS[name])
        assert_told(sentinel.run("send", "disk full"), KEPT, ROWS[name])
        x.wait_for(lambda: x.dms, 15)
        sentinel.wait_idle()
        first, second = x.requests
        assert second.at - first.at > 0.7

    @pytest.mark.parametrize("name", rows("limit"))
    def test_a_limit_is_told_and_waited_for(self, sentinel: Sentinel, x: FakeX, name: str) -> None:
        x.answer(ERRORS[name], times=None)
        assert_told(sentinel.run("send", "disk full"), KEPT, ROWS[name])
        status = sentinel.status()
        assert status["pending"] == 1
        assert 14 * 60 < seconds_ahead(status["next_attempt"]) < 16 * 60
        assert len(x.requests) == 1


class TestWhatXTook:
    @pytest.mark.parametrize("name", rows("delivered"))
    def test_is_delivered_once_whatever_the_answer_holds(
        self, sentinel: Sentinel, x: FakeX, name: str
    ) -> None:
        x.answer(ERRORS[name], times=None)
        done = sentinel.run("send", "disk full")
        assert (done.code, done.err) == (DELIVERED, "")
        sentinel.wait_idle()
        assert len(x.dms) == len(x.requests) == 1

    @pytest.mark.parametrize("body", [None, "x" * 100_000], ids=["short", "long"])
    def test_is_delivered_once_even_if_the_answer_breaks_off(
        self, sentinel: Sentinel, x: FakeX, body: str | None
    ) -> None:
        status = None if body is None else 201
        x.answer(Answer(status, body=body, mode="truncated", accept=True), times=None)
        assert sentinel.run("send", "disk full").code == DELIVERED
        sentinel.wait_idle()
        assert len(x.dms) == 1


class TestAtLeastOnce:
    def test_an_answer_that_was_lost_leads_to_one_repeat_and_no_more(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.answer(Answer(mode="lost"))
        sentinel.run("send", "disk full")
        x.wait_for(lambda: len(x.dms) == 2, 15)
        sentinel.wait_idle()
        assert [dm.text for dm in x.dms] == [x.dms[0].text] * 2

    def test_a_reset_in_place_of_an_answer_loses_nothing(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.answer(Answer(mode="reset"))
        done = sentinel.run("send", "disk full")
        assert_told(done, KEPT, Row("retry", "X cannot be reached", "next attempt"))
        x.wait_for(lambda: x.dms, 15)

    def test_you_already_said_that_counts_as_delivered(self, sentinel: Sentinel, x: FakeX) -> None:
        x.answer(Answer(mode="lost"))
        x.answer(ERRORS["403-151-already-said"], times=None)
        sentinel.run("send", "disk full")
        x.wait_for(lambda: len(x.requests) == 2, 15)
        sentinel.wait_idle()
        assert len(x.dms) == 1 and sentinel.status()["pending"] == 0

    def test_you_already_said_that_is_a_delivery_also_to_a_waiting_send(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.answer(ERRORS["403-151-already-said"])
        done = sentinel.run("send", "disk full")
        assert (done.code, done.err) == (DELIVERED, "")


class TestNoHotLoop:
    NAMES = ("401-code-89", "402-credits", "403-html", "403-349", "404", "429-empty", "413-empty")

    @pytest.fixture
    def several(self, sentinel: Sentinel, x: FakeX) -> Iterator[dict[str, Sentinel]]:
        """A home of its own for each of the answers, which its alerts name."""
        made = {}
        for name in (*self.NAMES, "500-html", "302-elsewhere"):
            home = sentinel.home / name
            home.mkdir()
            made[name] = Sentinel(home, x)
            made[name].configure()
            x.answer(ERRORS[name], None, when=lambda r, name=name: f"case {name}" in r.text)  # type: ignore[misc]
        yield made
        for one in made.values():
            one.kill()

    def test_a_refusal_that_stays_is_not_asked_for_again_and_again(
        self, several: dict[str, Sentinel], x: FakeX
    ) -> None:
        x.limit = 1000
        # where the text is refused, so is the notice that it was
        x.answer(ERRORS["413-empty"], None, when=lambda r: "was refused by X" in r.text)
        for one in several.values():
            one.run("send", "--no-wait", f"case {one.home.name}")
        x.wait_for(lambda: len(x.requests) >= len(several) + 1, 30)
        time.sleep(6)
        for one in several.values():  # more alerts are no reason to ask again either
            one.run("send", "--no-wait", f"case {one.home.name}")
        time.sleep(1)
        seen = {name: [r for r in x.requests if f"case {name}" in r.text] for name in several}
        asked = {name: len(requests) for name, requests in seen.items()}
        soon = {name: asked.pop(name) for name in ("500-html", "302-elsewhere")}
        assert set(asked.values()) == {1}, asked
        assert max(soon.values()) <= 5, soon  # after 0, 1, 3 and 7 seconds


class TestARedirect:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_is_not_followed_and_the_alert_goes_to_x_again(
        self, sentinel: Sentinel, x: FakeX, status: int
    ) -> None:
        elsewhere = "https://api.x.com/2/dm_conversations/with/2003/messages"
        x.answer(Answer(status, body="", headers={"location": elsewhere}))
        assert sentinel.run("send", "disk full").code == KEPT
        x.wait_for(lambda: x.dms, 15)
        assert {r.host for r in x.requests} == {"api.twitter.com"}
        assert {r.recipient_id for r in x.requests} == {"2002"} and len(x.requests) == 2


# ---- one recipient's refusal ----


class TestOneRecipientsRefusal:
    CASES = {
        "who takes no dms": ("2004", None),
        "who does not exist": ("999", None),
        "whose id x finds malformed": ("9" * 30, None),
        "to whom x refuses every text": ("2003", ERRORS["403-151-other"]),
        "who has blocked us": ("2003", ERRORS["403-349"]),
    }

    @pytest.mark.parametrize("who", CASES)
    def test_delays_nobody_else(self, fresh: Sentinel, x: FakeX, who: str) -> None:
        number, answer = self.CASES[who]
        x.add_user("closed", "2004", accepts_dms=False)
        if answer:
            x.answer(answer, times=None, when=lambda r: r.recipient_id == number)
        # whoever is first in the config is asked first: the one that refuses
        fresh.configure({"unwilling": number, "oncall": "2002"})
        fresh.run("send", "first")
        x.wait_for(lambda: len(x.dms) == 1, 10)
        fresh.run("send", "--no-wait", "second")
        x.wait_for(lambda: len(x.dms) == 2, 10, "the other's second alert")
        assert [dm.recipient_id for dm in x.dms] == ["2002", "2002"]

    def test_is_told_with_the_names_of_those_who_did_not_get_it(
        self, fresh: Sentinel, x: FakeX
    ) -> None:
        x.add_user("closed", "2004", accepts_dms=False)
        fresh.configure({"oncall": "2002", "closed": "2004"})
        done = fresh.run("send", "disk full")
        assert_told(done, REFUSED, ROWS["403-349"])
        assert "@closed" in done.err and "@oncall" not in done.err

    def test_is_not_asked_for_again_with_each_alert(self, fresh: Sentinel, x: FakeX) -> None:
        x.add_user("closed", "2004", accepts_dms=False)
        fresh.configure({"oncall": "2002", "closed": "2004"})
        for text in ("first", "second", "third"):
            fresh.run("send", text)
        x.wait_for(lambda: len(x.dms) == 3, 15)
        assert [r.recipient_id for r in x.requests].count("2004") == 1

    def test_keeps_the_alerts_until_they_are_taken(self, fresh: Sentinel, x: FakeX) -> None:
        closed = x.add_user("closed", "2004", accepts_dms=False)
        fresh.configure({"closed": "2004"})
        fresh.run("send", "first")
        fresh.run("send", "--no-wait", "second")
        closed.accepts_dms = True
        assert fresh.run("flush").code == DELIVERED
        (dm,) = x.dms
        assert "first" in dm.text and "second" in dm.text


# ---- content that X refuses ----

WORDS = ("alpha", "bravo", "charlie", "delta", "foxtrot", "golf", "hotel", "india")
EVIL = "evil http://bad.example"


def refuse_evil(x: FakeX, name: str = "400-invalid-request") -> None:
    x.answer(ERRORS[name], times=None, when=lambda r: "evil" in r.text)


def said(x: FakeX) -> str:
    """All that X passed on."""
    return "\n".join(dm.text for dm in x.dms)


def fill(fresh: Sentinel, *texts: str) -> None:
    """Let these be pending: they came before there was a config."""
    for text in texts:
        assert fresh.run("send", "--no-wait", text).code == 78


class TestRefusedContent:
    @pytest.mark.parametrize("name", rows("content"))
    def test_is_put_aside_and_a_notice_of_it_is_sent(
        self, sentinel: Sentinel, x: FakeX, name: str
    ) -> None:
        refuse_evil(x, name)
        assert_told(sentinel.run("send", EVIL), REFUSED, ROWS[name])
        (notice,) = x.dms
        assert re.search(r"an alert of \d\d:\d\d:\d\d was refused", notice.text)
        assert "bird_sentinel status" in notice.text and "evil" not in notice.text
        assert len(x.requests) == 2

    def test_is_shown_by_status_until_a_person_clears_it(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        refuse_evil(x)
        sentinel.run("send", EVIL)
        sentinel.wait_idle()
        before = sentinel.run("status").out
        assert EVIL in before and "put aside" in before and "flush --discard-refused" in before
        assert sentinel.run("flush").code == DELIVERED
        assert EVIL in sentinel.run("status").out
        assert sentinel.run("flush", "--discard-refused").code == DELIVERED
        assert "put aside" not in sentinel.run("status").out

    def test_is_no_longer_pending(self, sentinel: Sentinel, x: FakeX) -> None:
        refuse_evil(x)
        sentinel.run("send", EVIL)
        sentinel.wait_idle()
        assert sentinel.status()["pending"] == 0

    @pytest.mark.parametrize(
        "place, words", [(0, WORDS), (1, WORDS), (3, WORDS[:3])], ids=["first", "second", "last"]
    )
    def test_is_sought_out_and_its_neighbours_are_delivered(
        self, fresh: Sentinel, x: FakeX, place: int, words: tuple[str, ...]
    ) -> None:
        texts = list(words)
        texts.insert(place, EVIL)
        fill(fresh, *texts)
        refuse_evil(x)
        fresh.configure()
        fresh.run("flush")
        x.wait_for(lambda: "was refused" in said(x), 45)
        x.wait_for(lambda: all(word in said(x) for word in words), 45)
        fresh.wait_idle(30)
        assert sum(said(x).count(word) for word in words) == len(words)
        assert said(x).count("was refused") == 1
        assert len([r for r in x.requests if r.status == 400]) <= 5  # 9, 4, 2, 1 …

    def test_does_not_hold_up_what_comes_after_it(self, sentinel: Sentinel, x: FakeX) -> None:
        refuse_evil(x)
        sentinel.run("send", EVIL)
        assert sentinel.run("send", "disk full").code == DELIVERED

    def test_nothing_is_put_aside_if_x_refuses_everything(self, fresh: Sentinel, x: FakeX) -> None:
        fill(fresh, "alpha", "bravo", "charlie")
        x.answer(ERRORS["400-invalid-request"], times=None)
        fresh.configure()
        assert_told(fresh.run("flush"), REFUSED, Row("", "X refuses", "bird_sentinel authorize"))
        assert "put aside" not in fresh.run("status").out
        status = fresh.status()
        assert status["pending"] == 3
        assert 13 * 60 < seconds_ahead(status["next_attempt"]) < 17 * 60
        assert len(x.requests) <= 4

    def test_what_x_refused_for_a_while_is_delivered_afterwards(
        self, fresh: Sentinel, x: FakeX
    ) -> None:
        fill(fresh, "alpha", "bravo", "charlie")
        x.answer(ERRORS["400-invalid-request"], times=None)
        fresh.configure()
        fresh.run("flush")
        x.clear_answers()
        assert fresh.run("flush").code == DELIVERED
        assert all(said(x).count(word) == 1 for word in ("alpha", "bravo", "charlie"))

    def test_a_limit_on_the_notice_loses_nothing(self, sentinel: Sentinel, x: FakeX) -> None:
        refuse_evil(x)
        x.answer(ERRORS["503-empty"], times=1, when=lambda r: "was refused" in r.text)
        assert sentinel.run("send", EVIL).code == KEPT
        x.wait_for(lambda: x.dms, 15)
        sentinel.wait_idle()
        assert EVIL in sentinel.run("status").out


# ---- what X says is not to be trusted either ----


class TestWhatXSays:
    def test_shows_no_secret_that_comes_back_in_an_error(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        config = sentinel.config.read_text()
        keys = re.findall("^(?:consumer|access).*? = (.*)$", config, re.MULTILINE)
        assert len(keys) == 4
        words = "Forbidden: " + " ".join(f'oauth="{key}"' for key in keys)
        x.answer(Answer(403, json={"title": "Forbidden", "detail": words}), times=None)
        done = sentinel.run("send", "disk full")
        shown = done.err + done.out + sentinel.run("status").out
        shown += sentinel.run("status", "--json").out + sentinel.run("flush").err
        assert "Forbidden" in shown
        assert not [key for key in keys if key in shown]

    def test_shows_no_secret_of_which_an_error_holds_the_beginning(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        secret = re.findall("^access_token_secret = (.*)$", sentinel.config.read_text(), re.M)[0]
        x.answer(Answer(403, json={"detail": "x" * 270 + " " + secret}), times=None)
        assert secret[:20] not in sentinel.run("send", "disk full").err

    def test_shows_no_password_of_a_proxy(self, sentinel: Sentinel, x: FakeX) -> None:
        x.answer(Answer(mode="refuse-connect"), times=None)
        proxy = f"http://webproxy:hunter2@127.0.0.1:{x.port}"
        done = sentinel.run("send", "disk full", env={"HTTPS_PROXY": proxy, "https_proxy": proxy})
        assert_told(done, KEPT, Row("retry", "X cannot be reached", "next attempt"))
        assert "hunter2" not in done.err + sentinel.run("status").out

    def test_is_shown_without_what_could_steer_a_terminal(
        self, sentinel: Sentinel, x: FakeX
    ) -> None:
        x.answer(Answer(403, json={"detail": "go \x1b[2J\x07\u202eaway\nbird_sentinel: ok"}), None)
        done = sentinel.run("send", "disk full")
        shown = done.err + sentinel.run("status").out
        assert "away" in shown and not set("\x1b\x07\u202e") & set(shown)
        assert "\nbird_sentinel: ok" not in shown
