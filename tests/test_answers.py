"""Whatever X answers, the alert is delivered or kept, and a person is told what it means.

The table of answers in short: what X took is delivered; what is not X, or may pass, is tried again
soon; what a person has to mend is kept, told, and tried again late; who refuses us holds up nobody
else; and whatever words X, its edge or a proxy has for no, a text that they refuse is sought out
and put aside, and silences neither its neighbours nor itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import re
import subprocess
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
from test_pace import seconds_ahead

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
UNCLEAR = Row("unclear", "reason of its own", "developer portal")
NOT_X = Row("away", "something else answers in the place of X")
TAKEN = Row("delivered")
TABLE = [
    (Row("account", "does not accept our keys", AUTHORIZE), "401-code-32 401-v2-unauthorized"),
    (Row("account", "access token is invalid", AUTHORIZE), "401-code-89"),
    (Row("account", "clock is wrong", "set the clock"), "401-code-135"),
    (Row("account", "callback URL", "developer portal"), "401-code-417 403-code-415"),
    (Row("account", "credits", "buy credits"), "402-credits"),
    (Row("account", "spending cap", "next billing cycle"), "403-spend-cap"),
    (Row("account", "no permission to send DMs", "Read, write, and Direct Messages"),
     "403-93 403-oauth1-permissions 403-oauth1-permissions-x-com"),
    (Row("account", "barred the app", "developer portal"), "403-261"),
    (Row("account", "no access", "pay-per-use"), "403-client-not-enrolled 403-453"
     " 403-client-not-enrolled-type 403-unsupported-authentication"),
    (Row("account", "@sentinel_bot is suspended", "appeal"),
     "403-user-suspended-us 403-user-suspended-us-by-name 403-64"),
    (Row("account", "automated", "log in"), "403-226"),
    (Row("account", "locked", "unlock"), "403-326"),
    (Row("recipient", "accepts no DMs", "@sentinel_bot"),
     "403-349 403-150 403-476 403-no-permission-to-dm 403-not-permitted"),
    (Row("recipient", "no account", AUTHORIZE),
     "403-63 403-user-suspended-them 404-50 404-108 404-resource-not-found"),
    (UNCLEAR, "403-354-too-long 403-151-other 400-invalid-request 403-about-blank 404 410-gone 418"
     " 403-list-shaped"),
    (Row("cap", "limit of DMs for a day"), "403-344"),
    (Row("cap", "cap of the month", "raise the cap"), "429-usage-capped"),
    (Row("limit", "limit"), "429-88 429-v2 429-empty"),
    (Row("retry", "fault of its own"), "500-html 500-131 502-html 503-empty 503-130 503-v2 504-html"
     " list-shaped non-utf8 truncated-json"),
    (NOT_X, "401-html 401-empty 401-wrong-pin 403-html 403-empty 413 413-empty 302-elsewhere"
     " 200-html 200-empty 200-json-without-data 204"),
    (TAKEN, "403-151-already-said 403-187-already-said 200-data 201-html 201-empty-body"
     " 201-list-shaped 201-json-null 201-non-utf8 201-truncated-json"),
]  # fmt: skip
ROWS = {name: row for row, names in TABLE for name in names.split()}
STATUSES = {"delivered": DELIVERED, "retry": KEPT, "away": KEPT, "limit": KEPT, "cap": KEPT,
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
    assert outcome.kind == row.kind
    assert row.words in outcome.error and row.hint in outcome.hint
    assert outcome.status == STATUSES[outcome.kind]


@given(st.integers(100, 999), st.binary(max_size=200), st.dictionaries(st.just("date"), st.text()))
@profile
def test_any_bytes_under_any_status_are_understood(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    assert judged(status, body, headers).kind in STATUSES


@pytest.mark.parametrize("body", [b'{"status": "data"}', b'["data"]', b'{"data": {"dm_ev'])
def test_another_2xx_without_data_is_no_delivery(body: bytes) -> None:
    assert judged(202, body).kind == "away"
    assert judged(202, b'{"data": {"dm_event_id": "1"}}').kind == "delivered"


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
    assert outcome.kind == "account" and "clock" in outcome.error and words in outcome.error
    assert "set the clock" in outcome.hint


def test_a_401_under_a_good_clock_is_about_the_keys() -> None:
    for date in ("", "yesterday", at(0), at(40), at(-40), "Wed, 31 Feb 2026 25:00:00 GMT"):
        assert "keys" in judged_as(ERRORS["401-code-32"], date=date).error, date


def test_a_limit_is_a_limit_whatever_its_body_says() -> None:
    found = judged_as(dataclasses.replace(ERRORS["401-v2-unauthorized"], status=429))
    assert found.kind == "limit"


def test_a_suspended_recipient_whose_name_begins_with_ours_is_not_taken_for_us() -> None:
    detail = f"User has been suspended: [{ACCOUNT['screen_name']}2]."
    assert judged_as(problem(403, "Forbidden", detail, "user-suspended")).kind != "account"


# ---- the whole way: what a person is told, and what X gets to see ----


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
        self.healed: list[Sentinel] = []

    def __call__(self, name: str, **recipients: str) -> Sentinel:
        home = self.directory / re.sub("[^a-z0-9]+", "-", name)
        home.mkdir()
        one = Sentinel(home, self.x)
        self.made.append(one)
        one.configure(recipients or None, host=self.label(one), interval="0.2")
        return one

    @staticmethod
    def label(one: Sentinel) -> str:
        return f"host-{one.home.name}."

    def answer(
        self, one: Sentinel, answer: Answer, times: int | None = None, part: str = "", to: str = ""
    ) -> None:
        """Have X answer so to what comes from this host (to a recipient; with a part in it)."""
        self.x.answer(
            answer, times, path=f"/2/dm_conversations/with/{to}",
            when=lambda r: one not in self.healed and self.label(one) in r.text and part in r.text,
        )  # fmt: skip

    def heal(self, one: Sentinel) -> None:
        """Let X answer this host as it should."""
        self.healed.append(one)

    def requests(self, one: Sentinel, part: str = "") -> list[Request]:
        return [r for r in self.x.requests if self.label(one) in r.text and part in r.text]

    def dms(self, one: Sentinel, to: str = "") -> list[str]:
        return [dm.text for dm in self.x.dms
                if self.label(one) in dm.text and to in ("", dm.recipient_id)]  # fmt: skip


@pytest.fixture
def hosts(tmp_path: Path, x: FakeX) -> Iterator[Hosts]:
    x.limit = 10**6
    made = Hosts(tmp_path, x)
    yield made
    for one in made.made:
        one.end()


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
    """One stray refusal was seen among good answers; a second one, or a cap, is no stray."""

    def check(name: str) -> None:
        one, cap = hosts(name), ROWS[name].kind == "cap"
        hosts.answer(one, ERRORS[name])
        code = KEPT if cap else REFUSED
        assert_told(one.run("send", "disk full"), code, ROWS[name])
        status = one.status()
        assert status["pending"] == 1 and ROWS[name].words in status["last_error"]
        assert 45 < seconds_ahead(status["next_attempt"]) < (17 * 60 if cap else 70)
        assert len(hosts.requests(one)) == 1
        assert_told(one.run("flush"), code, ROWS[name])
        assert 13 * 60 < seconds_ahead(one.status()["next_attempt"]) < 37 * 60

    side_by_side(check, ["401-code-89", "402-credits", "403-349", "403-344", "429-usage-capped"])


def test_what_may_pass_is_told_and_tried_again_after_a_second(hosts: Hosts) -> None:
    elsewhere = {"location": "https://user:pw@login.example:8443/?from=x"}
    answers = {
        "a fault": (ERRORS["503-v2"], "fault of its own"),
        "a portal": (ERRORS["200-html"], "something else answers"),
        "a proxy": (ERRORS["401-html"], "something else answers"),
        "a redirect": (Answer(307, body="", headers=elsewhere), "login.example"),
        "a reset": (Answer(mode="reset"), "X cannot be reached: the connection was"),
        "a broken refusal": (Answer(503, body="x" * 1000, mode="truncated"), "fault of its own"),
    }

    def check(name: str) -> None:
        one, (answer, words) = hosts(name), answers[name]
        hosts.answer(one, answer, times=1)
        done = one.run("send", "disk full")
        assert_told(done, KEPT, Row("retry", words, "kept"))
        assert "user:pw" not in done.err
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
        lost = Answer(mode="lost")
        if name == "504":
            lost = dataclasses.replace(ERRORS["504-html"], accept=True)
        hosts.answer(one, lost, times=1)
        if name == "it remembers":
            hosts.answer(one, ERRORS["403-151-already-said"], times=1)
        assert one.run("send", "--no-wait", "disk full").code == DELIVERED
        until(lambda: len(hosts.requests(one)) == 2, 15)
        one.wait_idle()
        assert len(hosts.dms(one)) == (1 if name == "it remembers" else 2)
        assert len(hosts.requests(one)) == 2 and one.status()["pending"] == 0

    side_by_side(check, ["lost", "504", "it remembers"])


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


# ---- who refuses us holds up nobody, is told of, and gets DMs again when it accepts again ----

REFUSALS = {
    "no such user": ERRORS["404-108"],
    "blocked": ERRORS["403-349"],
    "no reason": ERRORS["403-about-blank"],
    "no page": ERRORS["404"],
    "a fault of its edge": ERRORS["403-html"],
    "a fault for it alone": ERRORS["503-v2"],
}


@pytest.mark.parametrize("first", [True, False], ids=["asked first", "asked last"])
def test_one_of_two_who_refuses_holds_up_nobody_and_is_told_of(hosts: Hosts, first: bool) -> None:
    def check(name: str) -> None:
        people = {"willing": "2002", "refusing": "2003"}
        one = hosts(name, **dict(sorted(people.items(), reverse=not first)))
        hosts.answer(one, REFUSALS[name], to="2003")
        done = one.run("send", "alpha")
        if "fault" in name:  # which is no refusal before it failed three times
            assert done.code == KEPT, done
        else:
            assert done.code == REFUSED, done
            assert re.search("delivered to @willing; not to @refusing: .*[a-z]{3}", done.err), done
        until(lambda: is_empty(one), 15)
        assert one.run("send", "--no-wait", "bravo").code == DELIVERED
        until(lambda: "bravo" in hosts.dms(one, "2002")[-1], 15)
        one.wait_idle()
        head = hosts.dms(one, "2002")[-1].split("\n")[0]
        assert re.search("not to @refusing: .*[a-z]{3}", head), hosts.dms(one, "2002")[-1]
        seen = one.run("status")
        assert seen.code == REFUSED and "@refusing" in seen.out.split("\n")[0]
        assert re.search(r"(?m)^not to @refusing\b.*[a-z]{3}", seen.out)
        status = one.status()  # a text that somebody has taken is not at fault
        assert status["pending"] == status["refused"] == 0
        assert len([r for r in hosts.requests(one) if r.recipient_id == "2003"]) <= 3
        hosts.heal(one)
        fill(one, "charlie")
        assert one.run("flush").code == DELIVERED
        assert one.run("status").code == DELIVERED
        assert len(hosts.dms(one, "2002")) == 3 and "refusing" not in hosts.dms(one)[-1]
        (back,) = hosts.dms(one, "2003")
        assert "charlie" in back and "alpha" not in back and "bravo" not in back

    side_by_side(check, REFUSALS)


def test_only_while_all_refuse_is_everything_kept(hosts: Hosts) -> None:
    def check(name: str) -> None:
        one = hosts(name, oncall="2002", second="2003")
        hosts.answer(one, REFUSALS[name])
        done = one.run("send", "alpha")
        assert_told(done, REFUSED, Row("", "kept"))
        assert "@oncall" in done.err and "@second" in done.err and done.err.count("X says") <= 1
        assert one.run("send", "--no-wait", "bravo").code == DELIVERED
        status = one.status()
        assert (status["pending"], status["refused"]) == (2, 0)
        assert 45 < seconds_ahead(status["next_attempt"]) < 70
        hosts.heal(one)
        assert one.run("flush").code == DELIVERED
        for recipient in ("2002", "2003"):
            said = "\n".join(hosts.dms(one, recipient))
            assert (said.count("alpha"), said.count("bravo")) == (1, 1)

    side_by_side(check, [name for name in REFUSALS if "fault" not in name])



# ---- a text that X, its edge or a proxy refuses ----

EVIL = "GET /download?file=../../../etc/passwd"
PART = "/etc/passwd"
FILTERS = {
    "json": ERRORS["403-about-blank"],
    "known": ERRORS["400-invalid-request"],
    "html": ERRORS["403-html"],
    "reset": Answer(mode="reset"),
    "fault": ERRORS["503-v2"],
}
NEIGHBOURS = ("sshd: root login", "kernel: oom", "cron: failed", "nginx: down", "raid: degraded")


def fill(one: Sentinel, *texts: str) -> None:
    """Let these be pending: they come while there is no config."""
    config = one.config.read_text()
    one.config.unlink()
    for text in texts:
        assert one.run("send", "--no-wait", "--", text).code == NO_CONFIG
    one.config.write_text(config)
    one.config.chmod(0o600)


def write_pending(one: Sentinel, texts: Iterable[str]) -> None:
    """Let very many be pending: each a file, as `send` leaves it."""
    fill(one, "the first of many")
    now = time.time_ns()
    for number, text in enumerate(texts):
        (one.queue / "new" / f"{now + number}.{number}.web1").write_text(f"host: web1\n\n{text}")


def is_empty(one: Sentinel) -> bool:
    """Whether nothing is pending."""
    return not [*(one.queue / "new").iterdir(), *one.queue.glob("folded")]


def put_aside(one: Sentinel) -> list[str]:
    return [path.read_text() for path in (one.queue / "refused").iterdir()]


def search(one: Sentinel) -> None:
    """Have all that is pending tried, until nothing is."""
    one.run("flush")
    until(lambda: is_empty(one), 60, "not all is through")
    one.wait_idle()


def counted(texts: Iterable[str]) -> int:
    """How many alerts these DMs say they quote or count."""
    found = [re.search(r"\[.*?\] ([\d,]+) alerts, ", text) for text in texts]
    return sum(int(one[1].replace(",", "")) if one else 1 for one in found)


def is_notice(text: str) -> bool:
    return "bird_sentinel status" in text


def test_a_refused_text_is_put_aside_and_told_until_a_person_has_read_it(hosts: Hosts) -> None:
    def check(name: str) -> None:
        one = hosts(name)
        hosts.answer(one, FILTERS[name], part=PART)
        done = one.run("send", EVIL)
        if name in ("json", "known"):  # known at once; the others fail three times first
            assert done.code == REFUSED and "put aside" in done.err
            assert "bird_sentinel status" in done.err
        until(lambda: is_empty(one), 30)
        one.wait_idle()
        (kept,) = put_aside(one)
        assert re.search(r"^refused: .*[a-z]{3}", kept) and f"] {EVIL}" in kept  # as it was
        told = hosts.dms(one)
        assert told and "1 alert" in told[-1] and PART not in "".join(told)
        user = pwd.getpwuid(os.geteuid()).pw_name
        assert re.search(rf"as {user}: bird_sentinel status$", told[-1])
        # once more after the notice, and no more often
        times = len(hosts.requests(one, PART))
        assert times == (2 if name in ("json", "known") else 4)

        seen = one.run("status")
        assert seen.code == REFUSED and "ok" not in seen.out.split("\n")[0] and EVIL in seen.out
        status = one.status()
        assert (status["pending"], status["refused"]) == (0, 1)
        assert one.run("send", "disk full").code == DELIVERED  # nor does it hold up what comes
        assert one.run("flush").code == DELIVERED and one.run("status").code == REFUSED
        clear_refused(one)

    side_by_side(check, FILTERS)


def clear_refused(one: Sentinel) -> None:
    """Do what status says, after which all is well."""
    remove = re.search("rm /.*", one.run("status").out)
    assert remove
    subprocess.run(["sh", "-c", remove[0]], check=True)
    seen = one.run("status")
    assert (seen.code, seen.out.split("\n")[0]) == (DELIVERED, "ok: nothing pending")
    assert "to do" not in seen.out and one.status()["refused"] == 0


def test_the_neighbours_of_a_refused_text_are_through_soon_and_it_alone_is_put_aside(
    hosts: Hosts,
) -> None:
    def check(name: str) -> None:
        one, texts = hosts(name), list(NEIGHBOURS)
        what, place = name.split()
        texts.insert(int(place), EVIL)
        fill(one, *texts)
        hosts.answer(one, FILTERS[what], part=PART)
        one.run("flush")
        until(lambda: is_empty(one), 20)
        said = "\n".join(hosts.dms(one))
        assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
        assert [EVIL in kept for kept in put_aside(one)] == [True]

    side_by_side(check, ["json 0", "json 3", "known 5", "html 2", "reset 0", "fault 4"])


def test_the_rare_lines_beside_a_refused_crowd_are_out_first(hosts: Hosts) -> None:
    one = hosts("a crowd")
    hosts.answer(one, FILTERS["json"], part=PART)
    evil = [f"nginx: 10.0.0.{number} GET {PART}" for number in range(60)]
    crowd = [f"smtpd: Rejected user{number} from 10.0.0.9" for number in range(60)]
    write_pending(one, [*evil, *crowd, *NEIGHBOURS])
    search(one)
    told = [text for text in hosts.dms(one) if not is_notice(text)]
    assert NEIGHBOURS[0] in told[0] and "smtpd" not in told[0]
    said = "\n".join(told)
    assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
    (kept,) = put_aside(one)  # a kind is not halved: its lines are counted together
    assert PART in kept and counted([kept]) == 60
    assert counted(told) == 60 + len(NEIGHBOURS) + 1
    assert len(hosts.requests(one)) <= 16


def test_after_ten_refusals_what_is_left_is_put_aside_and_none_is_lost(hosts: Hosts) -> None:
    one = hosts("many kinds")
    hosts.answer(one, FILTERS["json"], part=PART)
    words = ["".join(chr(97 + int(digit)) for digit in f"{number:03}") for number in range(200)]
    evil = [f"{word}: {word * 2} {word * 3} GET {PART}" for word in words]
    write_pending(one, [*evil, *NEIGHBOURS])
    search(one)
    assert len(hosts.requests(one)) <= 60 and len(put_aside(one)) <= 30
    said = "\n".join([*hosts.dms(one), *put_aside(one)])
    assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
    told = [text for text in hosts.dms(one) if not is_notice(text)]
    assert counted([*told, *put_aside(one)]) == len(evil) + len(NEIGHBOURS) + 1
    assert any(re.search(r"\b20\d alerts", text) for text in hosts.dms(one) if is_notice(text))


def test_of_refused_dms_a_hundred_are_kept_and_the_others_counted(hosts: Hosts) -> None:
    one = hosts("a hundred")
    hosts.answer(one, FILTERS["json"], part=PART)
    fill(one, EVIL)
    for number in range(100):
        path = one.queue / "refused" / f"{time.time_ns() - number}.1.{number}"
        path.write_text(f"refused: no\n\n[web1] GET number {number}")
    search(one)
    assert len(put_aside(one)) == 100 and EVIL not in "".join(put_aside(one))
    seen = one.run("status")
    assert seen.code == REFUSED and "101 DMs" in seen.out.split("\n")[0]
    assert "1 alert" in hosts.dms(one)[-1]
    clear_refused(one)


def test_a_text_is_refused_to_each_recipient_and_all_get_its_neighbours(hosts: Hosts) -> None:
    one = hosts("two", oncall="2002", second="2003")
    fill(one, *NEIGHBOURS, EVIL)
    hosts.answer(one, FILTERS["json"], part=PART)
    search(one)
    assert len(put_aside(one)) == 1
    for recipient in ("2002", "2003"):
        said = "\n".join(hosts.dms(one, recipient))
        assert [said.count(text) for text in NEIGHBOURS] == [1] * len(NEIGHBOURS)
        assert is_notice(said), "what is put aside is counted for each"


TROUBLES = {
    "three faults": (ERRORS["503-v2"], 3),
    "three resets": (Answer(mode="reset"), 3),
    "one stray refusal": (ERRORS["403-about-blank"], 1),
}


def test_a_trouble_that_was_not_the_texts_puts_no_text_aside(hosts: Hosts) -> None:
    """That a notice gets through may only mean that X is well again."""

    def check(name: str) -> None:
        one = hosts(name)
        hosts.answer(one, *TROUBLES[name])
        one.run("send", "--no-wait", "disk full")
        until(lambda: is_empty(one), 20)
        assert put_aside(one) == [] and "disk full" in hosts.dms(one)[-1]
        times = [r.at for r in hosts.requests(one, "disk full")]
        if len(times) > 2:
            assert times[1] - times[0] > 0.7 and times[2] - times[1] > 1.4

    side_by_side(check, TROUBLES)


def test_a_search_goes_on_where_a_limit_or_a_trouble_ended_it(hosts: Hosts) -> None:
    def check(name: str) -> None:
        one = hosts(name)
        asked = iter(range(10**6))

        def each_fourth(request: Request) -> bool:  # such as the text itself after the notice
            return hosts.label(one) in request.text and next(asked) % 4 == 2

        hosts.x.answer(ERRORS[name], None, when=each_fourth)
        hosts.answer(one, FILTERS["json"], part=PART)
        texts = [f"prog{letter}: is down" for letter in "abcdefghijklmnopqrstuvwxyz"]
        fill(one, EVIL, *texts)
        for _ in range(12):
            one.run("flush")
        assert is_empty(one)
        said = "\n".join(hosts.dms(one))
        assert [said.count(text) for text in texts] == [1] * len(texts)
        assert [EVIL in kept for kept in put_aside(one)] == [True]

    side_by_side(check, ["429-88", "402-credits", "403-349", "503-v2"])
