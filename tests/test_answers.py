"""Whatever X answers, the alert is delivered or kept, and a person is told what it means.

The table of answers in short: what X took is delivered; what is not X, or may pass, is tried again
soon; what a person has to mend is kept, told, and tried again late; one recipient's refusal is
nobody else's; and whatever words X, its edge or a proxy has for no, a text that they refuse is
sought out and put aside, and silences neither its neighbours nor itself.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pwd
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from conftest import Result, Sentinel, until
from fake_x import ERRORS, Answer, FakeX, Request, problem, v1_error
from hypothesis import given, settings
from hypothesis import strategies as st

import bird_sentinel
from bird_sentinel import Outcome, judge

DELIVERED, KEPT, REFUSED, NO_CONFIG = 0, 75, 77, 78
ACCOUNT = {
    "consumer_key": "key-of-the-app",
    "consumer_secret": "secret-of-the-app",
    "access_token": "1001-token",
    "access_token_secret": "secret-of-the-token",
    "screen_name": "sentinel_bot",
}
profile = settings(max_examples=200, deadline=None, database=None)


class Row(NamedTuple):
    """What an answer is to be taken for, and a word each of what is said and of what is advised."""

    kind: str
    words: str = ""
    hint: str = ""


AUTHORIZE = "bird_sentinel authorize"
PERMISSION = "Read, write, and Direct Messages"
KEYS = Row("account", "does not accept our keys", AUTHORIZE)
NO_PERMISSION = Row("account", "no permission to send DMs", PERMISSION)
NO_ACCESS = Row("account", "no access", "pay-per-use")
SUSPENDED = Row("account", "the sentinel's account is suspended", "appeal")
CALLBACK = Row("account", "callback URL", "developer portal")
UNWILLING = Row("recipient", "does not accept DMs", "DM first")
NOBODY = Row("recipient", "does not exist", AUTHORIZE)
UNCLEAR = Row("unclear", "reason of its own", "developer portal")
LIMIT = Row("limit", "rate limit")
FAULT = Row("retry", "fault of its own")
NOT_X = Row("retry", "something else answers in the place of X")
TAKEN = Row("delivered")
ROWS = {
    "401-code-32": KEYS,
    "401-v2-unauthorized": KEYS,
    "401-code-89": Row("account", "access token is invalid", AUTHORIZE),
    "401-code-135": Row("account", "clock is wrong", "set the clock"),
    "401-html": NOT_X,
    "401-empty": NOT_X,
    "401-code-417": CALLBACK,
    "403-code-415": CALLBACK,
    "401-wrong-pin": NOT_X,
    "402-credits": Row("account", "credits", "buy credits"),
    "403-spend-cap": Row("account", "spending cap", "next billing cycle"),
    "403-93": NO_PERMISSION,
    "403-oauth1-permissions": NO_PERMISSION,
    "403-oauth1-permissions-x-com": NO_PERMISSION,
    "403-261": Row("account", "barred the app", "developer portal"),
    "403-client-not-enrolled": NO_ACCESS,
    "403-client-not-enrolled-type": NO_ACCESS,
    "403-453": NO_ACCESS,
    "403-unsupported-authentication": NO_ACCESS,
    "403-user-suspended-us": SUSPENDED,
    "403-user-suspended-us-by-name": SUSPENDED,
    "403-64": SUSPENDED,
    "403-226": Row("account", "automated", "log in"),
    "403-326": Row("account", "locked", "unlock"),
    "403-349": UNWILLING,
    "403-150": UNWILLING,
    "403-476": UNWILLING,
    "403-no-permission-to-dm": UNWILLING,
    "403-not-permitted": UNWILLING,
    "403-63": NOBODY,
    "403-user-suspended-them": Row("recipient|unclear"),
    "404-50": NOBODY,
    "404-108": NOBODY,
    "404-resource-not-found": NOBODY,
    "403-354-too-long": UNCLEAR,
    "403-151-already-said": TAKEN,
    "403-187-already-said": TAKEN,
    "403-151-other": UNCLEAR,
    "400-invalid-request": UNCLEAR,
    "413": NOT_X,
    "413-empty": NOT_X,
    "403-about-blank": UNCLEAR,
    "403-html": NOT_X,
    "403-empty": NOT_X,
    "403-list-shaped": UNCLEAR,
    "404": UNCLEAR,
    "410-gone": UNCLEAR,
    "418": UNCLEAR,
    "403-344": Row("cap", "limit of DMs for a day"),
    "429-88": LIMIT,
    "429-v2": LIMIT,
    "429-usage-capped": Row("cap", "cap of the month", "raise the cap"),
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
    "302-elsewhere": NOT_X,
    "200-html": NOT_X,
    "200-empty": NOT_X,
    "200-json-without-data": NOT_X,
    "204": NOT_X,
    "200-data": TAKEN,
    "201-html": TAKEN,
    "201-empty-body": TAKEN,
    "201-list-shaped": TAKEN,
    "201-json-null": TAKEN,
    "201-non-utf8": TAKEN,
    "201-truncated-json": TAKEN,
}
STATUSES = {"delivered": DELIVERED, "retry": KEPT, "limit": KEPT, "cap": KEPT,
            "account": REFUSED, "recipient": REFUSED, "unclear": REFUSED}  # fmt: skip


# ---- what an answer is taken for, in whatever form it comes ----


def judged(
    status: int, body: bytes, headers: dict[str, str] | None = None, now: float = 0.0
) -> Outcome:
    answer = bird_sentinel.Answer(status, headers or {}, body.decode("latin-1"))
    return judge(answer, ACCOUNT, now or time.time())


def judged_as(answer: Answer, **headers: str) -> Outcome:
    """What an answer of the stand-in is taken for."""
    body = json.dumps(answer.json) if answer.body is None else answer.body
    return judged(answer.status or 0, body if isinstance(body, bytes) else body.encode(), headers)


def test_every_answer_that_the_stand_in_knows_has_its_row() -> None:
    assert set(ROWS) == set(ERRORS)


@pytest.mark.parametrize("name", ROWS)
def test_an_answer_is_taken_for_what_it_is(name: str) -> None:
    row, outcome = ROWS[name], judged_as(ERRORS[name])
    assert outcome.kind in row.kind.split("|")
    assert row.words in outcome.error and row.hint in outcome.hint
    assert outcome.status == STATUSES[outcome.kind]


@given(st.integers(100, 999), st.binary(max_size=200), st.dictionaries(st.just("date"), st.text()))
@profile
def test_any_bytes_under_any_status_are_understood(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    assert judged(status, body, headers).kind in STATUSES


NESTED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ["errors", "code", "message", "title", "detail", "type", "reason", "status"]
            ),
            inner,
            max_size=5,
        ),
    ),
)


@given(st.sampled_from([400, 401, 403, 404, 500]), NESTED)
@profile
def test_a_refusal_of_any_form_is_told_in_words_of_ours(status: int, body: object) -> None:
    words = re.sub(r"\(?HTTP \d+\)?", "", judged(status, json.dumps(body).encode()).words)
    assert len(re.findall("[a-zA-Z]{2,}", words)) >= 3, words


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"errors": [{"code": ' + b"9" * 10_000 + b"}]}",
        b'{"errors": {"code": 93}}',
        b'{"errors": [93, null, "x", [93]]}',
        b'{"errors": [{"code": [93], "message": 93}], "title": ["Unauthorized"]}',
    ],
    ids=["a nest", "a huge number", "no list", "no objects", "no words"],
)
def test_what_is_only_shaped_like_a_known_error_is_none(body: bytes) -> None:
    assert judged(403, body).kind in ("unclear", "retry")


@pytest.mark.parametrize("status", [200, 202, 299])
@pytest.mark.parametrize(
    "body, kind",
    [
        (b'{"data": {"dm_event_id": "1"}}', "delivered"),
        (b'{"status": "data"}', "retry"),
        (b'["data"]', "retry"),
        (b'<a class="data" href="">log in</a>', "retry"),
        (b'{"data": {"dm_ev', "retry"),
    ],
)
def test_another_2xx_is_a_delivery_only_with_data(status: int, body: bytes, kind: str) -> None:
    assert judged(status, body).kind == kind


ECHOES = (
    "Whoops! You already said that",
    "You do not have permission to DM one or more participants.",
    "This operation is not permitted.",
    "Unauthorized",
    "CreditsDepleted",
    "client-not-enrolled",
    "https://api.twitter.com/2/problems/oauth1-permissions",
    '{"errors": [{"code": 326}]}',
    "The user used for authentication is suspended",
)


@pytest.mark.parametrize("words", ECHOES)
def test_an_echo_of_an_alerts_own_text_passes_for_nothing_else(words: str) -> None:
    text = f"[web1 14:03:22] {words}"
    for answer in (
        problem(403, "Forbidden", f"not allowed: {text}"),
        problem(403, "Forbidden", text),
        v1_error(403, 354, f"{text} is over the max character limit."),
        v1_error(400, 38, text),
    ):
        assert judged_as(answer).kind == "unclear", answer


def at(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("seconds, words", [(-780, "13 minutes ahead of"), (1800, "30 minutes")])
@pytest.mark.parametrize("name", ["401-code-32", "401-v2-unauthorized", "401-code-89"])
def test_a_401_for_a_clock_that_is_off_is_told_as_that(
    name: str, seconds: float, words: str
) -> None:
    outcome = judged_as(ERRORS[name], date=at(seconds))
    assert outcome.kind == "account" and "clock" in outcome.words and words in outcome.words
    assert "set the clock" in outcome.hint


def test_a_401_under_a_good_clock_is_about_the_keys() -> None:
    for date in ("", "yesterday", at(0), at(40), at(-40), "Wed, 31 Feb 2026 25:00:00 GMT"):
        assert "keys" in judged_as(ERRORS["401-code-32"], date=date).words, date


def test_no_secret_comes_back_in_the_words_of_x() -> None:
    secrets = [value for name, value in ACCOUNT.items() if name != "screen_name"]
    for before in ("", "x" * 190):  # it may be cut in its middle, too
        detail = f"{before} oauth={' '.join(secrets)}"
        outcome = judged_as(problem(403, "Forbidden", detail))
        shown = outcome.error + outcome.hint
        assert not [secret for secret in secrets if secret[:6] in shown], shown


def test_a_limit_is_a_limit_whatever_its_body_says() -> None:
    found = judged_as(dataclasses.replace(ERRORS["401-v2-unauthorized"], status=429))
    assert found.kind == "limit"


def test_a_suspended_recipient_whose_name_begins_with_ours_is_not_taken_for_us() -> None:
    detail = f"User has been suspended: [{ACCOUNT['screen_name']}2]."
    assert judged_as(problem(403, "Forbidden", detail, "user-suspended")).kind != "account"


# ---- the whole way: what a person is told, and what X gets to see ----


def seconds_ahead(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp() - time.time()


def assert_told(done: Result, code: int, row: Row) -> None:
    """The exit status is right; an error says what it means, and a hint says what to do."""
    assert done.code == code, done.err
    error = re.search("^bird_sentinel: error: (.*)$", done.err, re.MULTILINE)
    hint = re.search("^bird_sentinel: hint: (.*)$", done.err, re.MULTILINE)
    assert error and row.words in error[1], done.err
    assert hint and row.hint in hint[1] and "next attempt" in hint[1], done.err


class Hosts:
    """Several machines, each with a home and a queue of its own, whose alerts name their host."""

    def __init__(self, directory: Path, x: FakeX) -> None:
        self.directory, self.x = directory, x
        self.made: list[Sentinel] = []

    def __call__(self, name: str) -> Sentinel:
        home = self.directory / re.sub("[^a-z0-9]+", "-", name)
        home.mkdir()
        one = Sentinel(home, self.x)
        self.made.append(one)
        one.configure(host=f"host-{home.name}.")
        return one

    def answer(self, one: Sentinel, answer: Answer, times: int | None = None) -> None:
        """Have X answer so to what comes from this host."""
        host = f"host-{one.home.name}."
        self.x.answer(answer, times, when=lambda r: host in r.text)

    def requests(self, one: Sentinel) -> list[Request]:
        return [r for r in self.x.requests if f"host-{one.home.name}." in r.text]

    def dms(self, one: Sentinel) -> list[str]:
        return [dm.text for dm in self.x.dms if f"host-{one.home.name}." in dm.text]


@pytest.fixture
def hosts(tmp_path: Path, x: FakeX) -> Iterator[Hosts]:
    x.limit = 1000
    made = Hosts(tmp_path, x)
    yield made
    for one in made.made:
        one.kill()


def side_by_side(check: Callable[[str], None], names: Iterable[str]) -> None:
    """Most of the time is waiting; the first that fails is told, with its name."""
    with ThreadPoolExecutor(6) as pool:
        futures = {name: pool.submit(check, name) for name in names}
    for name, future in futures.items():
        error = future.exception()
        if error:
            raise AssertionError(f"{name}: {error}") from error


def test_what_a_person_has_to_mend_is_told_and_kept_and_tried_after_a_minute(
    hosts: Hosts,
) -> None:
    """One stray refusal was seen among good answers; a second one is no stray."""

    def check(name: str) -> None:
        one = hosts(name)
        hosts.answer(one, ERRORS[name])
        assert_told(one.run("send", "disk full"), REFUSED, ROWS[name])
        status = one.status()
        assert status["pending"] == 1 and ROWS[name].words in status["last_error"]
        assert 45 < seconds_ahead(status["next_attempt"]) < 70
        assert len(hosts.requests(one)) == 1
        assert_told(one.run("flush"), REFUSED, ROWS[name])
        assert 13 * 60 < seconds_ahead(one.status()["next_attempt"]) < 17 * 60

    side_by_side(check, ["401-code-89", "402-credits", "403-349"])


def test_a_cap_is_told_as_what_it_is_and_tried_late(hosts: Hosts) -> None:
    def check(name: str) -> None:
        one = hosts(name)
        hosts.answer(one, ERRORS[name])
        done = one.run("send", "disk full")
        assert done.code == KEPT and ROWS[name].words in done.err, done.err
        assert seconds_ahead(one.status()["next_attempt"]) > 13 * 60
        assert len(hosts.requests(one)) == 1

    side_by_side(check, ["403-344", "429-usage-capped"])


def test_what_may_pass_is_told_and_tried_again_after_a_second(hosts: Hosts) -> None:
    answers = {
        "a fault": (ERRORS["503-v2"], "fault of its own"),
        "a portal": (ERRORS["200-html"], "something else answers"),
        "a proxy": (ERRORS["401-html"], "something else answers"),
        "a redirect": (
            Answer(307, body="", headers={"location": "https://api.x.com/2/elsewhere"}),
            "something else answers",
        ),
        "a reset": (Answer(mode="reset"), "X cannot be reached"),
        "a broken refusal": (Answer(503, body="x" * 1000, mode="truncated"), "fault of its own"),
    }

    def check(name: str) -> None:
        one, (answer, words) = hosts(name), answers[name]
        hosts.answer(one, answer, times=1)
        assert_told(one.run("send", "disk full"), KEPT, Row("retry", words))
        until(lambda: hosts.dms(one), 15)
        first, second = hosts.requests(one)
        assert second.at - first.at > 0.7
        assert second.path == first.path and second.host == first.host

    side_by_side(check, answers)


def test_what_x_took_is_delivered_once_whatever_becomes_of_its_answer(hosts: Hosts) -> None:
    answers = {
        "no data": ERRORS["201-html"],
        "no utf-8": ERRORS["201-non-utf8"],
        "it ends too soon": Answer(mode="truncated"),
        "it ends much too soon": Answer(201, body="x" * 100_000, mode="truncated", accept=True),
    }

    def check(name: str) -> None:
        one = hosts(name)
        hosts.answer(one, answers[name])
        done = one.run("send", "disk full")
        assert (done.code, done.err) == (DELIVERED, "")
        one.wait_idle()
        assert len(hosts.requests(one)) == len(hosts.dms(one)) == 1

    side_by_side(check, answers)


def test_an_answer_that_is_lost_costs_one_repeat_and_none_where_x_remembers(
    hosts: Hosts,
) -> None:
    def check(name: str) -> None:
        one = hosts(name)
        hosts.answer(one, Answer(mode="lost") if name != "504" else
                     dataclasses.replace(ERRORS["504-html"], accept=True), times=1)  # fmt: skip
        if name == "it remembers":
            hosts.answer(one, ERRORS["403-151-already-said"], times=1)
        assert one.run("send", "--no-wait", "disk full").code == DELIVERED
        until(lambda: len(hosts.requests(one)) == 2, 15)
        one.wait_idle()
        assert len(hosts.dms(one)) == (1 if name == "it remembers" else 2)
        assert len(hosts.requests(one)) == 2 and one.status()["pending"] == 0

    side_by_side(check, ["lost", "504", "it remembers"])


def test_a_401_with_the_date_of_x_minutes_off_is_told_as_the_clock(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.answer(dataclasses.replace(ERRORS["401-code-32"], headers={"date": at(-600)}), times=None)
    assert_told(sentinel.run("send", "disk full"), REFUSED, Row("", "10 minutes ahead", "clock"))


def test_a_refusal_that_stays_is_not_asked_for_again_with_each_alert(hosts: Hosts) -> None:
    names = {"401-code-89": 1, "403-349": 1, "429-empty": 1, "404": 2, "403-html": 8}

    def check(name: str) -> None:
        one = hosts(name)
        hosts.answer(one, ERRORS[name])
        for text in ("first", "second", "third"):
            one.run("send", "--no-wait", text)
            time.sleep(1)
        # where it may be the text, the notice in its place is refused as well
        assert 1 <= len(hosts.requests(one)) <= names[name]

    side_by_side(check, names)


def test_what_x_says_is_shown_without_secrets_and_without_what_could_steer_a_terminal(
    sentinel: Sentinel, x: FakeX
) -> None:
    config = sentinel.config.read_text()
    keys = re.findall("^(?:consumer|access).*? = (.*)$", config, re.MULTILINE)
    assert len(keys) == 4
    words = "go \x1b[2J\x07\u202eaway\nbird_sentinel: ok " + " ".join(f"oauth={k}" for k in keys)
    x.answer(problem(403, "Forbidden", words), times=None)
    done = sentinel.run("send", "disk full")
    shown = done.err + done.out + sentinel.run("status").out
    shown += sentinel.run("status", "--json").out + sentinel.run("flush").err
    assert "away" in shown and not set("\x1b\x07\u202e") & set(shown)
    assert "\nbird_sentinel: ok" not in shown
    assert not [key for key in keys if key in shown]


# ---- one recipient's trouble is nobody else's ----

UNWILLINGS = {
    "404-108": ERRORS["404-108"],
    "no code": ERRORS["403-about-blank"],
    "no page": ERRORS["404"],
    "blocked": ERRORS["403-349"],
    "their trouble": ERRORS["503-v2"],
}


def test_what_x_answers_for_one_recipient_for_ever_delays_nobody_else(hosts: Hosts) -> None:
    def check(name: str) -> None:
        one = hosts(name)
        host = f"host-{one.home.name}."
        # whoever is first in the config is asked first: the one that is refused
        one.configure({"unwilling": "2003", "healthy": "2002"}, host=host, interval="1")
        hosts.x.answer(
            UNWILLINGS[name], None, path="/2/dm_conversations/with/2003/",
            when=lambda r: host in r.text,
        )  # fmt: skip
        done = one.run("send", "first")
        assert done.code == (KEPT if name == "their trouble" else REFUSED), done.err
        assert "@unwilling" in done.err and "@healthy" not in done.err
        assert len(hosts.dms(one)) == 1 and "first" in hosts.dms(one)[0]
        assert one.run("send", "--to", "healthy", "second").code == DELIVERED
        one.run("send", "--no-wait", "third")
        until(lambda: "third" in hosts.dms(one)[-1], 15, "the other's third alert")
        assert one.status()["pending"] == 2
        if name != "their trouble":
            asked = [r for r in hosts.requests(one) if r.recipient_id == "2003"]
            assert len(asked) <= 2
            assert seconds_ahead(one.status()["next_attempt"]) < 70

    side_by_side(check, UNWILLINGS)
    assert {dm.recipient_id for dm in hosts.x.dms} == {"2002"}


def test_what_one_recipient_could_not_be_given_it_gets_when_it_can(
    fresh: Sentinel, x: FakeX
) -> None:
    closed = x.add_user("closed", "2004", accepts_dms=False)
    fresh.configure({"oncall": "2002", "closed": "2004"}, interval="1")
    for text in ("first", "second"):
        fresh.run("send", text)
    closed.accepts_dms = True
    assert fresh.run("flush").code == DELIVERED
    texts = [dm.text for dm in x.dms if dm.recipient_id == "2004"]
    assert len(texts) == 1 and "first" in texts[0] and "second" in texts[0]
    assert len([dm for dm in x.dms if dm.recipient_id == "2002"]) == 2


def test_where_all_recipients_are_refused_it_is_the_account_and_no_text(
    fresh: Sentinel, x: FakeX
) -> None:
    fresh.configure({"oncall": "2002", "second": "2003"}, interval="1")
    x.answer(ERRORS["403-about-blank"], times=None)
    done = fresh.run("send", "disk full")
    assert_told(done, REFUSED, Row("", "X refuses", "developer portal"))
    assert "@oncall" in done.err and "@second" in done.err
    assert done.err.count("X says") <= 1
    status = fresh.status()
    assert (status["pending"], status["refused"]) == (1, 0)
    assert 45 < seconds_ahead(status["next_attempt"]) < 70
    x.clear_answers()
    assert fresh.run("flush").code == DELIVERED
    assert len(x.dms) == 2 and all("disk full" in dm.text for dm in x.dms)


# ---- a text that X, its edge or a proxy refuses ----

EVIL = "GET /download?file=../../../etc/passwd"
FILTERS = {
    "json": ERRORS["403-about-blank"],
    "known": ERRORS["400-invalid-request"],
    "html": ERRORS["403-html"],
    "reset": Answer(mode="reset"),
}
NEIGHBOURS = ("sshd: root login", "kernel: oom", "cron: failed", "nginx: down", "raid: degraded")


def forbid(hosts: Hosts, one: Sentinel, name: str = "json") -> None:
    """Something on the way lets no DM of this host through that looks like an attack."""
    host = f"host-{one.home.name}."
    hosts.x.answer(
        FILTERS[name], None, when=lambda r: "/etc/passwd" in r.text and host in r.text
    )  # fmt: skip


def fill(one: Sentinel, *texts: str) -> None:
    """Let these be pending: they come while there is no config."""
    config = one.config.read_text()
    one.config.unlink()
    for text in texts:
        assert one.run("send", "--no-wait", "--", text).code == NO_CONFIG
    one.config.write_text(config)
    one.config.chmod(0o600)


def is_empty(one: Sentinel) -> bool:
    """Whether nothing is pending."""
    pending = [*(one.queue / "new").iterdir(), *(one.queue / "to").glob("*/*")]
    return not pending


def put_aside(one: Sentinel) -> list[str]:
    return [path.read_text() for path in (one.queue / "refused").iterdir()]


def test_a_refused_text_is_put_aside_and_told_until_a_person_has_read_it(hosts: Hosts) -> None:
    def check(name: str) -> None:
        one = hosts(name)
        forbid(hosts, one, name)
        done = one.run("send", EVIL)
        if name in ("json", "known"):  # known at once; the others fail three times first
            assert done.code == REFUSED and "put aside" in done.err
            assert "bird_sentinel status" in done.err
        until(lambda: put_aside(one), 30)
        one.wait_idle()
        (kept,) = put_aside(one)
        assert EVIL in kept and re.search("^refused: .*[a-z]{3}", kept, re.MULTILINE)
        told = hosts.dms(one)
        assert told and "1 alert" in told[-1] and "bird_sentinel status" in told[-1]
        assert "/etc/passwd" not in "".join(told)

        seen = one.run("status")
        assert seen.code == REFUSED and "ok" not in seen.out.splitlines()[0]
        assert EVIL in seen.out and "flush --discard-refused" in seen.out
        status = one.status()
        assert (status["pending"], status["refused"]) == (0, 1)
        assert one.run("send", "disk full").code == DELIVERED  # nor does it hold up what comes
        assert one.run("flush").code == DELIVERED and one.run("status").code == REFUSED
        assert one.run("flush", "--discard-refused").code == DELIVERED
        assert one.run("status").code == DELIVERED and one.status()["refused"] == 0

    side_by_side(check, FILTERS)


def test_the_neighbours_of_a_refused_text_are_through_soon_and_it_alone_is_put_aside(
    hosts: Hosts,
) -> None:
    def check(name: str) -> None:
        one, texts = hosts(name), list(NEIGHBOURS)
        what, place = name.split()
        texts.insert(int(place), EVIL)
        fill(one, *texts)
        forbid(hosts, one, what)
        one.run("flush")
        until(lambda: put_aside(one) and is_empty(one), 60)
        said = "\n".join(hosts.dms(one))
        assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
        assert [EVIL in kept for kept in put_aside(one)] == [True]

    side_by_side(check, ["json 0", "json 3", "known 5", "html 2", "reset 0"])


def test_several_refused_texts_are_all_found(hosts: Hosts) -> None:
    one = hosts("several")
    evil = ["sudo: cat /etc/passwd", EVIL, "rsync: copied /etc/passwd to elsewhere"]
    fill(one, evil[0], *NEIGHBOURS[:3], *evil[1:], *NEIGHBOURS[3:])
    forbid(hosts, one)
    one.run("flush")
    until(lambda: len(put_aside(one)) == 3 and is_empty(one), 60)
    said = "\n".join(hosts.dms(one))
    assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
    assert all(text in "\n".join(put_aside(one)) for text in evil)


def write_pending(one: Sentinel, texts: Iterable[str]) -> None:
    """Let very many be pending: each a file, as `send` leaves it."""
    fill(one, "the first of many")
    now = time.time_ns()
    for number, text in enumerate(texts):
        (one.queue / "new" / f"{now + number}.{number}.web1").write_text(f"host: web1\n\n{text}")


def counted(texts: Iterable[str]) -> int:
    """How many alerts these DMs say they quote or count."""
    found = [re.match(r"\[.*?\] ([\d,]+) alerts, \d", text) for text in texts]
    return sum(int(one[1].replace(",", "")) if one else 1 for one in found)


def is_notice(text: str) -> bool:
    return "bird_sentinel status" in text


def test_a_whole_kind_of_refused_texts_is_put_aside_with_few_requests(hosts: Hosts) -> None:
    one = hosts("a kind")
    forbid(hosts, one)
    evil = [f"nginx: 10.0.0.{number} GET /etc/passwd" for number in range(60)]
    write_pending(one, [*evil, *NEIGHBOURS])
    one.run("flush")
    until(lambda: len(put_aside(one)) == 60 and is_empty(one), 60)
    said = "\n".join(hosts.dms(one))
    assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
    kept = "\n".join(put_aside(one))
    assert all(text in kept for text in evil)
    assert len(hosts.requests(one)) <= 40


def test_a_refused_text_in_a_long_folded_backlog_hides_no_count(hosts: Hosts) -> None:
    one = hosts("a backlog")
    forbid(hosts, one)
    evil = "httpd: 10.0.0.1 GET /etc/passwd"
    many = [f"smtpd: Rejected user{n} from 10.0.0.1" for n in range(700)]
    many += [f"prog{chr(97 + n % 26)}{chr(97 + n // 26)}: its own kind" for n in range(400)]
    write_pending(one, [evil, *NEIGHBOURS, *many])
    one.run("flush")
    until(lambda: put_aside(one) and is_empty(one), 30)
    told = [text for text in hosts.dms(one) if not is_notice(text)]
    assert [text in "\n".join(told) for text in NEIGHBOURS] == [True] * len(NEIGHBOURS)
    assert len(put_aside(one)) == 1 and evil in put_aside(one)[0]
    assert counted(told) == len(many) + len(NEIGHBOURS) + 1


def test_of_a_folded_backlog_even_its_count_may_be_refused_and_blocks_nothing(hosts: Hosts) -> None:
    one = hosts("its count")
    host = f"host-{one.home.name}."
    hosts.x.answer(FILTERS["json"], None, when=lambda r: " more of " in r.text and host in r.text)
    write_pending(one, (f"prog{chr(97 + n % 26)}{chr(97 + n // 26)}: {'x' * 90}"
                        for n in range(600) for _ in "12"))  # fmt: skip
    one.run("flush")
    until(lambda: put_aside(one) and is_empty(one), 60)
    assert any("more of" in kept for kept in put_aside(one))
    aside = counted(kept.partition("\n\n")[2] for kept in put_aside(one))
    assert counted(text for text in hosts.dms(one) if not is_notice(text)) + aside == 1_201


def test_a_text_is_refused_to_each_recipient_and_all_get_its_neighbours(hosts: Hosts) -> None:
    one = hosts("two")
    one.configure({"oncall": "2002", "second": "2003"}, host=f"host-{one.home.name}.")
    fill(one, *NEIGHBOURS, EVIL)
    forbid(hosts, one)
    one.run("flush")
    until(lambda: put_aside(one) and is_empty(one), 60)
    for recipient in ("2002", "2003"):
        said = "\n".join(dm.text for dm in hosts.x.dms if dm.recipient_id == recipient)
        assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
        assert is_notice(said)


TROUBLES = {
    "three faults": (ERRORS["503-v2"], 3),
    "three resets": (Answer(mode="reset"), 3),
    "one stray refusal": (ERRORS["403-about-blank"], 1),
}


def test_a_trouble_that_was_not_the_texts_puts_no_text_aside(hosts: Hosts) -> None:
    """That a notice gets through may only mean that X is well again."""
    side_by_side(lambda name: check_trouble(hosts, name), TROUBLES)


def check_trouble(hosts: Hosts, name: str) -> None:
    one = hosts(name)
    hosts.answer(one, *TROUBLES[name])
    one.run("send", "--no-wait", "disk full")
    time.sleep(4)  # as long as three attempts take
    until(lambda: is_empty(one) or "refusal" in name, 20)
    status = one.status()
    assert status["refused"] == 0
    times = [r.at for r in hosts.requests(one) if "disk full" in r.text]
    if len(times) > 2:
        assert times[1] - times[0] > 0.7 and times[2] - times[1] > 1.4
    if status["pending"]:
        assert seconds_ahead(status["next_attempt"]) < 70
    else:
        assert any("disk full" in text for text in hosts.dms(one))


def test_a_fault_of_x_during_the_search_puts_no_neighbour_aside(hosts: Hosts) -> None:
    one = hosts("a fault between")
    fill(one, NEIGHBOURS[0], EVIL)
    forbid(hosts, one)
    hosts.x.answer(
        ERRORS["503-v2"], 1, when=lambda r: NEIGHBOURS[0] in r.text and EVIL not in r.text
    )  # fmt: skip
    one.run("flush")
    until(lambda: put_aside(one) and is_empty(one), 60)
    assert "\n".join(hosts.dms(one)).count(NEIGHBOURS[0]) == 1
    assert len(put_aside(one)) == 1 and EVIL in put_aside(one)[0]


def test_a_limit_during_the_search_loses_nothing(hosts: Hosts) -> None:
    one = hosts("a limit between")
    fill(one, *NEIGHBOURS, EVIL)
    forbid(hosts, one)
    hosts.x.answer(ERRORS["429-empty"], 1, when=lambda r: is_notice(r.text))
    assert one.run("flush").code == KEPT
    assert one.status()["pending"] == len(NEIGHBOURS) + 1 and not put_aside(one)
    one.run("flush")
    until(lambda: put_aside(one) and is_empty(one), 60)
    said = "\n".join(hosts.dms(one))
    assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)


def test_what_a_text_meets_after_the_notice_was_taken_puts_it_not_aside(hosts: Hosts) -> None:
    def check(name: str) -> None:
        one = hosts(name)
        for answer in (ERRORS["403-about-blank"], Answer(), ERRORS[name]):
            hosts.answer(one, answer, 1)
        done = one.run("send", "root login")
        assert "put aside" not in done.err and put_aside(one) == []
        assert one.run("flush").code == DELIVERED
        assert "root login" in hosts.dms(one)[-1] and put_aside(one) == []

    side_by_side(check, ["429-88", "401-code-89", "402-credits", "403-349", "503-empty"])


def test_a_text_for_which_the_notice_took_the_last_dm_of_the_limit_waits(
    sentinel: Sentinel, x: FakeX
) -> None:
    x.limit = 1
    x.answer(ERRORS["403-about-blank"])
    done = sentinel.run("send", "root login")
    assert done.code == KEPT and "limit" in done.err, done
    status = sentinel.status()
    assert (status["pending"], status["refused"]) == (1, 0)


@pytest.mark.parametrize(
    "places",
    [range(3, 80, 10), (0, 1, 2, 3, 4, 5, 8, 16, 32)],
    ids=["spread", "where each half has one"],
)
def test_among_many_lines_of_one_kind_those_that_x_refuses_are_found_one_by_one(
    hosts: Hosts, places: Iterable[int]
) -> None:
    hosts.x.limit = 10**6
    one = hosts("one kind")
    forbid(hosts, one)
    lines = [f"nginx: GET denied by rule for {chr(97 + n % 14) * 5} index" for n in range(80)]
    for place in places:
        lines[place] = lines[place].replace("index", "/etc/passwd")
    write_pending(one, lines)
    one.run("flush")
    bad = len(list(places))
    until(lambda: len(put_aside(one)) >= bad and is_empty(one), 60)
    assert [text for text in put_aside(one) if "/etc/passwd" not in text] == []
    assert len(put_aside(one)) == bad
    assert counted(text for text in hosts.dms(one) if not is_notice(text)) == 80 - bad + 1


def test_what_is_put_aside_is_told_with_the_name_of_whoever_does_not_get_it(
    fresh: Sentinel, x: FakeX
) -> None:
    fresh.configure({"oncall": "2002", "second": "2003"})
    x.answer(
        ERRORS["403-about-blank"], None, when=lambda r: EVIL in r.text and r.recipient_id == "2003"
    )
    done = fresh.run("send", EVIL)
    assert done.code == REFUSED and "put aside" in done.err
    assert "@second" in done.err and "@oncall" not in done.err, done.err
    assert [dm.recipient_id for dm in x.dms if EVIL in dm.text] == ["2002"]


def test_a_search_goes_on_where_the_limit_ended_it(sentinel: Sentinel, x: FakeX) -> None:
    asked = iter(range(10**6))  # each fourth request meets the limit
    x.answer(ERRORS["429-88"], None, when=lambda r: r.recipient_id != "" and next(asked) % 4 == 3)
    x.answer(ERRORS["403-about-blank"], None, when=lambda r: EVIL in r.text)
    texts = [f"prog{letter}: is down" for letter in "abcdefghijklmnopqrstuvwxyz"]
    fill(sentinel, EVIL, *texts)
    for _ in range(12):
        sentinel.run("flush")
    assert is_empty(sentinel)
    said = "\n".join(dm.text for dm in x.dms)
    assert [said.count(text) for text in texts] == [1] * len(texts)
    assert [EVIL in kept for kept in put_aside(sentinel)] == [True]


def test_the_notice_says_what_to_run_and_as_whom(sentinel: Sentinel, x: FakeX) -> None:
    path = sentinel.configure(path=sentinel.home / "its own" / "a.ini")
    x.answer(ERRORS["403-about-blank"], None, when=lambda r: EVIL in r.text)
    assert sentinel.run("send", "--config", str(path), EVIL).code == REFUSED
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert x.dms[-1].text.endswith(f", as {user}: bird_sentinel status --config '{path}'")


def test_what_is_put_aside_names_all_who_do_not_get_it(fresh: Sentinel, x: FakeX) -> None:
    fresh.configure({"oncall": "2002", "second": "2003"})
    x.answer(ERRORS["403-about-blank"], None, when=lambda r: EVIL in r.text)
    assert fresh.run("send", EVIL).code == REFUSED
    until(lambda: is_empty(fresh))
    (kept,) = put_aside(fresh)
    assert all(f"for @{who}: " in kept and f"for @{who}: " in fresh.run("status").out
               for who in ("oncall", "second"))  # fmt: skip


def test_what_keeps_one_recipients_dms_is_told_with_the_name(fresh: Sentinel, x: FakeX) -> None:
    fresh.configure({"oncall": "2002", "second": "2003"})
    x.answer(ERRORS["403-349"], None, when=lambda r: r.recipient_id == "2002")
    x.answer(ERRORS["503-v2"], None, when=lambda r: r.recipient_id == "2003")
    done = fresh.run("send", "disk full")
    assert done.code == REFUSED and ": @oncall: the recipient does not accept" in done.err, done
    assert "@oncall: the recipient" in fresh.run("status").out.split("\n")[0]


def test_what_comes_during_a_search_goes_before_it_goes_on(sentinel: Sentinel, x: FakeX) -> None:
    asked = iter(range(10**6))  # each fourth request meets the limit
    x.answer(ERRORS["429-88"], None, when=lambda r: r.recipient_id != "" and next(asked) % 4 == 3)
    x.answer(ERRORS["403-about-blank"], None, when=lambda r: EVIL in r.text)
    fill(sentinel, EVIL, *(f"prog{letter}: is down" for letter in "abcdefghijklmnop"))
    sentinel.run("flush")
    assert sentinel.run("send", "--no-wait", "root login").code == 0
    before = len(x.requests)
    sentinel.run("flush")
    assert ["root login" in r.text for r in x.requests[before:]][0]


def test_who_adds_to_what_x_refuses_keeps_nothing_back(sentinel: Sentinel, x: FakeX) -> None:
    asked = iter(range(10**6))  # each eighth request meets the limit
    x.answer(ERRORS["429-88"], None, when=lambda r: r.recipient_id != "" and next(asked) % 8 == 7)
    x.answer(ERRORS["403-about-blank"], None, when=lambda r: "/etc/passwd" in r.text)
    texts = [f"prog{letter}: is down" for letter in "abcdefghijklmnopqrstuvw"]
    evil = [f"{word}: /etc/passwd" for word in ("aa", "bb", "cc")]
    fill(sentinel, evil[0], *texts[:11], evil[1], *texts[11:], evil[2])
    for turn in range(7):
        sentinel.run("flush")
        for number in range(12):
            word = chr(97 + turn) * 3 + chr(97 + number)
            assert sentinel.run("send", "--no-wait", f"{word}: /etc/passwd").code == 0
    said = "\n".join(dm.text for dm in x.dms)
    assert [said.count(text) for text in texts] == [1] * len(texts)
