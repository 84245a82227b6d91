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

The queue is a directory.  `send` adds one file to it, pulls a trigger, and is done.  A worker, one
at a time and detached from the caller, reads each file once, into a digest; makes one DM of all
that is pending; gives it to X inside X's limits; and only then removes the files.

    an alert's file   what that means                            who moves it on
    ----------------  -----------------------------------------  -----------------------------------
    tmp/NAME          being written; nothing was promised        a worker, when it is a day old
    new/NAME          accepted: it is on the disk                the worker unlinks it when a round
                                                                 is over that quoted or counted it
    folded            a long backlog: the worker's digests; the  the worker rewrites or unlinks it
                      files which it names are gone, or will be
    refused/NAME      a DM that X would not take, with why       a person, by rm

    beside them       what it is                                 who writes it
    ----------------  -----------------------------------------  -----------------------------------
    state             JSON: waits, when DMs went, what was told  the worker, by rename
    lock              flock of the one worker                    nobody
    trigger           a FIFO which the worker reads              whoever wants it to look

Each step can be repeated: a crash between any two loses nothing, and at the worst repeats a DM.  No
file is written by two processes.  What the queue on the disk does not take goes into a second one,
in memory, of the same layout.
"""

from __future__ import annotations

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
    argparse, binascii, collections, configparser, datetime, difflib, email, fcntl, getpass, io,
    json, pwd, random, re, select, shlex, signal, site, subprocess, syslog,
) = map(Module, (
    "argparse", "binascii", "collections", "configparser", "datetime", "difflib", "email.utils",
    "fcntl", "getpass", "io", "json", "pwd", "random", "re", "select", "shlex", "signal", "site",
    "subprocess", "syslog",
))

__version__ = "1.0.0"

# exit statuses, the last five after sysexits.h and the shell
DELIVERED, USAGE, LOST, KEPT, REFUSED, CONFIG, INTERRUPTED = 0, 2, 74, 75, 77, 78, 130

DM_LIMIT = 10_000  # characters in a DM (once documented by X; see docs.x.com, "Manage DMs")
TEXT_LIMIT = DM_LIMIT - 400  # characters of one alert, which leaves room for the head of its DM
MINUTE, DAY = 60.0, 86_400.0  # seconds; no limit of X is longer than a day, so no wait is
PATIENCE = 28.0  # seconds that a waiting `send` takes at the most
CALL = 25  # seconds for a whole call to X


class Problem(Exception):
    """Something a person has to be told: what it is, what to do next, and the exit status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


class Foreign(Problem):
    """Another user's business: nothing is kept here, as nobody would ever send it."""


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


def say(kind: str, message: str, hint: str = "") -> None:
    """Tell a person something: an error or a warning, and what to do next.  Never a secret."""
    with ignoring(OSError, ValueError, TypeError):  # no stderr; nor does a full pipe hold us up
        if select.select([], [sys.stderr], [], 1)[1]:
            show(f"bird_sentinel: {kind}: {message}", sys.stderr)
            if hint:
                show(f"bird_sentinel: hint: {hint}", sys.stderr)


def show(line: str, stream: Any = None) -> None:
    """Print a result, on standard output."""
    with ignoring(OSError, ValueError):  # closed, full, or a broken pipe
        print(clean(line), file=stream, flush=True)


def plural(number: int, thing: str = "alert") -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def at(handles: Iterable[str]) -> str:
    return ", ".join("@" + handle for handle in handles)


def lower(error: BaseException) -> str:
    """What the system says of an error, in our voice."""
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def clock(when: float, day: float) -> str:
    """A local time, with its date where that is not the one of `day` (seconds since the epoch)."""
    its, other = time.localtime(when), time.localtime(day)
    return time.strftime("%H:%M:%S" if its[:3] == other[:3] else "%b %d %H:%M:%S", its)


# ---- message: what a log line may bring into a DM or onto a terminal ---------------------------

# ECMA-48: CSI sequences, control strings (OSC, DCS, SOS, PM, APC) and the two-character escapes.
# A control string that is not ended keeps its text: hostile text must not hide what follows it.  It
# holds no beginning of another, so that no text is searched twice.
ESCAPES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f\n]{0,256}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
)
UNWANTED = dict.fromkeys(
    [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]  # control characters
    + [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # bidi controls
    + [*range(0xE0000, 0xE0080)],  # tags
    "",
) | {0x2028: " ", 0x2029: " "}  # line and paragraph separators
SEARCHED = 1_000_000  # characters at each end of a message: what is between them nobody sees


def clean(text: str) -> str:
    """Return text that is safe in a DM and on a terminal: no control or escape sequences, no NUL,
    no bidi controls or tags; newlines and tabs stay.  Takes time in proportion to the text."""
    # as nearly all are; none of what is unwanted counts as printable
    if text.translate({9: " ", 10: " "}).isprintable():
        return text
    text = re.sub(ESCAPES, "", text.replace("\r\n", "\n")).translate(UNWANTED)
    # UTF-16 has the surrogates of which a lone one can be no character
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shorten(text: str, limit: int, gone: int = 0) -> str:
    """Return a text of at most `limit` characters, lines behind the first indented by four.  Of a
    longer one the middle is cut out, as the cause is often at the end; a mark says how many
    characters (`gone`: how many were before)."""
    kept, half = text, min(limit, len(text)) // 2
    while gone and kept == text or len(kept) + 4 * kept.count("\n") > limit:
        half = half * 19 // 20
        cut = gone + len(text) - 2 * half
        kept = f"{text[:half]} […{cut:,} characters cut…] {text[len(text) - half :]}"
    return kept


class Alert:
    """One alert.  text: cleaned; sent: seconds since the epoch; host: the short name of the machine
    that ran `send`."""

    def __init__(self, text: str, sent: float, host: str) -> None:
        self.text, self.sent, self.host = text, sent, host


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
LOOK, NOW = b"l", b"n"  # what a worker reads from its trigger: look; all waits are over


def sync_directory(path: str) -> None:
    """Make new and renamed names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str, data: str, temporary: str) -> None:
    """Write a file as a whole or not at all, private from its first byte, and durable when this
    returns.  Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data.encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with ignoring(OSError):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def read_file(path: str) -> bytes:
    """What a file of the queue holds, but for megabytes that are not ours.  Raises OSError."""
    with open(os.open(path, os.O_RDONLY | PLAIN), "rb") as file:
        return file.read(1 << 27)


def user_name(uid: int) -> str:
    """The name of the user with this id; "#" and the id, where it has none, as sudo takes it."""
    with ignoring(KeyError):
        return str(pwd.getpwuid(uid).pw_name)
    return f"#{uid}"


def require_safe(path: str, found: os.stat_result) -> None:
    """Raise Problem where a file or a directory belongs to somebody else, or others can read or
    write a file, or write to a directory."""
    if found.st_uid not in (os.geteuid(), 0):
        user = shlex.quote(user_name(found.st_uid))
        raise Foreign(CONFIG, f"{path} belongs to {user}", "run it as that user (as root: sudo -u"
                      f" {user} bird_sentinel), or name a config of your own with --config")
    forbidden, mend = (0o077, "chmod 600") if stat.S_ISREG(found.st_mode) else (0o022, "chmod go-w")
    # a link's bits say nothing; in /tmp others can write, but not rename what is ours
    says_nothing = stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX
    if found.st_mode & forbidden and not says_nothing:
        raise Problem(CONFIG, f"{path} is open to other users", f"run: {mend} {shlex.quote(path)}")


def require_ours(*directories: str) -> None:
    """Raise Problem where somebody else could put files into a directory, or owns it: root with a
    user's HOME would leave files there which that user cannot touch.  Raises OSError where there is
    no directory."""
    for directory in directories:
        if os.path.exists(directory) and not os.path.isdir(directory):
            raise OSError(f"{directory} is no directory")
        require_safe(directory, os.lstat(directory))
        require_safe(directory, os.stat(directory))


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


class Place:
    """A directory of the queue, on the disk or in memory, laid out as the top of this file says.
    lock, trigger: files, where this worker holds them."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.lock: Any = None
        self.trigger: Any = None

    def path(self, *names: str) -> str:
        return os.path.join(self.root, *names)

    def require_safe(self) -> None:
        """Raise Problem where others can write to it, and OSError where it is not there."""
        others = filter(os.path.lexists, (self.path("tmp"), self.path("refused")))
        require_ours(self.path("new"), self.root, os.path.dirname(self.root), *others)

    def make(self) -> None:
        """Make what is missing of it.  Raises OSError and Problem."""
        for name in ("tmp", "refused", "new"):
            make_directory(self.path(name))
        self.require_safe()

    def write(self, data: str, *names: str) -> None:
        """Write a file of it as a whole; raises OSError and Problem."""
        self.make()
        temporary = f"{names[-1]}.{os.getpid()}.{time.time_ns()}"
        write_file(self.path(*names), data, self.path("tmp", temporary))

    def pull(self, letter: bytes) -> bool:
        """Have the worker of a usable place look.  False: none reads here."""
        with ignoring(OSError), \
                open(os.open(self.path("trigger"), os.O_WRONLY | PLAIN), "wb", 0) as trigger:
            trigger.write(letter)  # nothing, where it is full of what is yet to be read
            return stat.S_ISFIFO(os.fstat(trigger.fileno()).st_mode)
        return False  # ENXIO: nobody reads it

    def names(self, directory: str) -> list[str]:
        """The files in one of its directories, the oldest first; none where there is none.  Raises
        OSError."""
        with ignoring(FileNotFoundError, NotADirectoryError), \
                os.scandir(self.path(directory)) as entries:
            return sorted(it.name for it in entries if it.is_file(follow_symlinks=False))
        return []

    def read(self, name: str) -> Alert:
        """The accepted alert of this name; raises OSError."""
        host, text = "", clean(read_file(self.path("new", name)).decode("utf-8", "replace"))
        head, _, rest = text.partition("\n\n")
        if head.startswith("host: "):  # else it was not written by us
            host, text = head[len("host: ") :][:64], rest
        text = shorten(text or "(an empty alert)", TEXT_LIMIT)
        return Alert(text, sent_at(name, time.time()), host or short_host_name())

    def hold(self) -> None:
        """Take the lock, and the trigger if it can be had.  Raises BlockingIOError where another
        worker has the lock, another OSError where there can be none, and Problem."""
        self.require_safe()
        path, fifo = self.path("lock"), self.path("trigger")
        if self.lock is None:
            read_only = os.path.exists(path) and not os.access(path, os.W_OK)
            lock = open(path, "rb" if read_only else "ab")  # noqa: SIM115 (NFS wants "ab")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.lock = lock
        with ignoring(OSError):
            if not os.path.lexists(fifo):
                os.mkfifo(fifo, 0o600)
            if self.trigger is None and stat.S_ISFIFO(os.lstat(fifo).st_mode):
                # for writing too: so there is always a writer, and no end of file
                self.trigger = open(os.open(fifo, os.O_RDWR | PLAIN), "rb", 0)  # noqa: SIM115

    def release(self) -> None:
        """Give up the trigger, and then the lock.  Whoever pulls from here on finds nobody, and
        starts another worker."""
        for held in filter(None, (self.trigger, self.lock)):
            held.close()


def places(config_path: str) -> list[Place]:
    """The queue of a config, on the disk, and what takes its place, in memory."""
    directory, name = os.path.split(config_path)
    path = os.path.join(os.path.realpath(directory), name)  # however it is named
    root, mark = path + ".queue", binascii.crc32(os.fsencode(path))
    if path.endswith("/bird_sentinel/config.ini"):
        root = os.path.join(os.path.dirname(path), "queue")
    return [Place(root), Place(f"/dev/shm/bird_sentinel-{os.geteuid()}-{mark:08x}.queue")]


def usable(config_path: str) -> list[Place]:
    """The places of a config's queue that are there, and that nobody else can write to."""
    found = []
    for place in places(config_path):
        with ignoring(OSError, Problem):
            place.require_safe()
            found.append(place)
    return found


def store(config_path: str, text: str, sent: float) -> tuple[Place, str, Problem | None]:
    """Keep an alert durably, under a name which nobody else has and which sorts by age: in the
    queue, or in memory where that does not take it.  Returns where, its name, and what is unsafe
    about the queue.  Raises Problem where it can be kept nowhere."""
    name = f"{int(sent * 1e9):019d}.{os.getpid()}.{short_host_name()}"
    trouble: Exception = OSError()
    disk, memory = places(config_path)
    for place in (disk, memory):
        try:
            place.write(f"host: {short_host_name()}\n\n{text}", "new", name)
        except (OSError, Problem) as error:
            if place is disk and isinstance(error, Foreign):
                raise
            trouble = error if place is disk else trouble
            continue
        kept = f"kept in memory, in {memory.root}"
        if isinstance(trouble, Problem):
            return place, name, Problem(CONFIG, f"{kept}: {trouble.message}", trouble.hint)
        if place is memory:
            say("warning", f"the queue cannot be written ({lower(trouble)}): {kept}")
        return place, name, None
    raise Problem(LOST, f"the alert could not be stored anywhere: {lower(trouble)}",
                  getattr(trouble, "hint", "make room, or the queue's directory writable"))


def write_anywhere(found: Iterable[Place], data: str, *names: str) -> bool:
    """Write a file to the first of these places that takes it; returns whether one did."""
    for place in found:
        with ignoring(OSError, Problem):
            place.write(data, *names)
            return True
    return False


def pull(found: Iterable[Place], letter: bytes = LOOK) -> bool:
    """Have the workers of these places look.  False: none runs."""
    return any([place.pull(letter) for place in found])


# a module is compiled once, a script at each start; nothing is imported from the caller's directory
IMPORTED = "import sys; sys.path[0] = sys.argv.pop(1); from bird_sentinel import run; run()"
GIVEN = ("BIRD_SENTINEL_CONSUMER_KEY", "BIRD_SENTINEL_CONSUMER_SECRET")  # to authorize
SIGNALS = (1, 2, 14, 15, 17)  # HUP, INT, ALRM, TERM and CHLD, which a caller may have ignored


def start_worker(config_path: str, letter: bytes = LOOK) -> None:
    """Start a worker in a session of its own, with nothing of the caller's but the environment.
    Where one runs already the new one ends at once.  Raises Problem."""
    directory, name = os.path.split(os.path.abspath(__file__))
    script = ["-c", IMPORTED, directory] if name == "bird_sentinel.py" else [f"{directory}/{name}"]
    if sys.flags.isolated:
        script.insert(0, "-I")
    command = [sys.executable, *script, "worker", config_path, letter.decode()]
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("SWATCH_LINE", *GIVEN)}
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if environment.get(name):
            environment[name] = os.path.abspath(environment[name])
    try:
        os.posix_spawn(sys.executable, command, environment, file_actions=null, setsid=True,
                       setsigmask=[], setsigdef=SIGNALS)
    except OSError as error:
        raise Problem(KEPT, f"kept in the queue, but no worker can be started: {lower(error)}",
                      f"when processes can be started again: {FLUSH}") from None


# ---- config: the keys stay private -------------------------------------------------------------

KEYS = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
KEY = r"[!-~]+"  # printable ASCII without a space
HANDLE = r"[A-Za-z0-9_]{1,50}"
ID = r"[0-9]{1,20}"  # X has ids in 64 bits
AUTHORIZE, FLUSH = "bird_sentinel authorize", "bird_sentinel flush"
AGAIN, ADD = f"run: {AUTHORIZE}", f"{AUTHORIZE} --to HANDLE"
OWN_USER = "bird_sentinel"  # who sends for the whole host, where this user exists


class Config:
    """What config.ini says (as yet nothing, where it is made of {}); `check` tells whether that is
    enough to send."""

    def __init__(self, path: str, parser: Any) -> None:
        self.path, self.parser = path, parser
        self.account, self.recipients, self.delivery = (
            dict(parser[name]) if name in parser else {}
            for name in ("account", "recipients", "delivery")
        )
        self.ids = list(dict.fromkeys(self.recipients.values()))
        self.unfinished = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
        self.host = clean(self.delivery.get("host", "")).replace("\n", " ")[:64]
        self.interval = 0.0
        with ignoring(ValueError):
            self.interval = float(self.delivery.get("interval", MINUTE))

    def unknown(self) -> list[str]:
        """The recipients whose id has yet to be looked up."""
        return [handle for handle, i in self.recipients.items() if not re.fullmatch(ID, i)]

    def handle(self, recipient: str) -> str:
        """Whose id this is."""
        return next((name for name, i in self.recipients.items() if i == recipient), recipient)

    def check(self) -> Config:
        """Return the config if it is complete; raises Problem."""
        missing = [name for name in KEYS if not re.fullmatch(KEY, self.account.get(name, ""))]
        odd = [handle for handle in self.recipients if not re.fullmatch(HANDLE, handle)]
        why = [f"no id for @{handle}: {self.recipients[handle]}" for handle in self.unknown()]
        for bad, message, hint in (
            (missing, f"no usable {''.join(missing[:1])} in [account]", AGAIN),
            (not self.recipients, "nobody in [recipients]", f"name them: {ADD}"),
            (odd, f"a recipient that is no handle: {''.join(odd[:1])}",
             "a line of [recipients] is: handle = numeric id"),
            (why, "".join(why[:1]), AGAIN),
            (not 0 < self.interval <= DAY, "an interval of no use",
             "give seconds, as in: interval = 60"),
        ):
            if bad:
                raise Problem(CONFIG, f"the config {self.path} has {message}", hint)
        return self

    def environment(self) -> dict[str, str]:
        """The environment variables by which requests finds its way to X, where the config says
        it: its own proxy and CA bundle go before those of whoever started the worker."""
        proxy, bundle = self.delivery.get("proxy"), self.delivery.get("ca_bundle")
        found = {}
        if proxy:
            found = {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
        if bundle:
            found["REQUESTS_CA_BUNDLE"] = os.path.join(os.path.dirname(self.path),
                                                       os.path.expanduser(bundle))
        return found

    def setting(self, name: str) -> str:
        """Where `proxy` or `ca_bundle` is set, and to what, without a password; "" where nowhere
        is."""
        values = {f"{name} in [delivery] of {self.path}": self.delivery.get(name)}
        for variable in WAYS[name]:
            values[f"{variable} in the environment"] = os.environ.get(variable)
        for where, value in values.items():
            if value and name == "proxy":  # all but its host and port may be a password
                shown = re.fullmatch(r"([a-z0-9+.-]+://)?(?:.*@)?([\w.-]+|\[[\da-f:]+\])(:\d{1,5})?/?",
                                     value)
                return where + (": " + "".join(filter(None, shown.groups())) if shown else "")
            if value:
                return f"{where}: {value}"
        return ""

    def save(self) -> None:
        """Replace the file as a whole; what we do not know in it stays, but for comments.  Raises
        Problem."""
        for section in ("account", "recipients", "delivery"):
            self.parser[section] = getattr(self, section)
        text = io.StringIO()
        self.parser.write(text)
        try:
            make_directory(os.path.dirname(self.path))
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(directory, fcntl.LOCK_EX)  # there may be two of us
            with ignoring(FileNotFoundError):  # of a run that was killed
                os.unlink(self.unfinished)
            write_file(self.path, text.getvalue(), self.unfinished)
            os.close(directory)
        except OSError as error:
            raise Problem(CONFIG, f"the config {self.path} could not be saved: {lower(error)}",
                          "make room, or name another place with --config") from None


# the environment variables of python-requests which say what the config may say
WAYS = {"proxy": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
        "ca_bundle": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}


def own_config() -> str:
    """Where a user's config is, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    base = base if os.path.isabs(base) else "~/.config"
    return os.path.expanduser(os.path.join(base, "bird_sentinel", "config.ini"))


def become_sender() -> None:
    """One user sends for the whole host: where root has no config of its own, and there is a user
    bird_sentinel, what root runs becomes that user."""
    if os.geteuid() == 0 and not os.path.lexists(own_config()):
        with ignoring(KeyError):
            user = pwd.getpwnam(OWN_USER)
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.environ.update(HOME=user.pw_dir, XDG_CONFIG_HOME="")


def locate_config(given: str | None) -> str:
    """Return the absolute path of the config; raises Problem where no place for it can be found."""
    if not os.path.isabs(os.environ.get("HOME", "")):
        os.environ.pop("HOME", None)  # the password database tells
    named = given or os.environ.get("BIRD_SENTINEL_CONFIG")
    if not named:
        become_sender()
    path = os.path.expanduser(named or own_config())
    with ignoring(FileNotFoundError):  # the current directory may be gone
        if not path.startswith("~"):
            return os.path.abspath(path)
    raise Problem(LOST, "no place for a config can be found, nor for an alert",
                  "name one by an absolute path, with --config")


def require_config(path: str) -> None:
    """Raise Problem unless there is a config, a regular file of ours or root's that nobody else can
    read or write, as ssh does with a key.  It is not read."""
    if not os.path.lexists(path):
        with ignoring(KeyError):
            if path == own_config() and pwd.getpwnam(OWN_USER).pw_uid != os.geteuid():
                raise Foreign(CONFIG, f"there is no config {path}, as the user {OWN_USER} sends for"
                              " this host",
                              f"run it as that user: sudo -u {OWN_USER} bird_sentinel")
        raise Problem(CONFIG, f"not authorized yet: there is no config {path}", AGAIN)
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise Problem(CONFIG, f"the config {path} is not a regular file, which is not safe",
                      "put the file itself in its place, or name that with --config and send again")
    require_safe(path, os.lstat(path))


def read_config(path: str) -> Config:
    """Return what the config says, nothing where there is none; raises Problem where it cannot be
    read, is unsafe or is not in INI form."""

    # without interpolation, so that % is an ordinary character; a handle keeps its case
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.optionxform = str
    if not os.path.lexists(path):
        return Config(path, parser)
    require_config(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | PLAIN)
        with open(descriptor, encoding="utf-8-sig") as file:
            require_safe(path, os.fstat(descriptor))
            parser.read_file(file)
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


# ---- pace: a storm becomes a few DMs, inside X's limits ----------------------------------------

LIMITS = ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")
WINDOW = 900.0  # seconds of X's shortest limit (docs.x.com, "Rate limits")
DAY_DMS, EASY_DMS = 500, 250  # DMs in a day (X's help pages), and how many of them go with ease
OUR_PACE, SHARE, X_LIMIT = "our own pace", "a share of X's limit", "X's limit"
# seconds to wait after so many failures in a row
RETRY = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0)  # it may pass by itself
SLOW = (60.0, 900.0, 1800.0, 3600.0)  # a person has to act; but one stray refusal was seen


def x_time(headers: Mapping[str, str], now: float) -> float:
    """X's clock (seconds since the epoch), as its answer tells it; else ours."""
    with ignoring(KeyError, TypeError, ValueError, OverflowError, IndexError):
        return float(email.utils.parsedate_to_datetime(headers["date"]).timestamp())
    return now


def allowances(headers: Mapping[str, str], now: float) -> list[tuple[float, int, float]]:
    """What X's answer says of its limits; for each: how many DMs have to be left for a quick one,
    how many are left, and the seconds until the reset.  What makes no sense is passed over."""
    found, now = [], x_time(headers, now)
    for name in LIMITS:
        with ignoring(KeyError, ValueError, OverflowError):
            left, reset = int(headers[name + "-remaining"]), int(headers[name + "-reset"])
            limit = int(headers.get(name + "-limit", left))
            if 0 <= left < 10**9 and 0 <= limit < 10**9 and now < reset:
                found.append((limit / 2, left, min(reset - now, DAY)))
    return found


def round_wait(
    sent: list[float], dms: int, interval: float, limits: list[tuple[float, int, float]], now: float
) -> tuple[float, str]:
    """Seconds until the next round, of so many DMs, and what they are waited for.  sent: when each
    DM of the last day went, oldest first; limits: as X told."""
    rounds = sum(at > now - WINDOW for at in sent) // dms
    if len(sent) >= EASY_DMS:  # what is left is spread over the rest of the day
        limits = [*limits, (DAY_DMS, max(0, DAY_DMS - len(sent)), sent[0] + DAY - now)]
    wait, why = min(2.0 ** min(rounds, 30) - 1, interval), OUR_PACE
    for quick, left, seconds in limits:
        if left - dms < quick:
            share = max(interval, seconds / left * dms) if left >= dms else seconds
            wait, why = max((wait, why), (share, SHARE))
    return wait, why


def limit_wait(headers: Mapping[str, str], now: float) -> float:
    """Seconds to wait after a 429: what Retry-After and the resets of what is used up say; a
    minute, if that is over; a window's length where X says nothing that makes sense."""
    now, waits = x_time(headers, now), []
    for name in LIMITS:
        with ignoring(KeyError, ValueError, OverflowError):
            if int(headers.get(name + "-remaining", 0)) <= 0:
                waits.append(int(headers[name + "-reset"]) - now)
    with ignoring(KeyError, ValueError):
        waits.append(float(headers["retry-after"][:12]))
    return max((max(wait, 1.0) if wait > 0 else MINUTE for wait in waits
                if -DAY < wait <= DAY + MINUTE), default=WINDOW)


# how a failure ends: the exit status that tells of it
STATUS = {"": DELIVERED, "pace": DELIVERED, "limit": KEPT, "retry": KEPT, "away": KEPT,
          "fault": KEPT, "cap": KEPT, "account": REFUSED, "recipient": REFUSED, "config": CONFIG}
HOUR, LONGEST = 3_600.0, {"limit": DAY + 2 * MINUTE, "pace": DAY}  # seconds
STEPS = {"limit": (), "cap": SLOW[1:], "account": SLOW}  # waits of the account; (): as X says
ELSEWHERE = ("away", "fault", "config")  # where a worker in other surroundings may do better
X, PACE = "x", "pace"  # scopes of a wait, beside the recipients' ids


class Wait:
    """Why the account, the next round or a recipient has to wait.  kind: of STATUS; began, until:
    seconds since the epoch; failures: in a row; error, hint: for a person."""

    def __init__(
        self, kind: str = "", began: float = 0.0, until: float = 0.0, failures: int = 0,
        error: str = "", hint: str = "", **_: Any,
    ) -> None:
        self.kind, self.status, self.error, self.hint = kind, STATUS[kind], str(error), str(hint)
        self.began, self.failures = float(began), max(0, int(failures))
        # what lies further ahead than its kind's longest makes no sense
        self.until = float(until) if until <= time.time() + LONGEST.get(kind, HOUR + MINUTE) else 0


class State:
    """What the worker knows beside the queue, and a later one, `send` and `status` want to know.

    waits: by scope; sent: when each DM of the last day went, oldest first; delivered: the last one;
    told: of which troubles `on_trouble` was told; dropped: refused DMs for which was no room.
    """

    def __init__(self, found: Iterable[Place]) -> None:
        """Read the newest that is in one of these places; begin anew where there is none of use.
        Times in the future count as never."""
        self.waits, self.sent, self.told = dict[str, Wait](), list[float](), list[str]()
        self.delivered, self.dropped, self.written, self.saved, now = 0.0, 0, 0.0, "", time.time()
        for place in found:
            with ignoring(Exception):
                data = json.loads(read_file(place.path("state")), parse_constant=int)  # no NaN
                waits = {scope: Wait(**wait) for scope, wait in data["waits"].items()}
                if data["written"] > self.written:
                    vars(self).update(
                        waits={scope: it for scope, it in waits.items() if it.began <= now + 1},
                        sent=[at for at in map(float, data["sent"]) if now - DAY < at <= now],
                        told=list(map(str, data["told"])), dropped=int(data["dropped"]),
                        delivered=min(now, data["delivered"]), written=min(now, data["written"]))

    def save(self, found: Iterable[Place]) -> bool:
        """Write it to the first of these places that takes it; returns whether it is there."""
        data = {**vars(self), "waits": {scope: vars(wait) for scope, wait in self.waits.items()}}
        text = json.dumps({**data, "written": 0, "saved": ""})
        data = {**data, "written": time.time(), "saved": ""}
        if text == self.saved or write_anywhere(found, json.dumps(data), "state"):
            self.saved = text
        return bool(self.saved == text)

    def wait(self, scope: str) -> Wait:
        return self.waits.get(scope) or Wait()

    def hold(self, scope: str, kind: str, steps: tuple[float, ...], why: Outcome) -> None:
        """Have a scope wait, so many seconds as is the step for this failure in a row; with a
        little jitter, as not all hosts should come back at once."""
        now, before = time.time(), self.wait(scope)
        again = before.kind == kind or {before.kind, kind} == {"retry", "away"}
        failures = before.failures + 1 if again else 1
        seconds = steps[min(failures, len(steps)) - 1]
        if kind != "pace":
            seconds += random.uniform(0, min(3.0, seconds / 5))
        self.waits[scope] = Wait(kind, now, now + seconds, failures, why.error, why.hint)

    def end(self, *scopes: str) -> None:
        for scope in scopes:
            self.waits.pop(scope, None)

    def hurry(self) -> None:
        """All waits are over, though not forgotten."""
        for wait in self.waits.values():
            wait.until = 0.0

    def refusing(self, ids: Iterable[str]) -> dict[str, Wait]:
        """Who refuses us, of these recipients, and why."""
        return {recipient: self.waits[recipient] for recipient in ids if recipient in self.waits}

    def holding(self, ids: list[str], paced: bool = True) -> Wait:
        """What the next attempt waits for, and until when.  paced: our own pace counts too."""
        refusing = list(self.refusing(ids).values())
        waits = [self.wait(X), self.wait(PACE if paced else X)]
        if refusing and len(refusing) == len(ids):
            waits.append(min(refusing, key=lambda wait: wait.until))
        return max(waits, key=lambda wait: wait.until)

# ---- digest: all that is pending in one DM -----------------------------------------------------

KINDS, SAMPLES, VALUES = 300, 3, 40  # kept at the most: kinds, alerts of a kind, values of a place

# What a line may begin with: a priority, then date and time, as syslog, ISO 8601, Apache have it.
STAMP = (
    r"(?:<\d{1,3}>(?:1 )?)?\[?(?:(?:[A-Z][a-z]{2}|\d{1,4})(?:, |[-/. :T] ?)){2,5}"
    r"(\d\d):(\d\d):(\d\d)[.,\d]*(?:Z|[+-]\d\d:?\d\d)?"
    r"(?: (?:[A-Z]{3,4}(?=\])|20\d\d(?=[ \]])|[+-]\d{4}))?\]?\s+"
)
IP_ADDRESS = (  # IPv4; IPv6 or MAC
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w.])"
    r"|(?=(?:[\da-fA-F]+:){5}|[\da-fA-F:]*::)[\da-fA-F:]{3,39}(?![\w:]))"
)
# What names one thing of many: digits that are long or hexadecimal; digits and letters in turn.
RANDOM = (
    r"(?i:(?<![a-z\d])(?:0x[\da-f]+|(?=[a-f]*\d)[\da-f]{5,}(?:-[\da-f]{4,})*"
    r"|[a-z]*\d+[a-z]+\d[a-z\d]*)(?![a-z\d]))"
)
LETTERS = r"[^\W\d_]{3}"
NAME = r"(?:\w+=)?/?[^\W\d_]{2}[\w.@/-]*"  # two letters, what follows, and "user=" before it


def read(alert: Alert, host: str) -> tuple[float, str, str]:
    """When it happened (seconds since the epoch); what its line begins with: a time stamp of its
    own, and `host` if that follows; the rest.  A stamp of another zone or of long ago is not
    believed."""
    stamp = re.match(rf"{STAMP}(?:{re.escape(host)}(?:\.\S+)? )?", alert.text)
    if not stamp:
        return alert.sent, "", alert.text
    hour, minute, second = map(int, stamp.groups())
    local = alert.sent + time.localtime(alert.sent).tm_gmtoff
    ago = (local - hour * 3600 - minute * 60 - second) % DAY
    when = round(alert.sent - ago) if ago < 15 * MINUTE else alert.sent
    return when, stamp[0], alert.text[stamp.end() :]


def value(word: str) -> str:
    """What an administrator would look for in a word: an address or a name, but no number."""
    names = re.findall(NAME, re.sub(RANDOM, "", word))
    return str([*re.findall(IP_ADDRESS, word), *names, ""][0])[:60]


class Kind:
    """Alerts of one template (as Drain has it: He et al., ICWS 2017).

    samples: the first one, and at most a few more; words: the template, in which a number is "#"
    and a word that differs "*"; marks: how many words, and the first three with three letters in a
    row; key: these, and all lines behind the first; values: what each word of the first alert
    tells; seen: by place, how often what was told behind it; last: seconds since the epoch.
    """

    def __init__(self, alert: Alert, *more: Alert) -> None:
        self.last, _, line = read(alert, alert.host)
        words = [word for word in re.findall(r"[^\s\"',{}]+", line[:300])
                 if re.search(rf"[^\W\d_]|{IP_ADDRESS}", re.sub(RANDOM, "", word))]
        self.words = [re.sub(rf"{IP_ADDRESS}|{RANDOM}|\d+", "#", word) for word in words]
        beginning = [word for word in self.words if re.search(LETTERS, word)][:3]
        self.marks = [len(words), *enumerate(beginning)]
        self.key = (self.marks, re.sub(r"\d+", "#", alert.text.partition("\n")[2]))
        self.values, self.seen = list(map(value, words)), [collections.Counter() for _ in words]
        self.samples, self.count = [alert, *more], 1

    def equal(self, other: Kind) -> int:
        return sum(map(str.__eq__, self.words, other.words))

    def take(self, new: Kind) -> None:
        self.count += 1
        self.last = max(self.last, new.last)
        self.words = [a if a == b else "*" for a, b in zip(self.words, new.words)]
        for came, seen in zip(new.values, self.seen):
            if came in seen or len(seen) < VALUES:
                seen[came] += 1
        if len(self.samples) < SAMPLES and new.samples[0].text != self.samples[-1].text:
            self.samples += new.samples

    def differing(self) -> str:
        """What differs in those behind the first, and how often each of it came."""
        parts = []
        for first, seen in zip(self.values, self.seen):
            told = {came: times for came, times in seen.most_common(8) if came}
            if seen.keys() - {first, ""}:
                words = [f"{came} ×{told[came]:,}" if told[came] > 1 else came for came in told]
                left = self.count - 1 - sum(told.values())
                if left:
                    words.append(plural(left, "other"))
                parts.append("; " + ", ".join(words))
        return "".join(parts[:3]).replace(";", ":", 1)


class Digest:
    """Alerts by kind, so that memory and disk stay bounded whatever the lines hold.

    kinds: those of which it is known what they say; count, first, last: how many alerts there are
    in all, and when they came (seconds since the epoch).
    """

    def __init__(
        self, kinds: Iterable[Kind] = (), count: int = 0, first: float = 9e9, last: float = 0
    ) -> None:
        self.kinds, self.count, self.first, self.last = list(kinds), count, first, last

    def add(self, alert: Alert) -> None:
        """Count an alert in: to the kind of its marks of which most other words are equal, unless
        it has another word where all agree that have come five times or more."""
        new = Kind(alert)
        self.count += 1
        self.first, self.last = min(self.first, new.last), max(self.last, new.last)
        near = [kind for kind in self.kinds if kind.key == new.key
                and 2 * kind.equal(new) >= len(new.words) + len(new.marks) - 1]
        settled = map(set, zip(*[kind.words for kind in near if kind.count >= 5]))
        if any(len(known) == 1 and known - {word, "*"} for word, known in zip(new.words, settled)):
            near = [kind for kind in near if kind.count < 5]
        if near:
            max(near, key=new.equal).take(new)
        else:
            self.kinds.append(new)
        if len(self.kinds) > KINDS:  # those stay that are like the fewest
            crowd = crowds(self.kinds)
            self.kinds = sorted(self.kinds, key=lambda kind: crowd[kind])[: KINDS * 3 // 4]

    def ranked(self) -> list[Kind]:  # the rarest first
        crowd = crowds(self.kinds)
        return sorted(self.kinds, key=lambda kind: kind.count * crowd[kind])

    def halves(self) -> tuple[Digest, Digest]:  # the rarer kinds first
        ranked, half = self.ranked(), len(self.kinds) // 2
        count = sum(kind.count for kind in ranked[:half])
        return (Digest(ranked[:half], count, self.first, self.last),
                Digest(ranked[half:], self.count - count, self.first, self.last))

    def dump(self) -> dict[str, Any]:  # as JSON can hold it
        return {**vars(self), "kinds": [
            {**vars(kind), "samples": list(map(vars, kind.samples))} for kind in self.kinds]}

    @staticmethod
    def load(data: Any) -> Digest:  # what `dump` made; raises any exception where that is damaged
        kinds = []
        for saved in data["kinds"]:
            kind = Kind(*[Alert(**alert) for alert in saved["samples"]])
            kind.words = list(map(str, saved["words"]))
            kind.seen = list(map(collections.Counter, saved["seen"]))
            kind.count, kind.last = int(saved["count"]), int(saved["last"])
            kinds.append(kind)
        return Digest(kinds, int(data["count"]), int(data["first"]), int(data["last"]))


def crowds(kinds: list[Kind]) -> dict[Kind, int]:
    """By kind, how many share its marks.  Who may choose words of a line can make many kinds of it,
    but only such."""
    often = collections.Counter(mark for kind in kinds for mark in kind.marks)
    return {kind: sum(often[mark] for mark in kind.marks) for kind in kinds}


def cut(text: str, room: int) -> str:
    """A text in about so many characters.  A short one loses its ids first, then its end."""
    if len(text) > room and room < 300:
        text = re.sub(RANDOM, "…", text)[:room] + "…"
    return shorten(text, max(room, 300)).replace("\n", "\n    ")


def entry(kind: Kind, label: str, day: float, room: int) -> str:
    """A kind's part of a DM: few are each quoted, where there is room; of more the first one, with
    how many there are and what differs in them."""
    few = kind.count <= SAMPLES and room == DM_LIMIT
    shown, lines = kind.samples[: SAMPLES if few else 1], []
    for alert in shown:
        when, begin, rest = read(alert, label)
        text = rest if clock(when, when) in begin else alert.text
        lines.append(f"•{clock(when, day)} {cut(text, room)}")
    if kind.count > len(shown):
        more = f"  {kind.count - len(shown):,} more like this, last {clock(kind.last, day)}"
        lines.append(more + cut(kind.differing(), room // 2))
    return "\n".join(lines)


def compose(digest: Digest, host: str, now: float, note: str = "") -> str:
    """Return the one DM, of at most DM_LIMIT characters, in which each alert is quoted or counted.

    The rarest kinds come first and stay when not all fit, so that a storm cannot drown the one line
    that differs.  `host`: the label; "": that of the machine where the alert was sent.  `now`:
    seconds since the epoch.  `note`: what else there is to say.
    """
    hosts = {alert.host for kind in digest.kinds for alert in kind.samples}
    label = host or ", ".join(sorted(hosts)[:3])
    if digest.count == 1:
        alert = digest.kinds[0].samples[0]
        _, begin, _ = read(alert, label)
        told = label if begin else f"{label} {clock(alert.sent, now)}"
        told = ", ".join(filter(None, ["" if f" {label}" in begin else told, note]))
        head = f"[{told}] " if told else ""
        return head + cut(alert.text, DM_LIMIT - len(head))
    head = f"[{label}] {plural(digest.count)}, {clock(digest.first, 0)} to"
    head += f" {clock(digest.last, digest.first)}" + (f", {note}" if note else "")
    ranked, limit = digest.ranked(), DM_LIMIT - len(head) - 40
    for step in range(30):
        lines = [entry(kind, label, digest.first, int(DM_LIMIT * 0.85**step)) for kind in ranked]
        if len("\n".join(lines)) <= limit:
            break
    while len("\n".join(lines)) > limit:
        lines.pop()
    left = digest.count - sum(kind.count for kind in ranked[: len(lines)])
    if left:
        lines.append(f"and {left:,} more of other kinds")
    return "\n".join([head, *lines])


# ---- X: every call bounded, every answer understood --------------------------------------------

PORTAL = "in X's developer portal (console.x.com)"
CALLBACK = PORTAL + ", in the app's user authentication settings, set any callback URL"
PERMISSION = (
    PORTAL + ", in the app's user authentication settings, choose 'Read, write, and Direct"
    " Messages', save, then run: bird_sentinel authorize"
)
LEVELS = ("read-write-directmessages", "")  # of access tokens, that may do; "": X does not tell
CREDITS = "buy credits " + PORTAL
RETRIED = "alerts are kept and retried"
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
    ((64,), "account", "{sender} is suspended", "log in to it on x.com to appeal"),
    ((326,), "account", "{sender} is locked", "log in to it on x.com to unlock it"),
    ((226,), "account", "X takes our DMs for automated spam",
     "log in to {sender} on x.com, and have the recipients write to it first"),
    ((261,), "account", "X has barred the app from writing", "see what X's developer portal says"),
    ((453, "client-not-enrolled", "client-forbidden", "unsupported-authentication"), "account",
     "the app has no access to this part of X's API",
     PORTAL + ", move the app to the pay-per-use, production environment"),
    (("spendcapreached",), "account", "the app's spending cap on X is reached",
     "it holds until the next billing cycle; see X's developer portal (console.x.com)"),
    (("creditsdepleted", "credits"), "account", "the app's credits on X are used up", CREDITS),
    ((415,), "account", "the app has no callback URL that allows a PIN", CALLBACK),
    ((417,), "account", "the app has no callback URL", CALLBACK),
    ((349, 150, 476), "recipient", "it accepts no DMs from {sender}",
     "have this recipient send {sender} a DM first, or accept message requests from everyone"),
    ((108, 50, 63, "resource-not-found"), "recipient", "it has no account on X, or a suspended one",
     f"have the id looked up again: {ADD}"),
    # where X gives no reason that is known
    (("http 401",), "account", "X does not accept our keys", AGAIN),
    (("http 402",), "account", "the app's credits on X are used up", CREDITS),
    (("http 429",), "limit", "X's rate limit is reached", ""),
)
PHRASES = ("you do not have permission to dm", "this operation is not permitted")
REASONS = (
    # why there was no answer: what is in a library's words; ours; the setting that it is about
    (r"Tunnel connection failed: (\d{3}[ \w-]{0,40})", "the proxy refuses the connection ({})",
     "proxy"),
    (r"CA certificate bundle", "the file with the CA certificates is missing", "ca_bundle"),
    (r"SSL|certificate", "its TLS certificate cannot be verified", "ca_bundle"),
    (r"^(?:InvalidURL|InvalidSchema|InvalidProxyURL|ProxySchemeUnknown|LocationParseError)|SOCKS",
     "the address of the proxy is malformed, or of a kind that cannot be used", "proxy"),
    (r"ProxyError.*\[Errno -?\d+\] ([\w ,'-]+)", "the proxy does not answer: {}", "proxy"),
    (r"[Rr]eset|[Aa]bort|Remote|EOF|BadStatus|Incomplete|Protocol|Chunked",
     "the connection was cut off", "proxy"),
    (r"ProxyError", "the proxy does not answer", "proxy"),
    (r"\[Errno -?\d+\] ([\w ,'-]+)", "{}", "proxy"),
    (r"[Tt]imed? ?out", "no answer in time", "proxy"),
    (r"(?s)^(\w+).*", "no answer ({})", "proxy"),
)
UNSET = {  # what to look at, where that is not set
    "proxy": "see whether this machine gets to https://api.twitter.com",
    "ca_bundle": "if something of yours on the way opens TLS, name its CA's file as ca_bundle in"
                 " [delivery] of the config",
}


class Outcome:
    """What an answer means.  kind: delivered, or of STATUS, or unclear: it may be the text, the
    recipient or the account; words, hint: for a person; error: the words with X's own."""

    def __init__(self, kind: str, words: str = "", hint: str = "", said: str = "") -> None:
        self.kind, self.words, self.hint = kind, words, hint
        self.error = f"{words} ({said})" if said else words
        self.status = DELIVERED if kind == "delivered" else STATUS.get(kind, REFUSED)


class Answer:
    """What came back from a call to X: `headers` in small letters.  Status 0: nothing did, and
    `why` says the reason, `hint` where to look."""

    def __init__(
        self, status: int, headers: Mapping[str, str], body: str, why: str = "", hint: str = ""
    ) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.why, self.hint = why, hint

    def json(self) -> Any:
        """What the body says, None where it is no JSON, so that it is not X which says it."""
        with ignoring(ValueError, RecursionError):
            return json.loads(self.body.encode("latin-1"))


def bounded(call: Callable[[], Any], seconds: int = CALL) -> Any:
    """Return what `call` does, something that JSON can hold.

    It runs in a child process which the kernel ends when its time is up: that also bounds what has
    no time-out of its own, such as a name look-up, a server that trickles, or a syslog that nobody
    reads.  Raises OSError where no process can be started, its time is up, or it came to another
    end.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # which the caller may ignore
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.closerange(3, writer)  # should we be killed, it must not hold our lock and trigger
            os.closerange(writer + 1, 256)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
            signal.alarm(seconds)
            with open(writer, "wb") as pipe:
                pipe.write(json.dumps(call()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    ended = os.waitpid(child, 0)[1]
    if ended == signal.SIGALRM:
        raise OSError(f"no answer within {seconds} seconds")
    if ended:
        raise OSError(f"our process that asks came to a bad end (signal {ended & 127})")
    return json.loads(data)


def import_tweepy() -> Any:
    """Return the module tweepy; raises Problem where it is missing or too old."""
    if sys.flags.no_site:  # the launcher leaves it out
        site.main()
    hint = (f"run: {sys.executable} -m pip install --upgrade tweepy (in a virtual environment; see"
            " the README, Install)")
    try:
        import tweepy  # type: ignore[import-untyped]
    except Exception as error:  # of one of its own modules too, when two do not fit
        raise Problem(CONFIG, f"tweepy cannot be used ({error})", hint) from None
    if not hasattr(tweepy.Client, "create_direct_message"):
        raise Problem(CONFIG, f"tweepy {tweepy.__version__} is too old, 4.12 is needed", hint)
    return tweepy


def ask_x(config: Config, action: Callable[[Any, Callable[..., None]], Any]) -> Answer:
    """Have tweepy do something and return X's answer as it came, whatever tweepy makes of it.
    `action` takes the module, and a hook that is to hear of each answer; where the hook heard none,
    what it returns is the body.  Bounded in time; raises Problem."""
    tweepy = import_tweepy()

    def call() -> list[Any]:
        os.environ.update(config.environment())
        sys.modules["requests.sessions"].DEFAULT_REDIRECT_LIMIT = 0  # type: ignore[attr-defined]
        answers: list[list[Any]] = []

        def hear(response: Any, **_: Any) -> None:
            headers = {name.lower(): value for name, value in response.headers.items()}
            answers.append([response.status_code, headers, ""])
            answers[-1][2] = response.content[:100_000].decode("latin-1")

        try:
            answers.append([200, {}, json.dumps(action(tweepy, hear))])
        except Exception as error:  # what tweepy thinks of an answer does not matter
            cause: Any = error
            while cause.args and isinstance(cause.args[0], Exception):  # tweepy wraps it, twice
                cause = cause.args[0]
            if not answers and hasattr(getattr(cause, "response", None), "headers"):
                hear(cause.response)
            answers.append([0, {}, "", *reason(config, f"{type(cause).__name__} {cause}")])
        return answers[0]

    try:
        return Answer(*bounded(call))
    except OSError as error:
        hint = RETRIED if "signal" in str(error) else reason(config, "")[1]
        return Answer(0, {}, "", lower(error), hint)


def ask_as_account(config: Config, method: str, **arguments: Any) -> Answer:
    """Call a method of tweepy's Client, with the keys of the account."""

    def action(tweepy: Any, hear: Callable[..., None]) -> None:
        client = tweepy.Client(**{name: config.account[name] for name in KEYS})
        client.session.hooks["response"] = [hear]
        getattr(client, method)(user_auth=True, **arguments)

    return ask_x(config, action)


def reason(config: Config, error: str) -> tuple[str, str]:
    """Why there was no answer, in words of ours, as a library's may hold a proxy's password; and a
    hint that names what it depends on."""
    words, about = "", "proxy"
    for pattern, ours, setting in reversed(REASONS):
        found = re.search(pattern, error)
        if found:
            words, about = ours.format(*map(str.lower, found.groups())).strip(), setting
    where = config.setting(about)
    return words, f"see {where}; {RETRIED}" if where else f"{UNSET[about]}; {RETRIED}"


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
    if status == 0:
        return Outcome("away", f"X cannot be reached: {answer.why}", answer.hint)
    if status >= 500:
        return Outcome("retry", f"X has a fault of its own (HTTP {status})", RETRIED)
    if status != 429 and (status < 400 or body is None):
        to = re.match(r"https?://(?:[^/@]*@)?([\w.:-]+)", answer.headers.get("location", ""))
        return Outcome(
            "away", f"something else answers in the place of X (HTTP {status})"
            + (f", and sends us to {to[1]}" if to else ""),
            f"see what is on the way: a network's log-in page, a proxy; {RETRIED}")
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
    sender = "@" + (account.get("screen_name") or "the account that sends")
    for known, kind, words, hint in MEANINGS:
        if not marks.isdisjoint(map(str, known)):
            return Outcome(kind, words.format(sender=sender), hint.format(sender=sender))
    said = clean("; ".join(dict.fromkeys(sentences))).replace("\n", " ")
    for secret in filter(None, map(account.get, KEYS)):
        said = said.replace(secret, "…")
    return Outcome("unclear", f"X refuses it for a reason of its own (HTTP {status})",
                   f"if it lasts, have the id looked up again ({ADD}), or see the app's state"
                   f" {PORTAL}", f"X says: {said[:200]}" if said else "")


# ---- worker: one at a time, detached, while the queue is not empty -----------------------------

FOLD, FOLDED = 1_000, "folded"  # files from which on they are folded; into what
LATE = 300.0  # seconds after which alerts that wait for X are a trouble
TRIES = 3  # failures in a row after which it may be the text's own fault
REFUSALS = 10  # refused texts in an hour, after which none is halved any more
ASIDE = 100  # refused DMs that are kept
DAMAGED = ("bird_sentinel: a backlog was damaged on the disk, so not all alerts of it can be"
           " counted; what is left of it is put aside; to read it, run there: bird_sentinel status")


def report(message: str) -> None:
    """Tell syslog.  Never an alert's text: a watched syslog must not feed itself."""
    syslog.openlog("bird_sentinel", syslog.LOG_PID, syslog.LOG_DAEMON)  # nothing is sent yet
    with ignoring(OSError):
        bounded(lambda: syslog.syslog(message), 2)


def run_command(command: str, text: str) -> bool:
    """Run a command of the administrator's, with a text on its standard input, no line of which a
    mail program could take for a command of its own; bounded in time.  Returns whether it did
    well."""
    done = subprocess.run(["timeout", "-k", "1", "30", "/bin/sh", "-c", command],
                          input=re.sub("(?m)^~", " ~", text).encode(errors="replace"),
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode:
        report(f"on_trouble failed with exit status {done.returncode}")
    return not done.returncode


class Batch:
    """What goes in one round.  names: its files, where they are not folded; took: the ids of those
    who have it; sought: where it is a part of a refused text, as what kind of failure."""

    def __init__(self, digest: Digest, sought: str = "") -> None:
        self.digest, self.sought = digest, sought
        self.names, self.took = list[str](), set[str]()

    def is_open(self) -> bool:  # more may come into it
        return not self.took and not self.sought


class Worker:
    """The one process that moves alerts on, and alone writes `state` and `folded`.

    served: the places it may work on; batches: what is pending, in the order in which it goes;
    known: the files that were read; done: those that need nothing more but to be unlinked; folded:
    there is such a file; stale: a part of it needs nothing more; fold_at: so many files are folded;
    refusals: when texts were refused; posted, failed, limits: of this attempt, the DMs that X took,
    what may pass by itself, and what X said of its limits; untold: on_trouble may have to be run;
    unread: why a file cannot be read now; tried: an attempt was made; kept: the state is stored.
    """

    def __init__(self, config_path: str) -> None:
        self.places, self.served = places(config_path), list[Place]()
        self.state, self.config = State([]), Config(config_path, {})
        self.batches, self.known, self.done = list[Batch](), set[str](), set[str]()
        self.folded = self.stale = self.tried = self.kept = False
        self.fold_at, self.refusals, self.untold = FOLD, list[float](), True
        self.posted, self.limits = 0, list[tuple[float, int, float]]()
        self.failed: Outcome | None = None
        self.unread: OSError | None = None

    # -- what it works on

    def take(self) -> None:
        """Take all places that there are to be had; one that can have no lock is served under the
        lock of the other."""
        before, barred, memory = self.served, False, self.places[-1]
        lacking, unsafe = list[Place](), list[Place]()
        for place in self.places:
            try:
                place.hold()
            except BlockingIOError:
                barred = True  # by another worker
            except OSError:
                lacking.append(place)
            except Problem:
                unsafe.append(place)
        there = not barred and os.path.isdir(self.places[0].path("new"))
        if there and not any(place.trigger for place in self.places):
            with ignoring(OSError, Problem):  # there may be room for it in memory
                memory.make()
                memory.hold()
        held = [place for place in self.places if place.lock]
        if there and not held:
            raise OSError("no place of the queue can be locked")
        self.served = [place for place in self.places if held and place in held + lacking
                       and place not in unsafe]
        if self.places[0] in self.served and self.places[0] not in before:
            self.unfold(self.places[0])

    def unfold(self, disk: Place) -> None:
        """Take in the digests that were written down.  What is damaged is put aside, and told."""
        if os.path.lexists(disk.path(FOLDED)):
            try:
                data = json.loads(read_file(disk.path(FOLDED)))
                self.batches[:0] = [Batch(Digest.load(one)) for one in data["digests"]]
                self.done.update(map(str, data["names"]))
                self.known |= self.done
                self.folded = True
            except Exception:
                with ignoring(OSError):
                    os.rename(disk.path(FOLDED), disk.path("refused", f"{time.time_ns()}.{FOLDED}"))
                    store(self.config.path, DAMAGED, time.time())

    def take_in(self) -> None:
        """Read what was accepted since, each file once."""
        self.unread = None
        for place in self.served:
            try:
                names = sorted(set(place.names("new")) - self.known)
            except OSError as error:
                self.unread, names = error, []
            for name in names:
                try:
                    alert = place.read(name)
                except OSError as error:  # it may pass
                    self.unread = error
                    continue
                self.known.add(name)
                if not self.batches or not self.batches[-1].is_open():
                    self.batches.append(Batch(Digest()))
                self.batches[-1].digest.add(alert)
                self.batches[-1].names.append(name)
        if sum(len(batch.names) for batch in self.batches) >= self.fold_at:
            self.fold()
        if self.unread and not self.batches:
            raise self.unread

    def fold(self) -> None:
        """Write the digests down, in which all files then are: memory and disk stay bounded.  Where
        that cannot be, the files stay."""
        disk, names = self.places[0], self.done.union(*(batch.names for batch in self.batches))
        data = {"names": sorted(names), "digests": [it.digest.dump() for it in self.batches]}
        self.fold_at += FOLD
        if disk not in self.served:
            return
        with ignoring(OSError):
            if self.batches:
                disk.write(json.dumps(data, ensure_ascii=False), FOLDED)
            elif os.path.lexists(disk.path(FOLDED)):
                os.unlink(disk.path(FOLDED))
            self.folded, self.stale, self.fold_at = bool(self.batches), False, FOLD
            self.done = names
            for batch in self.batches:
                batch.names = []

    def clear(self) -> None:
        """Remove what needs nothing more.  What cannot be removed is tried again, and not sent."""
        if self.stale:
            self.fold()
        for name in sorted(self.done):
            with ignoring(OSError):
                for path in [place.path("new", name) for place in self.places]:
                    if os.path.lexists(path):
                        os.unlink(path)
                self.done.remove(name)
                self.known.remove(name)

    def finish(self, batch: Batch) -> None:
        """A round is over: forget what it was made of.  Who waits knows by the state that it went,
        so that is written first."""
        self.batches.remove(batch)
        self.save()
        self.stale = self.folded
        self.done.update(batch.names)
        self.clear()

    def save(self) -> None:
        self.kept = self.state.save(self.served or self.places)

    # -- delivering

    def attempt(self) -> None:
        """Give the first batch to those who have not got it.  Raises Problem where a person has to
        act before that can be."""
        self.tried = self.untold = True
        require_config(self.config.path)
        self.config = config = read_config(self.config.path).check()
        import_tweepy()
        self.state.end(*set(self.state.waits).difference(config.ids, (X, PACE)))
        batch, now, self.posted, self.failed = self.batches[0], time.time(), 0, None
        for recipient in config.ids:
            had = recipient in batch.took or self.state.wait(recipient).until > now
            if not had and not self.deliver(batch, recipient):
                break
        if self.posted:
            self.pace()
        if self.failed:
            self.state.hold(X, self.failed.kind, RETRY, self.failed)
        missing = set(config.ids).difference(batch.took, self.state.waits)
        if batch in self.batches and batch.took and not missing:
            report(f"{plural(batch.digest.count)} delivered to "
                   + at(map(config.handle, sorted(batch.took))))
            self.finish(batch)

    def post(self, recipient: str, text: str) -> str:
        """Give one DM to X, and hold what its answer says has to wait.  Returns the kind of it."""
        answer = ask_as_account(self.config, "create_direct_message",
                                participant_id=recipient, text=text)
        now, state = time.time(), self.state
        outcome, limit = judge(answer, self.config.account, now), (limit_wait(answer.headers, now),)
        if outcome.kind == "delivered":
            self.posted, state.delivered = self.posted + 1, now
            state.sent = [*(at for at in state.sent if at > now - DAY), now]
            self.limits = allowances(answer.headers, now)
            state.end(X, recipient)
            if any(left == 0 for _, left, _ in self.limits):
                state.hold(X, "limit", limit, Outcome("limit", X_LIMIT))
            return "delivered"
        report(f"not delivered to @{self.config.handle(recipient)}: {outcome.words}")
        if outcome.kind == "recipient":
            self.refuse(recipient, outcome)
        elif outcome.kind in STEPS:
            state.hold(X, outcome.kind, STEPS[outcome.kind] or limit, outcome)
        else:
            self.failed = outcome
        return outcome.kind

    def pace(self) -> None:
        """Set when the next round may go: a DM to each recipient."""
        seconds, why = round_wait(self.state.sent, len(self.config.ids), self.config.interval,
                                  self.limits, time.time())
        if not self.is_held():
            self.state.hold(PACE, "pace", (seconds,), Outcome("pace", why))

    def refuse(self, recipient: str, outcome: Outcome) -> None:
        """A recipient refuses us, as X deals with the account: that holds up nobody, and is tried
        again in later rounds."""
        self.failed = None
        if not self.is_held():
            self.state.end(X)
        outcome.hint = outcome.hint.replace(RETRIED, "later alerts are tried again")
        steps = RETRY[3:] if outcome.kind in ("retry", "away") else SLOW
        self.state.hold(recipient, "recipient", steps, outcome)

    def is_held(self) -> bool:  # X does not deal with the account now
        return self.state.wait(X).until > time.time()

    def deliver(self, batch: Batch, recipient: str) -> bool:
        """Give a batch to a recipient.  Where it may be the text that X refuses, a plain notice in
        its place tells.  Returns whether the others are to be tried, too."""
        before, text = self.state.wait(X), self.text_of(batch, recipient)
        kind, faults = self.post(recipient, text), ("retry", "away")
        failures = before.failures + 1 if before.kind in faults else 1
        refuses = batch.took and recipient in self.state.waits
        often = kind in faults and (failures >= TRIES or refuses)
        if kind == "unclear" or often or kind == batch.sought and not batch.took:
            outcome = self.failed or Outcome(kind)
            if batch.took:  # the text is not at fault
                self.refuse(recipient, outcome)
                return True
            if kind == batch.sought and len(batch.digest.kinds) > 1:
                return self.divide(batch, text, recipient)
            kind = self.post(recipient, self.text_of(self.notice(batch), recipient))
            if kind == "unclear":
                self.refuse(recipient, outcome)
            if kind != "delivered":
                return not self.is_held()
            self.failed = None
            if self.is_held():  # the notice took the last DM of X's limit
                return False
            kind = self.post(recipient, text)
            if self.failed:
                return self.divide(batch, text, recipient)
        if kind == "delivered":
            batch.took.add(recipient)
        return not self.is_held()

    def divide(self, batch: Batch, text: str, recipient: str) -> bool:
        """X does not take this text: halve it, by kinds, until what it will not take is found, of
        which the other recipients hear, too.  Returns False, as nobody else is to be given it."""
        outcome, self.failed, now = self.failed or Outcome("unclear"), None, time.time()
        self.refusals = [at for at in self.refusals if now - HOUR < at] + [now]
        if len(batch.digest.kinds) > 1 and len(self.refusals) <= REFUSALS:
            halves = [Batch(half, outcome.kind) for half in batch.digest.halves()]
            halves[-1].names = batch.names  # they go when the last part is through
            place = self.batches.index(batch)
            self.batches[place : place + 1] = halves
            return False
        kept = sum(len(place.names("refused")) for place in self.served)
        self.state.dropped = self.state.dropped + 1 if kept >= ASIDE else 0
        name = f"{int(batch.digest.first * 1e9):019d}.{os.getpid()}.{time.time_ns()}"
        data = f"refused: {outcome.error}\n\n{text}"
        if kept < ASIDE and not write_anywhere(self.served, data, "refused", name):
            raise OSError("what X refused cannot be put aside")
        told = self.notice(batch)  # of which the others are to hear, too
        told.took.add(recipient)
        self.batches.insert(0, told)
        self.finish(batch)
        return False

    def text_of(self, batch: Batch, recipient: str = "") -> str:
        """The DM of a batch, which says who else does not get it."""
        notes = [f"not to @{self.config.handle(other)}: {wait.error}"
                 for other, wait in self.state.refusing(self.config.ids).items()
                 if other != recipient]
        return compose(batch.digest, self.config.host, time.time(), "; ".join(notes)[:300])

    def notice(self, batch: Batch) -> Batch:
        """What is sent in the place of a text that X may refuse."""
        now, digest, told = time.time(), batch.digest, Batch(Digest())
        words = (f"X does not take a DM about {plural(digest.count)} of {clock(digest.first, now)}:"
                 " what it will not take is put aside; to read it, run there, as"
                 f" {user_name(os.geteuid())}: bird_sentinel status")
        told.digest.add(Alert(words, now, short_host_name()))
        return told

    # -- telling a person

    def fail(self, error: Exception) -> None:
        """Something is wrong with the config, or with us: have a person hear of it."""
        before, self.tried, self.untold = self.state.wait(X).error, True, True
        told = Outcome("fault", f"the worker failed ({type(error).__name__})",
                       "if it lasts, please report it", lower(error))
        if isinstance(error, Problem):
            told = Outcome("config", error.message, error.hint)
        self.state.hold(X, told.kind, RETRY[2:7], told)
        if told.error != before:  # of an exception, syslog is to know no more than its name
            report(told.words)

    def oldest(self) -> float:  # when the oldest was sent that is pending
        return min((batch.digest.first for batch in self.batches), default=time.time())

    def troubles(self) -> dict[str, str]:
        """What a person has to hear of, by a key of its own."""
        found, x, oldest = {}, self.state.wait(X), self.oldest()
        for scope, wait in self.state.refusing(self.config.ids).items():
            found[scope] = (f"DMs to @{self.config.handle(scope)} do not go out: {wait.error}\n"
                            f"hint: {wait.hint}")
        why = f"{x.error}\nhint: {x.hint or RETRIED}"
        if x.status > KEPT or x.kind == "fault":
            found[x.kind + x.hint] = f"DMs do not go out: {why}"
        elif x.status == KEPT and time.time() - oldest >= LATE:
            found["late"] = (f"DMs do not go out, alerts wait since {clock(oldest, time.time())}:"
                             f" {why}")
        return found

    def tell(self) -> None:
        """Run on_trouble: once when a trouble begins, with the digest that waits, and once when all
        is well again; again with the next attempt where it fails."""
        state, command, found = self.state, self.config.delivery.get("on_trouble"), self.troubles()
        new = [words for key, words in found.items() if key not in state.told]
        if found:
            state.told = [key for key in state.told if key in found]
        over = state.told and not found and self.posted
        if command and (new or over) and self.untold:
            self.untold = False
            self.save()  # first: a command that ends us must not be run again and again
            who = f"bird_sentinel of {user_name(os.geteuid())} on"
            told = [f"{who} {self.config.host or short_host_name()}: "
                    + ("\n".join(new) or "DMs go out again")]
            told += map(self.text_of, self.batches)
            if run_command(command, "\n\n".join(told) + "\n"):
                state.told = list(found)

    # -- its life

    def look(self) -> float:
        """Do what is due.  Returns the seconds until there is more to do.  Whatever goes wrong is
        told, and what is pending goes on being tried."""
        # the clock may have been set back
        self.state.waits = {scope: Wait(**vars(it)) for scope, it in self.state.waits.items()}
        for step in (self.take, self.take_in, self.attempt, self.clear, self.tell):
            try:
                if step != self.attempt or self.batches and self.due() <= time.time():
                    step()
            except Exception as error:
                self.fail(error)
        if not self.batches:  # what a person ended, by authorize, is no trouble any more
            self.state.end(*(scope for scope, it in self.state.waits.items() if not it.until))
        self.save()
        return max(0.0, self.due() - time.time())

    def due(self) -> float:
        """When the next attempt is.  What has begun keeps to no pace."""
        if self.unread and not self.batches:
            return self.state.wait(X).until
        if not self.batches:
            return time.time() + MINUTE  # for what could not be removed
        return self.state.holding(self.config.ids, self.batches[0].is_open()).until

    def may_let_go(self) -> bool:
        """Whether a worker in other surroundings may do better, and finds on the disk all that this
        one knows."""
        begun = self.done or self.stale or not all(batch.is_open() for batch in self.batches)
        return self.tried and self.kept and not begun and self.state.wait(X).kind in ELSEWHERE

    def serve(self, letter: bytes) -> float:
        """Look until nothing is pending; or let go, and return the seconds until the next try."""
        self.state = State(self.served)
        if letter == NOW:
            self.state.hurry()
        with ignoring(Problem):
            self.config = read_config(self.config.path)
        # what a process left that was killed while it wrote goes when it is a day old
        old = [place.path("tmp", name) for place in self.served for name in place.names("tmp")]
        for path in [self.config.unfinished, *old]:
            with ignoring(OSError):
                if os.stat(path).st_mtime < time.time() - DAY:
                    os.unlink(path)
        while True:
            wait = self.look()
            if not self.batches and not self.done and not self.stale and not self.unread:
                return 0.0
            late = self.oldest() + LATE - time.time()
            wait = min(wait, late) if late > 0 else wait  # that is to be told then
            if self.may_let_go():
                return max(wait, 0.1)
            triggers = [place.trigger for place in self.served if place.trigger]
            # a minute at the most, as the clock may jump
            ready = select.select(triggers, [], [], min(wait, MINUTE if triggers else 1.0))[0]
            self.untold = self.untold or not ready  # alerts may be late by now
            if ready:
                time.sleep(0.2)  # one look for many that pull at once
            if any([NOW in (trigger.read(1 << 16) or b"") for trigger in ready]):
                self.state.hurry()


def run_worker(config_path: str, letter: bytes) -> int:
    """Deliver until the queue is empty.  NOW: all waits are over, X's own, too, for one attempt."""
    worker = Worker(config_path)
    try:
        os.closerange(3, 1 << 16)
        os.chdir("/")
        while True:
            worker.take()
            if not worker.served:  # another one is at it, and looks once more before it ends
                return DELIVERED
            seconds, letter = worker.serve(letter), LOOK
            for place in worker.places:
                place.release()
            # whoever stored before nobody read the trigger is seen
            if not seconds and all(worker.known.issuperset(place.names("new"))
                                   for place in worker.served):
                return DELIVERED
            time.sleep(seconds)
            worker = Worker(config_path)
    except Exception as error:
        worker.fail(error)
        worker.save()
    return KEPT


# ---- authorize: once, with a PIN ---------------------------------------------------------------

# what each word of an answer has to be, and what is said where it is not
ADDRESS = r"(?:https?://)?(?:www\.|mobile\.)?(?:x|twitter)\.com/"
A_HANDLE = (rf"(?ai)(?:@|({ADDRESS}))?(?P<word>{HANDLE})(?(1)(?:[/?].*)?)",
            "'{}' is not a handle on X: it has letters, digits and underscores, as in @oncall_1")
A_KEY = (r"(?P<word>[!-~]{8,})", "this is no key: copy it whole from X's developer portal")
A_PIN = (r"(?P<word>[0-9]{3,20})",
         "a PIN is the digits which the page shows once the app is authorized")


def words_in(line: str, form: str, wrong: str) -> list[str]:  # raises Problem
    words = line.replace(",", " ").split() or [""]
    found = [re.fullmatch(form, word) for word in words]
    if None in found:
        raise Problem(USAGE, wrong.format(words[found.index(None)]))
    return [match["word"] for match in found if match]


def ask(question: str, form: str, wrong: str, hidden: bool = False) -> list[str]:
    """Return the words of one line of standard input; at a terminal, ask until they are of this
    form.  Raises Problem where a script's answer is not, or there is none."""
    terminal = os.isatty(0)
    while True:
        try:
            if hidden and terminal:
                line = getpass.getpass(question)
                show(f"  ({plural(len(line.strip()), 'character')})", sys.stderr)
            else:
                print(question if terminal else "", end="", file=sys.stderr, flush=True)
                line = next(sys.stdin)
            return words_in(line, form, wrong)
        except (EOFError, StopIteration, OSError, TypeError):  # its end, or it is closed
            if terminal:  # Ctrl-D
                raise KeyboardInterrupt from None
            raise Problem(USAGE, f"no answer to: {question.strip(': ')}") from None
        except Problem as problem:
            if not terminal:
                raise
            say("error", problem.message, problem.hint)


def not_answered(what: str, outcome: Outcome) -> Problem:  # where X does not do what is wanted
    hint = outcome.hint.replace(RETRIED, "").strip("; ") or "wait for a while"
    if AUTHORIZE not in hint:
        hint += f"; then: {AUTHORIZE}"
    return Problem(outcome.status or KEPT, what + outcome.error, hint)


def ask_oauth(config: Config, token: Mapping[str, str], pin: str = "") -> Any:
    """One step of OAuth 1.0a with tweepy's own handler (docs.x.com, "PIN-based OAuth"): return the
    page to open and a request token; with that and a PIN, the access token and its secret.  None
    where X does not accept the keys or the PIN; raises Problem."""

    def action(tweepy: Any, _: object) -> Any:
        handler = tweepy.OAuth1UserHandler(*map(config.account.get, KEYS[:2]), callback="oob")
        handler.request_token = token
        if pin:
            return handler.get_access_token(pin)
        return handler.get_authorization_url(), handler.request_token

    show("Asking X.")
    answer = ask_x(config, action)
    if answer.status == 200:
        return answer.json()
    if answer.body.strip()[:1] not in "<{":  # here X says it in plain words; a page is not X's
        answer.body = json.dumps({"detail": answer.body})
    outcome = judge(answer, config.account, time.time())
    if outcome.hint != AGAIN:
        raise not_answered("", outcome)
    return None


def request_token(config: Config) -> Any:
    """Return a request token, for which a consumer key and secret are asked for where there are
    none that X accepts.  Raises Problem."""
    typed = not all(re.fullmatch(KEY, config.account.get(name, "")) for name in KEYS[:2])
    while True:
        if typed:
            config.account.update(
                (name, "".join(ask(f"{name.replace('_', ' ')}: ", *A_KEY, hidden=True)))
                for name in KEYS[:2])
        answer = ask_oauth(config, {})
        if answer:
            return answer[1]
        which = "does not accept this" if typed else "no longer accepts the saved"
        refused = Problem(REFUSED, f"X {which} consumer key and secret", "copy both anew, the key"
                          f" first; or, as X shows them once, regenerate them {PORTAL}")
        if typed and not os.isatty(0):
            raise refused
        say("error", refused.message, refused.hint)
        typed = True


def walk_pin_flow(config: Config, wanted: list[str]) -> None:
    """Have a person authorize the app, and take the access token and its secret into the config;
    ask for recipients before that, where nobody is `wanted`.  Raises Problem."""
    for _ in range(3):
        token = request_token(config)
        if not wanted and not config.recipients:
            wanted += ask("recipients (handles, with spaces between): ", *A_HANDLE)
        show("As the account that is to send the alerts, open this page and authorize the app:\n"
             f"  https://api.x.com/oauth/authorize?oauth_token={token['oauth_token']}"
             "&force_login=true")
        access = ask_oauth(config, token, "".join(ask("PIN: ", *A_PIN)))
        if access:
            config.account.update(zip(KEYS[2:], access), screen_name="")
            return
        say("error", "X does not accept this PIN, and its page is spent")
    raise Problem(REFUSED, "three PINs were not accepted; nothing was changed", AGAIN)


def look_up(config: Config, handle: str = "") -> dict[str, Any]:
    """What X says of a handle, or of our own account: username, id, receives_your_dm (docs.x.com,
    "User lookup"; a cent each).  {} where there is no such handle, or the account's keys are not
    accepted, or not for DMs; raises Problem."""
    who = f"@{handle}" if handle else "the account"
    show(f"Asking X about {who}.")
    answer = (
        ask_as_account(config, "get_user", username=handle, user_fields=["receives_your_dm"])
        if handle else ask_as_account(config, "get_me"))
    with ignoring(KeyError, TypeError):  # it is no such answer
        user = answer.json()["data"]
        if re.fullmatch(f"{HANDLE} {ID}", f"{user['username']} {user['id']}"):
            # a token keeps the access level that it was made with
            return user if answer.headers.get("x-access-level", "") in LEVELS else {}
    outcome = judge(answer, config.account, time.time())
    unknown = handle and answer.status in (200, 400, 404) and answer.json()
    if unknown or outcome.hint in (AGAIN, PERMISSION):
        return {}
    raise not_answered(f"{who} could not be looked up: ", outcome)


def connect(config: Config, me: dict[str, Any], wanted: list[str]) -> list[str]:
    """Learn who the account and these recipients are on X, once, so that a DM costs no look-up, and
    save it.  Returns the recipients as X spells them; says what is in the way of their DMs.  What
    fails costs no second PIN, and `status` names it; raises Problem."""
    added = []
    try:
        me = me or look_up(config)
        if not me:
            raise Problem(REFUSED, "the app has no permission to send DMs", PERMISSION)
        sender = config.account["screen_name"] = me["username"]
        for handle in wanted:  # to which a person may add
            user = look_up(config, handle)
            if user:
                name = user["username"]
                config.recipients = {other: i for other, i in config.recipients.items()
                                     if other.lower() not in (handle.lower(), name.lower())}
                config.recipients[name] = user["id"]
                added.append(name)
                if name == sender:
                    say("warning", f"@{name} is the account that sends: nobody gets a notification"
                        " for that; name the one that is on your phone")
                elif user.get("receives_your_dm") is False:
                    say("warning", f"@{name} does not accept DMs from @{sender} now: have @{name}"
                        f" send @{sender} a DM first")
                continue
            if handle in config.unknown():
                del config.recipients[handle]
            missing = f"there is no account @{handle} on X"
            if not os.isatty(0):
                raise Problem(USAGE, missing, f"check the spelling, then, with no PIN: {ADD}")
            wanted += ask(f"{missing}; the right handle: ", *A_HANDLE)
    except Problem as problem:
        config.recipients.update((handle, problem.message) for handle in config.unknown())
        raise
    finally:
        config.save()
    return list(dict.fromkeys(added))


def keep_way_to_x(config: Config) -> None:
    """Take the proxy and the CA bundle in use into the config, where it has none: so that the
    worker has them whoever starts it."""
    used = sys.modules["requests"].Session().merge_environment_settings(
        "https://api.twitter.com", {}, None, None, None)
    ways = {"proxy": used["proxies"].get("https") or used["proxies"].get("all"),
            "ca_bundle": isinstance(used["verify"], str) and os.path.abspath(used["verify"])}
    for name, value in ways.items():
        if value and name not in config.delivery:
            config.delivery[name] = value
            show(f"In use, and kept for the worker: {config.setting(name)}")


def authorize(options: Any) -> int:
    """Connect an account with this machine: keys, PIN, recipients, proof."""
    path, said, go_on = locate_config(options.config), "nothing was saved", AUTHORIZE
    wanted = words_in(" ".join(options.to), *A_HANDLE) if options.to else []
    import_tweepy()  # if it is missing, or the config's place not ours, nobody is asked for keys
    config, directory = read_config(path), os.path.dirname(path)
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    require_ours(directory)
    trouble = examine(path, False)[1]
    if isinstance(trouble, Foreign):
        raise trouble
    config.account.update((name, os.environ[variable]) for name, variable in zip(KEYS, GIVEN)
                          if os.environ.get(variable))
    first = len(config.unknown()) == len(config.recipients)
    wanted = list(dict.fromkeys(wanted + config.unknown()))
    complete = all(re.fullmatch(KEY, config.account.get(name, "")) for name in KEYS)
    try:
        ask_first = wanted or not config.account.get("screen_name")
        me = look_up(config) if complete and ask_first else {}
        if not me:  # nothing on disk changes before X has said yes
            if complete and ask_first:
                show("X does not accept the saved keys, or not for DMs. What follows gets others.")
            elif complete:
                show("What follows gets new keys. Ctrl-C leaves the saved ones, which may well"
                     f" work; to\nadd a recipient to these: {ADD}")
            walk_pin_flow(config, wanted)
        if first:
            config.recipients = dict.fromkeys(wanted, "not looked up yet")
        keep_way_to_x(config)
        config.save()  # at once: a PIN is good for once
        said = "the keys are saved, and later no PIN is needed"
        added = connect(config, me, wanted)
        go_on = " --to ".join([AUTHORIZE, *(added or config.recipients)])
        show(f"Authorized as @{config.account['screen_name']}; the keys are in {path}.")
        show((f"Added {at(added)}. " if added else "") + f"Alerts go to {at(config.recipients)}.")
        try:
            count = deliver_pending(path, mended=True)
            if count:
                show(f"Delivered what was queued: {plural(count)}.")
        except Problem as problem:
            say("warning", problem.message, problem.hint)
        code = DELIVERED if options.no_test else prove(config, added or list(config.recipients))
    except KeyboardInterrupt:
        show("", sys.stderr)
        raise Problem(INTERRUPTED, f"interrupted; {said}", f"to go on: {go_on}") from None
    if first:
        show(swatch_lines(path))
    return code


def prove(config: Config, handles: list[str]) -> int:
    """Give each recipient a test DM that carries a number of its own, and at a terminal ask for it:
    the whole way up to the phone.  Returns the exit status; raises Problem."""
    code, numbers = DELIVERED, {}
    for handle, number in zip(handles, random.sample(range(100, 1000), len(handles))):
        answer = ask_as_account(
            config, "create_direct_message", participant_id=config.recipients[handle],
            text=f"[{config.host or short_host_name()}] bird_sentinel test: the number is {number}")
        outcome = judge(answer, config.account, time.time())
        if outcome.kind == "delivered":
            show(f"X took a test DM for @{handle}.")
            numbers[handle] = number
        else:
            say("error", f"no test DM for @{handle}: {outcome.error}",
                f"{outcome.hint or 'wait for a while'}; then: {AUTHORIZE} --to {handle}")
            code = max(code, outcome.status)
    for handle, number in numbers.items():
        question = f"the number that the phone of @{handle} shows (Enter, if it shows none): "
        form = f"(?P<word>{number}|)"
        if os.isatty(0) and ask(question, form, "that is not the number") == [""]:
            say("error", f"X took the test DM, but the phone of @{handle} does not show it",
                "look under message requests, accept the request once, and see the app's"
                " notification settings; follow each other; the account that sends must never set a"
                f" Chat PIN (X Chat); then: {AUTHORIZE} --to {handle}")
            code = max(code, KEPT)
    if code == DELIVERED and os.isatty(0):
        show("It works: what is sent is read.")
    return code


def swatch_lines(config_path: str) -> str:
    """The lines to paste into a swatchrc, with the script's real path; see swatchrc.example."""
    words = [os.path.realpath(sys.argv[0])]
    if words == [os.path.realpath(__file__)]:  # the bare file: its #! line may find another Python
        words.insert(0, sys.executable)
    if config_path != own_config():
        words += ["--config", config_path]
    if any(re.search(r"[^\w@%+:./-]", word) for word in words):
        say("warning", "swatch cannot cope with such a path: put it elsewhere")
    return f"""
Put this line once at the top of your swatchrc:

{PERLCODE}

and this one below each watchfor:

    exec '{" ".join(words)} send --no-wait -- "\\$SWATCH_LINE"'

So that somebody hears when DMs do not go out, name a command in the config, below [delivery]:

    on_trouble = mail -s 'no alerts from {short_host_name()}' root
"""


# ---- command line: send, flush, status ---------------------------------------------------------

PERLCODE = r"perlcode 1 ($ENV{SWATCH_LINE} = substr($_, 0, 50000)) =~ tr/\0//d;"


def read_message(options: Any) -> str:
    """The message from the command line or from standard input, cleaned; raises Problem."""
    raw, dashes = os.fsencode(" ".join(options.message)), "--" in sys.argv
    if not dashes and (raw == b"-" or not options.message and not os.isatty(0)):
        try:
            with open(0, "rb", closefd=False) as stdin:
                raw = stdin.read(1 << 28)
        except OSError as error:
            raise Problem(USAGE, f"standard input cannot be read: {lower(error)}") from None
    # a hole in a log reads as very many NULs
    text = raw.replace(b"\0", b"").decode("utf-8", "replace")
    gone = max(0, len(text) - 2 * SEARCHED)  # what nobody will see is counted, but not cleaned
    text = clean(text[:SEARCHED] + text[max(SEARCHED, len(text) - SEARCHED) :]).strip("\n")
    kept = shorten(text, TEXT_LIMIT, gone)
    if not text.strip():
        hint = "see: bird_sentinel send --help"
        if dashes and options.no_wait:  # swatch's: which nobody else may hear of
            report("the message is empty: has the swatchrc its perlcode line?")
            hint = f"this line stands once at the top of a swatchrc: {PERLCODE}"
        raise Problem(USAGE, "the message is empty", hint)
    if kept != text and not options.no_wait:
        say("warning", "too long for a DM: the middle of the message is cut out")
    return kept


# a config, and what is wrong with it or its queue; it is read only if that is wanted
def examine(path: str, whole: bool) -> tuple[Config, Problem | None]:
    config = Config(path, {})
    try:
        require_config(path)
        if whole:
            config = read_config(path)
            config.check()
            with ignoring(OSError):  # it has yet to be made
                places(path)[0].require_safe()
    except Problem as problem:
        return config, problem
    return config, None


def send(options: Any) -> int:
    """Accept an alert, which is then never lost; see to it that a worker is at it; and wait."""
    sent, text = time.time(), read_message(options)
    if options.dry_run:
        digest, label = Digest(), ""
        with ignoring(Problem):
            label = read_config(locate_config(options.config)).host
        digest.add(Alert(text, sent, short_host_name()))
        show(compose(digest, label, sent))
        return DELIVERED
    path = locate_config(options.config)
    config, trouble = examine(path, False)
    try:
        if isinstance(trouble, Foreign):
            raise trouble
        place, name, unsafe = store(path, text, sent)
    except Foreign as problem:
        raise Problem(CONFIG, f"not kept: {problem.message}", problem.hint) from None
    started = not trouble and not pull(usable(path))
    if started:
        start_worker(path)
    if unsafe and not trouble:
        raise unsafe
    if not trouble and not options.no_wait:  # the worker reads it meanwhile, too
        config, trouble = examine(path, True)
    if trouble:
        hint = trouble.hint if AUTHORIZE in trouble.hint else f"{trouble.hint}; then: {FLUSH}"
        raise Problem(CONFIG, f"kept in the queue {place.root}: {trouble.message}", hint)
    if not options.no_wait:
        await_delivery(config, {name}, LOOK, started)
        show(f"delivered to {at(config.recipients)}")
    return DELIVERED


def pending_in(found: Iterable[Place]) -> tuple[set[str], int, float]:
    """What is pending in these places: the names of its files, how many alerts that is, and when
    the oldest was sent (seconds since the epoch; now, where there is none)."""
    names = {name for place in found for name in place.names("new")}
    count, oldest = 0, time.time()
    for path in [place.path(FOLDED) for place in found]:
        try:
            data = json.loads(read_file(path))
            names.difference_update(data["names"])
            for digest in map(Digest.load, data["digests"]):
                count, oldest = count + digest.count, min(oldest, digest.first)
        except Exception:  # it is damaged, which is an alert of its own; or there is none
            if os.path.lexists(path):
                count += 1
    return names, count + len(names), min([oldest, *(sent_at(name, oldest) for name in names)])


def put_aside(found: Iterable[Place]) -> list[str]:  # the paths of DMs that X refused
    return [place.path("refused", name) for place in found for name in place.names("refused")]


def trouble_in(config: Config, state: State, account: bool) -> Problem:
    """What a person has to hear of recipients who refuse us, and of the account where that counts:
    the worst of their statuses, DELIVERED where there is no trouble."""
    x, refusing = state.wait(X), state.refusing(config.ids)
    waits, words = list(refusing.values()), []
    if refusing:
        errors = "; ".join(dict.fromkeys(wait.error for wait in waits))
        words = [f"not to {at(map(config.handle, refusing))}: {errors}"]
    if account and x.status:
        waits, words = [x, *waits], [x.error, *words]
    status = max([wait.status for wait in waits], default=DELIVERED)
    hint = "; ".join(dict.fromkeys(wait.hint for wait in waits if wait.hint))
    if status == REFUSED and AUTHORIZE not in hint:
        hint += f"; then: {FLUSH}"
    return Problem(status, "; ".join(words), hint)


def await_delivery(config: Config, names: set[str], letter: bytes, started: bool) -> None:
    """Wait, for half a minute at the most, until these files are delivered.  Raises Problem when
    they have to wait, or not everybody gets them.

    letter: what the worker was told; after NOW, what was known before does not count.  started: so
    was the worker, from here; the failure of another does not count where ours may do better.
    """
    found, since, deadline = usable(config.path), time.time(), time.monotonic() + PATIENCE
    before, dropped = put_aside(found), State(found).dropped
    pull_at, said = PATIENCE - 1, False
    # in this order, as `folded` is written before what is in it goes
    paths = [place.path("new", name) for place in found for name in names]
    paths += [place.path(FOLDED) for place in found]
    while any(map(os.path.lexists, paths)):
        # the state may be where nothing was before, as in memory when the disk is full
        there = usable(config.path)
        now, left, state = time.time(), deadline - time.monotonic(), State(there)
        wait = state.holding(config.ids)
        told = wait.began >= since or letter == LOOK and wait.until > now + left
        if left < 0 or told and wait.status and (started or wait.kind not in ELSEWHERE):
            trouble = trouble_in(config, state, account=True)
            why = trouble.message or f"the next DM waits for {wait.error or 'X to answer'}"
            raise Problem(trouble.status or KEPT, f"kept in the queue: {why}",
                          f"{trouble.hint or RETRIED}; the next attempt is at"
                          f" {clock(max(wait.until, now), now)}")
        if left < pull_at:
            pull_at = left - 1
            if not pull(there):
                start_worker(config.path, letter)
                started, since = True, now
            if not said and wait.until > now + 1 and os.isatty(2):
                said = True
                say("waiting", f"for {wait.error}, until {clock(wait.until, now)}")
        time.sleep(0.03)
    if not all(os.path.isdir(place.path("new")) for place in found):
        raise Problem(LOST, f"the queue {found[0].root} has vanished, and what was in it",
                      "see what removed or moved it, then send again")
    there = usable(config.path)
    state = State(there)
    if not set(put_aside(there)).issubset(before) or state.dropped > dropped:
        raise Problem(REFUSED, "put aside: X does not take the text of a DM",
                      "to read it: bird_sentinel status")
    trouble = trouble_in(config, state, account=False)
    if trouble.status:
        got = at(handle for handle, i in config.recipients.items() if not state.wait(i).status)
        raise Problem(REFUSED, f"delivered to {got}; {trouble.message}", trouble.hint)


def deliver_pending(path: str, mended: bool) -> int:
    """Try now all that is pending for a config, and end all waits; those of recipients who refuse
    us, too, where that may be `mended`.  Returns how many alerts that was; raises Problem."""
    found, (config, trouble) = usable(path), examine(path, True)
    if trouble:
        raise trouble
    names, count, _ = pending_in(found)
    started = (count > 0 or mended) and not pull(found, NOW)
    if started and found:
        start_worker(path, NOW)
    if count:
        await_delivery(config, names, NOW, started)
    return count


def flush(options: Any) -> int:
    """Try now all that is pending."""
    count = deliver_pending(locate_config(options.config), mended=False)
    show(f"delivered: {plural(count)}" if count else "nothing is pending")
    return DELIVERED


def iso(moment: float) -> str:  # ISO 8601 with the local offset
    return str(datetime.datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds"))


def status(options: Any) -> int:
    """One line for a monitor and then the details, or JSON; the exit status says it too."""
    now, path = time.time(), locate_config(options.config)
    queue, found, (config, trouble) = places(path)[0], usable(path), examine(path, True)
    state, (_, count, oldest), refused = State(found), pending_in(found), put_aside(found)
    wait = state.holding(config.ids)
    if not trouble:  # a limit keeps nothing where nothing is pending
        trouble = trouble_in(config, state, account=count > 0 or state.wait(X).status > KEPT)
    code, word, said = trouble.status, "ok", "nothing pending"
    overdue = max(oldest, wait.until) < now - MINUTE
    kept = len(refused) + state.dropped if refused else 0
    if overdue:
        trouble.message = trouble.message or "nobody is at it"
        if FLUSH not in trouble.hint:
            trouble.hint = "; then ".join(filter(None, [trouble.hint, f"run: {FLUSH}"]))
    facts = {
        "account": config.account.get("screen_name") or None,
        "recipients": config.recipients, "pending": count, "refused": kept,
        "oldest_pending": iso(oldest) if count else None,
        "next_attempt": iso(wait.until) if count and wait.until > now - MINUTE else None,
        "last_delivery": iso(state.delivered) if state.delivered else None,
        "last_error": trouble.message or None, "config": path, "queue": queue.root,
    }
    if count:
        code, word = max(code, KEPT), "busy"
        said = f"{plural(count)} pending since {clock(oldest, now)}"
    if refused:
        code, trouble.hint = max(code, REFUSED), trouble.hint or "read what is below"
        said += f", {plural(kept, 'DM')} refused by X (below)"
    if code > KEPT or overdue or oldest < now - LATE:
        word = "problem"
    if count and wait.until > now and not trouble.message:
        trouble.message = f"waiting for {wait.error}"
    if options.json:
        show(json.dumps(facts, indent=2))
        return code
    show(": ".join(filter(None, [word, said, trouble.message])))
    rows = [("to do", trouble.hint),
            ("next attempt", clock(wait.until, now) if facts["next_attempt"] else ""),
            ("last delivery", clock(state.delivered, now) if state.delivered else ""),
            ("account", facts["account"]),
            ("recipients", at(config.recipients)),
            *((f"not to @{config.handle(recipient)}", "tried again with the first alert after"
               f" {clock(max(why.until, now), now)}")
              for recipient, why in state.refusing(config.ids).items() if not count),
            ("config", path), ("queue", queue.root)]
    show_details(rows, refused, now)
    return code


def show_details(rows: list[tuple[str, Any]], refused: list[str], now: float) -> None:
    for name, value in rows:
        if value:
            show(f"{name:<14} {value}")
    for path in refused:
        text = clean(read_file(path).decode("utf-8", "replace")).replace("\n", "\n    ")
        show(f"\nput aside, of {clock(sent_at(os.path.basename(path), now), now)}:\n    {text}")
    for directory in sorted(set(map(os.path.dirname, refused))):
        show(f"\nwhen you have read it: rm {shlex.quote(directory)}/*")


STATUSES = """\
exit status:
    0  delivered; with --no-wait: stored and a delivery under way
       status: nothing is pending
    2  usage, an empty message, or a handle that does not exist
   74  could not be stored anywhere
   75  kept in the queue, will be retried
   77  kept; X refuses us until a person acts (re-authorize, permission,
       credits, recipient)
   78  config missing, unreadable, unsafe or incomplete; kept, but where another
       user sends for the host
  130  interrupted
"""

ABOUT = """\
Sends what your log watcher sees to your phone, as a direct message (DM) on X.
This script is given the keys of an account: please read it.
"""

EXAMPLES = f"""\
examples:
  bird_sentinel authorize --to oncall
  bird_sentinel send "backup failed on $(hostname)"
  dmesg | tail -n 5 | bird_sentinel send -
  bird_sentinel status

in a swatchrc (see swatchrc.example):
  {PERLCODE}
  watchfor /Accepted password for root/
      exec 'bird_sentinel send --no-wait -- "\\$SWATCH_LINE"'

files:
  ~/.config/bird_sentinel/config.ini   the keys, mode 0600
  ~/.config/bird_sentinel/queue/       the alerts that are pending
  (where root has none, and there is a user bird_sentinel: that user's)

environment:
  BIRD_SENTINEL_CONFIG    the config, where --config names none
  XDG_CONFIG_HOME         what takes the place of ~/.config
  BIRD_SENTINEL_CONSUMER_KEY, BIRD_SENTINEL_CONSUMER_SECRET
                          the app's keys, for authorize
  HTTPS_PROXY, REQUESTS_CA_BUNDLE
                          as python-requests takes them; the config's
                          proxy and ca_bundle go before them
"""

COMMANDS: dict[str, tuple[Callable[[Any], int], str, dict[str, dict[str, Any]]]] = {
    "authorize": (authorize, """\
Connects an account on X with this machine, once. Asks for the consumer key and
secret of your app, unless the config or the environment has them, and for the
recipients; prints a page to open; asks for the PIN which that page gives;
saves the keys, delivers what was queued, and proves with a test DM to each
recipient that the phone shows it. With --to and keys that X still accepts, it
adds recipients and asks for no PIN. Where standard input is no terminal, each
answer is a line of it, in the order asked: consumer key, consumer secret,
recipients, PIN, each only if it is needed.""", {
        "--to": {"metavar": "HANDLE", "action": "append", "default": [],
                 "help": "add this recipient, with or without @; may be repeated"},
        "--no-test": {"action": "store_true", "help": "send no test DM"},
    }),
    "send": (send, """\
Sends MESSAGE, its words joined by one space, as a DM to all recipients. With -
for it, or with none where standard input is no terminal, the message is what
comes on standard input. Put -- before a message that may begin with a dash.
Waits, half a minute at the most, until the alert is delivered or deferred.""", {
        "--no-wait": {"action": "store_true", "help": "return as soon as the alert is stored"},
        "--dry-run": {"action": "store_true",
                      "help": "print the DM instead of sending it; needs no config"},
        "message": {"metavar": "MESSAGE", "nargs": "*", "help": "its words, or -"},
    }),
    "flush": (flush, """\
Tries now what is queued, in the environment it is run in: it ends every wait
of ours, and one wait for X's limit. For cron, every ten minutes, for a unit's
start, or by hand.""", {}),
    "status": (status, """\
Tells account, recipients, how many alerts are pending and since when, when the
next attempt is due and what it waits for, the last delivery and the last
error. The first line and the exit status are enough for a monitor.""", {
        "--json": {"action": "store_true", "help": "print it as a JSON object"},
    }),
}


def parse(argv: list[str]) -> Any:
    """What is asked for, of COMMANDS, on the command line.  Raises Problem and SystemExit."""

    class Parser(argparse.ArgumentParser):  # type: ignore[misc,name-defined]
        def error(self, message: str) -> NoReturn:
            word = re.sub(r".*(?:arguments: |choice: ')|[' ].*", "", message)
            known = COMMANDS if "invalid choice" in message else self._option_string_actions
            hint = f"see: {self.prog} --help"
            if self.prog.endswith(" send") and "unrecognized" in message:
                hint = f"put -- before a message that begins with a dash; {hint}"
            for near in difflib.get_close_matches(word, known, 1):
                hint = f"did you mean: {near}"
            raise Problem(USAGE, message, hint)

    form: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    config: Any = {"metavar": "PATH", "help": "use this config, with a queue of its own"}
    top = Parser(prog="bird_sentinel", description=ABOUT, epilog=f"{EXAMPLES}\n{STATUSES}", **form)
    top.add_argument("--config", **config)
    top.add_argument("--version", action="version", version=f"bird_sentinel {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, about, arguments) in COMMANDS.items():
        made = commands.add_parser(name, description=about, help=about.partition(". ")[0], **form)
        made.add_argument("--config", default=argparse.SUPPRESS, **config)
        for argument, how in arguments.items():
            made.add_argument(argument, **how)
    options, unknown = top.parse_known_args(argv)
    if unknown:
        commands.choices[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def run() -> NoReturn:
    """Run one command; errors are told on standard error.  Out at once, then: to take the
    interpreter apart first would hold the watcher up for as long as it took to store the alert."""
    argv = sys.argv[1:]
    start = [*argv, "--"].index("--")
    namespace: Any = type(sys.implementation)  # as types has it, which is not loaded for that
    os.umask(0o077)
    for stream in filter(None, (sys.stdin, sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")
    try:
        if argv[:1] == ["worker"] and len(argv) == 3:
            code = run_worker(argv[1], argv[2].encode())
        elif argv[:start] in (["send"], ["send", "--no-wait"]) and "--" in argv:
            # what swatch runs once a line: argparse takes as long to load as all else that it needs
            code = send(namespace(config=None, dry_run=False, no_wait=start == 2,
                                  message=argv[start + 1 :]))
        else:
            options = parse(argv)
            code = COMMANDS[options.command][0](options)
    except SystemExit:  # --help, --version
        code = DELIVERED
    except Problem as problem:
        say("error", problem.message, problem.hint)
        code = problem.status
    except KeyboardInterrupt:
        show("", sys.stderr)
        say("error", "interrupted; what was stored is kept", "see: bird_sentinel status")
        code = INTERRUPTED
    except Exception as error:  # a fault of ours, which no caller should meet as a traceback
        say("error", f"unexpected: {type(error).__name__}: {lower(error)}")
        code = LOST
    with ignoring(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
