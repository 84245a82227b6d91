"""A stand-in for X (Twitter) on loopback: a CONNECT proxy, TLS, and the API behind it.

A program under test is pointed at it with HTTPS_PROXY and REQUESTS_CA_BUNDLE alone, and cannot
tell it from X: the proxy ends the TLS of api.twitter.com and api.x.com itself, with certificates
of a throw-away CA, checks every OAuth 1.0a signature, keeps X's rate limits, and remembers the
direct messages (DMs) it accepted. It can be told to misbehave in every way X and the network have
been seen to. A connection to anywhere else is refused, and remembered.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import io
import json
import math
import re
import secrets
import shutil
import socket
import ssl
import string
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any, Callable, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode

import trustme

HOSTS = ("api.twitter.com", "api.x.com")
MAX_TEXT = 10_000  # characters a DM may have
CLOCK_TOLERANCE = 300.0  # seconds a request's timestamp may be off
DAY = 86_400.0  # seconds

Mode = Literal["normal", "stall", "trickle", "reset", "lost", "truncated", "refuse-connect",
               "stall-connect"]  # fmt: skip
Tls = Literal["good", "unknown-ca", "wrong-name", "expired"]


# ---- what is remembered ----


@dataclass
class User:
    """An account on X. `accepts_dms` may be changed while the server runs."""

    screen_name: str
    id: str
    accepts_dms: bool = True


@dataclass(frozen=True)
class DM:
    """A direct message that was accepted. `at` is time.time()."""

    recipient_id: str
    text: str
    at: float


@dataclass
class Request:
    """A request as it was received. `headers` has lower-case names, `path` has no query.

    `status` is what it was answered, None while and where there was no answer.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    status: int | None = None
    query: str = ""
    host: str = ""

    @property
    def recipient_id(self) -> str:
        """The user id a DM is for; "" if the request is not a DM."""
        match = _DM_PATH.fullmatch(self.path)
        return match.group(1) if match and self.method == "POST" else ""

    @property
    def text(self) -> str:
        """The text of a DM; "" if there is none."""
        try:
            text = json.loads(self.body)["text"]
        except (ValueError, KeyError, TypeError):
            return ""
        return text if isinstance(text, str) else ""


@dataclass(frozen=True)
class BadSignature:
    """A request whose OAuth 1.0a signature did not hold, and why."""

    reason: str
    request: Request


@dataclass(frozen=True)
class Connect:
    """A CONNECT the proxy got. `status` is None where it was not answered."""

    host: str
    at: float
    status: int | None


_DM_PATH = re.compile(r"/2/dm_conversations/with/([^/]*)/messages")


# ---- misbehaviour ----


@dataclass(frozen=True)
class Answer:
    """How a request is to be answered instead of the usual way.

    Without a `status` X does its work as always, and the other fields change only what they name:
    Answer(delay=5) is X being slow. With a `status` X does nothing, unless `accept`: then the DM
    (or the PIN) is accepted before anything else happens, the delay included. Where X itself
    refuses such a request (rate limit, bad text), that refusal is sent.

    status        the HTTP status
    json          the body as a JSON value (for JSON null, use body="null")
    body          the body as text or bytes
    headers       headers to add or replace; those which are None are left out
    content_type  default: text/html if the body begins with "<", else application/json
    delay         seconds to wait before answering
    mode          normal          as it should be
                  stall           read the request, then nothing, until the server stops
                  trickle         send one byte each `every` seconds, from the status line on
                  reset           a TCP reset in place of an answer; X has done nothing
                  lost            X accepted it; a TCP reset in place of the answer
                  truncated       send half the body, then close
                  refuse-connect  the proxy answers the CONNECT with 502
                  stall-connect   the proxy never answers the CONNECT
    accept        X does its work even though the answer says otherwise
    every         seconds between two bytes of mode trickle
    """

    status: int | None = None
    json: Any = None
    body: str | bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    content_type: str | None = None
    delay: float = 0.0
    mode: Mode = "normal"
    accept: bool = False
    every: float = 1.0

    @property
    def is_for_connect(self) -> bool:
        """Whether it is the proxy that misbehaves, and not the API."""
        return self.mode in ("refuse-connect", "stall-connect")

    @property
    def works(self) -> bool:
        """Whether X does its work on the request."""
        usual = self.status is None and self.mode not in ("stall", "reset")
        return usual or self.mode == "lost" or self.accept


NORMAL = Answer()


def v1_error(status: int, code: int, message: str) -> Answer:
    """An error in the form of API v1.1, which v2 paths answer with as well."""
    return Answer(status, json={"errors": [{"code": code, "message": message}]})


def problem(
    status: int, title: str, detail: str, type: str = "about:blank", **more: object
) -> Answer:
    """An error in the form of API v2 (docs.x.com, "Response codes and errors"); one that has more
    in it was not seen with its status."""
    if type != "about:blank":
        type = f"https://api.twitter.com/2/problems/{type}"
    body = {"title": title, "detail": detail, "type": type}
    return Answer(status, json={**body, **(more or {"status": status})})


_BAD_SIGNATURE = v1_error(401, 32, "Could not authenticate you.")
_NO_PERMISSION = problem(
    403, "Forbidden", "You do not have permission to DM one or more participants.")
_TOO_MANY = problem(429, "Too Many Requests", "Too Many Requests")
_APP_LACKS_DMS = problem(
    403, "Forbidden", "Your client app is not configured with the appropriate oauth1 app"
    " permissions for this endpoint.", "oauth1-permissions")
_TOO_LONG = v1_error(403, 354, "The text of your message is over the max character limit.")
_NO_SUCH_PAGE = v1_error(404, 34, "Sorry, that page does not exist.")


def _invalid(message: str, **parameters: list[str]) -> Answer:
    return problem(
        400, "Invalid Request", "One or more parameters to your request was invalid.",
        "invalid-request", errors=[{"parameters": parameters, "message": message}])


def _page(status: int, reason: str) -> Answer:
    """What a load balancer in front of the API answers."""
    title = f"{status} {reason}"
    return Answer(status, body=f"<html>\r\n<head><title>{title}</title></head>\r\n"
                  f"<body><center><h1>{title}</h1></center></body>\r\n</html>\r\n")


# Every form of refusal and of garbage that is documented by X or was seen in the field. Sources:
# docs.x.com "Response codes and errors", v1.1's "Error codes" table, and public issue threads
# where people pasted what they got (402 and the spending cap are not in X's own table).
ERRORS: dict[str, Answer] = {
    # nobody may send until a person acts: the token
    "401-code-32": _BAD_SIGNATURE,
    "401-v2-unauthorized": problem(401, "Unauthorized", "Unauthorized"),
    "401-code-89": v1_error(401, 89, "Invalid or expired token."),
    "401-code-135": v1_error(401, 135, "Timestamp out of bounds."),
    # HTML or nothing: something on the way, and not X
    "401-html": _page(401, "Unauthorized"),
    "401-empty": Answer(401, body=""),
    # the PIN walk
    "401-code-417": v1_error(
        401, 417, "Desktop applications only support the oauth_callback value 'oob'"),
    "403-code-415": v1_error(
        403, 415, "Callback URL not approved for this client application. Approved callback URLs"
        " can be adjusted in your application settings"),
    "401-wrong-pin": Answer(
        401, body="Invalid oauth_verifier parameter", content_type="text/html; charset=utf-8"),
    # money
    "402-credits": problem(
        402, "CreditsDepleted", "Your enrolled account [1001] does not have any credits to fulfill"
        " this request.", "credits", account_id=1001),
    "403-spend-cap": problem(
        403, "SpendCapReached", "Your enrolled account [1001] has reached its billing cycle spend"
        " cap.", "credits", account_id=1001, reset_date="2026-12-01"),
    # the app
    "403-93": v1_error(
        403, 93, "This application is not allowed to access or delete your direct messages."),
    "403-oauth1-permissions": _APP_LACKS_DMS,
    "403-oauth1-permissions-x-com": Answer(403, json={
        **_APP_LACKS_DMS.json, "type": "https://api.x.com/2/problems/oauth1-permissions"}),
    "403-261": v1_error(403, 261, "Application cannot perform write actions."),
    "403-client-not-enrolled": problem(
        403, "Client Forbidden", "When authenticating requests to the Twitter API v2 endpoints, you"
        " must use keys and tokens from a Twitter developer App that is attached to a Project. You"
        " can create a project via the developer portal.", "client-forbidden",
        client_id="10010010", reason="client-not-enrolled",
        required_enrollment="Appropriate Level of API Access",
        registration_url="https://developer.twitter.com/en/docs/projects/overview"),
    "403-client-not-enrolled-type": problem(
        403, "Client Forbidden", "This client is not enrolled.", "client-not-enrolled"),
    "403-453": v1_error(
        403, 453, "You currently have access to a subset of X API V2 endpoints and limited v1.1"
        " endpoints (e.g. media post, oauth) only. If you need access to this endpoint, you may"
        " need a different access level."),
    "403-unsupported-authentication": problem(
        403, "Unsupported Authentication", "Authenticating with OAuth 1.0a User Context is"
        " forbidden for this endpoint.", "unsupported-authentication"),
    # the sending account
    "403-user-suspended-us": problem(
        403, "Forbidden", "The user used for authentication is suspended", "user-suspended"),
    "403-user-suspended-us-by-name": problem(
        403, "Forbidden", "User has been suspended: [sentinel_bot].", "user-suspended"),
    "403-64": v1_error(
        403, 64, "Your account is suspended and is not permitted to access this feature."),
    "403-226": v1_error(
        403, 226, "This request looks like it might be automated. To protect our users from spam"
        " and other malicious activity, we can't complete this action right now. Please try again"
        " later."),
    "403-326": v1_error(
        403, 326, "To protect our users from spam and other malicious activity, this account is"
        " temporarily locked. Please log in to https://twitter.com to unlock your account."),
    # one recipient
    "403-349": v1_error(403, 349, "You cannot send messages to this user."),
    "403-150": v1_error(403, 150, "You cannot send messages to users who are not following you."),
    "403-476": v1_error(403, 476, "Sender is not verified to send message requests"),
    "403-no-permission-to-dm": _NO_PERMISSION,
    "403-not-permitted": problem(403, "Forbidden", "This operation is not permitted."),
    "403-63": v1_error(403, 63, "User has been suspended."),
    "403-user-suspended-them": problem(
        403, "Forbidden", "User has been suspended: [2002].", "user-suspended"),
    "404-50": v1_error(404, 50, "User not found."),
    "404-108": v1_error(404, 108, "Cannot find specified user."),
    "404-resource-not-found": problem(404, "Not Found Error", "Not Found", "resource-not-found"),
    # this text
    "403-354-too-long": _TOO_LONG,
    "403-151-already-said": v1_error(
        403, 151, "There was an error sending your message: Whoops! You already said that."),
    "403-187-already-said": v1_error(403, 187, "Whoops! You already said that."),
    "403-151-other": v1_error(
        403, 151, "There was an error sending your message: this link looks harmful."),
    "400-invalid-request": _invalid("$.text: is not valid", text=["?"]),
    "413": _page(413, "Request Entity Too Large"),
    "413-empty": Answer(413, body=""),
    # refusals which name nobody
    "403-about-blank": problem(403, "Forbidden", "Forbidden"),
    "403-html": _page(403, "Forbidden"),
    "403-empty": Answer(403, body=""),
    "404": _NO_SUCH_PAGE,
    "418": problem(418, "I'm a teapot", "short and stout"),
    "410-gone": v1_error(410, 251, "This endpoint has been retired and should not be used."),
    # too fast, or too much
    "403-344": v1_error(403, 344, "You have reached your daily limit for sending messages."),
    "429-88": v1_error(429, 88, "Rate limit exceeded"),
    "429-v2": _TOO_MANY,
    "429-usage-capped": problem(
        429, "UsageCapExceeded", "Usage cap exceeded: Monthly product cap", "usage-capped",
        period="Monthly", scope="Product", account_id=1001),
    "429-empty": Answer(429, body=""),
    # X, or something before it, is ill
    "500-html": _page(500, "Internal Server Error"),
    "500-131": v1_error(500, 131, "Internal error"),
    "502-html": _page(502, "Bad Gateway"),
    "503-empty": Answer(503, body=""),
    "503-130": v1_error(503, 130, "Over capacity"),
    "503-v2": problem(503, "Service Unavailable", "Service Unavailable"),
    "504-html": _page(504, "Gateway Timeout"),
    "list-shaped": Answer(500, json=[]),
    "403-list-shaped": Answer(403, json=[]),
    "non-utf8": Answer(500, body=b'{"title": "\xff\xfe\xc3"}'),
    "truncated-json": Answer(500, body='{"errors":[{"code":131,"mess'),
    "302-elsewhere": Answer(302, body="", headers={"location": "https://x.com/suspended"}),
    # a network's page to log in, and what else is no answer of X's
    "200-html": Answer(200, body="<html><body><form>Guest Wi-Fi: log in</form></body></html>"),
    "200-empty": Answer(200, body=""),
    "200-json-without-data": Answer(200, json={"status": "ok"}),
    "204": Answer(204, body=""),
    # accepted, but the answer is not what it should be
    "200-data": Answer(200, json={"data": {"dm_event_id": "1"}}, accept=True),
    "201-html": Answer(201, body="<html><body>OK</body></html>", accept=True),
    "201-empty-body": Answer(201, body="", accept=True),
    "201-list-shaped": Answer(201, json=[], accept=True),
    "201-json-null": Answer(201, body="null", accept=True),
    "201-non-utf8": Answer(201, body=b'{"data": "\xff\xfe\xc3"}', accept=True),
    "201-truncated-json": Answer(201, body='{"data":{"dm_conversation_id":"10', accept=True),
}


# ---- OAuth 1.0a signatures (RFC 5849) ----


def percent_encode(text: str) -> str:
    """RFC 5849 §3.6: all but letters, digits and "-._~", as UTF-8, in upper-case hex."""
    return quote(text, safe="-._~")


def parse_authorization(header: str) -> list[tuple[str, str]]:
    """The parameters of an ``Authorization: OAuth …`` header, decoded (RFC 5849 §3.5.1).

    Raises ValueError if it is not of that form.
    """
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "oauth":
        raise ValueError("no OAuth Authorization header")
    parameters = []
    for part in rest.split(","):
        match = re.fullmatch(r'\s*([^\s="]+)="([^"]*)"\s*', part)
        if match is None:
            raise ValueError(f"malformed Authorization header near {part!r}")
        parameters.append((unquote(match[1]), unquote(match[2])))
    return parameters


def form_parameters(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """The parameters of a form body; none if it is not one (RFC 5849 §3.4.1.3.1)."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return []
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


def base_string_uri(scheme: str, authority: str, path: str) -> str:
    """RFC 5849 §3.4.1.2: lower case, and no default port."""
    scheme, authority = scheme.lower(), authority.lower()
    default_port = {"http": ":80", "https": ":443"}[scheme]
    if authority.endswith(default_port):
        authority = authority[: -len(default_port)]
    return f"{scheme}://{authority}{path}"


def signature_base_string(method: str, uri: str, parameters: Iterable[tuple[str, str]]) -> str:
    """RFC 5849 §3.4.1.1 and §3.4.1.3.2.

    `parameters` are those of query, form body and header, decoded; what must not be signed
    (realm, oauth_signature) is left out here.
    """
    pairs = sorted((percent_encode(name), percent_encode(value)) for name, value in parameters
                   if name not in ("realm", "oauth_signature"))  # fmt: skip
    normalized = "&".join(f"{name}={value}" for name, value in pairs)
    return "&".join((method.upper(), percent_encode(uri), percent_encode(normalized)))


def hmac_sha1_signature(base_string: str, consumer_secret: str, token_secret: str) -> str:
    """RFC 5849 §3.4.2."""
    key = f"{percent_encode(consumer_secret)}&{percent_encode(token_secret)}"
    digest = hmac.new(key.encode("ascii"), base_string.encode("ascii"), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")


# ---- X ----


@dataclass
class _RequestToken:
    secret: str
    pin: str
    approved: bool = False
    spent: bool = False


@dataclass
class _AccessToken:
    secret: str
    access_level: str | None
    revoked: bool = False


@dataclass
class _Credentials:
    """What a valid signature proved: all parameters of the request, and the token it came with."""

    parameters: dict[str, str]
    token: str
    access_level: str | None


@dataclass
class _Window:
    """A fixed window of a rate limit, which begins with the first request in it."""

    ends: float = 0.0
    used: int = 0

    def roll(self, now: float, length: float) -> None:
        if now >= self.ends:
            self.ends, self.used = now + length, 0


class _Refused(Exception):
    """A request that does not get in: what is wrong with its signature, and the answer."""

    def __init__(self, bad_signature: str, answer: Answer = _BAD_SIGNATURE) -> None:
        super().__init__(bad_signature)
        self.answer = answer


@dataclass
class _Rule:
    answer: Answer | Callable[[Request], Answer]
    times: int | None
    path: str
    when: Callable[[Request], bool] | None


class FakeX:
    """X on loopback; see the module's docstring. Use it in a `with` block, or start() and stop();
    a start() after that comes back on the same port, with the same tokens, CA and memory.

    limit         DMs that may be sent in `window` seconds. One X refuses for its text or its
                  recipient counts, a 429 does not, nor does what was not `accept`ed by answer()
    daily_limit   DMs that may be sent in a day; None for no such limit, and no headers
    access_level  the app's permission. As with X, an access token keeps the one it was made
                  under. None leaves x-access-level out
    tls           the certificate: good, or signed by a CA that `env` does not name, or for
                  another host, or expired

    These may be changed at any time, as well as
    rate_limit_headers  whether DM answers say how much of the limit is left
    clock_offset        seconds X's clock is ahead of ours

    What happened is in lists, oldest first: `dms`, `requests` (to the API, refused ones too),
    `bad_signatures`, `refused_429` (times), `connects` (to the proxy), `strangers` ("host:port"
    somebody wanted to reach), `tls_failures` (words). All times are time.time().

    A failure inside this class is kept in `faults`, and raised at the end of the `with` block.
    """

    def __init__(
        self, *, limit: int = 15, window: float = 900.0, daily_limit: int | None = None,
        access_level: str | None = "read-write-directmessages", tls: Tls = "good",
    ) -> None:  # fmt: skip
        self.port = 0  # until it is started
        self.limit, self.window, self.daily_limit = limit, window, daily_limit
        self.access_level, self.tls = access_level, tls
        self.rate_limit_headers, self.clock_offset = True, 0.0

        self.consumer_key = _random(25)
        self.consumer_secret = _random(50)
        self.account = User("sentinel_bot", "1001")

        self.dms: list[DM] = []
        self.requests: list[Request] = []
        self.bad_signatures: list[BadSignature] = []
        self.refused_429: list[float] = []
        self.connects: list[Connect] = []
        self.strangers: list[str] = []
        self.tls_failures: list[str] = []
        self.faults: list[Exception] = []

        self._users = {self.account.id: self.account}
        self._request_tokens: dict[str, _RequestToken] = {}
        self._access_tokens: dict[str, _AccessToken] = {}
        self._nonces: set[str] = set()
        self._rules: list[_Rule] = []
        self._window = _Window()
        self._day = _Window()

        self._changed = threading.Condition()  # guards all of the above; an RLock inside
        self._changes = 0
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()
        self._acceptor: threading.Thread | None = None
        self._connections: set[_Connection] = set()

        self._ca = trustme.CA()
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        directory = tempfile.mkdtemp(prefix="fake_x-")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.ca_bundle = str(Path(directory, "ca.pem"))
        self._ca.cert_pem.write_to_path(self.ca_bundle)

    # -- its life --

    def start(self) -> FakeX:
        """Listen on 127.0.0.1, in threads of its own. Returns itself."""
        self._context(self.tls)  # says what is wrong here rather than in a thread
        listener = self._bind()
        self.port = listener.getsockname()[1]
        listener.settimeout(0.25)  # where shutdown() does not wake accept()
        self._listener, self._stopping = listener, threading.Event()
        self._acceptor = threading.Thread(target=self._accept, args=(listener, self._stopping),
                                          name="fake_x", daemon=True)  # fmt: skip
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Drop every connection and refuse new ones. What was remembered stays."""
        listener, acceptor = self._listener, self._acceptor
        if listener is None or acceptor is None:
            return
        self._stopping.set()
        _shutdown(listener)
        acceptor.join(5)
        listener.close()
        self._listener = self._acceptor = None
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            connection.hang_up()
        deadline = time.monotonic() + 2
        for connection in connections:
            connection.thread.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> FakeX:
        return self.start()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()
        if error is None and self.faults:
            raise AssertionError("the fake X itself failed") from self.faults[0]

    def _bind(self) -> socket.socket:
        deadline = time.monotonic() + 2
        while True:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", self.port))
                listener.listen(128)
                return listener
            except OSError:  # a port to come back to may just be in use as somebody's other end
                listener.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _accept(self, listener: socket.socket, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                continue
            connection = _Connection(self, sock, stopping)
            with self._changed:
                self._connections.add(connection)
            connection.thread.start()

    def _context(self, tls: Tls) -> ssl.SSLContext:
        with self._changed:
            if tls not in self._contexts:
                self._contexts[tls] = self._new_context(tls)
            return self._contexts[tls]

    def _new_context(self, tls: Tls) -> ssl.SSLContext:
        certificate = self._ca.issue_cert(*HOSTS)
        if tls == "unknown-ca":
            certificate = trustme.CA().issue_cert(*HOSTS)
        elif tls == "wrong-name":
            certificate = self._ca.issue_cert("api.example.net")
        elif tls == "expired":
            yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
            certificate = self._ca.issue_cert(*HOSTS, not_after=yesterday)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    # -- what a test does with it --

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that point a program at this X."""
        proxy = f"http://127.0.0.1:{self.port}"
        return {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": "",
                "REQUESTS_CA_BUNDLE": self.ca_bundle}  # fmt: skip

    def add_user(self, screen_name: str, id: str, accepts_dms: bool = True) -> User:
        """Let there be another account, which can be looked up, and DMed if it `accepts_dms`."""
        with self._changed:
            self._users[id] = User(screen_name, id, accepts_dms)
            return self._users[id]

    def token(self) -> tuple[str, str]:
        """A new access token and its secret, as the PIN walk would give."""
        with self._changed:
            token = f"{self.account.id}-{_random(40)}"
            secret = _random(45)
            self._access_tokens[token] = _AccessToken(secret, self.access_level)
            return token, secret

    def revoke(self, token: str) -> None:
        """Withdraw an access token: requests with it are answered 401, code 89."""
        with self._changed:
            self._access_tokens[token].revoked = True

    def pin(self, oauth_token: str) -> str:
        """Approve the app as a person does in the browser. Returns the PIN: seven digits, of
        which the first is 0, for a PIN is no number."""
        with self._changed:
            if oauth_token not in self._request_tokens:
                raise KeyError(f"no such request token: {oauth_token!r}")
            self._request_tokens[oauth_token].approved = True
            return self._request_tokens[oauth_token].pin

    def answer(
        self, answer: Answer | Callable[[Request], Answer], times: int | None = 1, path: str = "",
        when: Callable[[Request], bool] | None = None,
    ) -> None:  # fmt: skip
        """Answer the next `times` requests (None: all) that way, after what was asked for before.

        Only those are meant whose path begins with `path`, and of which `when` is true. `answer`
        may be a function of the request, as for an answer that holds the text. A bad signature is
        refused before. An answer for the proxy (refuse-connect, stall-connect) meets CONNECTs,
        whatever `path` says.
        """
        with self._changed:
            self._rules.append(_Rule(answer, times, path, when))

    def clear_answers(self) -> None:
        """Behave again."""
        with self._changed:
            self._rules.clear()

    def wait_for(self, predicate: Callable[[], object], timeout: float = 10.0,
                 what: str = "") -> None:  # fmt: skip
        """Wait until `predicate` holds. AssertionError, saying what did happen, if it does not."""
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                seen = self._changes
            if predicate():  # outside the lock: it may run a program that talks to us
                return
            left = deadline - time.monotonic()
            if left <= 0:
                words = f" for {what}" if what else ""
                raise AssertionError(f"waited {timeout:g} s in vain{words}\n{self.summary()}")
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(min(left, 0.1))  # it may hang on more than on us

    def summary(self) -> str:
        """What happened so far, in words: for the message of a failing test."""
        with self._changed:
            lines = [f"X accepted {len(self.dms)} DMs"]
            lines += [f"  {_clock(d.at)} to {d.recipient_id}: {d.text[:70]!r}" for d in self.dms]
            lines += [f"it received {len(self.requests)} requests"]
            for r in self.requests[-20:]:
                lines += [f"  {_clock(r.at)} {r.method} {r.path} -> {r.status or 'no answer'}"]
            lines += [f"bad signature: {bad.reason}" for bad in self.bad_signatures]
            for name in ("strangers", "tls_failures", "faults"):
                lines.append(f"{name}: {getattr(self, name)}")
        return "\n".join(lines)

    # -- the API --

    def _now(self) -> float:
        return time.time() + self.clock_offset

    def _note(self, kept: list[Any], item: object) -> None:
        with self._changed:
            kept.append(item)
            self._touch()

    def _touch(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _forget(self, connection: _Connection) -> None:
        with self._changed:
            self._connections.discard(connection)

    def _misbehaviour(self, request: Request, connect: bool = False) -> Answer:
        """The next answer asked for that fits, taken off the queue."""
        for rule in self._rules:
            if (isinstance(rule.answer, Answer) and rule.answer.is_for_connect) != connect:
                continue
            if not connect and not request.path.startswith(rule.path):
                continue
            if rule.when is not None and not rule.when(request):
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self._rules.remove(rule)
            return rule.answer if isinstance(rule.answer, Answer) else rule.answer(request)
        return NORMAL

    def _decide(self, request: Request) -> tuple[Answer, dict[str, str]]:
        """What to answer (all that X adds of its own filled in), and with which headers."""
        with self._changed:
            headers = {"date": formatdate(self._now(), usegmt=True), "server": "fake_x"}
            try:
                credentials = self._authenticate(request)
            except _Refused as refused:
                if str(refused):
                    self.bad_signatures.append(BadSignature(str(refused), request))
                self._touch()
                return refused.answer, headers
            answer = self._misbehaviour(request)
            if answer.works:
                genuine = self._api(request, credentials)
                refused_by_x = genuine.status is not None and genuine.status >= 400
                if refused_by_x and (answer.accept or answer.mode == "lost"):
                    answer = genuine
                else:
                    answer = _overlay(genuine, answer)
            if credentials.access_level is not None:
                headers["x-access-level"] = credentials.access_level
            if request.recipient_id:
                headers.update(self._limit_headers(exhausted=answer.status == 429))
            self._touch()
            return answer, headers

    def _authenticate(self, request: Request) -> _Credentials:
        """Check the OAuth 1.0a signature (RFC 5849 §3.2); raises _Refused."""

        try:
            signed = parse_authorization(request.headers.get("authorization", ""))
        except ValueError as error:
            raise _Refused(str(error)) from None
        if len(dict(signed)) != len(signed):
            raise _Refused("a parameter stands twice in the Authorization header")
        oauth = dict(signed)
        if oauth.get("oauth_consumer_key") != self.consumer_key:
            raise _Refused("unknown consumer key")
        if oauth.get("oauth_signature_method") != "HMAC-SHA1":
            raise _Refused("the signature method is not HMAC-SHA1")
        if oauth.get("oauth_version", "1.0") != "1.0":
            raise _Refused("the OAuth version is not 1.0")

        token, access_level = oauth.get("oauth_token", ""), self.access_level
        if request.path == "/oauth/request_token":
            token_secret = ""
        elif request.path == "/oauth/access_token":
            if token not in self._request_tokens:
                raise _Refused("unknown request token")
            token_secret = self._request_tokens[token].secret
        else:
            if token not in self._access_tokens:
                raise _Refused("unknown access token")
            token_secret = self._access_tokens[token].secret
            access_level = self._access_tokens[token].access_level
            if self._access_tokens[token].revoked:
                raise _Refused("", ERRORS["401-code-89"])

        parameters = parse_qsl(request.query, keep_blank_values=True)
        parameters += form_parameters(request.headers.get("content-type", ""), request.body)
        parameters += signed
        uri = base_string_uri("https", request.host, request.path)
        base_string = signature_base_string(request.method, uri, parameters)
        expected = hmac_sha1_signature(base_string, self.consumer_secret, token_secret)
        given = oauth.get("oauth_signature", "")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            raise _Refused(f"wrong signature; the base string is {base_string}")

        timestamp = oauth.get("oauth_timestamp", "")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp):
            raise _Refused("the timestamp is not a number")
        if abs(int(timestamp) - self._now()) > CLOCK_TOLERANCE:
            raise _Refused("timestamp out of bounds", ERRORS["401-code-135"])
        nonce = oauth.get("oauth_nonce", "")
        if not nonce or nonce in self._nonces:
            raise _Refused("the nonce was used before" if nonce else "there is no nonce")
        self._nonces.add(nonce)
        return _Credentials(dict(parameters), token, access_level)

    def _api(self, request: Request, credentials: _Credentials) -> Answer:
        """Do what the request asks for."""
        if request.method == "POST":
            if request.path == "/oauth/request_token":
                return self._issue_request_token(credentials)
            if request.path == "/oauth/access_token":
                return self._issue_access_token(credentials)
            if _DM_PATH.fullmatch(request.path):
                return self._receive_dm(request, credentials)
        if request.method == "GET" and request.path.startswith("/2/users/"):
            return self._look_up(unquote(request.path[len("/2/users/") :]), credentials)
        return _NO_SUCH_PAGE

    def _issue_request_token(self, credentials: _Credentials) -> Answer:
        """docs.x.com, "POST oauth/request_token"."""
        if credentials.parameters.get("oauth_callback") != "oob":
            return ERRORS["403-code-415"]
        token, secret = _random(27), _random(32)
        pin = f"0{secrets.randbelow(1_000_000):06}"
        self._request_tokens[token] = _RequestToken(secret, pin)
        return _form(oauth_token=token, oauth_token_secret=secret, oauth_callback_confirmed="true")

    def _issue_access_token(self, credentials: _Credentials) -> Answer:
        """docs.x.com, "POST oauth/access_token". One attempt a request token."""
        request_token = self._request_tokens[credentials.token]
        right = credentials.parameters.get("oauth_verifier") == request_token.pin
        spent, request_token.spent = request_token.spent, True
        if spent or not right or not request_token.approved:
            return ERRORS["401-wrong-pin"]
        token, secret = self.token()
        return _form(oauth_token=token, oauth_token_secret=secret, user_id=self.account.id,
                     screen_name=self.account.screen_name)  # fmt: skip

    def _look_up(self, which: str, credentials: _Credentials) -> Answer:
        """docs.x.com, "User lookup": /2/users/me, /2/users/{id}, /2/users/by/username/{name}; and
        /2/users/by?usernames=, of one."""
        value, parameter, form = which, "id", r"[0-9]{1,19}"
        if which == "me":
            value = self.account.id
        elif which == "by" or which.startswith("by/username/"):
            value = credentials.parameters.get("usernames", which[len("by/username/") :])
            parameter, form = "username", r"[A-Za-z0-9_]{1,15}"
        if not re.fullmatch(form, value):
            message = f"The `{parameter}` query parameter value [{value}] is not valid"
            return _invalid(message, **{parameter: [value]})
        for user in self._users.values():
            if value.lower() in (user.id, user.screen_name.lower()):
                name = user.screen_name
                data: dict[str, object] = {"id": user.id, "name": name, "username": name}
                if "receives_your_dm" in credentials.parameters.get("user.fields", ""):
                    data["receives_your_dm"] = user.accepts_dms
                return Answer(200, json={"data": [data] if which == "by" else data})
        return Answer(200, json={"errors": [_not_found(value, parameter)]})

    def _receive_dm(self, request: Request, credentials: _Credentials) -> Answer:
        """docs.x.com, "Create a DM message by participant ID"."""
        now = self._now()
        self._window.roll(now, self.window)
        self._day.roll(now, DAY)
        over_daily = self.daily_limit is not None and self._day.used >= self.daily_limit
        if self._window.used >= self.limit or over_daily:
            self.refused_429.append(time.time())
            return _TOO_MANY
        self._window.used += 1
        self._day.used += 1

        if credentials.access_level not in (None, "read-write-directmessages"):
            return _APP_LACKS_DMS
        recipient_id = unquote(request.recipient_id)
        if not re.fullmatch(r"[0-9]{1,19}", recipient_id):
            words = f"The `participant_id` path parameter value [{recipient_id}] is not valid"
            return _invalid(words, participant_id=[recipient_id])
        text = request.text
        if not request.headers.get("content-type", "").lower().startswith("application/json"):
            return _invalid("Content-Type must be application/json")
        if not text.strip() or re.search("[\ud800-\udfff]", text):
            return _invalid("Invalid JSON, or $.text: is missing, empty or not well-formed")
        if len(text) > MAX_TEXT:
            return _TOO_LONG
        recipient = self._users.get(recipient_id)
        if recipient is None or not recipient.accepts_dms:
            return _NO_PERMISSION
        self.dms.append(DM(recipient_id, text, time.time()))
        ids = sorted((self.account.id, recipient_id), key=int)
        event = str(1_800_000_000_000_000_000 + len(self.dms))
        data = {"dm_conversation_id": "-".join(ids), "dm_event_id": event}
        return Answer(201, json={"data": data})

    def _limit_headers(self, exhausted: bool) -> dict[str, str]:
        """docs.x.com, "Rate limits". A reset is a whole second, and never too early.

        `exhausted`: a 429 that was asked for does not say that there is something left.
        """
        if not self.rate_limit_headers:
            return {}
        now = self._now()

        def of(name: str, limit: int, window: _Window, length: float) -> dict[str, str]:
            open_ = now < window.ends
            left = max(0, limit - window.used) if open_ else limit
            reset = math.ceil(window.ends if open_ else now + length)
            return {f"{name}-limit": str(limit), f"{name}-remaining": str(left),
                    f"{name}-reset": str(reset)}  # fmt: skip

        headers = of("x-rate-limit", self.limit, self._window, self.window)
        if self.daily_limit is not None:
            name = "x-user-limit-24hour"
            headers.update(of(name, self.daily_limit, self._day, DAY))
        if exhausted and headers.get("x-user-limit-24hour-remaining") != "0":
            headers["x-rate-limit-remaining"] = "0"
        return headers


def _random(length: int) -> str:
    """A key, token or secret, as long as X's are and of the same characters."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f"{at % 1:.3f}"[1:]


def _form(**parameters: str) -> Answer:
    return Answer(200, body=urlencode(parameters), content_type="text/html; charset=utf-8")


def _not_found(value: str, parameter: str) -> dict[str, str]:
    return {
        "value": value, "detail": f"Could not find user with {parameter}: [{value}].",
        "title": "Not Found Error", "resource_type": "user", "parameter": parameter,
        "resource_id": value, "type": "https://api.twitter.com/2/problems/resource-not-found",
    }  # fmt: skip


def _overlay(genuine: Answer, wanted: Answer) -> Answer:
    """X's own answer, changed in what `wanted` names."""
    own_body = wanted.status is not None or wanted.body is not None or wanted.json is not None
    return replace(
        wanted, status=wanted.status or genuine.status,
        json=wanted.json if own_body else genuine.json,
        body=wanted.body if own_body else genuine.body,
        content_type=wanted.content_type or (None if own_body else genuine.content_type),
    )  # fmt: skip


# ---- one connection ----


def _shutdown(sock: socket.socket) -> None:
    """Wake whoever waits on it. Not SSLSocket.shutdown(), which pulls the TLS from under them."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Closed(Exception):
    """The connection is at its end."""


class _Connection:
    """A client's connection, from the CONNECT to its end, in a thread of its own."""

    def __init__(self, x: FakeX, sock: socket.socket, stopping: threading.Event) -> None:
        self.x, self.sock, self.stopping = x, sock, stopping
        self.thread = threading.Thread(target=self._run, name="fake_x", daemon=True)

    def hang_up(self) -> None:
        _shutdown(self.sock)

    def _run(self) -> None:
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host = self._tunnel()
            with self.sock.makefile("rb") as reader:
                while not self.stopping.is_set():
                    self._serve(reader, host)
        except (_Closed, OSError, http.client.HTTPException):
            pass  # clients come and go
        except Exception as fault:
            self.x._note(self.x.faults, fault)
        finally:
            self.sock.close()
            self.x._forget(self)

    def _wait(self, seconds: float | None) -> None:
        if self.stopping.wait(seconds):
            raise _Closed

    def _reset(self) -> None:
        """Let close() send a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Closed

    def _acknowledge(self) -> None:
        """Send the ACK now. Through a proxy urllib3 leaves Nagle's algorithm on, and would wait
        40 ms for it between a request's head and its body."""
        if hasattr(socket, "TCP_QUICKACK"):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    # -- the proxy --

    def _tunnel(self) -> str:
        """Answer the CONNECT and shake hands. Returns the host that is asked for."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: what follows belongs to TLS
            byte = self.sock.recv(1)
            if not byte or len(head) > 65_536:
                raise _Closed
            head += byte
            if byte == b"\n":  # some clients send it line by line
                self._acknowledge()
        request = self._parse(io.BytesIO(head))
        if request.method != "CONNECT":
            where = request.path if "//" in request.path else request.headers.get("host", "")
            self.x._note(self.x.strangers, where)
            self.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            raise _Closed
        host, _, port = request.path.lower().rpartition(":")
        if host not in HOSTS or port != "443":
            self.x._note(self.x.strangers, request.path.lower())
            self._connected(host, 403)
            self.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            raise _Closed
        request.host = host
        with self.x._changed:
            answer = self.x._misbehaviour(request, connect=True)
        if answer.mode == "stall-connect":
            self._connected(host, None)
            self._wait(None)
        self._wait(answer.delay)
        if answer.mode == "refuse-connect":
            self._connected(host, 502)
            self.sock.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            raise _Closed
        self._connected(host, 200)
        self.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            self.sock = self.x._context(self.x.tls).wrap_socket(
                self.sock, server_side=True, do_handshake_on_connect=False
            )
            if self.stopping.is_set():  # hang_up() may have met the socket this one replaces
                raise _Closed
            self.sock.do_handshake()
        except OSError as error:
            if not self.stopping.is_set():
                self.x._note(self.x.tls_failures, str(error))
            raise _Closed from None
        return host

    def _connected(self, host: str, status: int | None) -> None:
        self.x._note(self.x.connects, Connect(host, time.time(), status))

    # -- the API's HTTP --

    def _parse(self, reader: io.BufferedIOBase) -> Request:
        line = reader.readline(65_537)
        words = line.decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _Closed
        fields = http.client.parse_headers(reader)
        headers = {name.lower(): value for name, value in fields.items()}
        path, _, query = words[1].partition("?")
        return Request(words[0], path, headers, b"", time.time(), query=query)

    def _serve(self, reader: io.BufferedIOBase, host: str) -> None:
        """Receive one request and answer it."""
        request = self._parse(reader)
        request.host = host
        length = int(request.headers.get("content-length", 0))
        self._acknowledge()
        request.body = reader.read(length)
        if len(request.body) < length:
            raise _Closed
        request.at = time.time()
        self.x._note(self.x.requests, request)
        answer, headers = self.x._decide(request)
        self._wait(answer.delay)
        if answer.mode == "stall":
            self._wait(None)
        if answer.mode in ("reset", "lost"):
            self._reset()

        head, body = _serialize(answer, headers)
        request.status = answer.status
        self.x._touch()
        if answer.mode == "trickle":
            for byte in head + body:
                self.sock.sendall(bytes((byte,)))
                self._wait(answer.every)
        elif answer.mode == "truncated":
            self.sock.sendall(head + body[: len(body) // 2])
            raise _Closed
        else:
            self.sock.sendall(head + body)
        if request.headers.get("connection", "").lower() == "close":
            raise _Closed


def _serialize(answer: Answer, headers: dict[str, str]) -> tuple[bytes, bytes]:
    """The bytes of an answer: head and body."""
    if answer.body is None:
        body = b"" if answer.json is None else json.dumps(answer.json).encode("ascii")
    else:
        body = answer.body if isinstance(answer.body, bytes) else answer.body.encode("utf-8")
    kind = "text/html" if body.startswith(b"<") else "application/json"
    fields: dict[str, str | None] = dict(headers)
    fields["content-type"] = answer.content_type or f"{kind}; charset=utf-8"
    if answer.mode == "truncated":  # there was more to come
        fields["content-length"] = str(max(2, len(body)))
    elif answer.status != 204:
        fields["content-length"] = str(len(body))
    fields.update({name.lower(): value for name, value in answer.headers.items()})
    status = answer.status or 200
    lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body
