"""The stand-in for X can be trusted: it takes what X would take, and misbehaves as it is told to.

It is used here through requests and tweepy, not through the program that it serves to test.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import ssl
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
    Request,
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
FORM = "application/x-www-form-urlencoded"


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
    keys = (server.consumer_key, server.consumer_secret, *server.token())
    return tweepy.Client(None, *keys, return_type=requests.Response)


def auth(server: FakeX, **changes: str) -> Any:
    token, secret = server.token()
    keys: dict[str, Any] = {
        "client_key": server.consumer_key,
        "client_secret": server.consumer_secret,
        "resource_owner_key": token,
        "resource_owner_secret": secret,
    }
    return OAuth1(**{**keys, **changes})


def post(server: FakeX, text: object = "disk full", to: str = "2002") -> requests.Response:
    url, signer = DMS.format(to), auth(server)
    return requests.post(url, json={"text": text}, auth=signer, timeout=5, allow_redirects=False)


def send(prepared: requests.PreparedRequest) -> requests.Response:
    with requests.Session() as session:
        settings = session.merge_environment_settings(prepared.url, {}, None, None, None)
        return session.send(prepared, timeout=5, **settings)


def gives_up(server: FakeX, seconds: float = 0.2) -> None:
    """A client has no patience."""
    with pytest.raises(requests.exceptions.RequestException):
        requests.post(DMS.format(2002), json={"text": "a"}, auth=auth(server), timeout=seconds)


# ---- the signature checker, against RFC 5849 and X's own example ----


def test_the_base_string_is_that_of_rfc_5849_3_4_1_1() -> None:
    authorization = (
        'OAuth realm="Example", oauth_consumer_key="9djdj82h48djs9d2",'
        ' oauth_token="kkk9d7dh3k39sjv7", oauth_signature_method="HMAC-SHA1",'
        ' oauth_timestamp="137131201", oauth_nonce="7d8f3e4a",'
        ' oauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D"'
    )
    parameters = form_parameters(FORM, b"b5=%3D%253D&a3=a&c%40=&a2=r%20b")  # the query there
    parameters += form_parameters(FORM, b"c2&a3=2+q")
    parameters += parse_authorization(authorization)

    assert signature_base_string("post", "http://example.com/request", parameters) == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D"
        "%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3"
        "e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk"
        "9d7dh3k39sjv7"
    )
    assert base_string_uri("http", "EXAMPLE.COM:80", "/r%20v/X") == "http://example.com/r%20v/X"
    assert base_string_uri("https", "www.example.net:8080", "/") == "https://www.example.net:8080/"


def test_the_signature_is_that_of_rfc_5849_1_2() -> None:
    header = parse_authorization(
        'OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03",'
        ' oauth_token="nnch734d00sl2jdk", oauth_signature_method="HMAC-SHA1",'
        ' oauth_timestamp="137131202", oauth_nonce="chapoH",'
        ' oauth_signature="MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D"'
    )
    parameters = header + form_parameters(FORM, b"file=vacation.jpg&size=original")
    base_string = signature_base_string("GET", "http://photos.example.net/photos", parameters)
    signature = hmac_sha1_signature(base_string, "kd94hf93k423kf44", "pfkkdhi9sl3r4s00")
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


# ---- who gets in ----


def test_dms_from_tweepy_are_accepted_over_one_connection(x: FakeX) -> None:
    before, one = time.time(), client(x)
    for text in ("100 % ünïcode\n\t😀 +", "again"):
        answer = one.create_direct_message(participant_id="2002", text=text)
    assert answer.status_code == 201
    assert answer.json()["data"]["dm_conversation_id"] == "1001-2002"
    assert answer.headers["x-access-level"] == "read-write-directmessages"
    dm, _ = x.dms
    assert (dm.recipient_id, dm.text, dm.host) == ("2002", "100 % ünïcode\n\t😀 +", HOSTS[0])
    assert before <= dm.at <= time.time()
    request = x.requests[0]
    assert (request.method, request.path, request.status) == ("POST", DMS.format(2002)[23:], 201)
    assert (request.recipient_id, request.text) == ("2002", dm.text)
    assert x.bad_signatures == [] and x.strangers == [] and len(x.connects) == 1


def test_the_other_of_xs_hosts_is_served_too(x: FakeX) -> None:
    url = DMS.format(2002).replace("twitter", "x")
    assert requests.post(url, json={"text": "a"}, auth=auth(x), timeout=5).status_code == 201


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


def test_a_request_that_is_tampered_with_or_replayed_is_refused(x: FakeX) -> None:
    prepared = requests.Request("GET", ME, auth=auth(x)).prepare()
    assert [send(prepared).status_code for _ in range(2)] == [200, 401]
    tampered = requests.Request("GET", ME, auth=auth(x)).prepare()
    tampered.url = ME + "?user.fields=receives_your_dm"
    assert send(tampered).status_code == 401
    assert [bad.reason.split(";")[0] for bad in x.bad_signatures] == [
        "the nonce was used before", "wrong signature",
    ]  # fmt: skip


@pytest.mark.parametrize("ahead", [-400.0, 400.0])
def test_a_clock_that_is_off_is_refused_with_code_135(x: FakeX, ahead: float) -> None:
    x.clock_offset = ahead
    answer = post(x)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, 135)


@pytest.mark.parametrize("header", [None, "Bearer AAAA", "OAuth nonsense"])
def test_a_request_without_oauth_1_is_refused(x: FakeX, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = requests.post(DMS.format(2002), json={"text": "a"}, headers=headers, timeout=5)
    assert answer.status_code == 401 and len(x.bad_signatures) == 1


def test_a_token_is_refused_once_it_is_revoked(x: FakeX) -> None:
    token, secret = x.token()
    signer = auth(x, resource_owner_key=token, resource_owner_secret=secret)
    assert requests.get(ME, auth=signer, timeout=5).status_code == 200
    x.revoke(token)
    assert requests.get(ME, auth=signer, timeout=5).json()["errors"][0]["code"] == 89


# ---- the PIN walk ----


def handler(server: FakeX) -> Any:
    return tweepy.OAuth1UserHandler(server.consumer_key, server.consumer_secret, callback="oob")


def test_tweepy_walks_to_an_access_token_by_pin(x: FakeX) -> None:
    walk = handler(x)
    url = walk.get_authorization_url()
    assert url.startswith("https://api.twitter.com/oauth/authorize?oauth_token=")
    page = url.replace("https://api.twitter.com", f"http://127.0.0.1:{x.port}")
    (pin,) = re.findall("[0-9]{7}", requests.get(page, timeout=5).text)  # as a browser has it
    token, secret = walk.get_access_token(pin)
    signer = auth(x, resource_owner_key=token, resource_owner_secret=secret)
    answer = requests.get(ME, auth=signer, timeout=5)
    assert answer.json()["data"]["username"] == "sentinel_bot"
    assert requests.get(page, timeout=5).status_code == 403


def test_the_access_token_answer_names_the_account(x: FakeX) -> None:
    session = OAuth1Session(x.consumer_key, x.consumer_secret, callback_uri="oob")
    request_token = session.fetch_request_token("https://api.twitter.com/oauth/request_token")
    pin = x.pin(request_token["oauth_token"])
    token = session.fetch_access_token("https://api.twitter.com/oauth/access_token", verifier=pin)
    assert (token["user_id"], token["screen_name"]) == ("1001", "sentinel_bot")


def test_a_wrong_pin_is_refused_and_spends_the_request_token(x: FakeX) -> None:
    walk = handler(x)
    walk.get_authorization_url()
    pin = x.pin(walk.request_token["oauth_token"])
    for wrong in ("9999999", pin):
        with pytest.raises(tweepy.TweepyException):
            walk.get_access_token(wrong)
    assert [r.status for r in x.requests] == [200, 401, 401]
    assert x.bad_signatures == []


def test_a_callback_other_than_oob_is_refused(x: FakeX) -> None:
    walk = tweepy.OAuth1UserHandler(x.consumer_key, x.consumer_secret, callback="https://a.test/")
    with pytest.raises(tweepy.TweepyException, match="415"):
        walk.get_authorization_url()


# ---- DMs that X refuses, and who is who ----


def test_a_token_keeps_the_permission_it_was_made_under(x: FakeX) -> None:
    x.access_level = "read-write"
    old = auth(x)
    x.access_level = "read-write-directmessages"
    answer = requests.post(DMS.format(2002), json={"text": "a"}, auth=old, timeout=5)
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/oauth1-permissions")
    assert answer.headers["x-access-level"] == "read-write"
    assert post(x).status_code == 201


@pytest.mark.parametrize("text", ["", "  \n", "\ud800", 7, None])
def test_a_text_that_is_none_is_an_invalid_request(x: FakeX, text: object) -> None:
    answer = post(x, text)
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("/invalid-request")


def test_a_dm_may_have_ten_thousand_characters_and_no_more(x: FakeX) -> None:
    assert post(x, "😀" * 10_000).status_code == 201
    assert post(x, "a" * 10_001).json()["errors"][0]["code"] == 354


@pytest.mark.parametrize("to, status", [("4711", 403), ("2004", 403), ("oncall", 400)])
def test_a_recipient_who_cannot_be_written_to_is_refused(x: FakeX, to: str, status: int) -> None:
    assert post(x, to=to).status_code == status
    assert x.dms == []


def test_users_are_looked_up_by_name_and_an_unknown_one_is_an_error_in_a_200(x: FakeX) -> None:
    look, fields = client(x), ["receives_your_dm"]
    hermit = {"id": "2004", "name": "hermit", "username": "hermit", "receives_your_dm": False}
    found = look.get_user(username="HERMIT", user_auth=True, user_fields=fields)
    assert found.json() == {"data": hermit}
    unknown = look.get_user(username="nobody", user_auth=True)
    assert unknown.status_code == 200
    assert [e["title"] for e in unknown.json()["errors"]] == ["Not Found Error"]
    assert "data" not in unknown.json() and x.bad_signatures == []


# ---- limits ----


def test_dms_over_the_limit_are_refused_until_the_reset(x: FakeX) -> None:
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


def test_a_daily_limit_has_headers_of_its_own(x: FakeX) -> None:
    x.daily_limit = 1
    answers = [post(x), post(x)]
    assert [a.status_code for a in answers] == [201, 429]
    headers = answers[1].headers
    assert headers["x-rate-limit-remaining"] == "14"
    assert headers["x-user-limit-24hour-remaining"] == "0"
    assert int(headers["x-user-limit-24hour-reset"]) > time.time() + 86_000
    x.rate_limit_headers = False
    assert not [name for name in post(x).headers if "limit" in name.lower()]


def test_a_429_that_was_asked_for_says_that_nothing_is_left(x: FakeX) -> None:
    x.answer(ERRORS["429-88"])
    x.answer(dataclasses.replace(ERRORS["429-88"], headers={"x-rate-limit-reset": None}))
    first, second = post(x), post(x)
    assert first.headers["x-rate-limit-remaining"] == "0"
    assert "x-rate-limit-reset" not in second.headers
    assert x.refused_429 == []


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
            body = wanted.body
            assert answer.content == (body if isinstance(body, bytes) else body.encode()), name
        assert len(x.dms) == wanted.accept, name


def test_answers_are_given_in_order_as_often_as_asked_where_they_fit(x: FakeX) -> None:
    x.add_user("second", "2003")
    x.answer(Answer(503), times=2, path="/2/dm_conversations")
    x.answer(Answer(502), path="/2/users")
    x.answer(Answer(403), times=None, when=lambda r: r.recipient_id == "2003" and "disk" in r.text)
    assert requests.get(ME, auth=auth(x), timeout=5).status_code == 502
    assert [post(x).status_code for _ in range(3)] == [503, 503, 201]
    assert [post(x, to="2003").status_code for _ in range(2)] == [403, 403]
    assert post(x, "b", to="2003").status_code == 201
    x.clear_answers()
    assert post(x, to="2003").status_code == 201


def test_an_answer_can_be_a_function_of_the_request(x: FakeX) -> None:
    def echo(request: Request) -> Answer:
        return Answer(403, json={"detail": request.text})

    x.answer(echo, times=None, when=lambda r: "/etc/passwd" in r.text)
    assert post(x, "GET /etc/passwd").json() == {"detail": "GET /etc/passwd"}
    assert post(x, "GET /").status_code == 201


def test_headers_can_be_added_replaced_and_left_out(x: FakeX) -> None:
    x.answer(Answer(headers={"Retry-After": "7", "X-Access-Level": "read", "date": None}))
    answer = post(x)
    assert answer.status_code == 201
    assert (answer.headers["retry-after"], answer.headers["x-access-level"]) == ("7", "read")
    assert "date" not in answer.headers


@pytest.mark.parametrize(
    "answer, accepted",
    [
        (Answer(delay=30), 1),
        (Answer(mode="stall"), 0),
        (Answer(mode="trickle", every=0.3), 1),
        (Answer(mode="truncated"), 1),
        (Answer(503, mode="truncated"), 0),
        (Answer(mode="reset"), 0),
        (Answer(mode="lost"), 1),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_an_answer_may_not_come_whether_or_not_the_dm_was_taken(
    x: FakeX, answer: Answer, accepted: int
) -> None:
    x.answer(answer)
    gives_up(x)
    assert len(x.dms) == accepted
    assert post(x).status_code == 201


def test_a_trickled_answer_comes_byte_by_byte(x: FakeX) -> None:
    x.answer(Answer(mode="trickle", every=0.001))
    began = time.monotonic()
    assert post(x).json()["data"]["dm_conversation_id"] == "1001-2002"
    assert time.monotonic() - began > 0.2


def test_an_error_can_hide_that_the_dm_was_accepted_but_not_over_the_limit(x: FakeX) -> None:
    x.limit = 1
    x.answer(dataclasses.replace(ERRORS["502-html"], accept=True), times=2)
    assert [post(x).status_code for _ in range(2)] == [502, 429]
    assert len(x.dms) == 1


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


@pytest.mark.parametrize("mode, status", [("refuse-connect", 502), ("stall-connect", None)])
def test_the_proxy_can_refuse_to_connect_or_not_answer(
    x: FakeX, mode: Mode, status: int | None
) -> None:
    x.answer(Answer(mode=mode))
    gives_up(x)
    assert x.requests == [] and [c.status for c in x.connects] == [status]
    assert post(x).status_code == 201


@pytest.mark.parametrize("tls", ["unknown-ca", "wrong-name", "expired"])
def test_a_bad_certificate_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tls: Tls) -> None:
    with FakeX(tls=tls) as server:
        use(server, monkeypatch)
        with pytest.raises(requests.exceptions.SSLError, match="certificate"):
            post(server)
        server.tls = "good"
        assert post(server).status_code == 201
        assert len(server.requests) == 1


def test_there_is_no_way_through_to_anywhere_else(x: FakeX) -> None:
    for url in ("https://example.com/", "https://api.twitter.com:8443/"):
        with pytest.raises(requests.exceptions.ProxyError, match="403"):
            requests.get(url, timeout=5)
    proxies = {"http": f"http://127.0.0.1:{x.port}"}
    assert requests.get("http://example.com/a", proxies=proxies, timeout=5).status_code == 403
    assert x.strangers == ["example.com:443", "api.twitter.com:8443", "http://example.com/a"]


# ---- its life ----


def test_it_stops_at_once_though_clients_hang(x: FakeX) -> None:
    x.answer(Answer(mode="stall"))
    x.answer(Answer(mode="stall-connect"), when=lambda r: len(x.requests) == 1)
    threads = [threading.Thread(target=gives_up, args=(x, 9)) for _ in range(2)]
    threads[0].start()
    x.wait_for(lambda: x.requests)
    threads[1].start()
    x.wait_for(lambda: len(x.connects) == 2)
    began = time.monotonic()
    x.stop()
    assert time.monotonic() - began < 2
    for thread in threads:
        thread.join(5)
    assert not [t for t in threading.enumerate() if t.name == "fake_x" or t in threads]


def test_it_comes_back_on_the_same_port_with_what_it_knew(x: FakeX) -> None:
    signer, port = auth(x), x.port
    x.stop()
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(ME, auth=signer, timeout=5)
    x.start()
    assert x.port == port
    assert requests.get(ME, auth=signer, timeout=5).status_code == 200


def test_clients_that_vanish_are_taken_calmly(x: FakeX, capfd: pytest.CaptureFixture[str]) -> None:
    connect = b"CONNECT api.x.com:443 HTTP/1.1\r\nHost: api.x.com:443\r\n\r\n"
    for sent in (b"", b"CONN", b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", connect):
        with socket.create_connection(("127.0.0.1", x.port)) as sock:
            sock.sendall(sent)
    x.answer(Answer(delay=0.2))
    gives_up(x, 0.05)
    x.wait_for(lambda: not x._connections, timeout=5)
    assert x.faults == [] and capfd.readouterr() == ("", "")


def test_it_serves_many_at_once_and_adds_no_delay_of_its_own(x: FakeX) -> None:
    x.limit, took, statuses = 100, [], []
    one = client(x)
    for _ in range(15):  # a delayed ACK would cost 40 ms each time
        began = time.monotonic()
        one.create_direct_message(participant_id="2002", text="a")
        took.append(time.monotonic() - began)
    assert sorted(took)[4] < 0.2
    threads = [
        threading.Thread(target=lambda: statuses.append(post(x).status_code)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert statuses == [201] * 20


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
        gives_up(server, 5)


def test_by_hand_it_prints_all_that_one_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).with_name("fake_x.py")
    with subprocess.Popen(
        [sys.executable, str(script), "--limit", "3"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    ) as server:  # fmt: skip
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
