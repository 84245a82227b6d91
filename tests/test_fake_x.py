"""The stand-in for X can be trusted: it takes what X would take, and misbehaves as it is told to.

It is used here through requests and tweepy, not through the program that it serves to test.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import tweepy  # type: ignore[import-untyped]
from fake_x import ERRORS, HOSTS, Answer, FakeX, Mode, Request, Tls
from requests_oauthlib import OAuth1  # type: ignore[import-untyped,unused-ignore]

DMS = "https://api.twitter.com/2/dm_conversations/with/{}/messages"
ME = "https://api.twitter.com/2/users/me"


@pytest.fixture
def x(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeX]:
    """The stand-in, at which this process is pointed, with somebody to write to."""
    with FakeX() as server:
        server.add_user("oncall", "2002")
        server.add_user("hermit", "2004", accepts_dms=False)
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


def auth(server: FakeX, **changes: str) -> Any:
    names = ("client_key", "client_secret", "resource_owner_key", "resource_owner_secret")
    keys: Any = zip(names, (server.consumer_key, server.consumer_secret, *server.token()))
    return OAuth1(**{**dict(keys), **changes})


def post(server: FakeX, text: object = "disk full", to: str = "2002", timeout: float = 5,
         signer: Any = None) -> requests.Response:  # fmt: skip
    return requests.post(DMS.format(to), json={"text": text}, auth=signer or auth(server),
                         timeout=timeout, allow_redirects=False)  # fmt: skip


def gives_up(server: FakeX, seconds: float = 0.2) -> None:
    """A client has no patience."""
    with pytest.raises(requests.exceptions.RequestException):
        post(server, timeout=seconds)


# ---- who gets in ----


def test_dms_from_tweepy_are_accepted_over_one_connection(x: FakeX) -> None:
    before = time.time()
    one = tweepy.Client(None, x.consumer_key, x.consumer_secret, *x.token(),
                        return_type=requests.Response)  # fmt: skip
    for text in ("100 % ünïcode\n\t😀 +", "again"):
        answer = one.create_direct_message(participant_id="2002", text=text)
    assert answer.status_code == 201
    assert answer.json()["data"]["dm_conversation_id"] == "1001-2002"
    assert answer.headers["x-access-level"] == "read-write-directmessages"
    dm, _ = x.dms
    assert (dm.recipient_id, dm.text) == ("2002", "100 % ünïcode\n\t😀 +")
    assert before <= dm.at <= time.time()
    request = x.requests[0]
    assert (request.method, request.path, request.status) == ("POST", DMS.format(2002)[23:], 201)
    assert (request.recipient_id, request.text, request.host) == ("2002", dm.text, HOSTS[0])
    assert x.bad_signatures == [] and x.strangers == [] and len(x.connects) == 1
    url = DMS.format(2002).replace("twitter", "x")  # the other of X's hosts
    assert requests.post(url, json={"text": "a"}, auth=auth(x), timeout=5).status_code == 201


@pytest.mark.parametrize("name", [
    "client_key", "client_secret", "resource_owner_key", "resource_owner_secret",
    "signature_method",
])  # fmt: skip
def test_a_wrong_key_or_secret_is_refused(x: FakeX, name: str) -> None:
    answer = post(x, signer=auth(x, **{name: "PLAINTEXT"}))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, 32)
    assert len(x.bad_signatures) == 1 and x.dms == []


def test_a_request_that_is_tampered_with_replayed_or_not_signed_is_refused(x: FakeX) -> None:
    signed = requests.Request("GET", ME, auth=auth(x)).prepare().headers["Authorization"]
    statuses = [
        requests.get(url, headers={"Authorization": header}, timeout=5).status_code
        for url, header in ((ME + "?a=b", signed), (ME, signed), (ME, signed), (ME, "Bearer AAAA"))
    ]
    assert statuses == [401, 200, 401, 401]
    assert [bad.reason.split(";")[0] for bad in x.bad_signatures] == [
        "wrong signature", "the nonce was used before", "no OAuth Authorization header",
    ]  # fmt: skip


def test_a_token_keeps_its_permission_until_it_is_revoked_and_a_clock_has_to_be_right(
    x: FakeX,
) -> None:
    x.access_level = "read-write"
    answer = post(x)
    assert (answer.status_code, answer.headers["x-access-level"]) == (403, "read-write")
    assert answer.json()["type"].endswith("/oauth1-permissions")
    x.access_level = "read-write-directmessages"
    token, secret = x.token()
    signer = auth(x, resource_owner_key=token, resource_owner_secret=secret)
    assert post(x, signer=signer).status_code == 201
    for ahead in (-400.0, 400.0):
        x.clock_offset = ahead
        assert post(x, signer=signer).json()["errors"][0]["code"] == 135
    x.revoke(token)
    assert post(x, signer=signer).json()["errors"][0]["code"] == 89


# ---- the PIN walk ----


def test_tweepy_walks_to_an_access_token_by_pin(x: FakeX) -> None:
    walk = tweepy.OAuth1UserHandler(x.consumer_key, x.consumer_secret, callback="oob")
    url = walk.get_authorization_url()
    assert url.startswith("https://api.twitter.com/oauth/authorize?oauth_token=")
    pin = x.pin(walk.request_token["oauth_token"])
    token, secret = walk.get_access_token(pin)
    signer = auth(x, resource_owner_key=token, resource_owner_secret=secret)
    answer = requests.get(ME, auth=signer, timeout=5)
    assert re.fullmatch("0[0-9]{6}", pin) and answer.json()["data"]["username"] == "sentinel_bot"


def test_a_wrong_pin_spends_the_request_token_and_only_oob_is_taken(x: FakeX) -> None:
    walk = tweepy.OAuth1UserHandler(x.consumer_key, x.consumer_secret, callback="oob")
    walk.get_authorization_url()
    for wrong in ("9999999", x.pin(walk.request_token["oauth_token"])):
        with pytest.raises(tweepy.TweepyException):
            walk.get_access_token(wrong)
    assert [r.status for r in x.requests] == [200, 401, 401] and x.bad_signatures == []
    walk = tweepy.OAuth1UserHandler(x.consumer_key, x.consumer_secret, callback="https://a.test/")
    with pytest.raises(tweepy.TweepyException, match="415"):
        walk.get_authorization_url()


# ---- DMs that X refuses, and who is who ----


@pytest.mark.parametrize(
    ("text", "to", "status"),
    [
        *((text, "2002", 400) for text in ("", "  \n", "\ud800", 7, None)),
        ("😀" * 10_000, "2002", 201), ("a" * 10_001, "2002", 403),
        ("a", "4711", 403), ("a", "2004", 403), ("a", "oncall", 400),
    ],
)  # fmt: skip
def test_a_dm_is_taken_as_x_does(x: FakeX, text: object, to: str, status: int) -> None:
    assert post(x, text, to).status_code == status
    assert len(x.dms) == (status == 201)


def test_users_are_looked_up_and_an_unknown_one_is_an_error_in_a_200(x: FakeX) -> None:
    url = ME.replace("me", "by/username/{}?user.fields=receives_your_dm")
    hermit = {"id": "2004", "name": "hermit", "username": "hermit", "receives_your_dm": False}
    found = requests.get(url.format("HERMIT"), auth=auth(x), timeout=5)
    assert found.json() == {"data": hermit}
    unknown = requests.get(url.format("nobody"), auth=auth(x), timeout=5)
    assert unknown.status_code == 200 and list(unknown.json()) == ["errors"]


# ---- limits ----


def test_dms_over_a_limit_are_refused_until_the_reset(x: FakeX) -> None:
    x.limit, x.window = 2, 1.2
    began = time.time()
    answers = [post(x) for _ in range(4)]
    assert [a.status_code for a in answers] == [201, 201, 429, 429]
    assert [a.headers["x-rate-limit-remaining"] for a in answers] == ["1", "0", "0", "0"]
    assert len(x.refused_429) == 2
    (reset,) = {int(a.headers["x-rate-limit-reset"]) for a in answers}
    assert began + 1.2 <= reset <= time.time() + 2.2
    time.sleep(max(0.0, reset - time.time()))
    assert post(x).status_code == 201
    x.limit, x.daily_limit = 15, 3
    answer = post(x)
    left = [answer.headers[f"x-{name}-remaining"] for name in ("rate-limit", "user-limit-24hour")]
    assert (answer.status_code, left) == (429, ["14", "0"])
    assert int(answer.headers["x-user-limit-24hour-reset"]) > time.time() + 86_000
    x.rate_limit_headers = False
    assert not [name for name in post(x).headers if "limit" in name.lower()]


# ---- misbehaviour ----


def test_each_catalogued_answer_arrives_as_it_is(x: FakeX) -> None:
    x.limit = 1000
    for name, wanted in ERRORS.items():
        x.dms.clear()
        x.answer(wanted)
        answer = post(x)
        assert answer.status_code == wanted.status, name
        if wanted.body is None:
            assert json.loads(answer.content) == wanted.json, name
        else:
            assert answer.content in (wanted.body, str(wanted.body).encode()), name
        assert len(x.dms) == wanted.accept, name
    assert x.refused_429 == []


def test_answers_are_given_in_order_as_often_as_asked_where_they_fit(x: FakeX) -> None:
    def echo(request: Request) -> Answer:
        return Answer(403, json={"detail": request.text})

    x.answer(Answer(503), times=2, path="/2/dm_conversations")
    x.answer(Answer(502), path="/2/users")
    x.answer(echo, times=None, when=lambda r: r.recipient_id == "2004" and "disk" in r.text)
    x.answer(Answer(headers={"Retry-After": "7", "date": None}), when=lambda r: r.text == "a")
    assert requests.get(ME, auth=auth(x), timeout=5).status_code == 502
    assert [post(x).status_code for _ in range(3)] == [503, 503, 201]
    assert [post(x, to="2004").json()["detail"] for _ in range(2)] == ["disk full"] * 2
    answer = post(x, "a")
    assert (answer.status_code, answer.headers["retry-after"]) == (201, "7")
    assert "date" not in answer.headers
    x.answer(ERRORS["429-88"])
    assert post(x).headers["x-rate-limit-remaining"] == "0"
    x.answer(Answer(503))
    x.clear_answers()
    assert post(x).status_code == 201
    x.limit = 4  # over which an error hides nothing
    x.answer(dataclasses.replace(ERRORS["502-html"], accept=True), times=2)
    assert [post(x).status_code for _ in range(2)] == [502, 429]


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (Answer(delay=30), 1), (Answer(mode="stall"), 0), (Answer(mode="truncated"), 1),
        (Answer(mode="trickle", every=0.3), 1), (Answer(503, mode="truncated"), 0),
        (Answer(mode="reset"), 0), (Answer(mode="lost"), 1),
    ],
    ids=lambda value: getattr(value, "mode", None),
)  # fmt: skip
def test_an_answer_may_not_come(x: FakeX, answer: Answer, accepted: int) -> None:
    x.answer(answer)
    gives_up(x)
    assert len(x.dms) == accepted
    assert post(x).status_code == 201


@pytest.mark.parametrize(("mode", "status"), [("refuse-connect", 502), ("stall-connect", None)])
def test_the_proxy_can_refuse_or_not_answer(x: FakeX, mode: Mode, status: int | None) -> None:
    x.answer(Answer(mode=mode))
    gives_up(x)
    assert x.requests == [] and [c.status for c in x.connects] == [status]
    assert post(x).status_code == 201


@pytest.mark.parametrize("tls", ["unknown-ca", "wrong-name", "expired"])
def test_a_bad_certificate_is_not_trusted(x: FakeX, tls: Tls) -> None:
    x.tls = tls
    with pytest.raises(requests.exceptions.SSLError, match="certificate"):
        post(x)
    x.tls = "good"
    assert post(x).status_code == 201 and len(x.requests) == 1 and x.tls_failures


def test_there_is_no_way_through_to_anywhere_else(x: FakeX) -> None:
    for url in ("https://example.com/", "https://api.twitter.com:8443/"):
        with pytest.raises(requests.exceptions.ProxyError, match="403"):
            requests.get(url, timeout=5)
    proxies = {"http": f"http://127.0.0.1:{x.port}"}
    assert requests.get("http://example.com/a", proxies=proxies, timeout=5).status_code == 403
    assert x.strangers == ["example.com:443", "api.twitter.com:8443", "http://example.com/a"]


# ---- its life ----


def test_it_stops_though_clients_hang_and_comes_back_with_what_it_knew(x: FakeX) -> None:
    signer, port = auth(x), x.port
    x.answer(Answer(mode="stall"))
    thread = threading.Thread(target=gives_up, args=(x, 9))
    thread.start()
    x.wait_for(lambda: x.requests)
    x.stop()
    thread.join(5)
    assert not [t for t in threading.enumerate() if t.name == "fake_x" or t is thread]
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(ME, auth=signer, timeout=5)
    x.start()
    assert x.port == port
    assert requests.get(ME, auth=signer, timeout=5).status_code == 200


def test_a_fault_in_a_tests_own_condition_is_not_lost(x: FakeX) -> None:
    x.answer(Answer(503), when=lambda request: request.no_such)  # type: ignore[attr-defined]
    gives_up(x, 5)
    with pytest.raises(AssertionError, match="the fake X itself failed"):
        x.__exit__(None, None, None)
    x.faults.clear()
