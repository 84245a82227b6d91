"""What the stand-in for X promises to the tests that use it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import tweepy  # type: ignore[import-untyped]
from fake_x import (
    ERRORS,
    HOSTS,
    Answer,
    FakeX,
    Mode,
    Tls,
    base_string_uri,
    form_parameters,
    hmac_sha1_signature,
    parse_authorization,
    signature_base_string,
)
from requests_oauthlib import OAuth1, OAuth1Session  # type: ignore[import-untyped,unused-ignore]

DMS = "https://api.twitter.com/2/dm_conversations/with/{}/messages"
ME = "https://api.twitter.com/2/users/me"


@pytest.fixture
def x(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeX]:
    with FakeX() as server:
        use(server, monkeypatch)
        yield server


def use(server: FakeX, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process at the server, and let there be somebody to write to."""
    server.add_user("oncall", "2002")
    server.add_user("hermit", "2004", accepts_dms=False)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)


def client(server: FakeX) -> Any:
    token, secret = server.token()
    return tweepy.Client(
        consumer_key=server.consumer_key,
        consumer_secret=server.consumer_secret,
        access_token=token,
        access_token_secret=secret,
        return_type=requests.Response,
    )


def auth(server: FakeX, **changes: str) -> Any:
    token, secret = server.token()
    keys: dict[str, Any] = {
        "client_key": server.consumer_key,
        "client_secret": server.consumer_secret,
        "resource_owner_key": token,
        "resource_owner_secret": secret,
    }
    return OAuth1(**{**keys, **changes})


def post(server: FakeX, text: str = "disk full", to: str = "2002") -> requests.Response:
    return requests.post(DMS.format(to), json={"text": text}, auth=auth(server), timeout=5)


def handler(server: FakeX) -> Any:
    return tweepy.OAuth1UserHandler(server.consumer_key, server.consumer_secret, callback="oob")


# ---- the signature checker, against RFC 5849 ----


def test_the_base_string_is_that_of_rfc_5849_3_4_1_1() -> None:
    authorization = (
        'OAuth realm="Example", oauth_consumer_key="9djdj82h48djs9d2",'
        ' oauth_token="kkk9d7dh3k39sjv7", oauth_signature_method="HMAC-SHA1",'
        ' oauth_timestamp="137131201", oauth_nonce="7d8f3e4a",'
        ' oauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D"'
    )
    form = "application/x-www-form-urlencoded"
    parameters = form_parameters(form, b"b5=%3D%253D&a3=a&c%40=&a2=r%20b")  # the query there
    parameters += form_parameters(form, b"c2&a3=2+q")
    parameters += parse_authorization(authorization)

    assert signature_base_string("post", "http://example.com/request", parameters) == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D"
        "%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3"
        "e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk"
        "9d7dh3k39sjv7"
    )


@pytest.mark.parametrize(
    ("method", "uri", "query", "authorization", "token_secret"),
    [
        (
            "POST",
            "https://photos.example.net/initiate",
            "",
            'OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03",'
            ' oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131200",'
            ' oauth_nonce="wIjqoS", oauth_callback="http%3A%2F%2Fprinter.example.com%2Fready",'
            ' oauth_signature="74KNZJeDHnMBp0EMJ9ZHt%2FXKycU%3D"',
            "",
        ),
        (
            "POST",
            "https://photos.example.net/token",
            "",
            'OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03",'
            ' oauth_token="hh5s93j4hdidpola", oauth_signature_method="HMAC-SHA1",'
            ' oauth_timestamp="137131201", oauth_nonce="walatlh",'
            ' oauth_verifier="hfdp7dh39dks9884",'
            ' oauth_signature="gKgrFCywp7rO0OXSjdot%2FIHF7IU%3D"',
            "hdhd0244k9j7ao03",
        ),
        (
            "GET",
            "http://photos.example.net/photos",
            "file=vacation.jpg&size=original",
            'OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03",'
            ' oauth_token="nnch734d00sl2jdk", oauth_signature_method="HMAC-SHA1",'
            ' oauth_timestamp="137131202", oauth_nonce="chapoH",'
            ' oauth_signature="MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D"',
            "pfkkdhi9sl3r4s00",
        ),
    ],
    ids=["initiate", "token", "photos"],
)
def test_the_signatures_are_those_of_rfc_5849_1_2(
    method: str, uri: str, query: str, authorization: str, token_secret: str
) -> None:
    header = parse_authorization(authorization)
    form = "application/x-www-form-urlencoded"
    base_string = signature_base_string(method, uri, header + form_parameters(form, query.encode()))
    signature = hmac_sha1_signature(base_string, "kd94hf93k423kf44", token_secret)
    assert signature == dict(header)["oauth_signature"]


def test_the_signature_is_that_of_xs_own_worked_example() -> None:
    """docs.x.com, "Creating a signature"."""
    base_string = signature_base_string(
        "POST",
        "https://api.twitter.com/1.1/statuses/update.json",
        [
            ("status", "Hello Ladies + Gentlemen, a signed OAuth request!"),
            ("include_entities", "true"),
            ("oauth_consumer_key", "xvz1evFS4wEEPTGEFPHBog"),
            ("oauth_nonce", "kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "1318622958"),
            ("oauth_token", "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb"),
            ("oauth_version", "1.0"),
        ],
    )
    consumer_secret = "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw"
    token_secret = "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE"
    signature = hmac_sha1_signature(base_string, consumer_secret, token_secret)
    assert signature == "hCtSmYh+iHYCEqBWrE7C7hYmtUk="


def test_the_uri_that_is_signed_has_no_default_port_and_a_lower_case_host() -> None:
    """RFC 5849 §3.4.1.2."""
    assert base_string_uri("http", "EXAMPLE.COM:80", "/r%20v/X") == "http://example.com/r%20v/X"
    assert base_string_uri("https", "www.example.net:8080", "/") == "https://www.example.net:8080/"


# ---- who gets in ----


def test_a_dm_from_tweepy_is_accepted(x: FakeX) -> None:
    before = time.time()
    answer = client(x).create_direct_message(participant_id="2002", text="100 % ünïcode\n\t😀 +")
    assert answer.status_code == 201
    assert answer.json()["data"]["dm_conversation_id"] == "1001-2002"
    assert re.fullmatch("[0-9]{19}", answer.json()["data"]["dm_event_id"])
    assert answer.headers["x-access-level"] == "read-write-directmessages"
    assert "GMT" in answer.headers["Date"]
    (dm,) = x.dms
    assert (dm.recipient_id, dm.text) == ("2002", "100 % ünïcode\n\t😀 +")
    assert (dm.host, before <= dm.at <= time.time()) == ("api.twitter.com", True)
    (request,) = x.requests
    assert (request.method, request.path, request.status) == ("POST", DMS.format(2002)[23:], 201)
    assert (request.recipient_id, request.text) == ("2002", dm.text)
    assert x.bad_signatures == [] and x.strangers == [] and len(x.connects) == 1


@pytest.mark.parametrize("host", HOSTS)
def test_both_of_xs_hosts_are_served(x: FakeX, host: str) -> None:
    url = f"https://{host}/2/dm_conversations/with/2002/messages"
    assert requests.post(url, json={"text": "a"}, auth=auth(x), timeout=5).status_code == 201
    assert x.dms[0].host == host


def test_a_connection_is_kept_for_the_next_request(x: FakeX) -> None:
    one = client(x)
    for text in ("first", "second", "third"):
        one.create_direct_message(participant_id="2002", text=text)
    assert [dm.text for dm in x.dms] == ["first", "second", "third"]
    assert len(x.connects) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"client_key": "somebody-else"},
        {"client_secret": "wrong"},
        {"resource_owner_key": "1001-unknown"},
        {"resource_owner_secret": "wrong"},
        {"signature_method": "PLAINTEXT"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_key_or_secret_is_refused(x: FakeX, change: dict[str, str]) -> None:
    answer = requests.post(DMS.format(2002), json={"text": "a"}, auth=auth(x, **change), timeout=5)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, 32)
    assert len(x.bad_signatures) == 1 and x.dms == []


def test_a_tampered_signature_is_refused(x: FakeX) -> None:
    request = requests.Request("POST", DMS.format(2002), json={"text": "a"}, auth=auth(x))
    prepared = request.prepare()
    header = prepared.headers["Authorization"]
    text = header.decode() if isinstance(header, bytes) else header
    prepared.headers["Authorization"] = re.sub(r'oauth_signature="..', 'oauth_signature="AA', text)
    assert send(prepared).status_code == 401
    assert "wrong signature" in x.bad_signatures[0].reason


def test_a_parameter_added_after_signing_is_refused(x: FakeX) -> None:
    prepared = requests.Request("GET", ME, auth=auth(x)).prepare()
    prepared.url = ME + "?user.fields=receives_your_dm"
    assert send(prepared).status_code == 401
    assert len(x.bad_signatures) == 1


def test_a_replayed_request_is_refused(x: FakeX) -> None:
    request = requests.Request("POST", DMS.format(2002), json={"text": "a"}, auth=auth(x))
    prepared = request.prepare()
    assert [send(prepared).status_code for _ in range(2)] == [201, 401]
    assert "nonce" in x.bad_signatures[0].reason
    assert len(x.dms) == 1


@pytest.mark.parametrize("ahead", [-400.0, 400.0])
def test_a_clock_that_is_off_is_refused_with_code_135(x: FakeX, ahead: float) -> None:
    x.clock_offset = ahead
    answer = post(x)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, 135)
    assert len(x.bad_signatures) == 1


@pytest.mark.parametrize("header", [None, "Bearer AAAA", "OAuth", "OAuth nonsense", 'OAuth a="b"'])
def test_a_request_without_oauth_1_is_refused(x: FakeX, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = requests.post(DMS.format(2002), json={"text": "a"}, headers=headers, timeout=5)
    assert answer.status_code == 401
    assert len(x.bad_signatures) == 1


def test_form_body_parameters_are_part_of_the_signature(x: FakeX) -> None:
    url = "https://api.twitter.com/oauth/request_token?x_auth_access_type=write"
    signer = OAuth1(x.consumer_key, x.consumer_secret)
    form = {"oauth_callback": "oob", "a": "2 q + ~ü", "b": ""}
    answer = requests.post(url, data=form, auth=signer, timeout=5)
    assert answer.status_code == 200
    assert x.bad_signatures == []


def test_a_revoked_token_is_refused_with_code_89(x: FakeX) -> None:
    token, secret = x.token()
    signer = auth(x, resource_owner_key=token, resource_owner_secret=secret)
    assert requests.get(ME, auth=signer, timeout=5).status_code == 200
    x.revoke(token)
    assert requests.get(ME, auth=signer, timeout=5).json()["errors"][0]["code"] == 89


def send(prepared: requests.PreparedRequest) -> requests.Response:
    with requests.Session() as session:
        settings = session.merge_environment_settings(prepared.url, {}, None, None, None)
        return session.send(prepared, timeout=5, **settings)


# ---- the PIN walk ----


def test_tweepy_walks_to_an_access_token_by_pin(x: FakeX) -> None:
    walk = handler(x)
    url = walk.get_authorization_url()
    assert url.startswith("https://api.twitter.com/oauth/authorize?oauth_token=")
    pin = x.pin(walk.request_token["oauth_token"])
    assert re.fullmatch("[0-9]{7}", pin)
    token, secret = walk.get_access_token(pin)
    assert token.startswith("1001-")
    signer = auth(x, resource_owner_key=token, resource_owner_secret=secret)
    answer = requests.get(ME, auth=signer, timeout=5)
    assert answer.json()["data"]["username"] == "sentinel_bot"


def test_the_access_token_answer_names_the_account(x: FakeX) -> None:
    session = OAuth1Session(x.consumer_key, x.consumer_secret, callback_uri="oob")
    request_token = session.fetch_request_token("https://api.twitter.com/oauth/request_token")
    assert request_token["oauth_callback_confirmed"] == "true"
    pin = x.pin(request_token["oauth_token"])
    token = session.fetch_access_token("https://api.twitter.com/oauth/access_token", verifier=pin)
    assert (token["user_id"], token["screen_name"]) == ("1001", "sentinel_bot")


def test_a_wrong_pin_is_refused_and_spends_the_request_token(x: FakeX) -> None:
    walk = handler(x)
    walk.get_authorization_url()
    pin = x.pin(walk.request_token["oauth_token"])
    with pytest.raises(tweepy.TweepyException, match="Invalid oauth_verifier parameter"):
        walk.get_access_token("9999999")
    with pytest.raises(tweepy.TweepyException):
        walk.get_access_token(pin)
    assert [r.status for r in x.requests] == [200, 401, 401]
    assert x.bad_signatures == []


def test_a_pin_nobody_approved_is_wrong(x: FakeX) -> None:
    walk = handler(x)
    walk.get_authorization_url()
    with pytest.raises(tweepy.TweepyException):
        walk.get_access_token(x._request_tokens[walk.request_token["oauth_token"]].pin)


def test_a_callback_other_than_oob_is_refused(x: FakeX) -> None:
    walk = tweepy.OAuth1UserHandler(
        x.consumer_key, x.consumer_secret, callback="https://example.com/"
    )
    with pytest.raises(tweepy.TweepyException, match="415"):
        walk.get_authorization_url()


def test_the_authorize_page_shows_the_pin_to_a_browser(x: FakeX) -> None:
    walk = handler(x)
    url = walk.get_authorization_url()
    proxied = requests.get(url, timeout=5)
    plain = requests.get(
        url.replace("https://api.twitter.com", f"http://127.0.0.1:{x.port}"), timeout=5
    )
    assert proxied.text == plain.text
    walk.get_access_token(re.findall("[0-9]{7}", plain.text)[0])
    assert requests.get(url, timeout=5).status_code == 403
    assert x.strangers == []


# ---- permissions ----


@pytest.mark.parametrize("level", ["read", "read-write"])
def test_a_token_without_the_dm_permission_cannot_send(x: FakeX, level: str) -> None:
    x.access_level = level
    answer = post(x)
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/oauth1-permissions")
    assert answer.headers["x-access-level"] == level
    assert x.dms == []


def test_a_token_keeps_the_permission_it_was_made_under(x: FakeX) -> None:
    x.access_level = "read-write"
    old = auth(x)
    x.access_level = "read-write-directmessages"
    new = auth(x)
    levels = [requests.get(ME, auth=a, timeout=5).headers["x-access-level"] for a in (old, new)]
    assert levels == ["read-write", "read-write-directmessages"]


# ---- DMs that X refuses ----


@pytest.mark.parametrize("text", ["", "  \n", "\ud800", 7, None])
def test_a_text_that_is_none_is_an_invalid_request(x: FakeX, text: object) -> None:
    answer = requests.post(DMS.format(2002), json={"text": text}, auth=auth(x), timeout=5)
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("/invalid-request")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"txt": "a"}'])
def test_a_body_that_is_no_dm_is_an_invalid_request(x: FakeX, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(DMS.format(2002), data=body, headers=headers, auth=auth(x), timeout=5)
    assert answer.status_code == 400


def test_a_dm_may_have_ten_thousand_characters_and_no_more(x: FakeX) -> None:
    assert post(x, "😀" * 10_000).status_code == 201
    answer = post(x, "a" * 10_001)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, 354)


@pytest.mark.parametrize("to", ["4711", "2004"], ids=["unknown", "accepts no DMs"])
def test_a_recipient_who_cannot_be_written_to_is_refused(x: FakeX, to: str) -> None:
    answer = post(x, to=to)
    assert answer.status_code == 403
    assert "do not have permission to DM" in answer.json()["detail"]


def test_a_recipient_id_that_is_no_number_is_an_invalid_request(x: FakeX) -> None:
    assert post(x, to="oncall").status_code == 400


# ---- who is who ----


def test_users_are_looked_up_by_name_and_by_id(x: FakeX) -> None:
    look = client(x)
    fields = ["receives_your_dm"]
    oncall = {"id": "2002", "name": "oncall", "username": "oncall"}
    hermit = {"id": "2004", "name": "hermit", "username": "hermit", "receives_your_dm": False}
    by_name = look.get_user(username="ONCALL", user_auth=True)
    by_id = look.get_user(id="2004", user_auth=True, user_fields=fields)
    many = look.get_users(usernames=["oncall", "hermit"], user_auth=True)
    ids = look.get_users(ids=["2004", "2002"], user_auth=True, user_fields=fields)
    assert by_name.json() == {"data": oncall}
    assert by_id.json() == {"data": hermit}
    assert [user["id"] for user in many.json()["data"]] == ["2002", "2004"]
    assert ids.json()["data"] == [hermit, {**oncall, "receives_your_dm": True}]
    assert x.bad_signatures == []


def test_an_unknown_user_is_an_error_in_a_200(x: FakeX) -> None:
    answer = client(x).get_user(username="nobody", user_auth=True)
    assert answer.status_code == 200 and "data" not in answer.json()
    (error,) = answer.json()["errors"]
    assert error["title"] == "Not Found Error"
    assert error["type"].endswith("/resource-not-found")


def test_known_users_come_beside_the_unknown(x: FakeX) -> None:
    answer = client(x).get_users(usernames=["nobody", "oncall"], user_auth=True).json()
    assert [user["id"] for user in answer["data"]] == ["2002"]
    assert [error["value"] for error in answer["errors"]] == ["nobody"]


def test_a_name_that_cannot_be_one_is_an_invalid_request(x: FakeX) -> None:
    url = "https://api.twitter.com/2/users/by/username/not%20a%20name"
    assert requests.get(url, auth=auth(x), timeout=5).status_code == 400
    assert x.bad_signatures == []


def test_what_x_does_not_have_is_404(x: FakeX) -> None:
    url = "https://api.twitter.com/1.1/direct_messages/events/new.json"
    assert requests.post(url, json={}, auth=auth(x), timeout=5).status_code == 404


# ---- limits ----


def test_dms_over_the_limit_are_refused_until_the_reset(x: FakeX) -> None:
    x.limit, x.window = 2, 1.2
    began = time.time()
    answers = [post(x) for _ in range(4)]
    assert [a.status_code for a in answers] == [201, 201, 429, 429]
    assert [a.headers["x-rate-limit-remaining"] for a in answers] == ["1", "0", "0", "0"]
    assert {a.headers["x-rate-limit-limit"] for a in answers} == {"2"}
    assert answers[2].json()["title"] == "Too Many Requests"
    assert len(x.refused_429) == 2
    (reset,) = {int(a.headers["x-rate-limit-reset"]) for a in answers}
    assert began + 1.2 <= reset <= time.time() + 2.2
    time.sleep(max(0.0, reset - time.time()))
    assert post(x).status_code == 201


def test_a_daily_limit_has_headers_of_its_own(x: FakeX) -> None:
    x.daily_limit = 1
    answers = [post(x), post(x)]
    assert [a.status_code for a in answers] == [201, 429]
    headers = answers[1].headers
    assert headers["x-rate-limit-remaining"] == "14"
    assert headers["x-user-limit-24hour-limit"] == "1"
    assert headers["x-user-limit-24hour-remaining"] == "0"
    assert int(headers["x-user-limit-24hour-reset"]) > time.time() + 86_000


def test_the_limit_headers_can_be_left_out(x: FakeX) -> None:
    x.rate_limit_headers = False
    assert not [name for name in post(x).headers if "limit" in name.lower()]


def test_a_429_that_was_asked_for_says_that_nothing_is_left(x: FakeX) -> None:
    x.answer(ERRORS["429-88"])
    x.answer(dataclasses.replace(ERRORS["429-88"], headers={"x-rate-limit-reset": None}))
    first, second = post(x), post(x)
    assert first.headers["x-rate-limit-remaining"] == "0"
    assert int(first.headers["x-rate-limit-reset"]) > time.time() + 800
    assert "x-rate-limit-reset" not in second.headers
    assert x.refused_429 == []


# ---- misbehaviour ----


@pytest.mark.parametrize("name", ERRORS)
def test_each_catalogued_answer_arrives_as_it_is(x: FakeX, name: str) -> None:
    wanted = ERRORS[name]
    x.answer(wanted)
    signer = auth(x)
    answer = requests.post(
        DMS.format(2002), json={"text": "a"}, auth=signer, timeout=5, allow_redirects=False
    )
    assert answer.status_code == wanted.status == x.requests[0].status
    if wanted.body is None:
        assert json.loads(answer.content) == wanted.json
    else:
        body = wanted.body
        assert answer.content == (body if isinstance(body, bytes) else body.encode())
    assert len(x.dms) == (1 if wanted.accept else 0)
    assert post(x).status_code == 201


def test_answers_are_given_in_order_as_often_as_asked_where_they_fit(x: FakeX) -> None:
    x.add_user("second", "2003")
    x.answer(Answer(503), times=2, path="/2/dm_conversations")
    x.answer(Answer(502), path="/2/users")
    x.answer(Answer(403), times=None, when=lambda r: r.recipient_id == "2003" and "disk" in r.text)
    assert client_status(x) == 502
    assert [post(x).status_code for _ in range(3)] == [503, 503, 201]
    assert [post(x, to="2003").status_code for _ in range(2)] == [403, 403]
    assert post(x, "b", to="2003").status_code == 201
    x.clear_answers()
    assert post(x, to="2003").status_code == 201


def client_status(server: FakeX) -> int:
    return requests.get(ME, auth=auth(server), timeout=5).status_code


def test_headers_can_be_added_replaced_and_left_out(x: FakeX) -> None:
    x.answer(Answer(headers={"Retry-After": "7", "X-Access-Level": "read", "date": None}))
    answer = post(x)
    assert answer.status_code == 201
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-access-level"] == "read"
    assert "date" not in answer.headers


def test_a_slow_x_has_accepted_the_dm_before_the_client_gives_up(x: FakeX) -> None:
    x.answer(Answer(delay=30))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(DMS.format(2002), json={"text": "a"}, auth=auth(x), timeout=0.2)
    assert len(x.dms) == 1
    assert x.requests[0].status is None


def test_an_error_can_hide_that_the_dm_was_accepted(x: FakeX) -> None:
    x.answer(dataclasses.replace(ERRORS["502-html"], accept=True))
    assert post(x).status_code == 502
    assert len(x.dms) == 1


def test_x_does_not_accept_over_the_limit_whatever_was_asked_for(x: FakeX) -> None:
    x.limit = 0
    x.answer(Answer(mode="lost"))
    assert post(x).status_code == 429
    assert x.dms == []


def test_a_stalled_answer_never_comes(x: FakeX) -> None:
    x.answer(Answer(mode="stall"))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(DMS.format(2002), json={"text": "a"}, auth=auth(x), timeout=0.2)
    assert x.dms == [] and len(x.requests) == 1


def test_a_trickled_answer_comes_byte_by_byte(x: FakeX) -> None:
    x.answer(Answer(mode="trickle", every=0.001))
    began = time.monotonic()
    assert post(x).json()["data"]["dm_conversation_id"] == "1001-2002"
    assert time.monotonic() - began > 0.2
    x.answer(Answer(mode="trickle", every=0.3))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(DMS.format(2002), json={"text": "a"}, auth=auth(x), timeout=0.2)
    assert len(x.dms) == 2


@pytest.mark.parametrize(("mode", "accepted"), [("reset", 0), ("lost", 1)])
def test_a_reset_ends_the_request_without_an_answer(x: FakeX, mode: Mode, accepted: int) -> None:
    x.answer(Answer(mode=mode))
    with pytest.raises(requests.exceptions.ConnectionError, match="(?i)reset|closed connection"):
        post(x)  # under Python 3.10 and 3.11 the ssl module takes a reset for an end
    assert len(x.dms) == accepted
    assert x.requests[0].status is None
    assert post(x).status_code == 201


def test_a_reset_is_a_tcp_reset_below_tls(x: FakeX) -> None:
    x.answer(Answer(mode="reset"))
    signed = requests.Request("GET", ME, auth=auth(x)).prepare().headers["Authorization"]
    line = signed if isinstance(signed, bytes) else signed.encode()
    with socket.create_connection(("127.0.0.1", x.port), timeout=5) as sock:
        sock.sendall(b"CONNECT api.twitter.com:443 HTTP/1.1\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        trust = ssl.create_default_context(cafile=x.ca_bundle)
        with trust.wrap_socket(sock, server_hostname="api.twitter.com") as tls:
            tls.sendall(b"GET /2/users/me HTTP/1.1\r\nAuthorization: " + line + b"\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                while socket.socket.recv(tls, 1000):  # what TLS has sent before, then the RST
                    pass


@pytest.mark.parametrize("wanted", [Answer(mode="truncated"), Answer(503, mode="truncated")])
def test_a_truncated_answer_ends_before_its_length(x: FakeX, wanted: Answer) -> None:
    x.answer(wanted)
    with pytest.raises(requests.exceptions.RequestException, match="IncompleteRead"):
        post(x)


def test_the_proxy_can_refuse_to_connect(x: FakeX) -> None:
    x.answer(Answer(mode="refuse-connect"))
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        post(x)
    assert x.requests == [] and [c.status for c in x.connects] == [502]
    assert post(x).status_code == 201


def test_the_proxy_can_leave_a_connect_unanswered(x: FakeX) -> None:
    x.answer(Answer(mode="stall-connect"))
    with pytest.raises(requests.exceptions.RequestException):
        requests.post(DMS.format(2002), json={"text": "a"}, auth=auth(x), timeout=0.2)
    assert [c.status for c in x.connects] == [None]


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ("unknown-ca", "certificate verify failed"),
        ("wrong-name", "match|mismatch"),
        ("expired", "expired"),
    ],
)
def test_a_bad_certificate_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, tls: Tls, words: str
) -> None:
    with FakeX(tls=tls) as server:
        use(server, monkeypatch)
        with pytest.raises(requests.exceptions.SSLError, match=words):
            post(server)
        server.wait_for(lambda: server.tls_failures or tls == "wrong-name", timeout=2)
        server.tls = "good"
        assert post(server).status_code == 201
        assert len(server.requests) == 1


# ---- strangers ----


@pytest.mark.parametrize("url", ["https://example.com/", "https://api.twitter.com:8443/"])
def test_there_is_no_way_through_to_anywhere_else(x: FakeX, url: str) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get(url, timeout=5)
    (stranger,) = x.strangers
    assert stranger.split(":")[0] in url


def test_plain_http_is_a_stranger_too(x: FakeX) -> None:
    proxies = {"http": f"http://127.0.0.1:{x.port}"}
    assert requests.get("http://example.com/a", proxies=proxies, timeout=5).status_code == 403
    assert x.strangers == ["http://example.com/a"]


# ---- its life ----


def test_it_stops_at_once_though_clients_hang(x: FakeX) -> None:
    x.answer(Answer(mode="stall"))
    x.answer(Answer(mode="trickle"))
    x.answer(Answer(mode="stall-connect"), when=lambda r: len(x.requests) == 2)
    ends: list[BaseException] = []

    def hang() -> None:
        try:
            post(x)
        except requests.exceptions.RequestException as error:
            ends.append(error)

    threads = [threading.Thread(target=hang) for _ in range(3)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        x.wait_for(lambda count=count: len(x.connects) == count)  # type: ignore[misc]
        if count < 3:
            x.wait_for(lambda count=count: len(x.requests) == count)  # type: ignore[misc]
    idle = socket.create_connection(("127.0.0.1", x.port))
    began = time.monotonic()
    x.stop()
    assert time.monotonic() - began < 1
    for thread in threads:
        thread.join(5)
    assert len(ends) == 3
    assert not [t for t in threading.enumerate() if t.name == "fake_x"]
    idle.close()


def test_it_comes_back_on_the_same_port_with_what_it_knew(x: FakeX) -> None:
    signer, port = auth(x), x.port
    x.stop()
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(ME, auth=signer, timeout=5)
    x.start()
    assert x.port == port
    assert requests.get(ME, auth=signer, timeout=5).status_code == 200
    x.stop()
    with FakeX(port=port) as other:
        assert other.port == port


def test_clients_that_vanish_are_taken_calmly(x: FakeX, capfd: pytest.CaptureFixture[str]) -> None:
    connect = b"CONNECT api.x.com:443 HTTP/1.1\r\nHost: api.x.com:443\r\n\r\n"
    for sent in (b"", b"CONN", b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", connect):
        for linger in (0, 1):
            sock = socket.create_connection(("127.0.0.1", x.port))
            sock.sendall(sent)
            if linger:
                pack = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack)
            sock.close()
    x.answer(Answer(delay=0.2))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(DMS.format(2002), json={"text": "a"}, auth=auth(x), timeout=0.05)
    x.wait_for(lambda: not x._connections, timeout=5)
    assert x.faults == []
    assert capfd.readouterr() == ("", "")


def test_it_adds_no_delay_of_its_own(x: FakeX) -> None:
    one = client(x)
    one.get_me()
    began = time.monotonic()
    for _ in range(20):
        one.get_me()
    assert (time.monotonic() - began) / 20 < 0.03


def test_a_body_is_not_held_up_by_a_delayed_ack(x: FakeX) -> None:
    one = client(x)
    took = []
    for _ in range(15):
        began = time.monotonic()
        one.create_direct_message(participant_id="2002", text="a")
        took.append(time.monotonic() - began)
    assert sorted(took)[7] < 0.03


def test_many_clients_at_once_are_served(x: FakeX) -> None:
    x.limit = 100
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(post(x).status_code)) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert statuses == [201] * 30 and len(x.dms) == 30


def test_waiting_in_vain_says_what_did_happen(x: FakeX) -> None:
    post(x, "a sign of life")
    with pytest.raises(AssertionError, match="(?s)for two DMs.*1 DMs.*a sign of life.*-> 201"):
        x.wait_for(lambda: len(x.dms) == 2, timeout=0.1, what="two DMs")


def test_a_fault_in_a_tests_own_condition_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> bool:
        raise KeyError("oops")

    with pytest.raises(AssertionError), FakeX() as server:
        use(server, monkeypatch)
        server.answer(Answer(503), when=broken)
        with pytest.raises(requests.exceptions.ConnectionError):
            post(server)


def test_by_hand_it_prints_all_that_one_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).with_name("fake_x.py")
    with subprocess.Popen(
        [sys.executable, str(script), "--limit", "3", "--window", "60", "--delay", "0.01"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    ) as server:
        assert server.stdout is not None
        try:
            said = ""
            while "authorize page" not in said:
                said += server.stdout.readline()
            for name, value in re.findall(r"^export (\w+)=(.*)$", said, re.M):
                monkeypatch.setenv(name, value)
            key, secret = re.findall(r"^consumer \w+: +(.*)$", said, re.M)
            walk = tweepy.OAuth1UserHandler(key, secret, callback="oob")
            walk.get_authorization_url()
            while "PIN for" not in said:
                said += server.stdout.readline()
            token, token_secret = walk.get_access_token(re.findall(r": (\d{7})$", said, re.M)[0])
            signer = OAuth1(key, secret, token, token_secret)
            url = DMS.format(2002)
            answer = requests.post(url, json={"text": "by hand"}, auth=signer, timeout=5)
            assert answer.headers["x-rate-limit-limit"] == "3"
            while "by hand" not in said:
                said += server.stdout.readline()
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(5) == 0
