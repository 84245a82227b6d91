"""What goes wrong beside an alert's way does not stop it for good."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from conftest import Sentinel, until
from fake_x import Answer, FakeX


@pytest.mark.parametrize("spelling", ["./queue.db", "../bird_sentinel/queue.db", "link/queue.db"])
def test_a_queue_that_is_named_in_another_way_is_the_same_queue(
    x: FakeX, sentinel: Sentinel, spelling: str
) -> None:
    (sentinel.directory / "link").symlink_to(sentinel.directory)
    sentinel.configure(queue=spelling)
    assert sentinel.run("send", "spelt").code == 0
    assert [dm.text[-5:] for dm in x.dms] == ["spelt"]


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000], ids=["empty", "damaged"])
def test_a_stray_queue_beside_the_config_stops_nothing(
    x: FakeX, sentinel: Sentinel, tmp_path: Path, content: bytes
) -> None:
    sentinel.configure(queue=str(tmp_path / "spool" / "q.db"))
    sentinel.queue.write_bytes(content)
    sentinel.queue.chmod(0o600)
    assert sentinel.run("send", "past it").code == 0
    assert [dm.text[-7:] for dm in x.dms] == ["past it"]
    assert [path.name for path in (tmp_path / "spool").glob("*damaged*")] == []


def test_a_fault_that_only_one_recipient_meets_starves_no_other(
    x: FakeX, fresh: Sentinel
) -> None:
    fresh.configure({"gone": "2003", "oncall": "2002"})
    x.answer(Answer(404, body="no such page"), times=None, path="/2/dm_conversations/with/2003/")
    assert fresh.run("send", "for both").code == 77
    assert fresh.run("flush").code == 77
    assert [dm.recipient_id for dm in x.dms] == ["2002"]


def test_a_waiting_send_does_not_take_a_queue_that_was_replaced_for_a_delivery(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(Answer(503, delay=3), times=None)
    sending = sentinel.start("send", "precious", stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    x.wait_for(lambda: x.requests)
    with sentinel.queue.open("r+b") as file:  # not emptied first: that would be another fault
        file.write(b"garbage" * 10000)
    out, err = sending.communicate(timeout=60)
    assert (sending.returncode, out) == (75, b""), err
    assert b"damaged" in err


def test_a_queue_that_is_locked_while_a_send_waits_is_kept_and_said_to_be(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(Answer(mode="stall"), times=None)
    sending = sentinel.start("send", "kept", stderr=subprocess.PIPE)
    x.wait_for(lambda: x.requests)
    with contextlib.closing(sqlite3.connect(sentinel.queue, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        _, err = sending.communicate(timeout=60)
    assert sending.returncode == 75, err
    assert b"kept in the queue" in err


def test_status_starts_a_worker_where_one_was_killed(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(Answer(mode="stall"))
    assert sentinel.run("send", "--no-wait", "orphan").code == 0
    x.wait_for(lambda: x.requests)
    sentinel.kill()
    sentinel.wait_idle()
    assert not x.dms
    sentinel.run("status")
    x.wait_for(lambda: x.dms)


def test_a_lock_file_that_is_removed_ends_no_worker(x: FakeX, sentinel: Sentinel) -> None:
    x.answer(Answer(503), times=3)
    assert sentinel.run("send", "--no-wait", "unlocked").code == 0
    x.wait_for(lambda: x.requests)
    os.unlink(sentinel.directory / "queue.db.lock")
    x.wait_for(lambda: x.dms, 30)
    until(lambda: not sentinel.processes(), 20)


@pytest.mark.parametrize("proxy", ["http://user:pa#S3cret@localhost:1", "http://u:S3cret@[::1"])
def test_a_malformed_proxy_is_told_without_its_password(sentinel: Sentinel, proxy: str) -> None:
    result = sentinel.run("send", "x", env={"HTTPS_PROXY": proxy, "https_proxy": proxy})
    assert result.code == 75
    assert "s3cret" not in (result.err + sentinel.run("status").out).lower()


def test_what_is_saved_from_a_damaged_queue_is_counted_as_before(
    x: FakeX, sentinel: Sentinel
) -> None:
    x.answer(Answer(503), times=None)
    for text in ("one alpha", "two bravo", "three charlie"):
        sentinel.run("send", "--no-wait", text)
    sentinel.kill()
    sentinel.wait_idle()
    with contextlib.closing(sqlite3.connect(sentinel.queue)) as database, database:
        database.execute("UPDATE alert SET count = 41 WHERE text = 'two bravo'")
        database.execute("DROP TABLE refused")  # no longer one of ours
    x.clear_answers()
    sentinel.run("flush")
    x.wait_for(lambda: x.dms, 20)
    assert "44 alerts" in x.dms[0].text, x.dms[0].text
    assert "×40 like this" in x.dms[0].text
