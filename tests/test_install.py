"""However it is installed, it is the same program; and the packages hold what they should."""

from __future__ import annotations

import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import conftest
import pytest
from conftest import PROJECT, Sentinel
from fake_x import FakeX
from test_authorize import walk

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCRIPT = PROJECT / "bird_sentinel.py"
README, PYPROJECT = ((PROJECT / name).read_text() for name in ("README.md", "pyproject.toml"))
VERSION = importlib.metadata.version("bird_sentinel")


def files(*options: str) -> list[str]:
    """What belongs to the project: what git says; where there is none, as in the sdist, all."""
    if not (PROJECT / ".git").exists() or not shutil.which("git"):
        found = [path.relative_to(PROJECT) for path in PROJECT.rglob("*") if path.is_file()]
        ours = [p for p in found if p.parts[0] in (".ci", ".gitignore") or p.parts[0][0] != "."]
        return [str(path) for path in ours if "__pycache__" not in path.parts]
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", *options]
    listed = subprocess.run(git, cwd=PROJECT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (PROJECT / name).exists()]


def copy_project(to: Path) -> Path:
    for name in files("--cached", "--others", "--exclude-standard"):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, to / name)
    return to


# ---- ways to run it ----


def test_the_bare_script_authorizes_and_sends_under_any_name(
    fresh: Sentinel, x: FakeX, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = fresh.home / "alert"
    shutil.copy(SCRIPT, copy)  # with its mode: it can be executed
    monkeypatch.setattr(conftest, "COMMAND", copy)
    said = walk(fresh, "--to", "oncall", "--no-test", answers=[x.consumer_key, x.consumer_secret])
    assert f"exec '{sys.executable} {copy} send --no-wait" in said.out  # as found, for swatch too
    assert fresh.run("send", "hello")[:3] == (0, "delivered to @oncall\n", "")


def test_it_runs_as_a_module(sentinel: Sentinel) -> None:
    words = [sys.executable, "-m", "bird_sentinel", "send", "hello"]
    said = subprocess.check_output(words, env=sentinel.env, cwd=sentinel.home, text=True)
    assert said == "delivered to @oncall\n"


class Machine:
    """A directory that stands for a machine's root, on which the README's lines can be run."""

    def __init__(self, root: Path, way: str) -> None:
        self.root, self.project = root, copy_project(root / "checkout")
        self.command = root / "usr/local/bin/bird_sentinel"
        self.command.parent.mkdir(parents=True)
        (root / "opt").mkdir()
        self.before = self.installed()
        told, found = re.split(rf"<!--install:{way}-->\n```sh\n", README)
        assert "repeat lines two and three" in " ".join(told.rpartition("\n\n**")[2].split())
        self.lines = found.partition("```")[0].splitlines()[1:]  # the first is apt-get's
        self.uninstall = " ".join(re.findall(r"Uninstall: `([^`]+)`", told)[-1].split())

    def installed(self) -> dict[Path, int]:
        """All files below /opt and /usr, and when each was written."""
        found = [*self.root.glob("opt/**/*"), *self.root.glob("usr/**/*")]
        return {path: path.lstat().st_mtime_ns for path in found if not path.is_dir()}

    def run(self, *lines: str) -> None:
        """Run lines with this interpreter and, in the place of PyPI, the packages it has."""
        commands = "\n".join(lines).replace("/usr/bin/python3", sys.executable)
        commands = re.sub(r"(?<!\w)(/opt|/usr/local)(?=/)", rf"{self.root}\1", commands)
        have = f"echo {sysconfig.get_path('purelib')} >$(echo \\1/lib/*/site-packages)/ours.pth\n"
        offline = rf"{have}\1/bin/pip install --no-index --no-build-isolation"
        commands = re.sub(r"(.*)/bin/pip install", offline, commands)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-ec", commands], cwd=self.project, capture_output=True,
                              text=True, env={**os.environ, "PATH": path})  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=["venv", "debian"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """On which it was installed as the README says, but for the apt-get."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)  # not for one user alone, as a test's own directory is
        machine = Machine(Path(root), request.param)
        machine.run(*machine.lines)
        monkeypatch.setattr(conftest, "COMMAND", machine.command)
        yield machine


def test_the_readmes_ways_install_what_authorizes_and_tells_swatch_where_it_is(
    machine: Machine, fresh: Sentinel, x: FakeX
) -> None:
    said = walk(fresh, "--to", "oncall", "--no-test", answers=[x.consumer_key, x.consumer_secret])
    assert said.code == 0 and f"exec '{machine.command} send --no-wait" in said.out


def test_the_readmes_ways_install_what_sends_for_any_user_from_any_surroundings(
    machine: Machine, x: FakeX
) -> None:
    sentinel = Sentinel(machine.root / "home", x)
    sentinel.configure()
    authorities = str(shutil.copy(x.ca_bundle, sentinel.home))
    for name in ("os", "json", "site", "tweepy", "bird_sentinel"):
        (sentinel.home / f"{name}.py").write_text("raise SystemExit(3)\n")
    rubbish = {"PYTHONHOME": "/nowhere", "PYTHONPATH": str(sentinel.home), "PATH": "/nowhere"}
    other: dict[str, Any] = {}
    as_nobody = ["runuser", "-u", "nobody", "--", sys.executable, "-Ic", "import tweepy"]
    if os.geteuid() == 0 and subprocess.run(as_nobody, stderr=subprocess.DEVNULL).returncode == 0:
        other = {"user": "nobody", "group": "nogroup", "extra_groups": []}  # who may use it
        for path in (sentinel.home, *sentinel.home.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
    done = sentinel.run("send", "hello", cwd=sentinel.home,
                        env={**rubbish, "REQUESTS_CA_BUNDLE": authorities}, **other)  # fmt: skip
    sentinel.kill()
    assert done[:3] == (0, "delivered to @oncall\n", "")


def test_the_readmes_ways_upgrade_and_uninstall_it(machine: Machine, sentinel: Sentinel) -> None:
    script = machine.project / "bird_sentinel.py"
    script.write_text(script.read_text().replace('\n__version__ = "', '\n__version__ = "99.'))
    machine.run(*machine.lines[:2])
    upgraded = machine.installed()
    assert sentinel.run("--version").out.startswith("bird_sentinel 99.")
    assert machine.installed() == upgraded  # nothing was left to be compiled
    machine.run(machine.uninstall)
    assert machine.installed() == machine.before


# ---- packages ----


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the wheel and the sdist, built from a copy of the project."""
    copy = copy_project(tmp_path_factory.mktemp("build") / "project")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "dist")]
    done = subprocess.run([*words, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "dist"


def test_the_wheel_holds_the_script_and_the_example_and_tells_what_they_are(dist: Path) -> None:
    name = f"bird_sentinel-{VERSION}"
    info = f"{name}.dist-info"
    with zipfile.ZipFile(dist / f"{name}-py3-none-any.whl") as wheel:
        assert set(wheel.namelist()) == {
            "bird_sentinel.py", f"{name}.data/data/share/doc/bird_sentinel/swatchrc.example",
            f"{info}/METADATA", f"{info}/RECORD", f"{info}/WHEEL", f"{info}/entry_points.txt",
        }  # fmt: skip
        assert wheel.read("bird_sentinel.py") == SCRIPT.read_bytes()
        metadata = email.message_from_string(wheel.read(f"{info}/METADATA").decode())
    assert metadata["License-Expression"] == "MIT" and metadata.get_payload() == README
    runtime = [need for need in metadata.get_all("Requires-Dist", []) if "extra" not in need]
    assert [re.split(r"\W", need)[0] for need in runtime] == ["tweepy"]


def test_the_sdist_holds_all_that_is_needed_to_test_it(dist: Path) -> None:
    with tarfile.open(dist / f"bird_sentinel-{VERSION}.tar.gz") as sdist:
        members = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {name for name in files() if not name.startswith(".")}
    others = {".gitignore", "PKG-INFO", *files("--others", "--exclude-standard")}
    assert wanted <= members <= wanted | others


def test_the_licence_is_told_in_full_and_by_its_name_in_the_script() -> None:
    licence = README.partition("\n## Licence\n")[2]
    assert "MIT License" in licence and "Copyright (c) 2026 The Bird Sentinel" in licence
    assert licence.rstrip().endswith("USE OR OTHER DEALINGS IN THE SOFTWARE.")
    assert "# SPDX-License-Identifier: MIT" in SCRIPT.read_text().splitlines()[:3]


# ---- one place for each fact ----


def test_the_version_is_written_in_one_place(sentinel: Sentinel) -> None:
    assert sentinel.run("--version").out == f"bird_sentinel {VERSION}\n"
    assert f'\n__version__ = "{VERSION}"\n' in SCRIPT.read_text()
    assert (SCRIPT.read_text() + README + PYPROJECT).count(VERSION) == 1


def test_the_inline_metadata_says_what_pyproject_says() -> None:
    # the pattern is that of the inline script metadata specification (PEP 723)
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (block,) = re.finditer(pattern, SCRIPT.read_text())
    assert block["type"] == "script"
    inline = tomllib.loads(re.sub("(?m)^# ?", "", block["content"]))
    project = tomllib.loads(PYPROJECT)["project"]
    assert inline == {name: project[name] for name in ("requires-python", "dependencies")}


def test_it_imports_nothing_but_the_standard_library_and_tweepy() -> None:
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", SCRIPT.read_text(), re.MULTILINE))
    assert "tweepy" in imported
    if sys.version_info >= (3, 10):
        assert imported - sys.stdlib_module_names == {"tweepy"}


def test_the_top_level_holds_only_what_it_may() -> None:
    top = {name.partition("/")[0] for name in files("--cached")}
    allowed = {"bird_sentinel.py", "README.md", "swatchrc.example", "tests", "pyproject.toml"}
    assert {name for name in top if not name.startswith(".")} == allowed
