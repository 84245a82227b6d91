#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
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

The queue is a directory, a spool as mail has been kept for decades.  `send` adds one file to it,
pulls a trigger, and is done.  A worker, one at a time and detached from the caller, makes one DM of
all that is pending, gives it to X inside X's limits, and only then removes the files.

    an alert's file      what that means                             who moves it on
    -------------------  ------------------------------------------  -------------------------------
    tmp/NAME             being written; nothing was promised         a worker, when it is a day old
    new/NAME             accepted: on the disk, for all recipients   the worker, into to/ID of each:
                         or for those it names                       linked, then unlinked
    to/ID/NAME           the recipient with this id has not got it   the worker, when X took a DM
    to/ID/folded         a long backlog: how many of which kinds,    which quotes or counts it
                         beside the files of those to be quoted
    refused/NAME         X would not take the text; why is in it     flush --discard-refused

    beside them          what it is                                  who writes it
    -------------------  ------------------------------------------  -------------------------------
    state                JSON: waits, pace, last delivery            the worker, by rename
    trouble              text, while a person has to act             the worker, by rename
    lock                 flock of the one worker; its date: that of  the worker
                         the config which it found good
    trigger              a FIFO which the worker reads               whoever wants it to look

Each step can be repeated: a crash between any two loses nothing, and at the worst repeats a DM.  No
file is written by two processes, so there is nothing to wait for and nothing to corrupt but one
alert.  Where the queue cannot be written, a second one in memory takes the alert, with a worker of
its own.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, NoReturn


class Module:
    """A module that is imported when it is used first.  The watcher is blind while this script
    starts, and most of that is imports (tests/bench.py shows what this saves)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(__import__(self.name), attribute)


(
    argparse, binascii, configparser, datetime, difflib, fcntl, getpass, io, json, pwd, random,
    re, select, shlex, shutil, signal, subprocess, syslog,
) = map(Module, (
    "argparse", "binascii", "configparser", "datetime", "difflib", "fcntl", "getpass", "io", "json",
    "pwd", "random", "re", "select", "shlex", "shutil", "signal", "subprocess", "syslog",
))

__version__ = "1.0.0"

# exit statuses, the last five after sysexits.h and the shell
DELIVERED, USAGE, LOST, KEPT, REFUSED, CONFIG, INTERRUPTED = 0, 2, 74, 75, 77, 78, 130

DM_LIMIT = 10_000  # characters in a DM (once documented by X; see docs.x.com, "Manage DMs")
FOLD, FOLDED = 1_000, "folded"  # files of a recipient beyond which they are; the file's name
MINUTE, DAY = 60.0, 86_400.0  # seconds; no limit of X is longer than a day, so no wait is
PATIENCE = 28.0  # seconds that a waiting `send` takes at the most
CALL = 25  # seconds for a whole call to X


class Problem(Exception):
    """Something a person has to be told: what it is, what to do next, and the exit status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


class ignoring:
    """Let errors of these kinds pass.  (contextlib's would take as long to load as an alert takes
    to store.)"""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self.kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self.kinds)


# ---- voice: standard error, lower case, no full stop, error then hint; results on standard output


def say(kind: str, message: str) -> None:
    """Tell a person something: an error, a hint or a warning.  Never a secret."""
    with ignoring(OSError, ValueError, TypeError):  # no stderr; nor does a full pipe hold us up
        if select.select([], [sys.stderr], [], 1)[1]:
            show(f"bird_sentinel: {kind}: {message}", sys.stderr)
        else:
            sys.stderr = None  # once is enough


def show(line: str, stream: Any = None) -> None:
    """Print a result, on standard output."""
    with ignoring(OSError, ValueError):  # closed, full, or a broken pipe
        print(clean(line), file=stream, flush=True)


def plural(number: int, thing: str = "alert") -> str:
    return f"{number:,} {thing}" + "s" * (number != 1)


def at(handles: Iterable[str]) -> str:
    return ", ".join("@" + handle for handle in handles)


def lower(error: BaseException) -> str:
    """What the system says of an error, in our voice."""
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def clock(moment: float, now: float) -> str:
    """Local time of day, with the date if that is not today's."""
    then = time.localtime(moment)
    today = then[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)


# ---- message: what a log line may bring into a DM or onto a terminal ---------------------------

# ECMA-48: CSI sequences, control strings (OSC, DCS, SOS, PM, APC) and the two-character escapes.
# A control string that is not ended keeps its text: hostile text must not hide what follows it.
ESCAPES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,256}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
)
UNWANTED = dict.fromkeys(
    [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]  # control characters
    + [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # bidi controls
    + [*range(0xE0000, 0xE0080)],  # tags
    "",
) | {0x2028: " ", 0x2029: " "}  # line and paragraph separators


def clean(raw: str | bytes) -> str:
    """Return text that is safe in a DM and on a terminal: no control or escape sequences, no NUL,
    no bidi controls or tags; what is not UTF-8 becomes U+FFFD; newlines and tabs stay."""
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    if text.translate({9: " ", 10: " "}).isprintable():
        return text.strip("\n")  # as nearly all are; none of what is unwanted counts as printable

    text = str(re.sub(ESCAPES, "", text.replace("\r\n", "\n"))).translate(UNWANTED)
    # UTF-16 has the surrogates of which a lone one can be no character
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip("\n")


class Alert:
    """One alert.

    text: cleaned, at most DM_LIMIT characters; cut: how many more there were; sent: seconds since
    the epoch; host: the short name of the machine that ran `send`; to: the handles it is for, none
    for all; name: that of its file; why: X refused it.
    """

    def __init__(
        self, text: str, sent: float, host: str, to: Iterable[str] = (), cut: int = 0,
        name: str = "", why: str = "",
    ) -> None:
        self.text, self.sent, self.host, self.to = text[:DM_LIMIT], sent, host, list(to)
        self.cut, self.name, self.why = cut + max(0, len(text) - DM_LIMIT), name, why

    def dump(self) -> bytes:
        """What its file holds: header lines, an empty line, the text."""
        head = f"host: {self.host}\nto: {' '.join(self.to)}\ncut: {self.cut}\n"
        why = f"refused: {' '.join(self.why.split())}\n" if self.why else ""
        return f"{head}{why}\n{self.text}".encode()

    @staticmethod
    def parse(name: str, data: bytes, written: float) -> Alert:
        """The alert in a file, whatever is in it; `written`: when the file was."""
        head, _, text = clean(data).partition("\n\n")
        fields = dict(line.partition(": ")[::2] for line in head.split("\n"))
        if "host" not in fields:  # not written by us
            fields, text = {}, clean(data)
        cut = fields.get("cut", "")[:12]
        return Alert(
            text or "(an empty alert)", sent_at(name, written), fields.get("host", ""),
            fields.get("to", "").split(), int(cut) if cut.isdecimal() else 0, name,
            fields.get("refused", ""),
        )


def sent_at(name: str, otherwise: float) -> float:
    """When the alert in a file of this name was sent, if the name tells and makes sense."""
    digits = name.partition(".")[0]
    sent = int(digits) / 1e9 if digits.isdecimal() and len(digits) < 20 else otherwise
    return sent if sent < time.time() + DAY else otherwise


def short_host_name() -> str:
    """The machine's name up to its first dot, with nothing in it that a path could not hold."""
    name = os.uname().nodename.partition(".")[0][:64]
    return "".join(c for c in name if c.isalnum() or c in "-_") or "localhost"


# ---- queue: nothing accepted is lost -----------------------------------------------------------


# of a path which somebody else may have put there: no link, no wait for who opens the other end
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def sync_directory(path: str) -> None:
    """Make new and renamed names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str, data: bytes, temporary: str) -> None:
    """Write a file as a whole or not at all, private from its first byte, and durable when this
    returns.  Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with ignoring(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def user_name(uid: int) -> str:
    """The name of the user with this id; "#" and the id, where it has none."""
    with ignoring(KeyError):
        return str(pwd.getpwuid(uid).pw_name)
    return f"#{uid}"


def require_safe(what: str, path: str, found: os.stat_result, others: int) -> None:
    """Raise Problem where a file or a directory belongs to somebody else, or lets others do what
    these bits of a mode stand for."""
    if found.st_uid not in (os.geteuid(), 0):
        user = user_name(found.st_uid)
        change = "sudo" if user[0] == "#" else "runuser"  # which knows no numbers
        raise Problem(CONFIG, f"the {what} {path} belongs to {user}",
                      "name a config of your own with --config, or run it as that user (as root:"
                      f" {change} -u {shlex.quote(user)} -- bird_sentinel)")
    if found.st_mode & others:
        may, mend = ("read or written", "600") if others & 0o044 else ("written", "go-w")
        raise Problem(CONFIG, f"the {what} {path} can be {may} by others",
                      f"run: chmod {mend} {shlex.quote(path)}")


def require_ours(directory: str) -> None:
    """Raise Problem where somebody else could put files into a directory, or owns it: root with a
    user's HOME would leave files there which that user cannot touch.  Raises OSError where there is
    no directory."""
    found = os.stat(directory)
    require_safe("directory", directory, os.lstat(directory), 0)
    require_safe("directory", directory, found, 0 if found.st_mode & stat.S_ISVTX else 0o022)


def make_directory(path: str) -> None:
    """Make a private directory, and those above it, but none in a directory of somebody else's.
    Raises OSError and Problem."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        make_directory(parent)
        require_ours(parent)
        with ignoring(FileExistsError):  # somebody was quicker
            os.mkdir(path, 0o700)
        sync_directory(parent)


UNREADABLE = (errno.EACCES, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV)


DAMAGED = ("bird_sentinel: a backlog was damaged on the disk, so not all alerts of it can be"
           " counted; what is left of it is put aside; to read it, run there: bird_sentinel status")


class Spool:
    """A queue: the directory at `root`, laid out as the top of this file says."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, *names: str) -> str:
        return os.path.join(self.root, *names)

    def write(self, data: bytes, *names: str) -> None:
        """Write a file of the queue as a whole; raises OSError."""
        temporary = f"{names[-1]}.{os.getpid()}.{time.time_ns()}"
        write_file(self.clear(stat.S_ISREG, *names), data, self.path("tmp", temporary))

    # -- what `send` does

    def add(self, alert: Alert) -> None:
        """Store an alert durably, under a name which nobody else has and which sorts by age.
        Raises OSError, and Problem where the queue is not safe."""
        alert.name = f"{int(alert.sent * 1e9):019d}.{os.getpid()}.{short_host_name()}"
        for name in ("tmp", "to", "refused", "new"):
            make_directory(self.path(name))
            require_ours(self.path(name))
        require_ours(self.root)
        require_ours(os.path.dirname(self.root))
        self.write(alert.dump(), "new", alert.name)

    def pull(self, word: bytes = b"l") -> bool:
        """Have the worker look at the queue (b"g": give way to another; b"": nothing).  False: none
        runs."""
        path = self.path("trigger")
        with ignoring(OSError), open(os.open(path, os.O_WRONLY | PLAIN), "wb", 0) as trigger:
            trigger.write(word)  # nothing, where it is full of words that are yet to be read
            return stat.S_ISFIFO(os.fstat(trigger.fileno()).st_mode)
        return False  # ENXIO: nobody reads it

    # -- what the worker does, and who looks at its work

    def identity(self) -> int:
        """What tells this queue from one that takes its place; 0: there is none."""
        with ignoring(OSError):
            return os.stat(self.path("new")).st_ino
        return 0

    def clear(self, right: Callable[[int], bool], *names: str) -> str:
        """The path of a file or a directory; what else is in its place is put aside."""
        path = self.path(*names)
        if os.path.lexists(path) and not right(os.lstat(path).st_mode):
            os.rename(path, self.path("refused", f"{time.time_ns()}.{names[-1]}"))
        return path

    def names(self, *directory: str) -> list[str]:
        """What is in a directory of the queue, the oldest first; nothing where there is none."""
        with ignoring(FileNotFoundError, NotADirectoryError):
            names = os.listdir(self.path(*directory))
            return sorted(name for name in names if not name.startswith("."))  # as NFS makes
        return []

    def pending(self) -> dict[str, list[str]]:
        """For each id the names in its directory; under "" what has yet to be distributed."""
        found = {"": self.names("new")}  # first: what moves on meanwhile is seen twice, not never
        found.update({recipient: self.names("to", recipient) for recipient in self.names("to")})
        return found

    def read(self, *names: str) -> Alert | None:
        """The alert in a file; None where it is gone.  What cannot be read is put aside, where a
        person sees it, and does not hold up the others."""
        try:
            with open(os.open(self.path(*names), os.O_RDONLY | PLAIN), "rb") as file:
                written = os.fstat(file.fileno()).st_mtime
                return Alert.parse(names[-1], file.read(8 * DM_LIMIT), written)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise  # it may pass
            if names[0] != "refused":
                os.rename(self.path(*names), self.path("refused", names[-1]))
                with ignoring(FileNotFoundError):  # as a rename leaves it, where both are one file
                    os.unlink(self.path(*names))
            return None

    def count_in(self, digest: Digest, recipient: str, name: str) -> None:
        """Take a recipient's file into a digest: an alert or, first of all, a folded backlog.  A
        damaged one is put aside, where a person sees it."""
        if name != FOLDED:
            alert = self.read("to", recipient, name)
            return digest.add(alert) if alert else None
        try:
            digest.load(self.path("to", recipient, name))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            if getattr(error, "errno", errno.EIO) not in UNREADABLE:
                raise  # it may pass
            self.clear(lambda _: False, "to", recipient, name)
            self.add(Alert(DAMAGED, time.time(), short_host_name()))
            self.pull()

    def refused(self) -> list[Alert]:
        """What X would not take, and what could not be read."""
        return [
            self.read("refused", name)
            or Alert("", sent_at(name, 0), "", name=name)
            for name in self.names("refused")
        ]

    def distribute(self, recipients: Mapping[str, str]) -> bool:
        """Move accepted alerts into the directories of those they are for (`recipients`: handle to
        id); one for nobody who is configured is for all.  Returns whether there are more."""
        names = self.names("new")
        ids = {handle.lower(): recipient for handle, recipient in recipients.items()}
        moves = []
        for alert in (self.read("new", name) for name in names[:FOLD]):
            if alert is not None:
                wanted = [ids[handle.lower()] for handle in alert.to if handle.lower() in ids]
                moves.append((alert.name, list(dict.fromkeys(wanted or ids.values()))))
        for name, wanted in moves:
            for recipient in wanted:
                with ignoring(FileExistsError, FileNotFoundError):  # from before a crash; gone
                    os.link(self.path("new", name), self.path("to", recipient, name))
        for recipient in {recipient for _, wanted in moves for recipient in wanted}:
            sync_directory(self.path("to", recipient))
        for name, _ in moves:
            with ignoring(FileNotFoundError):
                os.unlink(self.path("new", name))
        return len(names) > FOLD


def pending_in(spool: Spool) -> tuple[int, float]:
    """How many alerts are pending (one for several recipients is one), and when the oldest was
    sent (seconds since the epoch): now, where there is none."""
    names: set[str] = set()
    most, oldest = 0, time.time()
    for recipient, some in spool.pending().items():
        digest = Digest()
        if FOLDED in some:
            spool.count_in(digest, recipient, FOLDED)
        own = set(some).difference([FOLDED], digest.counted)
        names |= own
        most, oldest = max(most, digest.count + len(own)), min(oldest, digest.first)
    return max(most, len(names)), min([oldest, *(sent_at(name, oldest) for name in names)])


def spools(config_path: str) -> list[Spool]:
    """The queue of a config, and what takes its place, in memory, where it cannot be written."""
    root, home = config_path + ".queue", os.path.dirname(config_path)
    if config_path.endswith("/bird_sentinel/config.ini"):
        root = os.path.join(home, "queue")
    uid, mark = os.geteuid(), binascii.crc32(os.fsencode(config_path))
    memories = (os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}", "/dev/shm")
    found = [Spool(root)]
    for memory in filter(os.path.isabs, dict.fromkeys(memories)):
        path = os.path.join(memory, f"bird_sentinel-{uid}-{mark:08x}.queue")
        ours = os.lstat(path).st_uid == uid if os.path.lexists(path) else os.path.isdir(memory)
        found += [Spool(path)] * ours  # anybody may make one in /dev/shm, under any name
    return found


# a module is compiled once, a script at each start; nothing is imported from the caller's directory
IMPORTED = "import sys; sys.path[0] = sys.argv.pop(1); from bird_sentinel import run; run()"
GIVEN = ("BIRD_SENTINEL_CONSUMER_KEY", "BIRD_SENTINEL_CONSUMER_SECRET")  # to authorize
SIGNALS = (1, 2, 14, 15, 17)  # HUP, INT, ALRM, TERM and CHLD, which a caller may have ignored


def start_worker(config_path: str, spool: Spool, *words: str) -> None:
    """Start a worker in a session of its own, with nothing of the caller's but the environment.
    Where one runs already the new one ends at once.  Raises Problem."""
    directory, name = os.path.split(os.path.abspath(__file__))
    script = ["-c", IMPORTED, directory] if name == "bird_sentinel.py" else [f"{directory}/{name}"]
    command = [sys.executable, *script, "worker", config_path, spool.root, *words]
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("SWATCH_LINE", *GIVEN)}
    environment.update({
        name: os.path.abspath(environment[name])
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if environment.get(name)})
    try:
        os.posix_spawn(sys.executable, command, environment, file_actions=null, setsid=True,
                       setsigmask=[], setsigdef=SIGNALS)
    except OSError as error:
        raise Problem(KEPT, f"kept in the queue, but no worker can be started: {lower(error)}",
                      "when processes can be started again: bird_sentinel flush") from None


# ---- config: the keys stay private -------------------------------------------------------------

KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
KEY = r"[!-~]+"  # printable ASCII without a space
HANDLE = r"[A-Za-z0-9_]{1,50}"
ID = r"[0-9]{1,20}"  # X has ids in 64 bits
OWN = "~/.config/bird_sentinel/config.ini"  # which commands find by themselves
AUTHORIZE = "bird_sentinel authorize"
LOOK_UP, AGAIN = AUTHORIZE + " --to", "run: " + AUTHORIZE


class Config:
    """What config.ini says (as yet nothing, where it is made of {}); `check` tells whether that is
    enough to send."""

    def __init__(self, path: str, parser: Any) -> None:
        self.path, self.parser = path, parser
        self.account, self.recipients, self.delivery = (
            dict(parser[name]) if name in parser else {}
            for name in ("account", "recipients", "delivery")
        )
        self.host = clean(self.delivery.get("host", "")).replace("\n", " ")[:64]
        self.interval = 0.0
        with ignoring(ValueError):
            self.interval = float(self.delivery.get("interval", MINUTE))

    def check(self) -> Config:
        """Return the config if it is complete; raises Problem."""
        found, path = self.recipients, self.path
        missing = next((n for n in KEYS if not re.fullmatch(KEY, self.account.get(n, ""))), "")
        odd = [h for h, i in found.items() if not re.fullmatch(f"{HANDLE} {ID}", f"{h} {i}")]
        for bad, message, hint in (
            (not self.account and not os.path.lexists(path),
             f"not authorized yet: there is no config {path}", AGAIN),
            (missing, f"the config {path} has no usable {missing} in [account]", AGAIN),
            (not found, f"the config {path} has nobody in [recipients]",
             f"name them: {LOOK_UP} HANDLE"),
            (odd, f"the config {path} has a recipient that is no handle = id: {', '.join(odd)}",
             f"take that line out, then have the id looked up: {LOOK_UP} HANDLE"),
            (len({handle.lower() for handle in found}) < len(found),
             f"the config {path} has a recipient twice, in another case",
             "take one of the two lines out"),
            (not 0 < self.interval <= DAY, f"the config {path} has an interval of no use",
             "give seconds, as in: interval = 60"),
        ):
            if bad:
                raise Problem(CONFIG, message, hint)
        return self

    def handle(self, recipient: str) -> str:
        """Whose id this is."""
        return next((name for name, i in self.recipients.items() if i == recipient), recipient)

    def surroundings(self) -> dict[str, str]:
        """The environment variables by which requests finds its way to X, where the config says
        it: its own proxy and CA bundle go before those of whoever started the worker."""
        found: dict[str, str] = {}
        if self.delivery.get("proxy"):
            proxy = self.delivery["proxy"]
            found.update(HTTPS_PROXY=proxy, https_proxy=proxy, NO_PROXY="", no_proxy="")
        if self.delivery.get("ca_bundle"):
            bundle = os.path.expanduser(self.delivery["ca_bundle"])
            found["REQUESTS_CA_BUNDLE"] = os.path.join(os.path.dirname(self.path), bundle)
        return found

    def save(self) -> None:
        """Replace the file as a whole; what we do not know in it stays, but for comments.  Raises
        Problem."""
        for section in ("account", "recipients", "delivery"):
            self.parser[section] = getattr(self, section)
        text, (directory, name) = io.StringIO(), os.path.split(self.path)
        self.parser.write(text)
        try:
            make_directory(directory)
            temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
            write_file(self.path, text.getvalue().encode(), temporary)
        except OSError as error:
            raise Problem(CONFIG, f"the config {self.path} could not be saved: {lower(error)}",
                          "make room, or name another place with --config") from None


def locate_config(given: str | None) -> str:
    """Return the absolute path of the config; raises Problem where no place for it can be found."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # as the XDG base directory specification has it
        base = "~/.config"
    if not os.path.isabs(os.environ.get("HOME", "")):
        os.environ.pop("HOME", None)  # the password database tells
    default = os.path.join(base, "bird_sentinel", "config.ini")
    path = os.path.expanduser(given or os.environ.get("BIRD_SENTINEL_CONFIG") or default)
    with ignoring(FileNotFoundError):  # the current directory may be gone
        if not path.startswith("~"):
            return os.path.abspath(path)
    raise Problem(CONFIG, "no place for a config can be found",
                  "name one by an absolute path, with --config")


def require_private(path: str, found: os.stat_result) -> None:
    """Raise Problem unless a config is a regular file of ours or root's that nobody else can read
    or write, as ssh does with a key."""
    if not stat.S_ISREG(found.st_mode):
        raise Problem(CONFIG, f"the config {path} is not a regular file, which is not safe",
                      "put the file itself in its place, or name that with --config and send again")
    require_safe("config", path, found, 0o077)


def read_config(path: str) -> Config:
    """Return what the config says, nothing where there is none; raises Problem where it cannot be
    read, is unsafe or is not in INI form."""

    # without interpolation, so that % is an ordinary character; a handle keeps its case
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.optionxform = str
    try:
        require_private(path, os.lstat(path))
        descriptor = os.open(path, os.O_RDONLY | PLAIN)
        with open(descriptor, encoding="utf-8-sig") as file:
            require_private(path, os.fstat(descriptor))
            parser.read_file(file)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Problem(CONFIG, f"the config {path} cannot be read: {lower(error)}",
                      f"see who may read it: ls -ld {shlex.quote(path)}") from None
    except UnicodeDecodeError:
        raise Problem(CONFIG, f"the config {path} is not UTF-8 text",
                      f"write it anew, or take it away and {AGAIN}") from None
    except configparser.Error as error:  # whose own words may hold a secret
        line = getattr(error, "lineno", 0) or getattr(error, "errors", [(1,)])[0][0]
        raise Problem(CONFIG, f"the config {path} has an error in line {line}",
                      "it has each [section] once, and name = value lines below") from None
    return Config(path, parser)


def choose(config: Config, wanted: Iterable[str]) -> list[str]:
    """The configured handles which --to names, in any case and with or without '@'; all where it
    names none.  Raises Problem for one that is not there, or that no account could have."""
    known = {handle.lower(): handle for handle in config.recipients}
    names = [name.lstrip("@") for name in wanted]
    for name in names:
        if not re.fullmatch(HANDLE, name) or (known and name.lower() not in known):
            raise Problem(USAGE, f"unknown recipient {name}",
                          "configured are: " + (", ".join(known.values()) or "none yet"))
    return list(dict.fromkeys(known.get(name.lower(), name) for name in names or known))


# ---- pace: a burst becomes a few DMs, inside X's limits ----------------------------------------

LIMITS = ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")
WINDOW_DMS, WINDOW = 15, 900.0  # DMs in so many seconds (docs.x.com, "Rate limits")
DAY_DMS, EASY_DMS = 500, 250  # DMs in a day (X's help pages), and how many of them go with ease
X_LIMIT = "X's limit"  # what is waited for
# seconds to wait after so many failures in a row
RETRY = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0)  # it may pass by itself
SLOW = (60.0, 900.0, 1800.0, 3600.0)  # a person has to act; but one stray refusal was seen


def back_off(steps: tuple[float, ...], failures: int) -> float:
    """Seconds to wait after so many failures in a row, with a little jitter on top, as not all
    hosts should come back at once."""
    seconds = steps[min(failures, len(steps)) - 1]
    return seconds + float(random.uniform(0, min(3.0, seconds / 5)))


def x_time(headers: Mapping[str, str], now: float) -> float:
    """X's clock (seconds since the epoch), as its answer tells it; else ours."""
    import email.utils

    with ignoring(KeyError, TypeError, ValueError, OverflowError, IndexError):
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    return now


def allowances(headers: Mapping[str, str], now: float) -> list[tuple[float, int, float]]:
    """What X's answer says of its limits; for each: how many DMs have to be left for a quick one,
    how many are left, and the seconds until the reset.  What makes no sense is passed over."""
    found, now = [], x_time(headers, now)
    for name in LIMITS:
        with ignoring(KeyError, ValueError):
            left, reset = int(headers[name + "-remaining"]), int(headers[name + "-reset"])
            limit = int(headers.get(name + "-limit", left))
            if 0 <= left < 10**9 and 0 <= limit < 10**9 and now < reset < 10**12:
                found.append((limit * 2 / 3, left, min(reset - now, DAY)))
    return found


def own_count(sent: list[float], now: float, told: bool) -> list[tuple[float, int, float]]:
    """The same of the DMs that we sent (times, oldest first): of X's cap for a day, and where X has
    told nothing of its window, of the one in its docs."""
    found = []
    of_day, of_window = (DAY_DMS, EASY_DMS, DAY), (WINDOW_DMS, WINDOW_DMS * 2 / 3, WINDOW)
    for most, quick, seconds in [of_day] if told else [of_day, of_window]:
        since = [moment for moment in sent if now - seconds < moment <= now]
        if since:
            found.append((float(quick), max(0, most - len(since)), since[0] + seconds - now))
    return found


def round_wait(
    burst: int, dms: int, interval: float, limits: Iterable[tuple[float, int, float]]
) -> tuple[float, str]:
    """Seconds between the `burst`-th round of a burst and the next one, which may take so many
    `dms`, and what they are waited for.  Doubling while enough is left; then a fair share of what
    is left, and never faster than `interval`."""
    wait, why = min(2.0 ** min(burst, 30) - 1, interval), "our own pace"
    for quick, left, seconds in limits:
        if left < dms and seconds > wait:
            wait, why = seconds, X_LIMIT
        elif left > 0 and left - dms < quick:
            wait = max(wait, interval, min(seconds, seconds / left * dms))
    return wait, why


def limit_wait(headers: Mapping[str, str], now: float) -> float:
    """Seconds to wait after a 429: what Retry-After or the resets of what is used up say; a minute,
    if that is over; or else a window's length."""
    told, after = allowances(headers, now), headers.get("retry-after", "")[:12]
    waits = [seconds for _, left, seconds in told if left == 0]
    with ignoring(ValueError):
        waits += [float(after)] * (0 < float(after) <= DAY)
    unknown = WINDOW
    with ignoring(KeyError, ValueError, OverflowError):
        seconds = int(headers["x-rate-limit-reset"]) - x_time(headers, now)
        unknown = seconds if 0 < seconds <= DAY else MINUTE
    unknown = min([unknown, *(seconds for *_, seconds in told)])
    return max(waits, default=unknown)


def seal(data: Any) -> bytes:
    """As JSON with a checksum, so that what a disk or a hand has changed is found to be so."""
    text = json.dumps(data)
    return f'{{"crc32": {binascii.crc32(text.encode())}, "data": {text}}}'.encode()


def unseal(path: str) -> Any:
    """What `seal` made of, out of a file.  Raises OSError, and ValueError where it is damaged."""
    descriptor = os.open(path, os.O_RDONLY | PLAIN)
    with open(descriptor, "rb") as file, ignoring(TypeError, KeyError, RecursionError):
        found = json.loads(file.read())
        if found["crc32"] == binascii.crc32(json.dumps(found["data"]).encode()):
            return found["data"]
    raise ValueError(f"{path} is damaged")


SCOPES = ("", "config", "fault")  # of waits of the whole account: for X, for the config, for us


class Wait:
    """Why all (SCOPES), the next round ("pace") or a recipient (its id) has to wait.

    began, until: seconds since the epoch; status: the exit status that tells of it; failures: in a
    row; error, hint: for a person.
    """

    def __init__(
        self, began: float = 0.0, until: float = 0.0, status: int = 0, failures: int = 0,
        error: str = "", hint: str = "",
    ) -> None:
        self.began, self.until, self.status = began, until, status
        self.failures, self.error, self.hint = failures, error, hint

    def due(self, now: float) -> float:
        """When it is over.  A wait that began in the future is: the clock has jumped."""
        return min(self.until, self.began + DAY) if self.began <= now + 1 else 0.0


class State:
    """What the worker knows beside the queue, and a later one, `send` and `status` want to know.

    started: when the worker was; waits: by scope; sent: when DMs went, for a day; burst: rounds in
    this burst; delivered: when the last DM went; known: for each recipient's id when the newest
    alert was sent that it cannot have had, as it was not in the config; told: of which troubles
    `on_trouble` was told; sought: by recipient the parts, lists of files, that
    a search for a text that X refuses has yet to look at, where a limit ended it.
    """

    def __init__(self, spool: Spool) -> None:
        """Read it; what cannot be read is begun anew."""
        self.spool, self.saved, self.waits = spool, b"", dict[str, Wait]()
        self.started, self.delivered, self.burst = 0.0, 0.0, 0
        self.sent, self.told, self.known = list[float](), list[str](), dict[str, float]()
        self.sought = dict[str, list[list[str]]]()
        with ignoring(OSError, ValueError):
            vars(self).update(unseal(spool.path("state")))
        stored: Any = self.waits
        self.waits = {scope: Wait(*fields) for scope, fields in stored.items()}

    def save(self) -> None:
        """Write it, if that can be: a later worker may have to begin anew."""
        data = seal({
            "started": self.started, "delivered": self.delivered, "burst": self.burst,
            "sent": self.sent, "told": self.told, "known": self.known,
            "sought": self.sought,
            "waits": {scope: list(vars(wait).values()) for scope, wait in self.waits.items()},
        })
        with ignoring(OSError):
            if data != self.saved:
                self.spool.write(data, "state")
                self.saved = data

    def hold(
        self, scope: str, steps: tuple[float, ...], status: int, error: str, hint: str = ""
    ) -> float:
        """Have the account, the round or a recipient wait, by how often it failed in this way.
        Returns the seconds."""
        now, before = time.time(), self.wait(scope)
        failures = before.failures + 1 if before.status == status else 1
        seconds = back_off(steps, failures)
        self.waits[scope] = Wait(now, now + seconds, status, failures, error, hint)
        return seconds

    def wait(self, scope: str) -> Wait:
        return self.waits.get(scope) or Wait()

    def due(self, recipient: str, now: float) -> float:
        """When this recipient may get its next DM."""
        return max(self.wait(scope).due(now) for scope in (*SCOPES, "pace", recipient))

    def worst(self, recipient: str, now: float, since: float = 0.0) -> Wait:
        """What keeps this recipient's alerts from going, as far as it began since then: the worse
        of what is known of the account and of the recipient, or what they wait for longest."""
        waits = [self.wait(scope) for scope in (*SCOPES, recipient, "pace")]
        return max((wait for wait in waits if wait.began >= since), default=Wait(),
                   key=lambda wait: (wait.status, wait.due(now)))


# ---- digest: all that is pending in one DM -----------------------------------------------------

# What a log line may begin with: a priority, a time stamp as syslog, journalctl, Apache, nginx,
# php-fpm or snort write it.
STAMP = (
    r"(?:<\d{1,3}>(?:1 )?)?\[?(?:[A-Z][a-z]{2},? )?"
    r"(?:[A-Z][a-z]{2} [ \d]?\d|\d{4}[-/]\d\d[-/]\d\d|\d\d[-/](?:[A-Z][a-z]{2}|\d\d)(?:[-/]\d{4})?)"
    r"[T :-]\d\d:\d\d:\d\d[\d.,]{0,10}(?:Z|[+-]\d\d:?\d\d)?"
    r"(?: (?:[A-Z]{3,5}|\d{4}|[+-]\d{4})(?=[ \]]))?\]? +"
)
# any number but one that says what a message is about: AH00126 of Apache, [1:2001:3] of snort; whom
# a mail is from and to; the name before an address, which its owner chooses; ids of mail servers
NUMBERS = (
    r"(?ai)(?<==<)[^\s>]+|[\w.-]+(?=\[\d+\.\d)|\b(?![a-z]+\d{1,4}\b)(?=[a-z]*\d)[a-z\d]{11,}\b"
    r"|\b\d[a-z\d]{5}-[a-z\d]{6,11}-[a-z\d]{2,4}\b|(?<!\[\d:)(?<!\[\d{3}:)(?:\b(?:0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]+)\b"
    r"|(?-i:(?<![A-Z]{2}))(?<!\d)[0-9]+)"
)
# a word that always differs: a number, perhaps with a unit, a time, a process id, a hex number
COUNTER = (
    r"(?ai)(?:[\w.-]+[=:]\"?)?(?:\d\d/[a-z]{3}/)?"
    r"(?:(?:[\d.,:+/#-]|(?<=\d)t(?=\d))*\d:?[a-z%]{0,3}(?:/(?:tcp|udp))?"
    r"|@?0x[0-9a-f]+|(?=[a-f]*\d)[0-9a-f]{6,}|audit\([\d.:]+"
    r"|[^\[]*\[\d+\]?|mon|tue|wed|thu|fri|sat|sun)"
)
ADDRESS = (  # IPv4, and IPv6 or MAC
    r"(?ai)(?:[\w.-]+=)?(?:\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?"
    r"|(?=.*[a-f]|.*::)[\da-f]*(?::[\da-f]*){2,}[\d.]*)"
)
PORT_OR_PID = r"\b((?:\d{1,3}\.){3}\d{1,3})[:#]\d+\b|\[\d+\](?=:)"  # behind an address, a program
REPEATED = r"message repeated (\d+) times: \[ ?(.*)"  # of rsyslog

LOOKED_AT = 300  # characters of a text, from which its kind is taken
SETTLED = 20  # alerts of a kind, after which a plain word that is another makes another kind
SIBLINGS = 32  # kinds of one beginning; what is like none of them is counted to the last
VALUES = 40  # different words at one place of which it is counted how often they came
CROWDED = 52  # characters of these, in a DM of more lines than a phone shows at once
RARE = 2  # alerts of a kind that is rare
KINDS = 300  # of which a folded backlog knows how many there were
SAMPLES = 3  # alerts of a kind that are kept to be quoted
HEADS = 2_000  # beginnings of which a folded backlog knows how common they were
SHOWN = 12  # lines up to which more than one alert of a kind is quoted
CUTS = (DM_LIMIT, 2_000, 1_000, 500, 250, 120)  # characters a quoted alert, as many as fit


def after_stamp(text: str) -> str:
    """What is left of a line behind its own time stamp; all of it where it has none."""
    found = re.match(STAMP, text)
    return text[found.end() :] if found else text


def message_of(text: str) -> str:
    """The part of a line from which its kind is taken: what it is about comes first."""
    line = re.sub(r"\[ +", "[", after_stamp(text)[:LOOKED_AT])  # as the kernel's clock is padded
    return str(re.sub(REPEATED, r"\2 \1 times", line))


def beginning(words: list[str]) -> tuple[str, int]:
    """The program and the two words behind it (a line of no program has none), and how many words
    it takes to know them."""
    tag = next((place for place, word in enumerate(words[:3]) if word.endswith(":")), -1)
    # with what auditd says before it: type=USER_LOGIN msg=audit(#):
    program = "".join(word for word in words[: tag + 1]
                      if word.startswith("type=") or word.endswith(":"))
    return " ".join([program, *[*words[tag + 1 : tag + 3], "", ""][:2]]), tag + 3


def columns(line: str) -> dict[str, str]:
    """A line's words, by where they stand: a name=value by its name, wherever it is, another word
    by which of those it is.  A port behind an address and a program's process id are left out."""
    found: dict[str, str] = {}
    plain = 0
    for word in re.sub(PORT_OR_PID, r"\1", line).split():
        name, sign, _ = word.partition("=")
        if not sign or name in found or not re.fullmatch(r"[\w.-]*[^\W\d][\w.-]*", name):
            name, plain = str(plain), plain + 1
        found[name] = word
    return found


class Kind:
    """Alerts of one template.

    words: the template, in which a word that differs is "*"; head, start: its beginning, and where
    that ends; raw: one alert's words, by column;
    values: how often each word came in a column, once they differ; count, first, last: how many,
    and when (seconds since the epoch); samples: the first few of those whose files are there;
    names: of all these files.
    """

    def __init__(
        self, words: list[str], raw: dict[str, str], values: dict[str, dict[str, int]], count: int,
        first: float, last: float,
    ) -> None:
        self.words, self.raw, self.values = words, raw, values
        self.head, self.start = beginning(words)
        self.count, self.first, self.last = count, first, last
        self.samples: list[Alert] = []
        self.names: list[str] = []

    def take(self, other: Kind) -> None:
        """Count in a kind that is like this one."""
        for column in list({**self.raw, **other.raw})[:LOOKED_AT]:
            word, first = other.raw.get(column, ""), self.raw.setdefault(column, "")
            if word != first or column in self.values or column in other.values:
                # up to now all had the first one's word; "" stands for those without a place
                seen = self.values.setdefault(column, {first: self.count} if first else {})
                its = other.values.get(column, {word: other.count} if word else {})
                full = "" in seen
                for value, times in its.items():
                    known = value in seen or not full and len(seen) < VALUES
                    seen[value * known] = seen.get(value * known, 0) + times
                for value in seen.keys() - its.keys() if "" in its else ():  # they may be in there
                    seen[""] += seen.pop(value)
        self.words = [word if word == its else "*" for word, its in zip(self.words, other.words)]
        self.count += other.count
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.samples = (self.samples + other.samples)[:SAMPLES]
        self.names += other.names

    def message(self) -> list[str]:
        """The template without its program, without numbers and without what is name=value."""
        words = list(zip(self.words, self.raw))[self.start - 2 :]
        return [word for word, column in words
                if column.isdecimal() and not re.fullmatch(r"[^\w*]*#[\W#]*", word)]

    def differing(self, crowded: bool) -> str:
        """What an administrator would look for in those that are not quoted: services, addresses,
        users, and how often each.  In a crowded DM there are fewer."""
        parts: list[str] = []
        quoted = columns(message_of(self.samples[0].text))
        for column in filter(self.values.get, self.raw):
            seen, label = self.values[column], column
            if column.isdecimal():  # the word before it, if all have that one; a program has none
                before = str(int(column) - 1)
                label = "" if before in self.values else self.raw.get(before, "")
                label = label * (label.isalpha() and self.raw[column][-1:] != ":")
            first = quoted.get(column)
            first = "" if first and first not in seen else first  # it is among the others
            times = {word: count - (word == first) for word, count in seen.items()}
            told_of = (word for word in times if times[word] and word not in ("", label + "="))
            words = sorted(told_of, key=lambda word: -times[word])
            counters = [word for word in words if re.fullmatch(COUNTER, bare(word))
                        and not re.fullmatch(ADDRESS, bare(word))]
            if not words or 2 * len(counters) > len(words):
                continue
            many = len(seen) >= VALUES and times[words[0]] == 1
            if len(parts) < 3 and (label or not many and (not parts or not crowded)):
                told: list[str] = []
                for word in words[:8]:
                    if len(", ".join(told)) < (CROWDED if crowded else DM_LIMIT):
                        value = word[len(label) + 1 :] if word.startswith(f"{label}=") else word
                        value = bare(value).partition("(")[0] or bare(value)
                        told.append(value + f" ×{times[word]:,}" * (times[word] > 1))
                others = sum(times.values()) - sum(times[word] for word in words[: len(told)])
                told += [plural(others, "other")] * (others > 0)
                parts.append(f"{bare(label)} {', '.join(told)}".strip())
        return "; ".join(parts)


def likeness(words: list[str], others: list[str]) -> float:
    """How many words of a message are those of another, as long as it: most, if it is of the same
    kind."""
    pairs = list(zip(words, others))
    # what ends a part of the message is no value: "1 failure;" and "2 failures;", nor is "AH00126:"
    if any(word != other and (word[-1] == ";" and "=" not in word
                              or word[-1] in ":]" and re.search(r"\d", word))
           for word, other in pairs):
        return 0.0
    return sum(word == other for word, other in pairs) / len(pairs) if pairs else 1.0


def is_odd(words: list[str], settled: list[list[str]]) -> bool:
    """Whether a message has another plain word where all of the settled kinds have the same."""
    return any(len(set(known)) == 1 and known[0] not in (word, "*")
               and re.fullmatch(r"(?:res=)?\W*[A-Za-z]+\W*", word)
               and not re.fullmatch(COUNTER, bare(word))  # as Sun is
               for word, known in zip(words, zip(*settled)))


def joined(kinds: list[Kind]) -> list[Kind]:
    """The kinds for a DM of more lines than a phone shows at once: those of one message are one,
    whichever program says it and what name=value is in it; rare ones only where nothing but a word
    of the message differs."""
    groups: list[list[Kind]] = []
    known: dict[tuple[object, ...], list[tuple[list[str], list[Kind]]]] = {}
    for kind in kinds:
        message = kind.message()
        common = message and kind.count > 1
        key = (len(message), kind.start, *message[:2])
        alike = known.setdefault(key, []) if common else []
        for its, group in alike[:SIBLINGS]:
            first, few = group[0], min(kind.count, group[0].count) <= RARE
            same = kind.head == first.head and kind.raw.keys() == first.raw.keys()
            if (same or not few) and likeness(message[2:], its[2:]) >= 0.5:
                group.append(kind)
                break
        else:
            groups.append([kind])
            alike.append((message, groups[-1]))
    totals = []
    for first, *more in groups:
        total = Kind(first.words, dict(first.raw), {}, 0, first.first, first.last)
        for kind in (first, *more):
            total.take(kind)
        totals.append(total if more else first)
    return totals


def bare(word: str) -> str:
    """A word without the punctuation around it, and cut; with nothing in it of our own list."""
    word = re.sub("[×;\u2800\u3164]", "?", word.strip("()[]{}<>,;:\"'.*#") or word)
    return str(word[:60])


class Digest:
    """Alerts by kind, so many that memory and disk stay bounded whatever the lines hold.

    kinds: as they came; heads: how often each beginning came; rest: alerts of kinds for which a
    long backlog has no room: how many, of how many kinds, the first and the last; to: the handles
    that alerts name; counted: files that the folded backlog counts; folded: its name, where it is
    part of this.
    """

    def __init__(self) -> None:
        self.kinds: list[Kind] = []
        self.heads: dict[str, int] = {}
        self.rest: list[Any] = [0, 0, time.time() + DAY, 0.0]
        self.to: list[str] = []
        self.counted: list[str] = []
        self.folded: list[str] = []
        self.index: dict[tuple[int, int, str], list[Kind]] = {}

    @property
    def count(self) -> int:
        return int(self.with_rest(self.kinds)[0])

    @property
    def first(self) -> float:
        return float(self.with_rest(self.kinds)[2])

    def names(self) -> list[str]:
        """The files that it was made of, those of a kind together."""
        return self.folded + [name for kind in self.ranked() for name in kind.names]

    def add(self, alert: Alert) -> None:
        """Count an alert in.  Its kind is that of lines of the same length and the same beginning
        of which most other words are equal, numbers always (as Drain has it: He et al., ICWS 2017).
        """
        line = message_of(alert.text)
        words = re.sub(NUMBERS, "#", line).split()
        kind = Kind(words, columns(line), {}, 1, alert.sent, alert.sent)
        kind.samples, kind.names = [alert], [alert.name]
        self.heads[kind.head] = self.heads.get(kind.head, 0) + 1
        self.to += [handle.lower() for handle in alert.to if handle.lower() not in self.to]
        alike = self.alike(kind)
        message, full = words[kind.start :], len(alike) >= SIBLINGS
        settled = [other.words[kind.start :] for other in alike if other.count >= SETTLED]
        odd = not full and is_odd(message, settled)
        like, nearest = max(((likeness(message, other.words[kind.start :]), other)
                             for other in alike if not odd or other.count < SETTLED),
                            key=lambda it: it[0], default=(0.0, None))
        if nearest is not None and (like > 0.5 or full):
            nearest.take(kind)
        else:
            self.kinds.append(kind)
            alike.append(kind)

    def alike(self, kind: Kind) -> list[Kind]:
        """The kinds of this one's length and beginning."""
        plain = sum(map(str.isdecimal, kind.raw))
        return self.index.setdefault((len(kind.words), plain, kind.head), [])

    def ranked(self) -> list[Kind]:
        """The kinds, the rarest first.  Rare is what has a rare beginning, which an attacker does
        not choose; of equally rare ones what is of a program with few beginnings, as where he
        does choose it, each line has its own."""
        by_word: dict[str, int] = {}
        by_program: dict[str, int] = {}
        for head, count in self.heads.items():
            word = head.rpartition(" ")[0]
            by_word[word] = by_word.get(word, 0) + count
        for word in by_word:
            program = word.partition(" ")[0]
            by_program[program] = by_program.get(program, 0) + 1

        def rarity(kind: Kind) -> tuple[float, ...]:
            word, program = kind.head.rpartition(" ")[0], kind.head.partition(" ")[0]
            return (self.heads.get(kind.head, 0), by_word.get(word, 0), by_program.get(program, 0),
                    kind.count, len(kind.raw) // 25, kind.first)

        return sorted(self.kinds, key=rarity)

    def with_rest(self, kinds: list[Kind]) -> list[Any]:
        """The rest, with these kinds in it."""
        count, number, first, last = self.rest
        return [count + sum(kind.count for kind in kinds), number + len(kinds),
                min([first, *(kind.first for kind in kinds)]),
                max([last, *(kind.last for kind in kinds)])]

    def shown(self) -> set[str]:
        """The files of the alerts that a DM would quote."""
        return {alert.name for place, kind in enumerate(fit(self.ranked(), DM_LIMIT)[1])
                for alert in kind.samples[: SAMPLES if place < SHOWN else 1]}

    def dump(self, counted: list[str]) -> bytes:
        """How many there are of what, but no alert's text; with the files that it counts."""
        ranked = self.ranked()
        common = sorted(self.heads, key=lambda head: -self.heads[head])[:HEADS]
        heads = {head: self.heads[head] for head in common}
        return seal([counted, self.to, self.with_rest(ranked[KINDS:]), heads, [
            [kind.words, kind.raw, kind.values, kind.count, kind.first, kind.last]
            for kind in ranked[:KINDS]]])

    def load(self, path: str) -> None:
        """Take in what `dump` made, before all else.  Raises OSError and ValueError."""
        self.counted, self.to, self.rest, self.heads, kinds = unseal(path)
        self.kinds, self.folded = [Kind(*fields) for fields in kinds], [FOLDED]
        for kind in self.kinds:
            self.alike(kind).append(kind)


def quote(start: str, alert: Alert, room: int) -> str:
    """An alert's text behind `start`, in at most `room` characters; what had to be cut is told.
    All lines but the first are indented, so that text cannot pass for an entry of the DM."""
    text = start + alert.text.replace("\n", "\n    ")
    if not alert.cut and len(text) <= room:
        return text
    kept = text[: max(0, room - 40)].rstrip("\n ")  # not within an indent
    gone = alert.cut + len(alert.text) - len(kept[len(start) :].replace("\n    ", "\n"))
    return f"{kept} […{max(gone, 1):,} characters cut]"


def entry(kind: Kind, samples: int, room: int, now: float) -> list[str]:
    """A kind's part of a digest: up to `samples` alerts quoted, the others counted, with what
    differs in them."""
    shown = kind.samples[: samples if kind.count <= len(kind.samples) else 1]
    if len({alert.text for alert in shown}) == 1:
        shown = shown[:1]
    entries = []
    for alert in shown:
        stamped = after_stamp(alert.text) != alert.text
        entries.append(quote("" if stamped else clock(alert.sent, now) + " ", alert, room))
    if kind.count > len(shown):
        differing = kind.differing(crowded=samples == 1)
        entries.append(f"  {kind.count - len(shown):,} more like this, last {clock(kind.last, now)}"
                       + f": {differing}" * (0 < len(differing) <= room))
    return entries


def fit(
    ranked: list[Kind], room: int, now: float = 0.0
) -> tuple[list[str], list[Kind], list[Kind]]:
    """The lines that tell of kinds in at most `room` characters; the kinds of which they do, and
    those that are left: where not all fit, each is cut before one is left out."""
    ranked = sorted(ranked, key=lambda kind: not kind.samples)  # what cannot be quoted is left
    fewer = joined(ranked)
    forms = ((ranked, SAMPLES, SHOWN), (fewer, 1, room))
    for each, (kinds, samples, most) in ((each, form) for each in CUTS for form in forms):
        lines: list[str] = []
        left, told = room, 0
        for kind in kinds:
            more = entry(kind, samples, min(each, room), now) if kind.samples else []
            left -= sum(len(line) + 1 for line in more)
            if not more or left < 0 or len(lines) + len(more) > most:
                break
            lines += more
            told += 1
        if not any(kind.samples for kind in kinds[told:]):
            break
    return lines, kinds[:told], kinds[told:]


def compose(digest: Digest, host: str, now: float) -> str:
    """Return the one DM, of at most DM_LIMIT characters, in which each alert is quoted or counted.

    The rarest kinds come first and stay when not all fit, so that a storm cannot drown the one line
    that differs.  `host`: the label; "": that of the machine where the alert was sent.  `now`:
    seconds since the epoch.
    """
    quotable = [alert for kind in digest.kinds for alert in kind.samples]
    hosts = {host or alert.host for alert in quotable}
    label = ", ".join(sorted(hosts)[:3]) or host or short_host_name()
    if digest.count == len(quotable) == 1:
        alert = quotable[0]
        rest = after_stamp(alert.text)
        name = rest.partition(" ")[0]
        named = rest != alert.text and label in (name, name.partition(".")[0])
        head = " ".join([label] * (not named) + [clock(alert.sent, now)] * (rest == alert.text))
        return quote(f"[{head}] " if head else "", alert, DM_LIMIT)
    count, _, first, last = digest.with_rest(digest.kinds)
    head = f"[{label}] {plural(count)}, {clock(first, now)} to {clock(last, now)}"
    lines, _, left = fit(digest.ranked(), DM_LIMIT - len(head) - 120, now)
    count, kinds, _, last = digest.with_rest(left)
    if count:
        others = plural(kinds, "other kind")
        lines.append(f"and {count:,} more of {others}, last {clock(last, now)}")
    return "\n".join([head, *lines])


# ---- X: every call bounded, every answer understood --------------------------------------------

PORTAL = "in X's developer portal (console.x.com)"
CALLBACK = PORTAL + ", in the app's user authentication settings, set any callback URL"
PERMISSION = (
    PORTAL + ", in the app's user authentication settings, choose 'Read, write, and Direct"
    " Messages', save, then run: bird_sentinel authorize"
)
LEVELS = ("read-write-directmessages", "")  # of access tokens, that may do; "": X does not tell
UNCLEAR = "X's answer cannot be read"
UNWILLING = "ask them to send the sentinel's account a DM first, or to accept message requests"
CREDITS = "buy credits " + PORTAL
MEANINGS: tuple[tuple[tuple[int | str, ...], str, str, str], ...] = (
    # codes of X, or a title, a reason or the end of a type (in small letters); the kind; what it
    # means; what to do (docs.x.com, "Response codes and errors", and what was seen in the field)
    ((344,), "cap", "X's limit of DMs for a day is reached", ""),
    (("usage-capped", "usagecapexceeded"), "cap", "the app's cap of the month on X is used up",
     "raise the cap " + PORTAL),
    ((88, "too many requests"), "limit", "X's rate limit is reached", ""),
    ((135,), "account", "X rejects our signature because this machine's clock is wrong",
     "set the clock, as with: timedatectl set-ntp true"),
    ((89,), "account", "our access token is invalid or was revoked", AGAIN),
    ((32, 215, "unauthorized"), "account", "X does not accept our keys", AGAIN),
    ((93, "oauth1-permissions"), "account", "the app has no permission to send DMs", PERMISSION),
    ((64,), "account", "the sentinel's account is suspended", "log in to it on x.com to appeal"),
    ((326,), "account", "the sentinel's account is locked", "log in to it on x.com to unlock it"),
    ((226,), "account", "X takes our DMs for automated spam",
     "log in to the sentinel's account on x.com, and have the recipients write to it first"),
    ((261,), "account", "X has barred the app from writing", "see what X's developer portal says"),
    ((453, "client-not-enrolled", "client-forbidden", "unsupported-authentication"), "account",
     "the app has no access to this part of X's API",
     PORTAL + ", move the app to the pay-per-use, production environment"),
    (("spendcapreached",), "account", "the app's spending cap on X is reached",
     "it holds until the next billing cycle; see X's developer portal (console.x.com)"),
    (("creditsdepleted", "credits"), "account", "the app's credits on X are used up", CREDITS),
    ((415,), "account", "the app has no callback URL that allows a PIN", CALLBACK),
    ((417,), "account", "the app has no callback URL", CALLBACK),
    ((349, 150, 476), "recipient", "the recipient does not accept DMs from the sentinel's account",
     UNWILLING),
    ((108, 50, 63, "resource-not-found"), "recipient",
     "the recipient's account does not exist on X, or is suspended",
     f"have the id looked up again: {LOOK_UP} HANDLE"),
    # where X gives no reason that is known
    (("http 401",), "account", "X does not accept our keys", AGAIN),
    (("http 402",), "account", "the app's credits on X are used up", CREDITS),
    (("http 429",), "limit", "X's rate limit is reached", ""),
)
PHRASES = ("you do not have permission to dm", "this operation is not permitted")


class Outcome:
    """What an answer means.

    kind: delivered, retry (it may pass by itself), limit, cap (a limit without a known end),
    account, recipient (a person has to act), unclear (it may be the text, the recipient or the
    account), held (X was not asked); words, hint: for a person; said: X's own words.
    """

    def __init__(self, kind: str, words: str = "", hint: str = "", said: str = "") -> None:
        self.kind, self.words, self.hint = kind, words, hint
        self.error = f"{words} (X says: {said})" if said else words
        statuses = {"delivered": DELIVERED, "retry": KEPT, "limit": KEPT, "cap": KEPT}
        self.status = statuses.get(kind, REFUSED)


class Answer:
    """What came back from a call to X: `headers` in small letters.  Status 0: nothing did, and
    `why` says the reason."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str, why: str = "") -> None:
        self.status, self.headers, self.body, self.why = status, headers, body, why

    def json(self) -> Any:
        """What the body says, None where it is no JSON, so that it is not X which says it."""
        with ignoring(ValueError, RecursionError):
            return json.loads(self.body.encode("latin-1"))


def bounded(call: Callable[[], Any], seconds: int = CALL) -> Any:
    """Return what `call` does (something that JSON can hold), or None if it took too long.

    It runs in a child process which the kernel ends when its time is up: that also bounds what has
    no time-out of its own, such as a name look-up, a server that trickles, or a syslog that nobody
    reads.  Raises OSError where no process can be started.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.closerange(3, writer)  # should we be killed, it must not hold our lock and trigger
            os.closerange(writer + 1, 256)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
            signal.alarm(seconds)
            os.write(writer, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    with ignoring(ChildProcessError):  # where the caller ignores SIGCHLD
        os.waitpid(child, 0)
    with ignoring(ValueError):
        return json.loads(data)


def import_tweepy() -> Any:
    """Return the module tweepy; raises Problem where it is missing or too old."""
    try:
        import tweepy  # type: ignore[import-untyped]

        if not hasattr(tweepy.Client, "create_direct_message"):
            raise ImportError(f"version {tweepy.__version__} is too old")
        return tweepy
    except Exception as error:  # of one of its own modules too, when two do not fit
        hint = f"install it for {sys.executable}, in a virtual environment; see the README, Install"
        raise Problem(CONFIG, f"tweepy cannot be used ({error})", hint) from None


def ask_x(config: Config, action: Callable[[Any, Callable[..., None]], Any]) -> Answer:
    """Have tweepy do something and return X's answer as it came, whatever tweepy makes of it.
    `action` takes the module, and a hook that is to hear of each answer; where the hook heard none,
    what it returns is the body.  Bounded in time; raises Problem."""
    tweepy = import_tweepy()

    def call() -> list[Any]:

        os.environ.update(config.surroundings())
        sys.modules["requests.sessions"].DEFAULT_REDIRECT_LIMIT = 0  # type: ignore[attr-defined]
        answers: list[list[Any]] = []

        def hear(response: Any, **_: Any) -> None:
            headers = {name.lower(): value for name, value in response.headers.items()}
            answers.append([response.status_code, headers, "", ""])
            answers[-1][2] = response.content[:100_000].decode("latin-1")

        try:
            answers.append([200, {}, json.dumps(action(tweepy, hear)), ""])
        except Exception as error:  # what tweepy thinks of an answer does not matter
            cause: Any = error
            while cause.args and isinstance(cause.args[0], Exception):  # tweepy wraps it, twice
                cause = cause.args[0]
            response = getattr(cause, "response", None)
            if not answers and hasattr(response, "headers"):
                hear(response)
            answers.append([0, {}, "", reason(cause)])
        return answers[0]

    try:
        return Answer(*(bounded(call) or [0, {}, "", f"no answer within {CALL} seconds"]))
    except OSError as error:
        return Answer(0, {}, "", f"no process can be started ({lower(error)})")


def ask_as_account(config: Config, method: str, **arguments: Any) -> Answer:
    """Call a method of tweepy's Client, with the keys of the account."""

    def action(tweepy: Any, hear: Callable[..., None]) -> None:
        client = tweepy.Client(**{name: config.account[name] for name in KEYS})
        client.session.hooks["response"] = [hear]
        getattr(client, method)(user_auth=True, **arguments)

    return ask_x(config, action)


def reason(error: BaseException) -> str:
    """Why there was no answer, in words of ours: a library's may hold a proxy's password."""
    for pattern, words in (
        (r"Tunnel connection failed: (\d{3}[ \w-]{0,40})", "the proxy refuses the connection ({})"),
        (r"CA certificate bundle",
         "the file with the CA certificates (ca_bundle, REQUESTS_CA_BUNDLE) is missing"),
        (r"SSL|certificate", "its TLS certificate cannot be verified"),
        (r"\[Errno -?\d+\] ([\w ,'-]+)", "{}"),
        (r"^(?:InvalidURL|InvalidSchema|InvalidProxyURL|ProxySchemeUnknown|LocationParseError)",
         "the address of the proxy is malformed, or of a kind that cannot be used"),
    ):
        found = re.search(pattern, f"{type(error).__name__} {error}")
        if found:
            proxy = "the proxy: " * (words == "{}" and "ProxyError" in str(error))
            return proxy + words.format(*found.groups()).strip().lower()
    return f"no answer ({type(error).__name__})"


def complaints(answer: Any) -> tuple[set[str], list[str]]:
    """From an answer in the v1.1 or the v2 form: X's codes, titles, reasons and ends of types, in
    small letters; and its sentences."""
    errors = answer.get("errors") if isinstance(answer, dict) else None
    parts = [part for part in [answer, *(errors if isinstance(errors, list) else [])]
             if isinstance(part, dict)]
    marks = {str(part.get(name)).rpartition("/")[2].lower() for part in parts
             for name in ("code", "title", "reason", "type")}
    sentences = [str(part[name]) for part in parts for name in ("detail", "message", "title")
                 if name in part]
    return marks, sentences


def judge(answer: Answer, account: Mapping[str, str], now: float) -> Outcome:
    """Say what X's answer means; the account's secrets are taken out of its words."""
    status, body = answer.status, answer.json()
    if status == 201 or (200 <= status < 300 and isinstance(body, dict) and "data" in body):
        return Outcome("delivered")
    if status == 0 or status >= 500:
        return Outcome("retry", f"X cannot be reached: {answer.why}" if status == 0
                       else f"X has a fault of its own (HTTP {status})")
    if status != 429 and (status < 400 or body is None):
        return Outcome("retry", f"something else answers in the place of X (HTTP {status})")
    marks, sentences = complaints(body)
    if status == 429:  # whatever else it says
        marks &= {"344", "usage-capped", "usagecapexceeded"}
    minutes = round((now - x_time(answer.headers, now)) / MINUTE)
    if status == 401 and abs(minutes) >= 2:
        off = f"{abs(minutes):,} minutes {'ahead of' if minutes > 0 else 'behind'} X's"
        return Outcome("account", f"X does not accept our signature: this machine's clock is {off}",
                       "set the clock, as with: timedatectl set-ntp true")
    if {"151", "187"} & marks and any(
        words.lower().endswith("you already said that.") for words in sentences
    ):
        return Outcome("delivered")
    if "user-suspended" in marks:  # ours, if it names us
        ours = {account.get("screen_name", "").lower(), "authentication"}
        told = re.findall(r"\w+", " ".join(sentences).lower())
        marks.add("63" if ours.isdisjoint(told) else "64")
    if any(words.lower().startswith(PHRASES) for words in sentences):
        marks.add("349")
    marks.add(f"http {status}")
    for known, kind, words, hint in MEANINGS:
        if not marks.isdisjoint(map(str, known)):
            return Outcome(kind, words, hint)
    said = clean("; ".join(dict.fromkeys(sentences))).replace("\n", " ")
    for secret in filter(None, map(account.get, KEYS)):
        said = said.replace(secret, "…")
    return Outcome("unclear", f"X refuses it for a reason of its own (HTTP {status})",
                   f"have the id looked up again ({LOOK_UP} HANDLE), or see the app's state "
                   + PORTAL, said[:200])


# ---- worker: one at a time, detached, while the queue is not empty -----------------------------

LATE = 300.0  # seconds after which alerts that wait for X are a trouble
TRIES = 3  # failures of a text after which it may be its own fault
PARTS = 10  # refusals in a row, after which alerts of one kind are no longer halved


def report(message: str) -> None:
    """Tell syslog.  Never an alert's text: a watched syslog must not feed itself."""
    syslog.openlog("bird_sentinel", syslog.LOG_PID, syslog.LOG_DAEMON)  # nothing is sent yet
    with ignoring(OSError):
        bounded(lambda: syslog.syslog(message), 2)


def run_command(command: str, text: str) -> None:
    """Run a command of the administrator's, with a text on its standard input; bounded in time.
    Raises OSError where no process can be started, so that syslog cannot be told either."""
    null = subprocess.DEVNULL
    shell = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=null,
                             stderr=null, start_new_session=True)
    with ignoring(subprocess.TimeoutExpired):
        shell.communicate(text.encode(errors="replace"), timeout=30)
    if shell.poll() is None:
        os.killpg(shell.pid, signal.SIGKILL)
    if shell.wait():
        report(f"on_trouble failed with exit status {shell.returncode}")


class Worker:
    """The one process that moves alerts on, and alone writes `state` and `trouble`."""

    def __init__(self, config_path: str, spool: Spool) -> None:
        self.config_path, self.spool, self.state = config_path, spool, State(spool)
        self.config = Config(config_path, {})  # as it was read last
        self.answer = Answer(0, {}, "")  # X's last
        self.posted = 0  # DMs that X took in this look
        self.noted = b""  # what was written to `trouble`
        self.state.started = time.time()
        for name in spool.names("tmp"):  # what a process left that was killed while it wrote
            with ignoring(OSError):
                if os.stat(spool.path("tmp", name)).st_mtime < time.time() - DAY:
                    os.unlink(spool.path("tmp", name))

    # -- looking

    def look(self) -> float | None:
        """Do what is due.  Returns the seconds until there is more to do, None where nothing is
        pending.  Whatever goes wrong is told, and what is pending goes on being tried."""
        paused = self.state.wait("fault").due(time.time()) - time.time()
        if paused > 0:
            return paused
        before = self.state.wait("config").error
        try:
            wait = self.work()
            self.state.waits.pop("fault", None)
        except Problem as problem:
            if before != problem.message:
                report(problem.message)
            self.state.hold("config", (0.0,), CONFIG, problem.message, problem.hint)
            self.state.waits.pop("fault", None)
            wait = MINUTE
        except Exception as error:
            words = f"the worker failed: {type(error).__name__}: {lower(error)}"
            wait = self.state.hold("fault", RETRY[2:7], KEPT, words,
                                   "if it lasts, please report it")
            report(f"the worker failed ({type(error).__name__}), trying again")
        with ignoring(Exception):  # what is wrong here is not worse than what it tells of
            self.tell_of_trouble()
        return wait

    def work(self) -> float | None:
        """Distribute what was accepted, and make the round that is due.  Raises Problem where a
        person has to act before that can be."""
        if not self.pending():
            return None
        date = 0
        with ignoring(OSError):
            date = os.stat(self.config_path).st_ctime_ns  # before it is read
        self.config = config = read_config(self.config_path).check()
        with ignoring(OSError):
            os.utime(self.spool.path("lock"), ns=(date, date))  # see found_good
        try:
            self.distribute(config)
        finally:  # what is distributed goes, even where a disk takes nothing any more
            import_tweepy()
            self.state.waits.pop("config", None)
            self.round(config)
        now = time.time()
        waits = [max(0.0, self.state.due(who, now) - now) for who in self.waiting()]
        return min(waits, default=MINUTE if self.pending() else None)

    def round(self, config: Config) -> None:
        """Give all they have not got to those who may get it now."""
        now, self.posted = time.time(), 0
        due = [who for who in self.waiting() if self.state.due(who, now) <= now]
        try:
            for recipient in due:
                self.deliver(config, recipient)
        finally:
            if self.posted:
                self.pace(config, len(due))

    def waiting(self) -> list[str]:
        """The configured ids for which something is pending, the longest waiting first, so that
        nobody starves where not all get theirs."""
        ids = self.config.recipients.values()
        found = sorted((names[:1], recipient) for recipient, names in self.spool.pending().items())
        return [recipient for names, recipient in found if names and recipient in ids]

    def pending(self) -> bool:
        """Whether there is anything to move on, distributed or not."""
        return any(self.spool.pending().values())

    def distribute(self, config: Config) -> None:
        """Give each recipient its own link to what was accepted, and fold what is too much."""
        ids, more = set(config.recipients.values()), True
        # who is new has had nothing of what is distributed; no clock tells that for sure
        now = max((sent_at(name, time.time() + DAY) for who in self.spool.names("to")
                   for name in self.spool.names("to", who)), default=0.0)
        for recipient in ids:
            make_directory(self.spool.clear(stat.S_ISDIR, "to", recipient))
        self.state.known = {who: self.state.known.get(who, now) for who in ids}
        for gone in set(self.spool.names("to")).difference(ids):
            self.readdress(config, gone)
        self.state.waits = {scope: wait for scope, wait in self.state.waits.items()
                            if scope in ids or not scope.isdecimal()}
        while more:
            more = self.spool.distribute(config.recipients)
            for recipient in ids:
                if len(self.spool.names("to", recipient)) > FOLD:
                    self.fold(recipient)

    def readdress(self, config: Config, gone: str) -> None:
        """What is pending for somebody who is no longer configured goes to those who cannot have
        had it: who was configured later, or all, where it was for nobody else."""
        handles = {handle.lower() for handle in config.recipients}
        for name in self.spool.names("to", gone):
            digest = self.gather(gone, [name])
            alone = name == FOLDED or handles.isdisjoint(digest.to)
            for handle, recipient in config.recipients.items():
                his = not digest.to or handle.lower() in digest.to
                if alone and digest.to or his and self.state.known[recipient] >= digest.first:
                    try:
                        os.link(self.spool.path("to", gone, name),
                                self.spool.path("to", recipient, name))
                        sync_directory(self.spool.path("to", recipient))
                    except FileExistsError:  # from before a crash; or a second backlog
                        if name == FOLDED:
                            told = compose(digest, "", time.time())
                            whom = [config.handle(recipient)]
                            self.spool.add(Alert(told, time.time(), short_host_name(), whom))
            self.remove(gone, name)
        with ignoring(OSError):
            os.rmdir(self.spool.path("to", gone))

    def remove(self, recipient: str, name: str) -> None:
        """Remove what needs nothing more.  Where that cannot be, as on a disk that has become
        read-only, nothing goes for an hour: or it would go again and again."""
        try:
            with ignoring(FileNotFoundError):
                os.unlink(self.spool.path("to", recipient, name))
        except OSError as error:
            self.stop(recipient, error)

    def stop(self, recipient: str, error: OSError) -> None:
        """Have nothing go for an hour, as what went cannot be told from what did not."""
        words = f"what X was given cannot be removed from the queue: {lower(error)}"
        scope = recipient * (recipient in self.config.recipients.values())
        self.state.hold(scope, SLOW[-1:], KEPT, words, "mend the disk or its directory")

    def gather(self, recipient: str, names: Iterable[str]) -> Digest:
        """What is in these files of a recipient."""
        digest = Digest()
        for name in sorted(names, key=lambda name: (name != FOLDED, name)):
            if name in digest.counted:  # from before a crash
                self.remove(recipient, name)
            else:
                self.spool.count_in(digest, recipient, name)
        return digest

    def fold(self, recipient: str) -> None:
        """Count what the next DM would not quote into one file: memory and disk stay bounded."""
        names = self.spool.names("to", recipient)
        quoted = self.gather(recipient, names).shown()
        rest = self.gather(recipient, set(names) - quoted)
        names = [name for name in rest.names() if name != FOLDED]
        with ignoring(OSError):  # a full disk: then the next DM is made of all the files
            self.spool.write(rest.dump(names), "to", recipient, FOLDED)
            for name in names:
                self.remove(recipient, name)

    # -- delivering

    def post(self, config: Config, recipient: str, text: str) -> Outcome:
        """Give one DM to X, unless the account has to wait."""
        if self.state.wait("").due(time.time()) > time.time():
            return Outcome("held")
        self.answer = ask_as_account(config, "create_direct_message",
                                     participant_id=recipient, text=text)
        now = time.time()
        outcome = judge(self.answer, config.account, now)
        if outcome.kind == "delivered":
            self.posted, self.state.delivered = self.posted + 1, now
            self.state.sent = [m for m in self.state.sent if now - DAY < m <= now] + [now]
            self.state.waits.pop("", None)
            used_up = [s for _, left, s in allowances(self.answer.headers, now) if left == 0]
            if used_up:
                self.state.hold("", (max(used_up),), 0, X_LIMIT)
        return outcome

    def deliver(self, config: Config, recipient: str) -> None:
        """Give a recipient all it has not got, in one DM.

        Where it may be the text that X refuses, a plain notice in its place tells.  If that is
        taken, what X will not take is sought by halving: all else goes, in parts, and it is put
        aside as refused.
        """
        sought = self.state.sought.get(recipient, [])
        fresh = set(self.spool.names("to", recipient)).difference(*sought)
        parts = [newest := self.gather(recipient, fresh)]
        parts += [self.gather(recipient, names) for names in sought]
        # aside: the beginning of what was put aside since X took anything
        proved, refusals, aside = False, 0, ""
        while parts:
            part = parts.pop(0)
            if not part.count:
                continue
            if proved:
                self.state.sought[recipient] = [it.names() for it in (part, *parts)]
            outcome = self.post(config, recipient, compose(part, config.host, time.time()))
            if outcome.kind == "delivered":
                self.settle(config, recipient, part, "delivered in one DM")
                refusals, aside = 0, ""
                continue
            often = proved or self.state.wait(recipient).failures + 1 >= TRIES
            if outcome.kind != "unclear" and not (outcome.kind == "retry" and often):
                return self.defer(config, recipient, outcome)
            refusals += 1
            head = part.kinds[0].head if part.kinds else FOLDED
            if not proved or aside not in ("", head):  # or does X take nothing by now?
                told = self.post(config, recipient, notice(part, config))
                if told.kind != "delivered":
                    return self.defer(config, recipient, told)
                proved, aside = True, ""
            names, one_kind = part.names(), len(part.kinds) == 1
            if middle := len(names) // 2 if refusals <= PARTS or not one_kind else 0:
                halves = [self.gather(recipient, half) for half in (names[:middle], names[middle:])]
                # first, all else goes, and who adds to what is refused does not keep it back
                late = one_kind or bool(sought) and part is newest
                parts = parts + halves if late else halves + parts
                continue
            # of many the newest, alone, tells whether all are like it
            one = self.gather(recipient, names[-1:])
            again = self.post(config, recipient, compose(one, config.host, time.time()))
            if again.kind == "delivered":  # they are not, or it was a passing fault
                self.settle(config, recipient, one, "delivered in one DM")
                parts.append(self.gather(recipient, names[:-1]))
                refusals = 0
            elif again.kind != outcome.kind or (
                again.kind == "retry"
                and self.post(config, recipient, notice(part, config)).kind != "delivered"
            ):  # by now X takes nothing
                return self.defer(config, recipient, again)
            else:
                try:
                    self.put_aside(config, recipient, part, again)
                except OSError as error:
                    return self.stop(recipient, error)
                aside = head
        self.state.sought.pop(recipient, None)

    def settle(self, config: Config, recipient: str, part: Digest, what: str) -> None:
        """Remove what needs nothing more, and tell of it."""
        self.state.waits.pop(recipient, None)
        self.state.save()  # first: it is by this that a `send` which waits knows
        for name in part.names():
            self.remove(recipient, name)
        report(f"{plural(part.count)} for @{config.handle(recipient)}: {what}")

    def put_aside(self, config: Config, recipient: str, part: Digest, outcome: Outcome) -> None:
        """Keep alerts that X refuses where a person can read them, out of the way of the others.
        Raises OSError."""
        why = f"for @{config.handle(recipient)}: {outcome.error}"
        for name in part.names():
            alert = self.spool.read("to", recipient, name) if name != FOLDED else None
            if alert is None:
                aside = f"{int(part.first * 1e9):019d}.{name}"
                alert = Alert(compose(part, "", time.time()), part.first, "", name=aside)
            before = self.spool.read("refused", alert.name)  # for another recipient
            known = before.why if before and why not in before.why else ""
            alert.why = f"{known}; {why}" if known else why
            make_directory(self.spool.path("refused"))
            try:  # with its reason from the first moment, as a `send` may wait for it
                self.spool.write(alert.dump(), "refused", alert.name)
            except OSError:  # on a full disk it is moved, but not told why
                os.rename(self.spool.path("to", recipient, name),
                          self.spool.path("refused", alert.name))
        self.settle(config, recipient, part, outcome.words + "; put aside")

    def defer(self, config: Config, recipient: str, outcome: Outcome) -> None:
        """Record why the account or a recipient has to wait, and how long."""
        if outcome.kind == "held":
            return
        if outcome.kind in ("recipient", "unclear"):
            self.state.waits.pop("", None)  # X deals with the account
        steps = {"retry": RETRY, "cap": SLOW[1:],
                 "limit": (limit_wait(self.answer.headers, time.time()),)}
        scope = "" if outcome.kind in ("limit", "cap", "account") else recipient
        whose = f"@{config.handle(recipient)}: " * (outcome.kind in ("recipient", "unclear"))
        seconds = self.state.hold(scope, steps.get(outcome.kind, SLOW), outcome.status,
                                  whose + outcome.error, outcome.hint)
        self.note()
        report(f"for @{config.handle(recipient)}: {outcome.words};"
               f" next attempt in {seconds:.0f} s")

    def pace(self, config: Config, dms: int) -> None:
        """Set when the next round may go: a DM to each recipient who has something by then."""
        now, before = time.time(), self.state.wait("pace")
        quiet = 2 * max(config.interval, before.until - before.began)
        self.state.burst = 1 + self.state.burst * (0 <= now - before.began <= quiet)
        told = allowances(self.answer.headers, now)
        limits = told + own_count(self.state.sent, now, told=bool(told))
        seconds, why = round_wait(self.state.burst, dms, config.interval, limits)
        self.state.hold("pace", (seconds,), 0, why)

    # -- telling a person

    def note(self) -> dict[str, tuple[str, str, str]]:
        """Write `trouble` while a person has to act, and then the state that says no less.  Returns
        what that person has to hear of, by a name of its own: in words, with a hint, and whose DMs
        do not go ("": nobody's)."""
        now, waits, found = time.time(), self.state.waits, {}
        for scope, wait in waits.items():
            if wait.status in (REFUSED, CONFIG) or scope == "fault":
                name = scope + re.sub(r"\d+", "", wait.error.partition(" (X says")[0])
                found[name] = wait.error, wait.hint, scope
        held = [w for w in waits.values() if w.status or w.error == X_LIMIT and w.due(now) > now]
        oldest = pending_in(self.spool)[1] if held and not found else now
        if now - oldest >= LATE:
            wait = max(held, key=lambda wait: wait.began)
            found["late"] = f"alerts wait since {clock(oldest, now)}: {wait.error}", wait.hint, ""

        text = "".join(f"{words}\nhint: {hint}\n" for words, hint, _ in found.values()).encode()
        with ignoring(OSError):
            if text and text != self.noted:
                self.spool.write(text, "trouble")
            elif not text:
                os.unlink(self.spool.path("trouble"))
            self.noted = text
        self.state.save()
        return found

    def tell_of_trouble(self) -> None:
        """Run on_trouble: once when a trouble begins, with the digest that waits, and once when DMs
        flow again."""
        found = self.note()
        new = found.keys() - set(self.state.told)
        over = (set(self.state.told) - found.keys()
                and (self.posted or not found and not self.pending()))
        self.state.told = list(found) if found or over else self.state.told
        self.state.save()  # first: a command that ends us must not be run again and again
        command = self.config.delivery.get("on_trouble")
        if command and (new or over):
            host, now = self.config.host or short_host_name(), time.time()
            who = f"bird_sentinel of {user_name(os.geteuid())} on {host}"
            last = "".join(f"; but still: {words}" for words, *_ in found.values())
            told = f"{who}: DMs {'go out again' + last if over else 'do not go out'}\n"
            for words, hint, scope in (found[name] for name in sorted(new)):
                waiting: list[str] = []
                seen: set[str] = set()
                for recipient in [scope] if scope.isdecimal() else self.waiting():
                    names = set(self.spool.names("to", recipient)) - seen  # each once
                    seen |= names - {FOLDED}
                    part = self.gather(recipient, names)
                    waiting += [compose(part, host, now)] * (part.count > 0)
                told += "\n".join([words, advise(hint, self.config_path), "", *waiting, ""])
            run_command(command, told)


def notice(part: Digest, config: Config) -> str:
    """What is sent in the place of a text that X may refuse."""
    now = time.time()
    read = advise("bird_sentinel status", config.path)
    return (f"[{config.host or short_host_name()} {clock(now, now)}] X does not take a DM about"
            f" {plural(part.count)} of {clock(part.first, now)}: what it will not take is put"
            f" aside; to read it, run there, as {user_name(os.geteuid())}: {read}")


def run_worker(config_path: str, root: str, insist: bool) -> int:
    """Deliver until the queue is empty.  With `insist` another worker gives way, and all waits are
    over: X's own, too, for one attempt."""
    os.closerange(3, 1 << 16)
    os.chdir("/")
    spool = Spool(root)
    lock = take_lock(spool, insist)
    while lock is not None:  # until nothing is left, or another takes over
        worker = Worker(config_path, spool)
        for held in worker.state.waits.values():
            held.until *= not insist
        path = spool.clear(stat.S_ISFIFO, "trigger")
        with ignoring(FileExistsError):
            os.mkfifo(path, 0o600)
        # for writing too: so there is always a writer, and no end of file
        trigger = os.open(path, os.O_RDWR | PLAIN)
        wait: float | None = 0.0
        insist = gives_way = False
        while wait is not None and not gives_way:
            wait = worker.look()
            # a minute at the most, as the clock may jump
            if wait is not None and select.select([trigger], [], [], min(wait, MINUTE))[0]:
                time.sleep(0.2)  # one look for many that pull at once
                gives_way = b"g" in os.read(trigger, 1 << 16)
        # whoever pulls from here on finds nobody, and starts another; whoever did before is seen
        os.close(trigger)
        if gives_way:
            os.close(lock)
            time.sleep(0.2)
            lock = take_lock(spool, False)  # None, unless the other has given up
        elif not worker.pending():
            break
    return DELIVERED


def take_lock(spool: Spool, insist: bool) -> int | None:
    """Return a descriptor that holds the lock of the one worker; None where another runs, which
    then looks at the queue.  With `insist`, that one is asked to give way."""
    try:
        lock = os.open(
            spool.clear(stat.S_ISREG, "lock"), os.O_RDWR | os.O_CREAT | PLAIN, 0o600
        )
    except OSError as error:
        report(f"the queue {spool.root} cannot be worked on: {lower(error)}")
        return None
    for _ in range((60 * CALL if insist else 5) * 50):  # the other one may have much to ask X
        with ignoring(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        # where nobody listens, the other one is just beginning or just ending
        if spool.pull(b"g" if insist else b"l") and not insist:
            break
        time.sleep(0.02)
    os.close(lock)
    return None


# ---- authorize: once, with a PIN ---------------------------------------------------------------


def at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def ask(question: str, hidden: bool = False) -> str:
    """Return one line of standard input; at a terminal, ask for it first.  Raises Problem where it
    ends."""
    answer, hidden = "", hidden and at_terminal()
    with ignoring(EOFError, AttributeError, OSError):
        if at_terminal() and not hidden:
            print(question, end="", file=sys.stderr, flush=True)
        answer = getpass.getpass(question) + "\n" if hidden else sys.stdin.readline()
    if not answer:
        raise Problem(USAGE, f"no answer to: {question.strip().rstrip(':')}")
    return answer.strip()


def named(words: str) -> list[str]:
    """Handles from what a person typed; raises Problem."""
    handles = [word.lstrip("@") or word for word in words.replace(",", " ").split()]
    for handle in handles or ["no word"]:
        if not re.fullmatch(HANDLE, handle):
            raise Problem(USAGE, f"{handle} is not a handle on X",
                          "a handle is letters, digits and underscores: @oncall_1")
    return handles


def ask_oauth(config: Config, pair: list[str], token: Mapping[str, str], pin: str) -> Any:
    """One step of OAuth 1.0a with tweepy's own handler (docs.x.com, "PIN-based OAuth"); without a
    token: return a request token, with it and a PIN: the access token and its secret; None where
    X does not accept the PIN.  Raises Problem."""

    def action(tweepy: Any, _: object) -> Any:
        handler = tweepy.OAuth1UserHandler(*pair, callback="oob")
        handler.request_token = dict(token)
        return handler.get_access_token(pin) if token else (
            handler.get_authorization_url(), handler.request_token)

    answer = ask_x(config, action)
    found = answer.json()
    if answer.status == 200 and isinstance(found, list):
        return found
    if answer.body.strip()[:1] not in "<{":  # here X says it in plain words; a page is not X's
        answer.body = json.dumps({"detail": answer.body})
    outcome = judge(answer, dict(zip(KEYS, [*pair, *token.values()])), time.time())
    words, hint = outcome.error or UNCLEAR, outcome.hint * (outcome.kind == "account")
    if hint == AGAIN:
        if token:
            return None
        words = "X does not accept the consumer key and secret"
        hint = ("copy both anew, or, as X shows them once, regenerate them " + PORTAL
                + f"; where {config.path} has them, take them out there")
    raise Problem(outcome.status or KEPT, words, hint or "try again later: bird_sentinel authorize")


def walk_pin_flow(config: Config, pair: list[str]) -> list[str]:
    """Have a person authorize the app.  Returns the access token and its secret; raises Problem."""
    for left in (2, 1, 0):
        token = ask_oauth(config, pair, {}, "")[1]
        page = f"https://api.x.com/oauth/authorize?oauth_token={token['oauth_token']}"
        show("As the account that is to send the alerts, open this page and authorize the app:")
        show(f"  {page}&force_login=true")
        access = ask_oauth(config, pair, token, "".join(ask("PIN: ").split()) or "none")
        if access:
            return list(access)
        say("error", "X does not accept this PIN" + ", here is a new page" * (left > 0))
    raise Problem(REFUSED, "three PINs were not accepted; nothing was changed", AGAIN)


def look_up(
    config: Config, handle: str = "", wanted: Iterable[str] = ()
) -> tuple[dict[str, Any], str]:
    """What X says of a handle, or of our own account: username, id, receives_your_dm (docs.x.com,
    "User lookup"; a cent each); and our token's access level.  {} where there is no such handle.
    Raises Problem, which names those that are `wanted`."""
    answer = (
        ask_as_account(config, "get_user", username=handle, user_fields=["receives_your_dm"])
        if handle else ask_as_account(config, "get_me")
    )
    body, level = answer.json(), answer.headers.get("x-access-level", "")
    user = body.get("data") if isinstance(body, dict) and answer.status == 200 else None
    if isinstance(user, dict) and re.fullmatch(
        f"{HANDLE} {ID}", f"{user.get('username')} {user.get('id')}"
    ):
        return user, level
    if handle and isinstance(body, dict) and answer.status in (200, 400, 404):
        return {}, level
    outcome = judge(answer, config.account, time.time())
    who = f"@{handle}" if handle else "the account"
    hint = f"{outcome.hint}; " * (outcome.kind == "account") + "the keys are saved, so later no PIN"
    raise Problem(outcome.status or KEPT,
                  f"{who} could not be looked up: {outcome.error or UNCLEAR}",
                  f"{hint} is needed: {' --to '.join([AUTHORIZE, *wanted])}")


def look_up_recipient(config: Config, wanted: list[str]) -> tuple[str, str]:
    """The first recipient's handle as X spells it, and its id; says what is in the way of its DMs.
    Raises Problem, which names all that are `wanted`."""
    handle, *others = wanted
    user, sender = look_up(config, handle, wanted)[0], config.account["screen_name"]
    if not user:
        again = " --to ".join([AUTHORIZE, "HANDLE", *others])
        raise Problem(USAGE, f"there is no account @{handle} on X",
                      f"check the spelling, then, with no PIN: {again}")
    name = user["username"]
    if name.lower() == sender.lower():
        say("warning", f"@{name} is the account that sends: nobody gets a notification for that")
        say("hint", "name the account that is on your phone, and let another one send")
    elif user.get("receives_your_dm") is False:
        say("warning", f"@{name} does not accept DMs from @{sender} now")
        say("hint", f"have @{name} send @{sender} a DM first")
    return name, user["id"]


def require_writable(path: str) -> None:
    """Raise Problem now if the config could not be saved later."""
    directory = os.path.dirname(path)
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    require_ours(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Problem(CONFIG, f"the config {path} could not be saved: {directory} is not writable",
                      "run as who may write there, or name another with --config")


def keep_way_to_x(config: Config) -> None:
    """Take the proxy and the CA bundle in use into the config, where it has none: so that the
    worker has them whoever starts it."""
    import urllib.request

    bypass = urllib.request.proxy_bypass("api.twitter.com")
    proxies = {} if bypass else urllib.request.getproxies()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    for name, used in (("proxy", proxies.get("https") or proxies.get("all")),
                       ("ca_bundle", bundle and os.path.abspath(bundle))):
        if used:
            config.delivery.setdefault(name, used)


def authorize(options: Any) -> int:
    """Connect an account with this machine: keys, PIN, recipients, proof."""
    path = locate_config(options.config)
    import_tweepy()
    config = read_config(path)
    require_writable(path)
    keep_way_to_x(config)

    # what a person has to tell; nothing on disk changes before X has said yes to it
    wanted = named(" ".join(options.to)) if options.to else []
    pair = []
    for name, variable in zip(KEYS, GIVEN):
        words, known = name.replace("_", " "), config.account.get(name, "")
        given = os.environ.get(variable) or (
            known if re.fullmatch(KEY, known) else ask(f"{words}: ", hidden=True))
        pair.append(given)
        if not re.fullmatch(KEY, given):
            raise Problem(USAGE, f"this is no {words}", "copy it from X's developer portal, whole")
    if not wanted and not config.recipients:
        wanted = named(ask("recipients (handles, with spaces between): "))
    me: dict[str, Any] = {}
    old = [config.account.get(name, "") for name in KEYS]
    began = wanted or not config.account.get("screen_name")  # with a PIN, but it did not get far
    if began and pair == old[:2] and all(re.fullmatch(KEY, key) for key in old):
        try:  # with tokens that X still accepts, no PIN is needed
            me, level = look_up(config, wanted=wanted)
        except Problem as problem:
            if not problem.hint.startswith(AGAIN):
                raise
    if not me or level not in LEVELS:  # a token keeps the level that it was made with
        config.account.update(zip(KEYS, pair + walk_pin_flow(config, pair)))
        config.account["screen_name"] = ""
        config.save()  # at once: a PIN is good for once
        me, level = look_up(config, wanted=wanted)
    config.account["screen_name"] = me["username"]
    config.save()
    if level not in LEVELS:
        raise Problem(REFUSED, "the app has no permission to send DMs (its access level is "
                      f"'{level}')", PERMISSION)

    # who they are on X, once, so that a DM costs no look-up
    for place in range(len(wanted)):
        name, recipient = look_up_recipient(config, wanted[place:])
        others = {h: i for h, i in config.recipients.items() if h.lower() != name.lower()}
        config.recipients = {**others, name: recipient}
        config.save()  # at once, as the next one may fail
    config = read_config(path).check()
    show(f"Authorized as @{config.account['screen_name']}; the keys are in {path}.")
    try:
        prove(config, choose(config, wanted), not options.no_test)
    finally:
        show("\n" + swatch_lines(path))
        if "on_trouble" not in config.delivery:
            show("So that somebody hears when DMs do not go out, name a command in the config, in a"
                 " line\nbelow [delivery], as in:\n\n"
                 f"on_trouble = mail -s 'no alerts from {short_host_name()}' root")
    return DELIVERED


def prove(config: Config, handles: list[str], test: bool) -> None:
    """Deliver what was queued, then a test DM that carries a number: the whole way an alert takes,
    up to the phone.  Raises Problem."""
    queued = sum(pending_in(spool)[0] for spool in spools(config.path))
    try:
        if queued:
            show(f"Delivering what was queued: {plural(queued)}.")
        deliver_now(config)
    except Problem as problem:  # the number is to stand in a DM of its own
        if not test:
            raise
        say("warning", problem.message)
        say("hint", advise(problem.hint, config.path))
    code, since = str(random.SystemRandom().randrange(100, 1000)), time.time()
    if test:
        text = f"bird_sentinel test: the number is {code}"
        alert = Alert(text, since, short_host_name(), handles)
        spool, unsafe = store(config.path, alert)
        start_worker(config.path, spool, "now")
        await_delivery(config, spool, {alert.name}, handles, since, since)
        show(f"X took a test DM for {at(handles)}.")
        if unsafe:
            raise unsafe
    while test and at_terminal():
        seen = ask("the number that the phone shows (Enter, if it shows none): ")
        if seen == code:
            return show("It works: what is sent is read.")
        if not seen:
            raise Problem(KEPT, "X took the test DM, but the phone does not show it",
                          "look under message requests, among the older chats (X Chat hides them),"
                          " and in the app's notification settings; have the recipient write to the"
                          f" sentinel's account first; then: {LOOK_UP} {handles[0]}")
        say("error", "that is not the number")


def swatch_lines(config_path: str) -> str:
    """The lines to paste into a swatchrc, with the script's real path; see swatchrc.example."""
    words = [os.path.realpath(sys.argv[0])]
    if words == [os.path.realpath(__file__)]:  # the bare file: its #! line may find another Python
        words.insert(0, sys.executable)
    if config_path != os.path.expanduser(OWN):  # swatch may be run with another environment
        words += ["--config", config_path]
    if any(re.search(r"[^\w@%+:./-]", word) for word in words):
        say("warning", "swatch cannot cope with such a path: put it elsewhere")
    return f"""\
Put this line once at the top of your swatchrc:

perlcode 1 ($ENV{{SWATCH_LINE}} = substr($_, 0, 50000)) =~ tr/\\0//d;

and this one below each watchfor:

    exec '{" ".join(words)} send --no-wait -- "\\$SWATCH_LINE"'
"""


# ---- command line: send, flush, status ---------------------------------------------------------


def advise(hint: str, config_path: str) -> str:
    """A hint whose commands are about the config in use, where that is not the user's own."""
    if config_path not in ("", os.path.expanduser(OWN)):
        option = f" --config {shlex.quote(config_path)}"
        command = f"bird_sentinel ({'|'.join(COMMANDS)})(?! --help)"
        hint = re.sub(command, lambda it: it[0] + option, hint)
    return hint


def read_message(options: Any) -> str:
    """The message from the command line or from standard input, cleaned; raises Problem."""
    words = options.message
    try:
        if not options.dashes and (words == ["-"] or not words and not at_terminal()):
            raw = sys.stdin.buffer.read(1 << 28) if sys.stdin else b""
        else:
            # the bytes as the caller gave them, whatever the locale takes them for
            raw = os.fsencode(" ".join(words))
    except OSError as error:
        raise Problem(USAGE, f"standard input cannot be read: {lower(error)}") from None
    # a hole in a log reads as very many NULs
    whole, most = raw.replace(b"\0", b"").decode("utf-8", "replace"), 100 * DM_LIMIT
    text = clean(whole[:most])
    if len(whole) > most:  # what nobody will see is counted, but not cleaned
        text = text + "?" * (len(whole) - most) if len(text) >= DM_LIMIT else clean(whole)
    if not text.strip():
        raise Problem(USAGE, "the message is empty", "see: bird_sentinel send --help")
    return text


def found_good(config_path: str) -> bool:
    """Whether a worker found nothing wrong with the config as it is now (it gives the lock the
    config's date then): then `send` need not read it before it stores an alert."""
    with ignoring(OSError, Problem):
        found, lock = os.lstat(config_path), os.stat(spools(config_path)[0].path("lock"))
        require_private(config_path, found)
        return lock.st_mtime_ns == found.st_ctime_ns
    return False


def store(config_path: str, alert: Alert) -> tuple[Spool, Problem | None]:
    """Keep an alert in the queue, or in memory where that cannot be; returns where, and what is
    unsafe about the queue.  Raises Problem where it can be kept nowhere."""
    trouble: Exception | None = None
    for spool in spools(config_path):
        try:
            spool.add(alert)
        except (OSError, Problem) as error:
            trouble = trouble or error
        else:
            kept = f"kept in memory, in {spool.root}"
            if isinstance(trouble, Problem):
                return spool, Problem(CONFIG, f"{kept}: {trouble.message}", trouble.hint)
            if trouble:
                say("warning", f"the queue cannot be written ({lower(trouble)}): {kept}")
            return spool, None
    raise Problem(LOST, f"the alert could not be stored anywhere: {lower(trouble or OSError())}",
                  getattr(trouble, "hint", "make room, or the queue's directory writable"))


def send(options: Any) -> int:
    """Accept an alert, which is then never lost; see to it that a worker is at it; and wait."""
    since, text, path = time.time(), read_message(options), ""
    config, trouble = Config(path, {}), Problem(DELIVERED, "")
    try:
        path = locate_config(options.config)
        if options.to or options.dry_run or not found_good(path):
            config = read_config(path).check()
    except Problem as problem:
        trouble = problem
    handles = choose(config, options.to)
    alert = Alert(text, since, short_host_name(), handles if options.to else [])
    if options.dry_run:
        digest = Digest()
        digest.add(alert)
        show(compose(digest, config.host, since))
        return DELIVERED

    if not path:
        raise Problem(LOST, f"the alert could not be stored: {trouble.message}", trouble.hint)
    spool, unsafe = store(path, alert)
    options.stored = True
    if not trouble.status and not spool.pull():
        start_worker(path, spool)
    if unsafe and trouble.status:  # nothing goes from here
        raise Problem(CONFIG, unsafe.message, unsafe.hint + ", and send it again there")
    if unsafe:
        raise unsafe
    if trouble.status:
        again = "; then: bird_sentinel flush" * (trouble.hint != AGAIN)
        raise Problem(CONFIG, f"kept in the queue {spool.root}: {trouble.message}",
                      trouble.hint + again)
    if not options.no_wait:
        config = read_config(path).check()
        handles = choose(config, options.to)
        await_delivery(config, spool, {alert.name}, handles, since)
        show(f"delivered to {at(handles)}")
    with ignoring(OSError), open(os.open(spool.path("trouble"), os.O_RDONLY | PLAIN), "rb") as file:
        for line in clean(file.read(10_000)).splitlines():
            hint = line.startswith("hint: ")
            say("hint" if hint else "warning", advise(line[6 * hint :], path))
    return DELIVERED


def await_delivery(
    config: Config, spool: Spool, names: set[str], handles: list[str], since: float,
    fresh: float = 0.0,
) -> None:
    """Wait, for half a minute at the most, until these alerts are delivered.  Raises Problem when
    they have to wait, with the worst of their recipients' exit statuses and the names of those who
    did not get them.  Only what a worker says that was started since `fresh` counts."""
    ids, before = {config.recipients[handle] for handle in handles}, spool.names("refused")
    began, place, names = time.monotonic(), spool.identity(), names | {FOLDED}
    for look in range(1, 1_000):
        pending = spool.pending()
        missing = {who for who in ids if names.intersection(pending.get(who, ()))}
        if any(names.intersection(pending[who])
               for who in pending.keys() - config.recipients.values()):
            missing |= ids  # not distributed yet
        now, state = time.time(), State(spool)  # read after looking: it is at least as new
        held = {}
        for who in missing:
            wait, soon = state.worst(who, now, fresh), state.due(who, now) < now + 8
            if (wait.status or not soon) and (since if soon else fresh) <= wait.began <= now + 1:
                held.update({who: wait} if state.started >= fresh else {})
        # gone, but not by a DM?  Then the queue may just be being removed, so look once more
        removed = not missing and state.delivered < since and look < 33
        if not removed and len(held) == len(missing) or time.monotonic() > began + PATIENCE:
            break
        if look % 33 == 0 and not spool.pull():  # the worker may have been killed
            start_worker(config.path, spool)
        time.sleep(0.03)
    whom = at(config.handle(who) for who in sorted(missing))
    for alert in spool.refused():
        if alert.name in names or fresh and alert.name not in before:
            raise Problem(REFUSED, f"put aside, {alert.why}" + f"; kept for {whom}" * bool(whom),
                          "to read it: bird_sentinel status")
    if spool.identity() != place or not place:
        raise Problem(LOST, f"the queue {spool.root} has vanished, and what was in it",
                      "see what removed or moved it, then send again")
    if len(held) < len(missing):
        raise Problem(KEPT, f"kept in the queue for {whom}: X has not answered yet",
                      "it is sent as soon as X does; see: bird_sentinel status")
    if missing:
        worst = max(held.values(), key=lambda wait: wait.status)
        due = clock(min(state.due(who, now) for who in held), now)
        words = worst.error.removeprefix(f"{whom}: ")
        words = words if worst.status else f"the next DM waits for {words}"
        raise Problem(worst.status or KEPT, f"kept in the queue for {whom}: {words}",
                      f"{worst.hint}; " * bool(worst.hint) + f"the next attempt is at {due}")


def deliver_now(config: Config) -> int:
    """Have workers that are started from here try all that is pending, and wait; returns how many
    alerts that is.  Raises Problem."""
    tried, since = {}, time.time()
    for spool in spools(config.path):
        names = {name for some in spool.pending().values() for name in some}
        if names:
            require_ours(spool.root)
            if not os.access(spool.root, os.W_OK):
                raise Problem(KEPT, f"kept in the queue {spool.root}, which cannot be written",
                              "mend the disk or its directory, then: bird_sentinel flush")
            tried[spool] = names, pending_in(spool)[0]
            start_worker(config.path, spool, "now")
    for spool, (names, _) in tried.items():
        await_delivery(config, spool, names, list(config.recipients), since, since)
    return sum(count for _, count in tried.values())


def flush(options: Any) -> int:
    """Try now all that is pending."""
    path = locate_config(options.config)
    for spool in spools(path):
        if options.discard_refused and spool.identity():
            require_ours(spool.root)
        for name in spool.names("refused") if options.discard_refused else ():
            if os.path.isdir(spool.path("refused", name)):
                shutil.rmtree(spool.path("refused", name))
            else:
                os.unlink(spool.path("refused", name))
    count = deliver_now(read_config(path).check())
    show(f"delivered: {plural(count)}" if count else "nothing is pending")
    return DELIVERED


def status(options: Any) -> int:
    """One line for a monitor and then the details, or JSON; the exit status says it too."""
    now, path = time.time(), locate_config(options.config)
    trouble, config = Problem(DELIVERED, ""), Config(path, {})
    try:
        config = read_config(path)
        config.check()
    except Problem as problem:
        trouble = problem
    refused: list[Alert] = []
    waits, dues, idle, running = [Wait()], [], False, False
    count, oldest, last, places = 0, now, 0.0, [spools(path)[0].root]
    for spool in spools(path):
        state, (pending, first) = State(spool), pending_in(spool)
        runs = spool.pull(b"")
        for _ in range(5 * (pending > 0 and not runs)):  # one may just be starting
            time.sleep(0.1)
            runs = runs or spool.pull(b"")
        running, idle = running or runs, idle or pending > 0 and not runs
        count, oldest, last = count + pending, min(oldest, first), max(last, state.delivered)
        refused += spool.refused()
        places += [spool.root] * (pending > 0)
        for who in [who for who, names in spool.pending().items() if names]:
            waits.append(state.worst(who, now))
            dues.append(max(now, state.due(who, now)))
    wait = max(waits, key=lambda wait: (wait.status, wait.due(now)))

    error, hint = trouble.message or wait.error * (wait.status > 0), trouble.hint or wait.hint
    if idle and not error:
        error, hint = "no worker runs", "bird_sentinel flush"
    code = max(trouble.status or (wait.status or KEPT) * (count > 0), REFUSED * bool(refused))
    facts: dict[str, Any] = {
        "account": config.account.get("screen_name") or None,
        "recipients": config.recipients, "pending": count,
        "refused": len(refused), "oldest_pending": iso(oldest) if count else None,
        "next_attempt": iso(min(dues)) if dues and not trouble.status else None,
        "last_delivery": iso(last) if last else None, "last_error": error or None,
        "worker": running, "config": path, "queue": spools(path)[0].root,
    }
    if options.json:
        show(json.dumps(facts, indent=2))
        return code
    word = "ok" if code == DELIVERED else "problem" if code > KEPT or idle else "busy"
    why = f": {error}" if error else f": waiting for {wait.error}" * bool(wait.error)
    show(f"{word}: " + (f"{plural(count)} pending since {clock(oldest, now)}" if count else
                        "nothing pending")
         + f", {plural(len(refused))} refused by X (below)" * bool(refused) + why)
    for name, value in {
        "to_do": error and advise(hint, path) or ("read what is below" if refused else "nothing"),
        **facts, "recipients": ", ".join(f"@{h} ({i})" for h, i in facts["recipients"].items()),
        "worker": "running" if running else "not running",
        "queue": ", ".join(dict.fromkeys(places)),
    }.items():
        show(f"{name.replace('_', ' '):<14} {'none' if value in (None, '') else value}")
    for alert in refused:
        text = alert.text.replace("\n", "\n    ")
        show(f"\nput aside, of {clock(alert.sent, now)}, {alert.why or 'damaged'}:\n    {text}")
    if refused:
        show(advise("\nwhen you have read it: bird_sentinel flush --discard-refused", path))
    return code


def iso(moment: float) -> str:
    """ISO 8601 with the local offset."""
    return str(datetime.datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds"))


STATUSES = """\
exit status:
    0  delivered; with --no-wait: stored and a delivery under way
       status: nothing is pending
    2  usage, an empty message, or an unknown recipient
   74  could not be stored anywhere: the only case in which an alert is not
       kept
   75  kept in the queue, will be retried
   77  kept; X refuses us until a person acts (re-authorize, permission,
       credits, recipient)
   78  kept where it can be; the config is missing, unreadable, unsafe or
       incomplete
  130  interrupted
"""

ABOUT = """\
Sends what your log watcher sees to your phone, as a direct message (DM) on X.
This script is given the keys of an account: please read it.
"""

EXAMPLES = """\
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
  ~/.config/bird_sentinel/queue/       the alerts that are pending

environment:
  BIRD_SENTINEL_CONFIG    the config, where --config names none
  XDG_CONFIG_HOME         what takes the place of ~/.config
  BIRD_SENTINEL_CONSUMER_KEY, BIRD_SENTINEL_CONSUMER_SECRET
                          the app's keys, for authorize
  HTTPS_PROXY, REQUESTS_CA_BUNDLE
                          as python-requests takes them; the config's
                          proxy and ca_bundle go before them
"""

COMMANDS: dict[str, tuple[Callable[[Any], int], str]] = {
    "authorize": (authorize, """\
Connects an account on X with this machine, once. Asks for the consumer key and
secret of your app, unless the config or the environment has them, and for the
recipients; prints a page to open; asks for the PIN which that page gives;
saves the keys, and proves with a test DM that the phone shows it. Then what
was queued is delivered. With --to and keys that X still accepts, it adds
recipients and asks for no PIN. Where standard input is no terminal, each
answer is a line of it, in the order asked: consumer key, consumer secret,
recipients, PIN."""),
    "send": (send, """\
Sends MESSAGE, its words joined by one space, as a DM to all recipients. With -
for it, or with none where standard input is no terminal, the message is what
comes on standard input. Put -- before a message that may begin with a dash.
Waits, half a minute at the most, until the alert is delivered or deferred."""),
    "flush": (flush, """\
Tries now what is queued, in the environment it is run in: it ends every wait
of ours, and one wait for X's limit. For @reboot in cron, at a unit's start, or
by hand."""),
    "status": (status, """\
Tells account, recipients, how many alerts are pending and since when, when the
next attempt is due and what it waits for, the last delivery and the last
error. The first line and the exit status are enough for a monitor."""),
}


def parser() -> Any:
    """The command line, but for what stands behind --."""

    class Parser(argparse.ArgumentParser):  # type: ignore[misc,name-defined]
        def error(self, message: str) -> NoReturn:
            wrong = "".join(re.findall("invalid choice: '([^']*)'", message))
            close = difflib.get_close_matches(wrong, COMMANDS, 1)
            right = f"did you mean: bird_sentinel {close[0]}" if close else ""
            raise Problem(USAGE, message, right or f"see: {self.prog} --help")

    form: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    top = Parser(prog="bird_sentinel", description=ABOUT, epilog=f"{EXAMPLES}\n{STATUSES}", **form)
    top.add_argument("--config", metavar="PATH", help="use this config, with a queue of its own")
    top.add_argument("--version", action="version", version=f"bird_sentinel {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made = {}
    for name, (_, about) in COMMANDS.items():
        made[name] = commands.add_parser(name, description=about, epilog=STATUSES, **form,
                                         help=about.partition(". ")[0], add_help=name != "send")
        made[name].add_argument("--config", metavar="PATH", default=argparse.SUPPRESS,
                                help="use this config, with a queue of its own")
    for name, words in (("authorize", "add this recipient"), ("send", "only to this recipient")):
        made[name].add_argument("--to", metavar="HANDLE", action="append", default=[],
                                help=f"{words}, with or without @; may be repeated")
    for name, option, words in (
        ("authorize", "--no-test", "send no test DM"),
        ("send", "--no-wait", "return as soon as the alert is stored"),
        ("send", "--dry-run", "print the DM instead of sending it; needs no config"),
        ("send", "--help", "show this help message and exit"),
        ("flush", "--discard-refused", "forget what X refused, which status shows"),
        ("status", "--json", "print it as a JSON object"),
    ):
        also = ["-h"] * (option == "--help")
        made[name].add_argument(*also, option, action="store_true", help=words)
    made["send"].add_argument("message", metavar="MESSAGE", nargs="*", help="its words, or -")
    made["send"].set_defaults(show_help=made["send"].print_help)
    return top


def parse(argv: list[str]) -> Any:
    """What is asked for on the command line; raises Problem and SystemExit."""
    literal = argv.index("--") if "--" in argv else len(argv)  # behind it all is message
    options, extra = parser().parse_known_args(argv[:literal])
    see = f"see: bird_sentinel {options.command} --help"
    message = getattr(options, "message", []) + extra + argv[literal + 1 :]
    # -5 is no option, and what has a space in it was quoted as a message
    unknown = [word for word in extra
               if options.command != "send" or re.fullmatch("-[-A-Za-z][^ ]*", word)]
    if unknown or options.command != "send" and message:
        raise Problem(USAGE, f"unrecognized arguments: {' '.join(unknown or message)}",
                      "put -- before the message, or " * (options.command == "send") + see)
    values = getattr(options, "to", []) + [options.config] * (options.config is not None)
    if not all(isinstance(value, str) and value for value in values):  # --to=, --to=--
        raise Problem(USAGE, "an option has an empty value", see)
    if getattr(options, "help", False):
        if message:  # an unquoted message
            raise Problem(USAGE, "-h or --help among the words of a message",
                          "put -- before the message")
        options.show_help()
        raise SystemExit
    options.message, options.dashes, options.stored = message, literal < len(argv), False
    return options


def short_way(argv: list[str]) -> Any:
    """What swatch runs once a line and a person by hand, `send [--no-wait] [--] TEXT`, as argparse
    would have it, which takes as long to load as all else that an alert needs; else None."""
    no_wait = argv[1:2] == ["--no-wait"]
    dashes = argv[1 + no_wait :][:1] == ["--"]
    words = argv[1 + no_wait + dashes :]
    if argv[:1] != ["send"] or not dashes and any(word.startswith("-") for word in words):
        return None
    namespace: Any = type(sys.implementation)
    return namespace(
        command="send", config=None, to=(), dry_run=False, stored=False, message=words,
        no_wait=no_wait, dashes=dashes)


def main() -> int:
    """Run one command.  Returns its exit status; errors are told on standard error."""
    argv = sys.argv[1:]
    os.umask(0o077)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with ignoring(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    options = short_way(["send"])
    try:
        if argv[:1] == ["worker"] and len(argv) > 2:
            return run_worker(argv[1], argv[2], "now" in argv[3:])
        options = short_way(argv) or parse(argv)
        return COMMANDS[options.command][0](options)
    except SystemExit:  # --help, --version
        return DELIVERED
    except Problem as problem:
        say("error", problem.message)
        if problem.hint:
            path = ""
            with ignoring(Problem):
                path = locate_config(options.config)
            say("hint", advise(problem.hint, path))
        return problem.status
    except KeyboardInterrupt:
        say("error", "interrupted")
        return INTERRUPTED
    except Exception as error:  # a fault of ours, which no caller should meet as a traceback
        say("error", f"unexpected: {type(error).__name__}: {lower(error)}")
        return KEPT if options.stored or options.command != "send" else LOST


def run() -> NoReturn:
    """`main`, and out at once: to take the interpreter apart first would hold the watcher up for as
    long as it took to store the alert."""
    code = main()
    with ignoring(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
