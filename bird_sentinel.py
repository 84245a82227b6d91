#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["tweepy>=4.12"]
# ///
"""bird_sentinel: what your log watcher sees, on your phone, as a direct message on X.

A log watcher (swatch) runs `bird_sentinel send` for a line that matters, and a moment later that
line is a direct message (DM).  The promise: an alert that `send` accepted is delivered, or a person
is told why not.  Each alert is quoted or counted in a DM; none is silently dropped; the watcher is
never held up.

This file is given the keys of an account on X, so please read it.  It is told in the order in which
an alert travels:

    voice | message -> queue | config | pace -> digest -> X -> worker | authorize | command line

`send` cleans the text and stores it in a queue on disk.  A worker, one at a time and detached from
the caller, makes one DM of all that is pending, gives it to X inside X's limits, and only then
deletes it from the queue.  It ends when the queue is empty.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import sys
import time
import zlib

# The watcher is blind while this script starts, and most of that is imports.  What is not needed to
# store an alert is imported where it is used: re and signal, argparse and configparser, with what
# they import themselves, would make each alert take half as long again (tests/bench.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, NoReturn, TypeVar

    T = TypeVar("T")

__version__ = "1.0.0"

# exit statuses, the last five after sysexits.h and the shell
DELIVERED, USAGE, LOST, KEPT, REFUSED, CONFIG, INTERRUPTED = 0, 2, 74, 75, 77, 78, 130

DM_LIMIT = 10_000  # characters in a DM (docs.x.com); we count bytes of UTF-8, the strictest way
KEPT_ALERTS = 10_000  # pending alerts a recipient; beyond them only what is new in kind is kept,
KEPT_KINDS = 11_000  # and beyond this nothing: it is counted

RETRY = (1.0, 300.0)  # seconds, doubling from the first to the second: the network, X's own faults
SLOW = (900.0, 3600.0)  # the same, where a person has to act
LEEWAY = (1.5, 1.5)  # beyond a reset, told in whole seconds; not all hosts at the same instant
SHARE = 60.0  # seconds a DM where X does not tell its limit: 15 in 15 minutes
DAY = 86400.0  # no limit of X is longer than this, so no wait is
CONNECT, TOTAL = 10.0, 25.0  # seconds for a connection, and for a whole call to X
PATIENCE = 28.0  # seconds that a waiting `send` takes at the most

API = "https://api.twitter.com"
APP_HINT = "in X's developer portal, under the app's user authentication settings, "
PERMISSION_HINT = (
    APP_HINT + "choose the permission 'Read and write and Direct message', save, "
    "then run: bird_sentinel authorize"
)


class Problem(Exception):
    """Something a person has to be told: what it is, what to do next, and the exit status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


# ---- voice: standard error, lower case, no full stop, error then hint; results on standard output


def say(kind: str, message: str) -> None:
    """Tell a person something: an error, a hint or a warning.  Never a secret."""
    if sys.stderr:
        with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
            print(f"bird_sentinel: {kind}: {clean(message)}", file=sys.stderr, flush=True)


def show(line: str) -> None:
    """Print a result; standard output may be closed, full or a broken pipe."""
    if sys.stdout:
        with contextlib.suppress(OSError, ValueError):
            print(clean(line), flush=True)


def report(message: str) -> None:
    """Tell syslog.  Never an alert's text: a watched syslog must not feed itself."""
    import syslog

    syslog.openlog("bird_sentinel", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(message)


def plural(number: int) -> str:
    return f"{number:,} alert" + ("s" if number != 1 else "")


def at(handles: Iterable[str]) -> str:
    return ", ".join("@" + handle for handle in handles)


def quoted(path: str) -> str:
    """A path as a shell takes it."""
    import shlex

    return shlex.quote(path)


def lower(error: Exception) -> str:
    """What the system or SQLite says of an error, in our voice."""
    words = error.strerror if isinstance(error, OSError) else str(error)
    return (words or str(error) or type(error).__name__).lower()


# ---- message: what a log line may bring into a DM or onto a terminal ---------------------------

# ECMA-48: CSI sequences, control strings (OSC, DCS, SOS, PM, APC) and the two-character escapes.
# A control string that is not ended keeps its text: hostile text must not hide what follows it.
ESCAPES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,256}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
)
UNWANTED = dict.fromkeys(  # control characters but tab and newline, and Unicode's bidi controls
    [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F]
    + [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
NUMBERS = r"(?ai)\b(?:0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]+)\b|[0-9]+"
HEX = b"0123456789abcdefABCDEF"
WORD = HEX + b"ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ_"
SPACED = bytes(byte if byte in WORD else 32 for byte in range(256))  # all else made a space


def clean(raw: str | bytes) -> str:
    """Return text that is safe in a DM and on a terminal: no control or escape sequences, no NUL,
    no bidi controls; what is not UTF-8 becomes U+FFFD; newlines and tabs stay."""
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    if text.translate({9: " ", 10: " "}).isprintable():
        return text.strip("\n")  # as nearly all are; none of what is unwanted counts as printable
    import re

    text = re.sub(ESCAPES, "", text.replace("\r\n", "\n")).translate(UNWANTED)
    # UTF-16 has the surrogates of which a lone one can be no character
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip("\n")


def size(text: str) -> int:
    """Length as X might count it at the most: one for each byte of UTF-8."""
    return len(text.encode("utf-8"))


def cut(text: str, room: int) -> tuple[str, int]:
    """Return as much of `text` as `room` bytes of UTF-8 hold, and how many characters are gone."""
    kept = text.encode("utf-8")[:room].decode("utf-8", "ignore")
    return kept, len(text) - len(kept)


def shape(text: str) -> str:
    """What is left of a line where all digits and hex numbers are taken for the same."""
    import re

    return re.sub(NUMBERS, "#", text)


def rough_shape(text: str) -> int:
    """A checksum that lines of one shape share, and hardly any others; with no need of re."""
    line, words = text.encode("utf-8"), []
    for word in line.translate(SPACED).split():
        bare = word[2:] if word[:2] in (b"0x", b"0X") else word
        letters = word.translate(None, HEX[:10])
        if letters == word:
            words.append(word)
        else:  # a number, or a word with one in it
            words.append(letters + b"#" if bare.translate(None, HEX) or not bare else b"#")
    return zlib.crc32(b" ".join(words) + line.translate(None, WORD))


# ---- queue: nothing accepted is lost -----------------------------------------------------------

SCHEMA = (
    """CREATE TABLE alert (                   -- a row for each alert and recipient, until delivered
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: a waiting send looks for its own
    recipient TEXT NOT NULL,               -- handle; '' or one not configured: all that are
    sent REAL NOT NULL,                    -- seconds since the epoch
    text TEXT NOT NULL,
    gone INTEGER NOT NULL,                 -- characters cut from the text
    kind INTEGER NOT NULL,                 -- the text's rough shape
    count INTEGER NOT NULL DEFAULT 1,      -- with those like it that came when the queue was full,
    last REAL NOT NULL)                    -- and when the last of them did
    """,
    "CREATE INDEX alert_kind ON alert (recipient, kind)",
    # what X would not take for its content, put aside
    "CREATE TABLE refused (id INTEGER PRIMARY KEY, recipient TEXT, sent REAL, text TEXT, why TEXT)",
    # what one-shot processes must know of each other; see class State
    """CREATE TABLE state (
    scope TEXT PRIMARY KEY, status INTEGER, limited INTEGER, failures INTEGER, at REAL, wait REAL,
    error TEXT, hint TEXT, burst INTEGER, share REAL, delivered REAL)""",
)
COLUMNS = "recipient, sent, text, gone, kind, count, last"
STATE = ("scope", "status", "limited", "failures", "at", "wait", "error", "hint", "burst", "share",
         "delivered")
NOT_KEPT = f"(more than {KEPT_ALERTS:,} alerts were pending: this one is counted, not quoted)"


class Alert:
    """One row of the queue: `count` alerts of the same shape, nearly always one."""

    __slots__ = ("id", "sent", "text", "gone", "count", "last")

    def __init__(
        self, id: int, sent: float, text: str, gone: int = 0, count: int = 1, last: float = 0.0
    ) -> None:
        self.id, self.sent, self.text, self.gone = id, sent, text, gone
        self.count, self.last = count, max(sent, last)


class State:
    """How things stand with the account (scope '') or with one recipient (its handle)."""

    status = 0  # exit status that tells of the last attempt
    limited = 0  # 1: X named the end of the wait, so nobody cuts it short
    failures = 0  # of the same status in a row
    at, wait = 0.0, 0.0  # when the wait for the next attempt began, how many seconds it takes
    error, hint = "", ""
    burst = 0  # DMs in this burst
    share = 0.0  # seconds a DM that were fair when the last one was delivered,
    delivered = 0.0  # and when that was

    def __init__(self, scope: str, *columns: Any) -> None:
        self.scope = scope
        for name, value in zip(STATE[1:], columns):
            setattr(self, name, value)

    def due(self, now: float) -> float:
        """When the next attempt may be made.  A wait that began in the future is not believed: the
        clock has jumped."""
        return self.at + min(self.wait, DAY) if self.at <= now + 1 else now


def open_private(path: str, flags: int) -> int:
    """Open (with O_CREAT: make) a file which nobody else may have planted; raises OSError."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
        os.close(descriptor)
        raise PermissionError(f"{path} is not a regular file of ours")
    return descriptor


def sync_directory(path: str) -> None:
    """Make a new or renamed name in the directory of `path` survive a power cut."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Queue:
    """The alerts on disk.  Raises sqlite3.Error and OSError; see `in_queue` for a damaged file.
    `with queue:` is a transaction that no other process can interleave with."""

    def __init__(self, path: str, create: bool = True) -> None:
        if create:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        new = create and not os.path.exists(path)
        # ours is closed before SQLite opens the file: a later close would drop SQLite's locks
        descriptor = open_private(path, os.O_RDWR | (os.O_CREAT if create else 0))
        found = os.fstat(descriptor)
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        self.path, self.inode = path, found.st_ino
        if new:
            sync_directory(path)
        self.database = sqlite3.connect(path, timeout=20, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = TRUNCATE")
        tables = "SELECT count(*) FROM sqlite_master WHERE name IN ('alert', 'refused', 'state')"
        number = self.one(tables)
        if number == 0:
            # no alert is in it, so this may be lost; the first alert takes it to the disk with it
            self.database.execute("PRAGMA synchronous = OFF")
            with self:
                for statement in SCHEMA if self.one(tables) == 0 else ():
                    self.database.execute(statement)
        elif number != 3:
            raise sqlite3.DatabaseError("it is not one of ours")
        # with a journal that is truncated and synced: what is committed is on the disk
        self.database.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Queue:
        self.database.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self.database.in_transaction and not kind:
                self.database.execute("COMMIT")
        finally:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")

    def one(self, query: str, *values: Any) -> Any:
        row = self.database.execute(query, values).fetchone()
        return row[0] if row else None

    def add(self, recipients: Iterable[str], sent: float, text: str, gone: int = 0) -> list[int]:
        """Store an alert for each recipient, durably; `gone` characters were cut from it before.
        Returns the rows which hold it."""
        with self:
            return [self.add_row(recipient, sent, text, gone) for recipient in recipients]

    def add_row(self, recipient: str, sent: float, text: str, gone: int) -> int:
        kind = rough_shape(text)
        pending = self.one("SELECT count(*) FROM alert WHERE recipient = ?", recipient)
        if pending >= KEPT_ALERTS:
            # a flood must not push out what is new in kind
            alike = "SELECT max(id) FROM alert WHERE recipient = ? AND kind = ?"
            row = self.one(alike, recipient, kind)
            if row is None and pending >= KEPT_KINDS:
                kind, text, gone = -1, NOT_KEPT, 0
                row = self.one(alike, recipient, kind)
            if row is not None:
                counted = "UPDATE alert SET count = count + 1, last = ? WHERE id = ?"
                self.database.execute(counted, (sent, row))
                return int(row)
        added = self.database.execute(
            "INSERT INTO alert (recipient, sent, text, gone, kind, last) VALUES (?, ?, ?, ?, ?, ?)",
            (recipient, sent, text, gone, kind, sent),
        )
        return added.lastrowid or 0

    def alerts(self, recipient: str) -> list[Alert]:
        rows = self.database.execute(
            "SELECT id, sent, text, gone, count, last FROM alert WHERE recipient = ? ORDER BY id",
            (recipient,),
        )
        return [Alert(*row) for row in rows]

    def settle(self, alerts: Iterable[Alert]) -> None:
        """Forget these alerts; what was counted into their rows meanwhile stays pending."""
        rows = [(alert.count, alert.id) for alert in alerts]
        self.database.executemany("UPDATE alert SET count = count - ? WHERE id = ?", rows)
        self.database.execute("DELETE FROM alert WHERE count <= 0")

    def put_aside(self, alert: Alert, reason: str) -> None:
        """Keep an alert which X refuses for its content, out of the way of the others."""
        self.database.execute(
            "INSERT OR REPLACE INTO refused SELECT id, recipient, sent, text, ? FROM alert"
            " WHERE id = ?",
            (reason, alert.id),
        )
        self.settle([alert])

    def readdress(self, handles: list[str]) -> None:
        """Alerts for nobody in particular, or for somebody no longer configured, go to all."""
        strangers = f"recipient NOT IN ({', '.join('?' * len(handles))})"
        if not self.one(f"SELECT count(*) FROM alert WHERE {strangers}", *handles):
            return
        with self:
            for handle in handles:
                self.database.execute(
                    "UPDATE alert SET recipient = ? WHERE lower(recipient) = lower(?)",
                    (handle, handle),
                )
            for handle in handles:
                self.database.execute(
                    f"INSERT INTO alert ({COLUMNS}) SELECT"
                    f" ?, sent, text, gone, kind, count, last FROM alert WHERE {strangers}",
                    (handle, *handles),
                )
            self.database.execute(f"DELETE FROM alert WHERE {strangers}", handles)

    def holds(self, recipient: str) -> bool:
        """Whether something is pending for this recipient."""
        return bool(self.one("SELECT 1 FROM alert WHERE recipient = ? LIMIT 1", recipient))

    def recipients(self) -> list[str]:
        """Who has something pending, the longest waiting first."""
        rows = self.database.execute("SELECT recipient FROM alert GROUP BY 1 ORDER BY min(id)")
        return [row[0] for row in rows]

    def pending(self) -> int:
        """How many alerts are pending; one for several recipients is one."""
        counted = "SELECT max(n) FROM (SELECT sum(count - 1) AS n FROM alert GROUP BY recipient)"
        alerts = self.one("SELECT count(*) FROM (SELECT DISTINCT sent, text FROM alert)")
        return int(alerts) + int(self.one(counted) or 0)

    def state(self, scope: str) -> State:
        query = f"SELECT {', '.join(STATE)} FROM state WHERE scope = ?"
        row = self.database.execute(query, (scope,)).fetchone()
        return State(*row) if row else State(scope)

    def store(self, state: State) -> None:
        values = [getattr(state, name) for name in STATE]
        marks = ", ".join("?" * len(STATE))
        self.database.execute(f"REPLACE INTO state ({', '.join(STATE)}) VALUES ({marks})", values)

    def forget_waits(self) -> None:
        """Make all due now, but for what X's own limit holds."""
        self.database.execute("UPDATE state SET wait = 0 WHERE NOT limited")

    def forget_errors(self) -> None:
        """Begin anew with X, as after `authorize`, but for what its own limit holds."""
        self.database.execute(
            "UPDATE state SET wait = 0, status = 0, failures = 0, error = '', hint = ''"
            " WHERE status <> 0 AND NOT limited"
        )


def in_queue(path: str, action: Callable[[Queue], T], create: bool = True) -> T:
    """Do something with the queue.  A damaged file is moved aside, and the action done with a new
    one.  Raises sqlite3.Error and OSError where the queue cannot be used at all."""
    for again in (True, False):
        queue = None
        inode = os.stat(path).st_ino if os.path.exists(path) else 0
        try:
            queue = Queue(path, create)
            return action(queue)
        except sqlite3.DatabaseError as error:
            # its subclasses stand for a full disk, a lock and the like; itself for a damaged file
            if type(error) is not sqlite3.DatabaseError or not again:
                raise
            move_aside(path, inode, str(error))
        finally:
            if queue is not None:
                queue.close()
    raise AssertionError("not reached")


def move_aside(path: str, inode: int, reason: str) -> None:
    """Give a damaged queue another name and begin a new one, with what can still be read of the
    old one and with an alert that tells of it."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # of several that found the damage, one moves it
        if os.stat(path).st_ino != inode:
            return
        saved = []
        damaged = sqlite3.connect(path, timeout=20, isolation_level=None)
        with contextlib.suppress(sqlite3.Error):
            damaged.execute("BEGIN EXCLUSIVE")  # nobody adds to it now
        with contextlib.suppress(sqlite3.Error, TypeError, ValueError):
            for row in damaged.execute(f"SELECT {COLUMNS} FROM alert ORDER BY id"):
                recipient, sent, text, gone, kind, count, last = row
                saved.append((str(recipient), float(sent), clean(text), int(gone), int(kind),
                              int(count), float(last)))
        aside = f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        tidings = f"the queue was damaged ({reason}); it is now {aside}, alerts may be missing"
        now = time.time()
        saved.append(("", now, f"bird_sentinel: {tidings}", 0, -1, 1, now))

        # the new one takes its place when it is whole, so that there always is one
        for name in (f"{path}.new", f"{path}.new-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        queue = Queue(f"{path}.new")
        with queue:
            queue.database.executemany(
                f"INSERT INTO alert ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", saved
            )
        queue.close()
        os.unlink(f"{path}.new-journal")
        damaged.close()
        os.link(path, aside)
        if os.path.exists(f"{path}-journal"):
            os.rename(f"{path}-journal", f"{aside}-journal")
        os.rename(f"{path}.new", path)
        sync_directory(path)
        say("warning", tidings)
        report(tidings)
    finally:
        os.close(directory)


# ---- config: the keys stay private -------------------------------------------------------------

KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")


class Config:
    """What config.ini says; see `read_config`."""

    def __init__(self, path: str, text: str = "") -> None:
        try:
            sections = ini_values(text)
        except ValueError as error:
            raise Problem(CONFIG, f"the config {path} has an error in line {error}",
                          "it has [section] lines and name = value lines") from None
        self.path = path
        self.account = sections.get("account", {})
        self.recipients = sections.get("recipients", {})
        delivery = sections.get("delivery", {})
        queue = os.path.expanduser(delivery.get("queue") or stray_queue(path))
        self.queue = os.path.join(os.path.dirname(path), queue)
        host = clean(delivery.get("host", "")).replace("\n", " ")
        self.host = host or short_host_name()


def short_host_name() -> str:
    return clean(os.uname().nodename.partition(".")[0]) or "localhost"


def locate_config(given: str | None) -> str:
    """Return the absolute path of the config; raises Problem where no place for it can be found."""
    path = given or os.environ.get("BIRD_SENTINEL_CONFIG")
    try:
        if path:
            return os.path.abspath(os.path.expanduser(path))
        base = os.environ.get("XDG_CONFIG_HOME", "")
        if not os.path.isabs(base):  # as the XDG base directory specification has it
            home = os.environ.get("HOME", "")
            if not os.path.isabs(home):
                import pwd

                home = pwd.getpwuid(os.geteuid()).pw_dir
            base = os.path.join(home, ".config")
        return os.path.join(base, "bird_sentinel", "config.ini")
    except (KeyError, OSError) as error:
        raise Problem(CONFIG, f"no place for a config can be found ({error})",
                      "name one by an absolute path, with --config") from None


def stray_queue(config_path: str) -> str:
    """The queue beside a config; of its own for each name, as two accounts never share one.  Where
    `[delivery] queue` names another, alerts that came while the config was unreadable lie here."""
    if os.path.basename(config_path) == "config.ini":
        return os.path.join(os.path.dirname(config_path), "queue.db")
    return config_path + ".queue.db"


def ini_lines(text: str) -> Iterator[tuple[str, str, str, str]]:
    """For each line of an INI file: the line, its section, the name which it gives a value to (''
    where to none), and that value or more of it.  As configparser reads it without interpolation,
    but names keep their case.  Raises ValueError with the number of a line that does not fit."""
    section, name, depth, seen = "", "", 0, set()
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        indent = len(line) - len(line.lstrip())
        if not words or words[0] in "#;":
            yield line, section, "", ""
        elif name and indent > depth:  # the value goes on
            yield line, section, name, words
        else:
            if words[0] == "[" and words.rfind("]") > 1:
                section, name, value = words[1 : words.rindex("]")], "", ""
            else:
                name, found, _ = words.replace(":", "=").partition("=")
                value, depth = words[len(name) + 1 :].strip(), indent
                name = name.strip()
                if not section or not name or not found:
                    raise ValueError(number)
            if (section, name) in seen:
                raise ValueError(number)
            seen.add((section, name))
            yield line, section, name, value


def ini_values(text: str) -> dict[str, dict[str, str]]:
    """The sections of an INI file and what each gives values to; raises ValueError as above."""
    sections: dict[str, dict[str, str]] = {}
    for _, section, name, value in ini_lines(text):
        values = sections.setdefault(section, {})
        if name:
            values[name] = f"{values[name]}\n{value}" if name in values else value
    sections.pop("", None)
    return sections


def ini_with(text: str, section: str, values: Mapping[str, str]) -> str:
    """The INI text with these values in the section: each in its place, whatever the case of its
    name there, or else at the section's end.  All else stays, comments too."""
    names = {name.lower(): name for name in values}
    lines, left, end, begun = [], dict(values), -1, set()
    for line, where, name, _ in ini_lines(text):
        if (where, name) not in begun if name else line.strip()[:1] == "[":
            line = line.lstrip()  # else it might go on with a value of ours
        begun.add((where, name))
        name = names.get(name.lower(), "") if where == section else ""
        if not name:
            lines.append(line)
        elif name in left:
            lines.append(f"{name} = {left.pop(name)}")
        if where == section and line.strip()[:1] not in ("", "#", ";"):
            end = len(lines)
    if end < 0:  # there is no such section yet
        while lines and not lines[-1].strip():
            lines.pop()
        lines += [*([""] if lines else []), f"[{section}]", ""]
        end = len(lines) - 1
    lines[end:end] = [f"{name} = {value}" for name, value in left.items()]
    return "\n".join(lines)


def read_private(path: str) -> str:
    """Read a config as ssh reads a key; '' where there is no file.  Raises Problem if it is not a
    regular file of ours or if others can read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        if os.path.islink(path):
            target = os.path.realpath(path)
            mend = f"cp --remove-destination {quoted(target)}" if os.path.exists(target) else "rm"
            raise Problem(CONFIG, f"the config {path} is a symbolic link, which is not safe",
                          f"put the file itself there: {mend} {quoted(path)}") from None
        raise Problem(CONFIG, f"the config {path} cannot be read: {lower(error)}",
                      f"see who may read it: ls -ld {quoted(path)}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise Problem(CONFIG, f"the config {path} is not a regular file",
                      f"move it away: mv {quoted(path)} {quoted(path + '.aside')}")
    with open(descriptor, "rb") as file:
        if found.st_uid not in (os.geteuid(), 0):
            raise Problem(CONFIG, f"the config {path} belongs to another user",
                          f"if it is yours: chown {os.geteuid()} {quoted(path)}")
        if found.st_mode & 0o077:
            raise Problem(CONFIG, f"the config {path} can be read or written by others",
                          f"run: chmod 600 {quoted(path)}")
        try:
            return file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Problem(CONFIG, f"the config {path} is not UTF-8 text") from None
        except OSError as error:
            raise Problem(CONFIG, f"the config {path} cannot be read: {lower(error)}") from None


def read_config(path: str) -> Config:
    """Return a config that is complete; raises Problem where it is missing, unsafe or not."""
    config = Config(path, read_private(path))
    if not config.account and not os.path.lexists(path):
        raise Problem(CONFIG, f"not authorized yet: there is no config {path}", AGAIN)
    for name in KEYS:
        if not is_key(config.account.get(name, "")):
            missing = "has no usable" if config.account.get(name) else "has no"
            raise Problem(CONFIG, f"the config {path} {missing} {name} in [account]", AGAIN)
    if not config.recipients:
        raise Problem(CONFIG, f"the config {path} has nobody in [recipients]",
                      "name them: bird_sentinel authorize --to HANDLE")
    for handle, number in config.recipients.items():
        if not is_handle(handle) or not (number.isascii() and number.isdigit()):
            raise Problem(CONFIG, f"the config {path} has a recipient that is no handle = number",
                          "have the ids looked up: bird_sentinel authorize --to HANDLE")
    if len({handle.lower() for handle in config.recipients}) < len(config.recipients):
        raise Problem(CONFIG, f"the config {path} has a recipient twice, in another case",
                      "take one of the two lines out")
    return config


def write_config(path: str, text: str) -> None:
    """Replace the config as a whole, or not at all; it is private from its first byte."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(path)


def is_key(value: str) -> bool:
    """Whether this could be a key, a secret or a token: printable ASCII without a space."""
    return value.isascii() and value.isprintable() and bool(value) and " " not in value


def is_handle(name: str) -> bool:
    """Whether X could have given this handle to an account: ASCII letters, digits, underscores."""
    return name.replace("_", "a").isalnum() and name.isascii() and len(name) <= 50


def choose(recipients: Iterable[str], wanted: list[str] | None) -> list[str]:
    """The handles among `recipients` which --to names, in any case and with or without '@'; all
    where it names none.  Raises Problem for one that is not there."""
    known = {handle.lower(): handle for handle in recipients}
    if not wanted:
        return list(known.values())
    for name in wanted:
        if name.lstrip("@").lower() not in known:
            raise Problem(USAGE, f"unknown recipient {name}",
                          "configured are: " + ", ".join(known.values()))
    return list(dict.fromkeys(known[name.lstrip("@").lower()] for name in wanted))


def adopt_stray(queue: Queue, config: Config) -> None:
    """Take over the alerts that came while the config, and with it `[delivery] queue`, could not be
    read."""
    stray = stray_queue(config.path)
    if not os.path.exists(stray) or os.path.samefile(stray, queue.path):
        return
    try:
        queue.database.execute("ATTACH ? AS stray", (stray,))
        try:
            if queue.one("SELECT 1 FROM stray.alert LIMIT 1"):
                with queue:
                    queue.database.execute(
                        f"INSERT INTO alert ({COLUMNS}) SELECT {COLUMNS} FROM stray.alert"
                    )
                    queue.database.execute("DELETE FROM stray.alert")
        finally:
            queue.database.execute("DETACH stray")
    except sqlite3.Error as error:  # whatever is wrong with it, ours must go on
        report(f"the queue {stray} cannot be taken over: {lower(error)}")


# ---- pace: a burst becomes a few DMs, inside X's limits ----------------------------------------

LIMITS = ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")


def limits(headers: Mapping[str, str], now: float) -> list[tuple[int | None, float]]:
    """What X's answer says of its limits: for each the DMs left (None: not told) and the seconds
    until its reset, a day at the most, by X's clock or else ours.  What is no number is passed
    over."""
    import email.utils

    found = []
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError, IndexError):
        now = email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    for name in LIMITS:
        try:
            left = headers.get(name + "-remaining")
            reset = max(-(2**40), min(2**40, int(headers[name + "-reset"]))) - now
            found.append((None if left is None else min(2**40, int(left)), min(reset, DAY)))
        except (KeyError, ValueError):
            continue
    return found


def fair_share(headers: Mapping[str, str], now: float) -> float:
    """Seconds a DM which let every limit last until its reset."""
    shares = [reset / left for left, reset in limits(headers, now) if left and left > 0 < reset]
    return max(shares, default=SHARE)


def exhausted(headers: Mapping[str, str], now: float) -> float:
    """Seconds until X takes another DM, where its answer says that none is left; else 0."""
    return max((reset for left, reset in limits(headers, now) if left == 0 < reset), default=0.0)


def limit_wait(headers: Mapping[str, str], now: float, failures: int) -> float:
    """Seconds to wait after a 429: until the reset; where X names none, 15 minutes; where it is in
    the past, a minute, doubling."""
    told = limits(headers, now)
    resets = [reset for left, reset in told if not left] or [reset for _, reset in told]
    if not resets:
        return 900.0
    return max(resets) if max(resets) > 0 else back_off((60.0, 900.0), failures)


def pace(burst: int, share: float) -> float:
    """Seconds between the `burst`-th DM of a burst and the next one."""
    return min(2.0 ** min(burst, 20) - 1, share)


def back_off(bounds: tuple[float, float], failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling between the bounds, with jitter."""
    import random

    first, last = bounds
    return min(last, first * 2.0 ** min(failures - 1, 20)) * random.uniform(0.9, 1.1)


# ---- digest: all that is pending in one DM -----------------------------------------------------


def clock(moment: float, now: float) -> str:
    """Local time of day, with the date if that is not today's."""
    then = time.localtime(moment)
    today = then[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)


def quote(start: str, text: str, gone: int, room: int) -> str:
    """Return `start` and the text in at most `room` bytes; what had to be cut is told."""
    if not gone and size(start) + size(text) <= room:
        return start + text
    kept, more = cut(text, max(0, room - size(start) - 40))
    return f"{start}{kept} […{gone + more:,} characters cut]"


class Group:
    """Alerts of one shape: the first three, and how many there are."""

    def __init__(self, first: Alert) -> None:
        self.alerts: list[Alert] = []
        self.count, self.last, self.sent = 0, first.last, first.sent

    def add(self, alert: Alert) -> None:
        if len(self.alerts) < 3:
            self.alerts.append(alert)
        self.count += alert.count
        self.last = max(self.last, alert.last)

    def lines(self, now: float, room: int) -> list[str]:
        """Up to three alerts are quoted; of more the first, and the others are counted."""
        quoted = self.alerts if self.count <= len(self.alerts) else self.alerts[:1]
        lines = [quote(clock(a.sent, now) + " ", a.text, a.gone, room) for a in quoted]
        if self.count > len(quoted):
            others = self.count - len(quoted)
            lines.append(f"  ×{others:,} like this, last {clock(self.last, now)}")
        return lines


def without_rare_words(shapes: Iterable[str]) -> dict[str, str]:
    """For each shape its pattern: what is left when words that few shapes have are all taken for
    the same, such as the user names that a brute-force attack tries."""
    words = {form: form.split() for form in shapes}
    seen: dict[str, int] = {}
    for form in words:
        for word in set(words[form]):
            seen[word] = seen.get(word, 0) + 1
    few = max(1, len(words) // 100)
    return {form: " ".join(word if seen[word] > few else "*" for word in words[form])
            for form in words}


def compose(alerts: list[Alert], host: str, now: float) -> str:
    """Return the one DM, of at most DM_LIMIT bytes, in which each alert is quoted or counted.

    The rarest come first and stay when not all fit, so that a storm cannot drown the one line that
    differs; of equally rare ones those of the rarest pattern.  `now`: seconds since the epoch.
    """
    host = cut(host, 64)[0]
    if len(alerts) == 1 and alerts[0].count == 1:
        return quote(f"[{host} {clock(alerts[0].sent, now)}] ", alerts[0].text, alerts[0].gone,
                     DM_LIMIT)
    groups: dict[str, Group] = {}
    for alert in alerts:
        groups.setdefault(shape(alert.text), Group(alert)).add(alert)
    patterns = without_rare_words(groups)
    sizes: dict[str, int] = {}
    for form, group in groups.items():
        sizes[patterns[form]] = sizes.get(patterns[form], 0) + group.count
    rarest = sorted(groups, key=lambda form: (groups[form].count, sizes[patterns[form]]))

    total = sum(alert.count for alert in alerts)
    head = (f"[{host}] {total:,} alerts, {clock(min(a.sent for a in alerts), now)}"
            f" to {clock(max(a.last for a in alerts), now)}")
    room = DM_LIMIT - size(head) - 120  # for the line that sums up the rest
    number = sum(len(group.lines(now, room)) for group in groups.values())
    shown: list[Group] = []
    for share in (room, max(400, room // number - 1)):  # each line in full, or cut to its share
        shown, left = [], room
        for form in rarest:
            left -= sum(size(line) + 1 for line in groups[form].lines(now, share))
            if left < 0:
                break
            shown.append(groups[form])
        if len(shown) == len(groups):
            break
    rest = [groups[form] for form in rarest[len(shown) :]]
    lines = [line for group in shown for line in group.lines(now, share)]
    if not rest and all(group.count <= len(group.alerts) for group in shown):
        # all are quoted: in the order in which they came
        order = [(alert.sent, alert.id) for group in shown for alert in group.alerts]
        lines = [line for _, line in sorted(zip(order, lines))]
    if rest:
        lines.append(f"and {sum(group.count for group in rest):,} more, of {len(rest):,} other"
                     f" kinds, last {clock(max(group.last for group in rest), now)}")
    return "\n".join([head, *lines])


# ---- X: every call bounded, every answer understood --------------------------------------------


class Answer:
    """What came back from a call to X.  Status 0: nothing did, `why` says the reason."""

    def __init__(self, status: int, headers: Mapping[str, str], why: str = "") -> None:
        self.status, self.headers, self.why, self.body = status, headers, why, b""


class Outcome:
    """What an answer means: its kind, in our words and in X's own, and what a person can do."""

    def __init__(self, kind: str, words: str = "", hint: str = "", said: str = "") -> None:
        self.kind, self.words, self.hint, self.said = kind, words, hint, said

    @property
    def error(self) -> str:
        return f"{self.words} (X says: {self.said})" if self.said else self.words

    @property
    def status(self) -> int:
        return {"delivered": DELIVERED, "retry": KEPT, "limit": KEPT, "config": CONFIG}.get(
            self.kind, REFUSED
        )


class TookTooLong(BaseException):
    """The time for a call to X is up; no library on the way takes it for an error of its own."""


def ask_x(session: Any, call: Callable[[], object]) -> Answer:
    """Make one call to X through a requests session and return the answer as it came, whatever
    tweepy makes of it.  Bounded in time, as tweepy sets no limit, and no redirect is followed."""
    import signal

    answers: list[Answer] = []

    def hear(response: Any, **_: Any) -> None:
        answers.append(Answer(response.status_code, response.headers))
        answers[0].body = response.content

    def out_of_time(*_: object) -> None:
        raise TookTooLong

    send = session.request
    session.request = lambda *a, **k: send(*a, **{**k, "timeout": (CONNECT, TOTAL)})
    session.hooks["response"] = [hear]
    session.max_redirects = 0
    why = "the answer cannot be read"
    signal.signal(signal.SIGALRM, out_of_time)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, TOTAL, 1)  # again, should something swallow it
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TookTooLong:
        signal.setitimer(signal.ITIMER_REAL, 0)
        why = f"no answer within {TOTAL:.0f} seconds"
    except Exception as error:  # what tweepy thinks of the answer is in `answers` already
        why = reason(error)
    return answers[0] if answers else Answer(0, {}, why)


def reason(error: Exception) -> str:
    """Why there was no answer, in a few words."""
    name = type(error).__name__
    if "SSL" in name:
        return "its TLS certificate cannot be verified"
    if "Timeout" in name:
        return "no answer in time"
    if name in ("InvalidURL", "InvalidProxyURL", "LocationParseError"):
        return "the address of the proxy is malformed"  # not its words: they have the password
    if "CA certificate bundle" in str(error):
        return "the file that REQUESTS_CA_BUNDLE names is missing"
    # requests and urllib3 put the cause last: "…: [Errno 111] Connection refused'))"
    words = clean(str(error)).rsplit(": ", 1)[-1].strip("'\")>(").partition("] ")
    return cut((words[2] or words[0]).lower() or name, 100)[0]


AGAIN = "run: bird_sentinel authorize"
UNWILLING = "ask them to send the sentinel's account a DM first, or to accept message requests"
MEANINGS: tuple[tuple[int | str, str, str, str], ...] = (
    # a code of X or a phrase in its answer, the kind, what it means, what to do (docs.x.com)
    ("already said that", "delivered", "", ""),
    (88, "limit", "X's rate limit is reached", ""),
    (135, "account", "X rejects our signature because this machine's clock is wrong",
     "set the clock, as with: timedatectl set-ntp true"),
    (32, "account", "X does not accept our keys", AGAIN),
    (89, "account", "our access token is invalid or was revoked", AGAIN),
    (215, "account", "X does not accept our keys", AGAIN),
    (93, "account", "the app has no permission to send DMs", PERMISSION_HINT),
    ("oauth1-permissions", "account", "the app has no permission to send DMs", PERMISSION_HINT),
    (64, "account", "the sentinel's account is suspended", "log in to it on x.com to appeal"),
    (326, "account", "the sentinel's account is locked", "log in to it on x.com to unlock it"),
    (226, "account", "X takes our DMs for automated spam",
     "log in to the sentinel's account on x.com, and have the recipients write to it first"),
    (261, "account", "X has barred the app from writing", "see what the developer portal says"),
    ("client-not-enrolled", "account", "the app has no access to this part of X's API",
     "in X's developer portal, attach the app to a project with access to API v2"),
    (453, "account", "the app has no access to this part of X's API",
     "in X's developer portal, check what the app's access level includes"),
    ("creditsdepleted", "account", "the app's credits on X are used up",
     "buy credits in X's developer portal"),
    ("spendcapreached", "account", "the app's spending cap on X is reached",
     "raise the cap in X's developer portal"),
    (415, "account", "the app has no callback URL that allows a PIN",
     APP_HINT + "set any callback URL, such as https://example.com/"),
    (417, "account", "the app has no callback URL",
     APP_HINT + "set any callback URL, such as https://example.com/"),
    (349, "recipient", "the recipient does not accept DMs from the sentinel's account", UNWILLING),
    (150, "recipient", "the recipient does not accept DMs from the sentinel's account", UNWILLING),
    (476, "recipient", "the recipient does not accept DMs from the sentinel's account", UNWILLING),
    ("permission to dm", "recipient",
     "the recipient does not accept DMs from the sentinel's account", UNWILLING),
    (354, "content", "X finds the DM too long", ""),
    (151, "content", "X refuses the text of the DM", ""),
)
BY_STATUS = {
    400: ("content", "X refuses the text of the DM", ""),
    401: ("account", "X does not accept our keys", AGAIN),
    402: ("account", "the app's credits on X are used up", "buy credits in X's developer portal"),
    413: ("content", "X finds the DM too long", ""),
}


def complaints(body: bytes) -> tuple[set[int], str]:
    """X's error codes, and all its words, from an answer in the v1.1 or the v2 form; nothing from
    one in no form at all."""
    import json

    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return set(), ""
    parts = answer.get("errors") if isinstance(answer, dict) else None
    parts = [answer, *(parts if isinstance(parts, list) else [])]
    codes, words = set(), []
    for part in parts:
        if isinstance(part, dict):
            if isinstance(part.get("code"), int):
                codes.add(part["code"])
            words += [part[key] for key in ("title", "detail", "message", "reason", "type")
                      if isinstance(part.get(key), str)]
    return codes, "; ".join(dict.fromkeys(words))


def judge(answer: Answer, secrets: Iterable[str] = ()) -> Outcome:
    """Say what X's answer means; the secrets are taken out of its words."""
    status = answer.status
    if 200 <= status < 300:
        return Outcome("delivered")
    if status == 0:
        return Outcome("retry", f"X cannot be reached: {answer.why}")
    if status >= 500:
        return Outcome("retry", f"X has a fault of its own (HTTP {status})")
    if status < 400:
        return Outcome("retry", f"something else answers in the place of X (HTTP {status})")
    codes, said = complaints(answer.body)
    if status == 429:
        if "usage-capped" in said.lower():
            return Outcome("limit", "the app's monthly cap on X is used up",
                           "raise the cap in X's developer portal")
        return Outcome("limit", "X's rate limit is reached")
    for secret in secrets:  # something in between may send our own request back to us
        said = said.replace(secret, "…")
    for mark, kind, words, hint in MEANINGS:
        if mark in codes or (isinstance(mark, str) and mark in said.lower()):
            return Outcome(kind, words, hint)
    said = cut(clean(said).replace("\n", " "), 300)[0]
    if status in BY_STATUS:
        return Outcome(*BY_STATUS[status], said)
    return Outcome("account", f"X refuses the DM for a reason of its own (HTTP {status})",
                   "see the app's state in X's developer portal", said)


def tweepy_client(account: Mapping[str, str]) -> Any:
    """Return a tweepy.Client; raises Problem where tweepy is missing or too old."""
    try:
        import requests
        import tweepy  # type: ignore[import-untyped]

        if not hasattr(tweepy.Client, "create_direct_message"):
            raise ImportError(f"version {tweepy.__version__} is too old")
    except Exception as error:  # of one of its own modules too, when two do not fit
        hint = "get tweepy: apt install python3-tweepy, or pip install --upgrade tweepy"
        raise Problem(CONFIG, f"tweepy cannot be used ({error})", hint) from None
    keys = {name: account[name] for name in KEYS}
    return tweepy.Client(**keys, return_type=requests.Response)


def send_dm(config: Config, handle: str, text: str) -> tuple[Outcome, Mapping[str, str]]:
    """Give one DM to X.  Returns what became of it, and the headers of X's answer."""
    client = tweepy_client(config.account)
    answer = ask_x(client.session, lambda: client.create_direct_message(
        participant_id=config.recipients[handle], text=text))
    return judge(answer, [config.account[name] for name in KEYS]), answer.headers


# ---- worker: one at a time, detached, while the queue is not empty -----------------------------


def note_failure(queue: Queue, scope: str, outcome: Outcome, headers: Mapping[str, str]) -> None:
    """Record why the account or a recipient has to wait, and how long."""
    now, state = time.time(), queue.state(scope)
    state.failures = state.failures + 1 if state.status == outcome.status else 1
    state.status, state.limited = outcome.status, int(outcome.kind == "limit")
    state.error, state.hint, state.at = outcome.error, outcome.hint, now
    if outcome.kind == "limit":
        state.wait = limit_wait(headers, now, state.failures) + back_off(LEEWAY, 1)
    else:
        state.wait = back_off(SLOW if outcome.status == REFUSED else RETRY, state.failures)
    queue.store(state)
    whom = f"for @{scope}: " if scope else ""
    report(f"{whom}{outcome.words}; next attempt in {state.wait:.0f} s")


def note_answer(queue: Queue, headers: Mapping[str, str]) -> None:
    """Record that X deals with the account: its errors are over, but its limit may be reached."""
    account, now = State(""), time.time()
    account.at, account.wait = now, exhausted(headers, now)
    if account.wait:
        account.wait, account.limited = account.wait + back_off(LEEWAY, 1), 1
    queue.store(account)


def note_delivery(queue: Queue, handle: str, headers: Mapping[str, str], sharers: int) -> None:
    """Record a DM that X took: the recipient's errors are over, and its next one has to wait."""
    now, before, state = time.time(), queue.state(handle), State(handle)
    state.burst = before.burst + 1 if 0 <= now - before.delivered <= 2 * before.share else 1
    state.share = fair_share(headers, now) * sharers
    state.at, state.wait, state.delivered = now, pace(state.burst, state.share), now
    queue.store(state)


class Memory:
    """What a worker knows beside the queue, and may lose with its life."""

    def __init__(self) -> None:
        # settled with X, but not on the disk, as that is full: the alerts, and why X refused one
        self.told: dict[int, tuple[Alert, str]] = {}
        self.suspects: dict[str, int] = {}  # how many alerts, from the oldest, hold a refused one
        self.troubles = 0  # in a row: the queue could not be used


def deliver_due(queue: Queue, config_path: str, memory: Memory) -> float | None:
    """Make the one attempt that is due and has waited longest.  Returns the seconds until the
    next; None when nothing is pending."""
    if memory.told:
        with contextlib.suppress(sqlite3.OperationalError):  # not now; but it is not told again
            with queue:
                for alert, why in memory.told.values():
                    queue.put_aside(alert, why) if why else queue.settle([alert])
            memory.told.clear()
    if not queue.one("SELECT 1 FROM alert LIMIT 1"):
        return None
    now = time.time()
    due = queue.state("").due(now)
    if due > now:
        return due - now
    try:
        config = read_config(config_path)
        adopt_stray(queue, config)
        queue.readdress(list(config.recipients))
        waits = [60.0]
        for state in sorted(map(queue.state, queue.recipients()), key=lambda state: state.at):
            if state.due(now) > now:
                waits.append(state.due(now) - now)
                continue
            alerts = [a for a in queue.alerts(state.scope) if a.id not in memory.told]
            if alerts:
                attempt(queue, config, state.scope, alerts, memory)
                return 0.0
        return min(waits)
    except Problem as problem:
        note_failure(queue, "", Outcome("config", problem.message, problem.hint), {})
        return 0.0


def attempt(queue: Queue, config: Config, handle: str, alerts: list[Alert], memory: Memory) -> None:
    """Send one recipient a DM of all its alerts, or of those in which a refused one is sought."""
    suspects = min(memory.suspects.get(handle, 0), len(alerts))
    if suspects:
        alerts = alerts[: max(1, suspects // 2)]
    outcome, headers = send_dm(config, handle, compose(alerts, config.host, time.time()))
    refusal = outcome if outcome.kind == "content" else None
    if refusal:
        memory.suspects[handle] = len(alerts)
    if refusal and len(alerts) > 1:
        # one in here: seek it at once, so that it holds up the others no longer
        state = queue.state(handle)
        state.at, state.wait = time.time(), 0.0
        queue.store(state)
        note_answer(queue, headers)
        return
    if refusal:
        # only if X takes a notice in its place is it the text that X refuses
        now = time.time()
        count = alerts[0].count
        what = "an alert" if count == 1 else f"an alert (and {count - 1:,} like it)"
        text = (f"{what} of {clock(alerts[0].sent, now)} was refused by X and is put aside; to"
                " read it, run there: bird_sentinel status")
        notice = compose([Alert(0, now, text)], config.host, now)
        outcome, headers = send_dm(config, handle, notice)
        if outcome.kind == "content":
            outcome = Outcome("recipient", "X refuses whatever we send to this recipient",
                              "have the id looked up again: bird_sentinel authorize --to HANDLE",
                              refusal.said)
    if outcome.kind == "delivered":
        try:
            with queue:
                if refusal:
                    queue.put_aside(alerts[0], refusal.error)
                else:
                    queue.settle(alerts)
                note_answer(queue, headers)
                note_delivery(queue, handle, headers, len(config.recipients))
        except sqlite3.OperationalError:
            why = refusal.error if refusal else ""
            memory.told.update((alert.id, (alert, why)) for alert in alerts)
            raise
        finally:
            memory.suspects[handle] = max(0, suspects - len(alerts))
        number = plural(sum(alert.count for alert in alerts))
        report(f"{number} for @{handle}: " + (refusal.words if refusal else "delivered in one DM"))
    elif outcome.kind == "recipient":
        note_answer(queue, headers)
        note_failure(queue, handle, outcome, headers)
    else:
        note_failure(queue, "", outcome, headers)
        # it may be this one's fault after all: next time it is another's turn
        state = queue.state(handle)
        state.at, state.wait = time.time(), 0.0
        queue.store(state)


def keep_lock(queue_path: str, lock: int) -> bool:
    """Whether this worker is still the one; somebody may have removed the lock's file, or all."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(queue_path + ".lock"))
    except FileNotFoundError:
        again = take_lock(queue_path) if os.path.exists(queue_path) else None
        if again is None:
            return False
        os.dup2(again, lock, inheritable=False)
        os.close(again)
        return True


def run_worker(config_path: str, queue_path: str, lock: int) -> None:
    """Deliver until the queue is empty.  Holds the flock `lock`, which dies with the process."""
    import signal

    memory = Memory()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    with contextlib.suppress(OSError), open(queue_path + ".lock", "w") as file:
        file.write(str(os.getpid()))
    while True:
        try:
            if not keep_lock(queue_path, lock):
                return
            wait = in_queue(
                queue_path, lambda queue: deliver_due(queue, config_path, memory), create=False
            )
            memory.troubles = 0
        except FileNotFoundError:
            return
        except Exception as error:  # whatever it is, what is pending must go on being tried
            memory.troubles += 1
            wait = back_off((5.0, 300.0), memory.troubles)
            if memory.troubles == 1:
                report(f"the queue cannot be used ({type(error).__name__}), trying again")
        if wait is None:
            # whoever lets go of the lock looks again: an alert may have come in this moment
            fcntl.flock(lock, fcntl.LOCK_UN)
            try:
                if not in_queue(queue_path, Queue.recipients, create=False):
                    return
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (OSError, sqlite3.Error):
                return
        elif wait > 0:
            # a minute at the most, as the clock may jump; SIGCONT: look again
            signal.sigtimedwait({signal.SIGCONT}, min(wait, 60.0))


def take_lock(queue_path: str) -> int | None:
    """Return a descriptor that holds the flock of the one worker; None where somebody has it."""
    # opened for reading, so that a worker is not in the way of a remount
    flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    lock = os.open(queue_path + ".lock", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise


def wake_worker(config_path: str, queue_path: str, nudge: bool = True) -> None:
    """Start a worker where none runs, else, with `nudge`, have it look at the queue again.  Raises
    OSError where no process can be started."""
    lock = take_lock(queue_path)
    if lock is None:
        if nudge:
            import signal

            with contextlib.suppress(OSError, ValueError), open(queue_path + ".lock") as file:
                os.kill(int(file.read(20)), signal.SIGCONT)  # harms nobody, should it be stale
        return
    try:
        detached, until_detached = os.pipe()
        if os.fork() == 0:
            os.close(detached)
            detach(lambda: run_worker(config_path, queue_path, lock), lock, until_detached)
        os.close(until_detached)
        # once this is read, no signal to our process group and no hang-up reaches the worker
        started = os.read(detached, 1)
        os.close(detached)
        if not started:
            raise OSError("no worker process can be started")
    finally:
        os.close(lock)


def detach(task: Callable[[], None], lock: int, until_detached: int) -> NoReturn:
    """Run the task in a session of its own, with no descriptor of the caller's but the lock, so
    that nobody waits for it and no terminal ends it."""
    code = 1
    try:
        os.setsid()
        with contextlib.suppress(OSError):  # whoever waits for it may have been killed
            os.write(until_detached, b"1")
        os.close(until_detached)
        os.chdir("/")
        # not closed: objects of the caller's, which live on here, would close the numbers again
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        names = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else range(256)
        for descriptor in {0, 1, 2, *map(int, names)} - {lock, null}:
            os.dup2(null, descriptor, inheritable=False)
        import signal

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        task()
        code = 0
    finally:
        os._exit(code)


def worker_runs(queue_path: str) -> bool:
    """Whether a worker holds the lock."""
    try:
        lock = os.open(queue_path + ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(lock)


def await_delivery(queue: Queue, ours: str, since: float, deadline: float) -> bool:
    """Look for a second, at the longest until the deadline, whether the rows (`ours`: a condition
    of SQL) are delivered; False:
    not known yet.  Raises Problem when they have to wait, whose status is the worst of their
    recipients', with the names of those who did not get it."""
    pause = time.monotonic() + 1
    while True:
        waiting = queue.database.execute(f"SELECT DISTINCT recipient FROM alert WHERE {ours}")
        held, missing = [], [row[0] for row in waiting]
        now, account = time.time(), queue.state("")
        for handle in missing:
            # the worse of what is known of the account and of this recipient
            state = max(account, queue.state(handle), key=lambda state: (state.status, state.at))
            due = max(account.due(now), queue.state(handle).due(now))
            if (state.status and since <= state.at <= now + 1) or due > now + 8:
                held.append((state.status, state, due))
        if len(held) == len(missing) or time.monotonic() > deadline:
            break
        if time.monotonic() > pause:
            return False
        time.sleep(0.03)
    why = queue.one(f"SELECT why FROM refused WHERE {ours}")
    if why:
        raise Problem(REFUSED, f"put aside: {why}", "to read it: bird_sentinel status")
    if not missing:
        return True
    names = at(missing)
    if len(held) < len(missing):
        raise Problem(KEPT, f"kept in the queue for {names}: X has not answered yet",
                      "it is sent as soon as X does; see: bird_sentinel status")
    status, state, due = max(held, key=lambda entry: entry[0])
    error = state.error or "the next DM has to wait for X's limit"
    retry = f"the next attempt is at {clock(due, now)}"
    raise Problem(status or KEPT, f"kept in the queue for {names}: {error}",
                  f"{state.hint}; {retry}" if state.hint else retry)


# ---- authorize: once, with a PIN ---------------------------------------------------------------


def at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def ask(question: str, hidden: bool = False) -> str:
    """Return one line of standard input; at a terminal, ask for it first.  Raises Problem where it
    ends."""
    answer = ""
    if hidden and at_terminal():
        import getpass

        with contextlib.suppress(EOFError):
            answer = getpass.getpass(question) + "\n"
    elif sys.stdin:
        if at_terminal():
            print(question, end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    if not answer:
        raise Problem(USAGE, f"no answer to: {question.strip().rstrip(':')}")
    return answer.strip()


def walk_pin_flow(consumer_key: str, consumer_secret: str) -> tuple[dict[str, str], str]:
    """OAuth 1.0a with a PIN (docs.x.com, "PIN-based OAuth"; RFC 5849 section 2).  Returns X's
    answer — oauth_token, oauth_token_secret, user_id, screen_name — and the token's access level,
    '' if untold.  Raises Problem."""
    from functools import partial
    from urllib.parse import parse_qsl
    from urllib.parse import quote as quote_url

    from requests_oauthlib import OAuth1Session  # tweepy's own; its handler drops the screen name

    secrets = [consumer_key, consumer_secret]
    for left in (2, 1, 0):
        first = OAuth1Session(consumer_key, consumer_secret, callback_uri="oob")
        answer = ask_x(first, partial(first.fetch_request_token, f"{API}/oauth/request_token"))
        outcome = judge(answer, secrets)
        token = dict(parse_qsl(answer.body.decode("ascii", "replace")))
        if answer.status == 401 and outcome.hint == AGAIN:
            raise Problem(REFUSED, "X does not accept the consumer key and secret",
                          "copy both anew from the app's keys and tokens in X's developer portal")
        if outcome.kind != "delivered" or "oauth_token" not in token:
            raise Problem(outcome.status or KEPT, "no page to authorize at: "
                          + (outcome.error or "X's answer cannot be read"),
                          outcome.hint or "try again later: bird_sentinel authorize")
        show("As the account that is to send the alerts, open this page and authorize the app:")
        show(f"  {API}/oauth/authorize?oauth_token={quote_url(token['oauth_token'])}")
        pin = "".join(ask("PIN: ").split())
        secrets += [pin or "none", *token.values()]
        second = OAuth1Session(consumer_key, consumer_secret, token["oauth_token"],
                               token.get("oauth_token_secret", ""), verifier=pin or "none")
        answer = ask_x(second, partial(second.fetch_access_token, f"{API}/oauth/access_token"))
        outcome = judge(answer, secrets)
        token = dict(parse_qsl(answer.body.decode("utf-8", "replace")))
        if outcome.kind == "delivered" and all(
            is_key(token.get(name, "")) for name in ("oauth_token", "oauth_token_secret")
        ):
            return token, answer.headers.get("x-access-level", "")
        if answer.status != 401 or outcome.hint != AGAIN:
            raise Problem(outcome.status or KEPT, "the PIN could not be exchanged: "
                          + (outcome.error or "X's answer cannot be read"),
                          outcome.hint or "try again: bird_sentinel authorize")
        say("error", "X does not accept this PIN" + (", here is a new page" if left else ""))
    raise Problem(REFUSED, "three PINs were not accepted; nothing was changed", AGAIN)


def look_up(client: Any, handle: str) -> tuple[str, str, bool, str]:
    """A recipient's handle as X spells it, numeric id, whether it takes our DMs (docs.x.com, user
    field receives_your_dm), and our token's access level.  Asks again at a terminal for a handle
    that X does not know; raises Problem."""
    import json
    from functools import partial

    secrets = [getattr(client, name) for name in KEYS]
    while True:
        answer = ask_x(client.session, partial(
            client.get_user, username=handle, user_fields=["receives_your_dm"], user_auth=True))
        outcome = judge(answer, secrets)
        if outcome.kind != "delivered" and answer.status not in (400, 404):
            raise Problem(outcome.status, f"@{handle} could not be looked up: {outcome.error}",
                          outcome.hint)
        try:
            user = json.loads(answer.body)["data"]
            name, number = str(user["username"]), str(user["id"])
            if is_handle(name) and number.isascii() and number.isdigit():
                level = answer.headers.get("x-access-level", "")
                return name, number, user.get("receives_your_dm") is not False, level
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        if not at_terminal():
            raise Problem(USAGE, f"there is no account @{handle} on X; nothing was changed",
                          "check the spelling, then " + AGAIN)
        say("error", f"there is no account @{handle} on X")
        handle = named(ask("its right handle: "))[0]


def named(words: str) -> list[str]:
    """Handles from what a person typed; raises Problem."""
    handles = [word.lstrip("@") for word in words.replace(",", " ").split()]
    for handle in handles:
        if not is_handle(handle):
            raise Problem(USAGE, f"{handle} is not a handle on X",
                          "a handle is letters, digits and underscores: @oncall_1")
    if not handles:
        raise Problem(USAGE, "no recipient was named", "give at least one handle, as in @oncall")
    return handles


def require_writable(path: str) -> None:
    """Raise Problem now if the config could not be saved at the end."""
    directory = os.path.dirname(path)
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Problem(CONFIG, f"the config {path} could not be saved: {directory} is not writable",
                      "run as who may write there, or name another with --config")


def authorize(call: Call) -> int:
    path = locate_config(call.config)
    tweepy_client(dict.fromkeys(KEYS, ""))
    require_writable(path)
    config = Config(path, read_private(path))

    # what a person has to tell; nothing on disk changes before X has said yes to it
    account = {}
    given = {name: os.environ.get(f"BIRD_SENTINEL_{name.upper()}") for name in KEYS[:2]}
    for name in KEYS[:2]:  # never half a pair from the environment and half from the config
        known = given[name] if any(given.values()) else config.account.get(name)
        words = name.replace("_", " ")
        account[name] = known or ask(f"{words}: ", hidden=name.endswith("secret"))
        if not is_key(account[name]):
            raise Problem(USAGE, f"this is no {words}", "copy it from X's developer portal, whole")
    wanted = named(" ".join(call.to)) if call.to else []
    if not wanted and not config.recipients:
        wanted = named(ask("recipients (handles, with spaces between): "))
    token, level = walk_pin_flow(*account.values())
    account["access_token"] = token["oauth_token"]
    account["access_token_secret"] = token["oauth_token_secret"]
    name = token.get("screen_name", "")
    account["screen_name"] = name if is_handle(name) else ""

    # who they are on X, once, so that a DM costs no look-up
    client = tweepy_client(account)
    recipients = {}
    for handle in wanted:
        name, number, accepts, told = look_up(client, handle)
        recipients[name], level = number, told or level
        if not accepts:
            say("warning", f"@{name} does not accept DMs from @{account['screen_name']} now")
            say("hint", f"have @{name} send @{account['screen_name']} a DM first")
    if level and level != "read-write-directmessages":
        raise Problem(REFUSED, "the app has no permission to send DMs (its access level is "
                      f"'{level}'); nothing was changed", PERMISSION_HINT)

    text = read_private(path)  # anew: it may have been edited meanwhile
    Config(path, text)
    for section, values in (("account", account), ("recipients", recipients)):
        text = ini_with(text, section, values)
    try:
        write_config(path, text)
    except OSError as error:
        raise Problem(CONFIG, f"the config {path} could not be saved: {lower(error)}") from None
    config = read_config(path)
    show(f"Authorized as @{account['screen_name']}; the keys are in {path}.")
    show("")
    show(swatch_lines(path))
    show("")
    return prove(config, test="--no-test" not in call.options)


def prove(config: Config, test: bool) -> int:
    """Deliver what was queued, with a test DM to each recipient: the whole way an alert takes."""
    since = time.time()

    def prepare(queue: Queue) -> tuple[int, int, list[int]]:
        adopt_stray(queue, config)
        queue.forget_errors()
        rows = []
        if test:
            text = f"bird_sentinel is set up: alerts of {config.host} arrive here"
            rows = queue.add(config.recipients, since, text)
        return queue.inode, queue.pending() - test, rows

    inode, waiting, rows = use_queue(config, prepare)
    if waiting:
        show(f"Delivering what was queued: {plural(waiting)}.")
    if waiting or test:
        deliver(config)
    if rows:
        watch(config, inode, f"id IN ({', '.join(map(str, rows))})", since)
        show(f"A test DM was delivered to {at(config.recipients)}.")
    return DELIVERED


def swatch_lines(config_path: str) -> str:
    """The lines to paste into a swatchrc, with the script's real path; see swatchrc.example."""
    import re
    import shutil

    script = os.path.realpath(sys.argv[0])
    words = [script]
    if script == os.path.realpath(__file__):  # the bare file: would its #! line find us again?
        first = shutil.which("python3") == sys.executable and sys.prefix == sys.base_prefix
        if not first or not os.access(script, os.X_OK):
            words = [sys.executable, script]
    if config_path != os.path.expanduser("~/.config/bird_sentinel/config.ini"):
        words += ["--config", config_path]  # swatch may be run with another environment
    command = " ".join(words)
    for word in words:
        if re.search(r"[^\w@%+:./-]", word):
            say("warning", f"swatch cannot cope with a path like {word}; put it elsewhere")
    return f"""\
Put this line once at the top of your swatchrc:

perlcode 1 ($ENV{{SWATCH_LINE}} = substr($_, 0, 50000)) =~ tr/\\0//d;

and this one below each watchfor:

    exec '{command} send --no-wait -- "\\$SWATCH_LINE"'
"""


# ---- command line: send, flush, status ---------------------------------------------------------


def use_queue(config: Config, action: Callable[[Queue], T]) -> T:
    try:
        return in_queue(config.queue, action)
    except (OSError, ValueError, sqlite3.Error) as error:
        raise Problem(LOST, f"the queue {config.queue} cannot be used: {lower(error)}",
                      "make its directory writable, or make room on its disk") from None


def in_kept_queue(queue_path: str, action: Callable[[Queue], T]) -> T:
    """Do something with a queue that holds an alert already; raises Problem where that fails."""
    try:
        return in_queue(queue_path, action, create=False)
    except FileNotFoundError:
        raise Problem(LOST, f"the queue {queue_path} has vanished, and what was in it",
                      "see what removed it, then send again") from None
    except (OSError, sqlite3.Error) as error:
        raise Problem(KEPT, f"kept in the queue, which cannot be used now: {lower(error)}",
                      "see: bird_sentinel status") from None


def watch(config: Config, inode: int, ours: str, since: float) -> None:
    """Wait for rows of the queue to be delivered; raises Problem if they are not."""
    deadline = time.monotonic() + PATIENCE

    def look(queue: Queue) -> bool:
        if queue.inode != inode:
            raise Problem(KEPT, "the queue was damaged and replaced meanwhile; whether this alert"
                          " is still in it is not known", "see: bird_sentinel status")
        return await_delivery(queue, ours, since, deadline)

    while not in_kept_queue(config.queue, look):
        deliver(config, nudge=False)  # the worker may have been killed


def read_standard_input() -> tuple[str, int]:
    """What comes on standard input, cleaned, and how many characters more than a megabyte came."""
    text, rest = "", 0
    try:
        if sys.stdin:
            text = clean(sys.stdin.buffer.read(1 << 20))
            while more := sys.stdin.buffer.read(1 << 20):
                rest += len(more.translate(None, bytes(range(0x80, 0xC0))))  # first bytes in UTF-8
    except OSError as error:
        if not text:
            raise Problem(USAGE, f"standard input cannot be read: {lower(error)}") from None
    return text, rest


def read_message(words: list[str], literal: list[str]) -> tuple[str, int]:
    """The message from the command line (`literal`: behind --) or from standard input, cleaned and
    no longer than a DM, and how many characters of it are gone."""
    if (words == ["-"] and not literal) or not (words or literal or at_terminal()):
        text, rest = read_standard_input()
    else:
        raw = " ".join(words + literal)
        with contextlib.suppress(UnicodeEncodeError):
            # the bytes as the caller gave them, whatever the locale takes them for
            raw = os.fsencode(raw).decode("utf-8", "replace")
        text, rest = clean(raw), 0
    if not text.strip():
        raise Problem(USAGE, "the message is empty", "see: bird_sentinel send --help")
    text, gone = cut(text, DM_LIMIT)
    return text, gone + rest


def send(call: Call) -> int:
    text, gone = read_message(call.message, call.literal)
    since = time.time()
    config: Config | None = None
    trouble = Problem(CONFIG, "")
    path = queue_path = ""
    try:
        path = locate_config(call.config)
        queue_path = stray_queue(path)
        config = read_config(path)
        queue_path = config.queue
    except Problem as problem:
        trouble = problem
    handles = choose(config.recipients, call.to) if config else [
        name.lstrip("@") for name in call.to or [""]]
    if "--dry-run" in call.options:
        alert = Alert(0, since, text, gone)
        show(compose([alert], config.host if config else short_host_name(), since))
        return DELIVERED

    # from here on the alert is not lost: on disk first, then all else
    def accept(queue: Queue) -> tuple[int, list[int], bool, State]:
        account = queue.state("")
        if config and account.status == CONFIG:
            queue.forget_errors()  # what was wrong with the config has been mended
            account = queue.state("")
        now_due = account.due(since) <= since and any(
            not queue.holds(handle) or queue.state(handle).due(since) <= since
            for handle in handles
        )
        return queue.inode, queue.add(handles, since, text, gone), now_due, account

    try:
        if not queue_path:
            raise OSError(None, "there is no place for it")
        inode, rows, now_due, account = in_queue(queue_path, accept)
    except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: no path for this locale
        return deliver_directly(config, trouble, handles, Alert(0, since, text, gone), error)
    if config is None:
        again = "" if AGAIN in trouble.hint else "; then: bird_sentinel flush"
        raise Problem(CONFIG, f"kept in the queue: {trouble.message}", trouble.hint + again)
    working = deliver(config, nudge=now_due)
    if not working or "--no-wait" not in call.options:
        try:
            watch(config, inode, f"id IN ({', '.join(map(str, rows))})", since)
        except Problem as problem:
            if not working:
                problem.hint = "when processes can be started again, run: bird_sentinel flush"
            raise
        show(f"delivered to {at(handles)}")
    elif account.status in (REFUSED, CONFIG):
        say("warning", f"kept in the queue: {account.error}")
        say("hint", call.advise(account.hint))
    return DELIVERED


def deliver(config: Config, nudge: bool = True) -> bool:
    """See to it that a worker is at it; where none can be started, do what is due here and return
    False."""
    try:
        wake_worker(config.path, config.queue, nudge)
        return True
    except OSError as error:
        why = lower(error)
    lock = None
    with contextlib.suppress(OSError):
        lock = take_lock(config.queue)
        if lock is None:
            return True  # a worker runs after all, or somebody else was quicker
    say("warning", f"no worker can be started ({why}), delivering directly")
    memory = Memory()
    try:
        while in_kept_queue(config.queue, lambda q: deliver_due(q, config.path, memory)) == 0:
            pass
    finally:
        if lock is not None:
            os.close(lock)
    return False


def deliver_directly(
    config: Config | None, trouble: Problem, handles: list[str], alert: Alert, error: Exception
) -> int:
    """The queue cannot be written, as on a full disk: the alert one wants most.  Send it from here,
    once; raises Problem with both reasons if that fails too."""
    stored = f"the alert could not be stored ({lower(error)})"
    if config is None:
        raise Problem(LOST, f"{stored} and not be delivered: {trouble.message}", trouble.hint)
    say("warning", f"{stored}, delivering directly")
    missed: list[tuple[str, Outcome]] = []
    held = State("")
    if "locked" not in str(error):  # that was waited for already
        with contextlib.suppress(OSError, ValueError, sqlite3.Error):
            held = in_queue(config.queue, lambda queue: queue.state(""), create=False)
    for handle in handles:
        if held.limited and held.due(alert.sent) > alert.sent:
            outcome = Outcome("limit", held.error)
        elif missed and missed[-1][1].kind == "retry":
            outcome = missed[-1][1]  # X cannot be reached; do not hold the caller up again
        else:
            try:
                text = compose([alert], config.host, time.time())
                outcome, _ = send_dm(config, handle, text)
            except Problem as problem:
                outcome = Outcome("config", problem.message, problem.hint)
        if outcome.kind != "delivered":
            missed.append((handle, outcome))
    if missed:
        names, worst = at(handle for handle, _ in missed), missed[0][1]
        raise Problem(LOST, f"{stored} and not be delivered to {names}: {worst.error}",
                      worst.hint or "make room on the disk, or mend its directory")
    show(f"delivered to {at(handles)}")
    return DELIVERED


def flush(call: Call) -> int:
    since = time.time()
    config = read_config(locate_config(call.config))

    def prepare(queue: Queue) -> tuple[int, int, int]:
        with contextlib.suppress(sqlite3.OperationalError):  # on a full disk, deliver all the same
            adopt_stray(queue, config)
            if "--discard-refused" in call.options:
                queue.database.execute("DELETE FROM refused")
            queue.readdress(list(config.recipients))
            queue.forget_waits()
        return queue.inode, queue.pending(), queue.one("SELECT max(id) FROM alert") or 0

    inode, number, last = use_queue(config, prepare)
    if not number:
        show("nothing is pending")
        return DELIVERED
    deliver(config)
    watch(config, inode, f"id <= {last}", since)
    show(f"delivered: {plural(number)}")
    return DELIVERED


def status(call: Call) -> int:
    """One line for a monitor and then the details, or JSON; the exit status says it too."""
    now, path = time.time(), locate_config(call.config)
    config, trouble = None, Problem(DELIVERED, "")
    try:
        config = read_config(path)
    except Problem as problem:
        trouble = problem
    stray = stray_queue(path)
    queue_path = config.queue if config else stray
    if config and queue_path != stray and os.path.exists(stray):
        with contextlib.suppress(OSError, ValueError, sqlite3.Error):
            in_queue(queue_path, lambda queue: adopt_stray(queue, config))
    running = worker_runs(queue_path)
    readable, pending, oldest, coming, last = True, 0, None, None, None
    failed, refused = State(""), []
    try:
        queue = Queue(queue_path, create=False)
        pending = queue.pending()
        oldest = queue.one("SELECT min(sent) FROM alert")
        states = [queue.state(scope) for scope in ["", *queue.recipients()]]
        failed = max(states, key=lambda state: (bool(state.error), state.status))
        dues = [max(states[0].due(now), state.due(now), now) for state in states[1:]]
        coming = min(dues, default=None) if config else None
        last = queue.one("SELECT max(delivered) FROM state") or None
        refused = queue.database.execute(
            "SELECT sent, recipient, text, why FROM refused ORDER BY id").fetchall()
        queue.close()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, sqlite3.Error) as damage:
        readable = False
        trouble = Problem(KEPT, f"the queue {queue_path} cannot be read: {lower(damage)}")
    if config and pending and not running:
        # its worker was killed, or its sender took our look at the lock for one
        deliver(config, nudge=False)

    error = trouble.message or failed.error or None
    code = trouble.status or (failed.status or KEPT if pending else DELIVERED)
    known = Config(path) if config is None else config
    account = known.account.get("screen_name") or None
    if "--json" in call.options:
        import json

        show(json.dumps({
            "account": account, "recipients": known.recipients, "pending": pending,
            "oldest_pending": iso(oldest), "next_attempt": iso(coming), "last_delivery": iso(last),
            "last_error": error, "worker": running, "config": path, "queue": queue_path,
        }, indent=2))
        return code
    since = f"{plural(pending)} pending since {clock(oldest, now)}" if oldest else "nothing pending"
    if not readable:
        since = "what is pending is not known"
    show(("ok: " if code == DELIVERED else "problem: " if error else "busy: ") + since
         + (f": {error}" if error else ""))
    rows = [
        ("account", f"@{account}" if account else "none"),
        ("recipients", ", ".join(f"@{n} ({i})" for n, i in known.recipients.items()) or "none"),
        ("next attempt", clock(coming, now) if coming else "none is due"),
        ("last delivery", clock(last, now) if last else "never"),
        ("last error", error or "none"),
        ("to do", call.advise(trouble.hint or failed.hint)),
        ("worker", "running" if running else "not running"),
        ("config", path),
        ("queue", queue_path),
    ]
    for name, value in rows:
        if value:
            show(f"{name:<14} {value}")
    for sent, handle, text, why in refused:
        show("")
        show(f"put aside, for @{handle}, of {clock(sent, now)}: {why}\n{text}")
    if refused:
        show("")
        show(call.advise("when you have read it: bird_sentinel flush --discard-refused"))
    return code


def iso(moment: float | None) -> str | None:
    """ISO 8601 with the local offset."""
    if moment is None:
        return None
    import datetime

    return datetime.datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")


STATUSES = """\
exit status:
    0  delivered; with --no-wait: safely on disk and a delivery under way
       status: nothing is pending
    2  usage, an empty message, or an unknown recipient
   74  could be neither stored nor delivered: the only case in which an
       alert is not kept
   75  kept in the queue, will be retried
   77  kept; X refuses us until a person acts (re-authorize, permission,
       credits, recipient)
   78  kept where it can be; the config is missing, unreadable, unsafe or
       incomplete
  130  interrupted
"""

HELP = {
    "": """\
usage: bird_sentinel [--config PATH] COMMAND ...

Sends what your log watcher sees to your phone, as a direct message (DM) on X.
This script is given the keys of an account: please read it.

commands:
  authorize   set it up: walk the PIN flow once and save the keys
  send        send an alert
  flush       try what is queued now, as after a reboot
  status      tell what is pending and why

options:
  --config PATH   use this config, with a queue of its own beside it
  --version       print the version
  -h, --help      print this, or with a command what it takes

examples:
  bird_sentinel authorize --to oncall
  bird_sentinel send "backup failed on $(hostname)"
  dmesg | tail -n 5 | bird_sentinel send -
  bird_sentinel status

in a swatchrc (see swatchrc.example):
  perlcode 1 ($ENV{SWATCH_LINE} = substr($_, 0, 50000)) =~ tr/\\0//d;
  watchfor /Accepted password for root/
      exec 'bird_sentinel send --no-wait -- "\\$SWATCH_LINE"'

files:
  ~/.config/bird_sentinel/config.ini   the keys, mode 0600
  ~/.config/bird_sentinel/queue.db     the alerts that are pending

environment:
  BIRD_SENTINEL_CONFIG    the config, where --config names none
  XDG_CONFIG_HOME         what takes the place of ~/.config
  BIRD_SENTINEL_CONSUMER_KEY, BIRD_SENTINEL_CONSUMER_SECRET
                          the app's keys, for authorize
  HTTPS_PROXY, REQUESTS_CA_BUNDLE
                          as python-requests takes them

""" + STATUSES,
    "authorize": """\
usage: bird_sentinel authorize [--to HANDLE]... [--no-test]

Connects an account on X with this machine, once.  Asks for the consumer key
and secret of your app, unless the config or the environment has them, and for
the recipients; prints a page to open; asks for the PIN which that page gives;
saves the keys, and sends each recipient a test DM.  Then what was queued is
delivered.  Where standard input is no terminal, each answer is a line of it,
in the order asked: consumer key, consumer secret, recipients, PIN.

options:
  --to HANDLE     add a recipient; may be repeated
  --no-test       send no test DM
  --config PATH   save the keys in this file
  -h, --help      print this

example:
  bird_sentinel authorize --to oncall --to second

""" + STATUSES,
    "send": """\
usage: bird_sentinel send [--to HANDLE]... [--no-wait] [--dry-run] [--]
                          [MESSAGE...]

Sends MESSAGE, its words joined by one space, as a DM to all recipients.  With
- for it, or with none where standard input is no terminal, the message is what
comes on standard input.  Put -- before a message that may begin with a dash.

options:
  --to HANDLE     send to this one of the configured recipients; may be
                  repeated
  --no-wait       return as soon as the alert is on disk
  --dry-run       print the DM instead of sending it; needs no config
  --config PATH   use this config
  -h, --help      print this

examples:
  bird_sentinel send --to oncall "disk array degraded"
  /etc/cron.daily/backup 2>&1 | bird_sentinel send -

""" + STATUSES,
    "flush": """\
usage: bird_sentinel flush [--discard-refused]

Tries what is queued now, without regard to our own back-off, but never before
the time that X's rate limit names.  For @reboot in cron, or by hand.

options:
  --discard-refused   forget the alerts that X refused for their content,
                      which status shows
  --config PATH       use this config
  -h, --help          print this

example:
  @reboot bird_sentinel flush

""" + STATUSES,
    "status": """\
usage: bird_sentinel status [--json]

Tells account, recipients, how many alerts are pending and since when, when the
next attempt is due, the last delivery and the last error.  The first line and
the exit status are enough for a monitor.

options:
  --json          print an object: account, recipients, pending,
                  oldest_pending, next_attempt, last_delivery, last_error,
                  worker, config, queue
  --config PATH   of this config
  -h, --help      print this

example:
  bird_sentinel status --json

""" + STATUSES,
}


OPTIONS = {  # what a command takes, beside --config and --help
    "": ("--version",),
    "authorize": ("--to", "--no-test"),
    "send": ("--to", "--no-wait", "--dry-run"),
    "flush": ("--discard-refused",),
    "status": ("--json",),
}
VALUES = {"--config": "PATH", "--to": "HANDLE"}
COMMANDS = {"authorize": authorize, "send": send, "flush": flush, "status": status}


class Call:
    """What is asked for on the command line; raises Problem."""

    def __init__(self, words: Iterable[str]) -> None:
        self.command, self.config = "", ""
        self.to: list[str] = []
        self.options: set[str] = set()  # those that take no value
        self.message: list[str] = []
        self.literal: list[str] = []  # what stands behind --: message and nothing else

        left = iter(words)
        for word in left:
            option, given, value = word.partition("=")
            known = option in ("--config", *OPTIONS[self.command])
            if word == "--":
                self.literal = list(left)
            elif not known and not looks_like_option(word):
                self.take(word)
            elif word in ("-h", "--help"):
                self.options.add("--help")
                return
            elif not known:
                dashes = "put -- before the message, or " if self.command == "send" else ""
                raise Problem(USAGE, f"{self.name()} takes no option {option}",
                              dashes + self.help())
            elif option not in VALUES:
                if given:
                    raise Problem(USAGE, f"{option} takes no value", self.help())
                self.options.add(option)
            else:
                value = value if given else next(left, "--")
                if not value or looks_like_option(value) and not given:
                    raise Problem(USAGE, f"{option} wants a {VALUES[option]}", self.help())
                if option == "--to":
                    self.to.append(value)
                else:
                    self.config = value

    def take(self, word: str) -> None:
        if self.command:
            self.message.append(word)
        elif word in OPTIONS and word:
            self.command = word
        elif word:
            raise Problem(USAGE, f"there is no command {word}", self.help())

    def name(self) -> str:
        return f"bird_sentinel {self.command}".strip()

    def help(self) -> str:
        return f"see: {self.name()} --help"

    def advise(self, hint: str) -> str:
        """A hint whose commands are about the config that --config named."""
        if self.config and "--help" not in hint:
            for command in COMMANDS:
                words = f"bird_sentinel {command}"
                hint = hint.replace(words, f"{words} --config {quoted(self.config)}")
        return hint


def looks_like_option(word: str) -> bool:
    """Whether a word is no message: -5 is one, and what has a space in it was quoted as one."""
    return word[:1] == "-" and (word[1:2] == "-" or word[1:2].isalpha()) and " " not in word


def main(argv: list[str] | None = None) -> int:
    """Run one command.  Returns its exit status; errors are told on standard error."""
    os.umask(0o077)
    for descriptor in (0, 1, 2):  # a caller may have closed them, and no file of ours may get one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    call = None
    try:
        call = Call(sys.argv[1:] if argv is None else argv)
        if "--help" in call.options:
            show(HELP[call.command])
            return DELIVERED
        if "--version" in call.options:
            show(f"bird_sentinel {__version__}")
            return DELIVERED
        if not call.command:
            raise Problem(USAGE, "no command was given", call.help())
        if (call.message or call.literal) and call.command != "send":
            raise Problem(USAGE, f"{call.command} takes no message", call.help())
        return COMMANDS[call.command](call)
    except Problem as problem:
        say("error", problem.message)
        if problem.hint:
            say("hint", call.advise(problem.hint) if call else problem.hint)
        return problem.status
    except KeyboardInterrupt:
        say("error", "interrupted")
        return INTERRUPTED
    except Exception as error:  # a fault of ours, which no caller should meet as a traceback
        say("error", f"unexpected: {type(error).__name__}: {lower(error)}")
        return LOST


def run() -> NoReturn:
    """`main`, and out at once: to take the interpreter apart first would hold the watcher up for as
    long as it took to store the alert."""
    code = main()
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
