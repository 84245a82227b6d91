"""However it is installed, it is the same program; and the packages hold what they should."""

from __future__ import annotations

import email
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT, Sentinel
from fake_x import FakeX

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCRIPT = PROJECT / "bird_sentinel.py"
README = (PROJECT / "README.md").read_text()


def run(sentinel: Sentinel, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), env=sentinel.env, cwd=cwd, text=True, capture_output=True,
        stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip


def files(*options: str) -> list[str]:
    """What belongs to the project: what git says; where there is none, as in the sdist, all."""
    if not (PROJECT / ".git").exists() or not shutil.which("git"):
        found = [path.relative_to(PROJECT) for path in PROJECT.rglob("*") if path.is_file()]
        ours = [p for p in found if p.parts[0] in (".ci", ".gitignore") or p.parts[0][0] != "."]
        return [str(path) for path in ours if "__pycache__" not in path.parts]
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", *options]
    listed = subprocess.run(git, cwd=PROJECT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (PROJECT / name).exists()]


def pyproject() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


def sends(sentinel: Sentinel, x: FakeX, *words: str | Path) -> None:
    """What is run by these words delivers an alert, and says nothing else."""
    done = run(sentinel, *words, "send", "hello", cwd=sentinel.home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "delivered to @oncall\n", "")
    assert [dm.text.partition("] ")[2] for dm in x.dms] == ["hello"]


# ---- ways to run it ----


def test_the_bare_script_sends_under_another_name(sentinel: Sentinel, x: FakeX) -> None:
    copy = sentinel.home / "alert"
    shutil.copy(SCRIPT, copy)
    sends(sentinel, x, sys.executable, copy)


def test_the_bare_script_is_executable_and_names_its_interpreter() -> None:
    first = SCRIPT.read_text().partition("\n")[0]
    assert first == "#!/usr/bin/env python3"
    assert SCRIPT.stat().st_mode & 0o111 == 0o111


def test_it_runs_as_a_module(sentinel: Sentinel, x: FakeX) -> None:
    sends(sentinel, x, sys.executable, "-m", "bird_sentinel")


def test_the_launcher_of_the_readme_starts_the_compiled_script(
    sentinel: Sentinel, x: FakeX, tmp_path: Path
) -> None:
    found = re.search(r"<!--install:debian-->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found
    apt, *lines = found[1].splitlines()
    assert apt.startswith("apt-get install ")
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    commands = "\n".join(lines).replace("/usr/local", f"{tmp_path}/usr/local")
    commands = commands.replace("/usr/bin/python3", sys.executable)
    sentinel.env["PATH"] = f"{Path(sys.executable).parent}:{sentinel.env['PATH']}"
    done = run(sentinel, "sh", "-ec", commands, cwd=PROJECT)
    assert (done.returncode, done.stderr) == (0, "")
    module = tmp_path / "usr/local/lib/bird_sentinel/bird_sentinel.py"
    (compiled,) = module.parent.glob("__pycache__/bird_sentinel.*.pyc")
    compiled_at = compiled.stat().st_mtime_ns
    sends(sentinel, x, tmp_path / "usr/local/bin/bird_sentinel")
    assert compiled.stat().st_mtime_ns == compiled_at
    sentinel.wait_idle()
    assert "Upgrade: repeat lines two and three." in README.replace("\n", " ")
    done = run(sentinel, "sh", "-ec", "\n".join(commands.splitlines()[:2]), cwd=PROJECT)
    assert (done.returncode, done.stderr) == (0, "") and compiled.stat().st_mtime_ns > compiled_at


@pytest.mark.parametrize("executable", [True, False])
def test_authorize_prints_a_command_that_works(fresh: Sentinel, x: FakeX, executable: bool) -> None:
    """Even where the script is run by an interpreter other than its first line finds."""
    copy = fresh.home / "bird sentinel's.py"
    shutil.copy(SCRIPT, copy)
    copy.chmod(0o755 if executable else 0o644)
    process = subprocess.Popen(
        [sys.executable, str(copy), "authorize", "--to", "oncall", "--no-test"], env=fresh.env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    process.stdin.write(f"{x.consumer_key}\n{x.consumer_secret}\n")
    process.stdin.flush()
    printed = ""
    for line in process.stdout:
        printed += line
        page = re.search(r"oauth_token=([^\s&]+)", line)
        if page:
            process.stdin.write(x.pin(page[1]) + "\n")
            process.stdin.flush()
    assert process.wait(30) == 0
    assert str(sys.executable) in printed


# ---- packages ----


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the wheel and the sdist, built from a copy of the project."""
    copy = tmp_path_factory.mktemp("build") / "project"
    for name in files("--cached", "--others", "--exclude-standard"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, copy / name)
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "dist")]
    done = subprocess.run([*words, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "dist"


def the(dist: Path, pattern: str) -> Path:
    (found,) = dist.glob(pattern)
    return found


def test_the_wheel_holds_the_script_and_the_example(dist: Path) -> None:
    version = importlib.metadata.version("bird_sentinel")
    name = f"bird_sentinel-{version}"
    with zipfile.ZipFile(the(dist, "*.whl")) as wheel:
        assert set(wheel.namelist()) == {
            "bird_sentinel.py",
            f"{name}.data/data/share/doc/bird_sentinel/swatchrc.example",
            f"{name}.dist-info/METADATA",
            f"{name}.dist-info/RECORD",
            f"{name}.dist-info/WHEEL",
            f"{name}.dist-info/entry_points.txt",
        }
        assert wheel.read("bird_sentinel.py") == SCRIPT.read_bytes()
        assert the(dist, "*.whl").name == f"{name}-py3-none-any.whl"


def test_the_sdist_holds_all_that_is_needed_to_test_it(dist: Path) -> None:
    with tarfile.open(the(dist, "*.tar.gz")) as sdist:
        members = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {name for name in files() if not name.startswith(".")}
    assert members - wanted - {".gitignore"} <= {
        "PKG-INFO",
        *files("--others", "--exclude-standard"),
    }
    assert wanted <= members


def test_the_wheel_installs_a_command_that_sends(
    dist: Path, sentinel: Sentinel, x: FakeX, tmp_path: Path
) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    place = [f"--prefix={tmp_path / 'prefix'}", "--ignore-installed"]
    done = run(sentinel, *pip, *place, the(dist, "*.whl"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (module,) = tmp_path.glob("prefix/lib/python*/site-packages/bird_sentinel.py")
    sentinel.env["PYTHONPATH"] = str(module.parent)
    sends(sentinel, x, tmp_path / "prefix/bin/bird_sentinel")
    example = tmp_path / "prefix/share/doc/bird_sentinel/swatchrc.example"
    assert example.read_bytes() == (PROJECT / "swatchrc.example").read_bytes()


def test_the_metadata_is_complete(dist: Path) -> None:
    with zipfile.ZipFile(the(dist, "*.whl")) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        metadata = email.message_from_string(wheel.read(name).decode())
    assert metadata["Name"] == "bird_sentinel"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.9"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == README
    runtime = [need for need in metadata.get_all("Requires-Dist", []) if "extra" not in need]
    assert [re.split(r"\W", need)[0] for need in runtime] == ["tweepy"]
    declared = set(metadata.get_all("Classifier", []))
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 15)} <= declared


def test_the_licence_is_told_in_full_and_by_its_name_in_the_script() -> None:
    licence = README.partition("\n## Licence\n")[2]
    assert "MIT License" in licence and "Copyright (c) 2026 The Bird Sentinel" in licence
    assert licence.rstrip().endswith("USE OR OTHER DEALINGS IN THE SOFTWARE.")
    assert "# SPDX-License-Identifier: MIT" in SCRIPT.read_text().splitlines()[:3]


# ---- one place for each fact ----


def test_the_version_is_written_in_one_place(sentinel: Sentinel) -> None:
    version = importlib.metadata.version("bird_sentinel")
    assert sentinel.run("--version").out == f"bird_sentinel {version}\n"
    assert f'\n__version__ = "{version}"\n' in SCRIPT.read_text()
    assert SCRIPT.read_text().count(version) == 1
    assert "version" not in pyproject()["project"]
    assert pyproject()["project"]["dynamic"] == ["version"]
    assert version not in README


def test_the_inline_metadata_says_what_pyproject_says() -> None:
    # the pattern is that of the inline script metadata specification (PEP 723)
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (block,) = re.finditer(pattern, SCRIPT.read_text())
    assert block["type"] == "script"
    lines = block["content"].splitlines(keepends=True)
    inline = tomllib.loads("".join(line[2:] if line[1:2] == " " else line[1:] for line in lines))
    project = pyproject()["project"]
    assert inline == {
        "requires-python": project["requires-python"],
        "dependencies": project["dependencies"],
    }


def test_it_imports_nothing_but_the_standard_library_and_tweepy() -> None:
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", SCRIPT.read_text(), re.MULTILINE))
    assert "tweepy" in imported
    if sys.version_info >= (3, 10):
        assert imported - sys.stdlib_module_names == {"tweepy"}


def test_the_top_level_holds_only_what_it_may() -> None:
    top = {name.partition("/")[0] for name in files("--cached")}
    allowed = {"bird_sentinel.py", "README.md", "swatchrc.example", "tests", "pyproject.toml"}
    assert {name for name in top if not name.startswith(".")} == allowed
