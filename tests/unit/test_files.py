"""Files are whole or not there; places are known to take them."""

import errno
import json
import os
import stat

import numpy as np
import pytest

from mts_driver import files
from mts_driver.errors import UserError
from mts_driver.files import (
    check_output,
    keep_backup,
    read_json,
    replacing,
    require_writable,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as part:
        assert part.suffix == ".json" and part.parent == tmp_path
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["a.json"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("raised", [None, "part"])
def test_a_full_disk_names_the_file(tmp_path, raised):
    path = tmp_path / "a.json"
    with pytest.raises(OSError, match="No space") as failure, replacing(path) as part:
        error = OSError(errno.ENOSPC, "No space left on device")
        error.filename = str(part) if raised else None
        raise error
    assert failure.value.filename == str(path)


def test_errors_about_other_files_keep_their_name(tmp_path):
    with pytest.raises(OSError) as failure, replacing(tmp_path / "a"):
        (tmp_path / "b" / "c").read_text()
    assert failure.value.filename == str(tmp_path / "b" / "c")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path, real = tmp_path / "a", tmp_path / "elsewhere" / "b"
    path.symlink_to(real)
    for text in ("first", "second"):
        with replacing(path) as part:
            part.write_text(text)
        assert path.is_symlink() and real.read_text() == text
    assert names(tmp_path / "elsewhere") == ["b"]


def test_a_device_stays_a_device(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    check_output(fifo, name="--json")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    write_json(fifo, {"a": 1})
    assert json.loads(os.read(reader, 100)) == {"a": 1}
    os.close(reader)
    assert stat.S_ISFIFO(fifo.stat().st_mode) and names(tmp_path) == ["pipe"]


def test_json_has_no_nan(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1.5, float("nan"), (np.inf, np.float64("nan"))], "b": {"c": -np.inf}})
    assert json.loads(path.read_text()) == {"a": [1.5, None, [None, None]], "b": {"c": None}}


def test_what_cannot_be_json_leaves_the_old_file_and_no_backup(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()}, keep=True)
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff\xfe", "cannot be read"),
        (b"{", "cannot be read"),
        (b"[1]", "holds a list"),
        (b'{"a": 1}', "lacks b"),
    ],
)
def test_json_of_others_is_checked(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=f"'{path}' {words}.*: remove it"):
        read_json(path, keys=("a", "b"), remedy="remove it")


def test_backups_without_hard_links(tmp_path, monkeypatch):
    def no(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", no)
    path = tmp_path / "a"
    for text in ("first", "second"):
        path.write_text(text)
        backup = keep_backup(path)
        assert backup.read_text() == text
    assert names(tmp_path) == ["#a#0#", "#a#1#", "a"]


def test_checks_leave_nothing_behind(tmp_path):
    require_writable(tmp_path / "new" / "folder", name="-o")
    check_output(tmp_path / "a.json", name="--json", suffix=".json")
    assert names(tmp_path) == []


@pytest.mark.parametrize("length", [251, 255, 256])
def test_a_name_must_leave_room_for_that_of_its_part(tmp_path, length):
    path = tmp_path / ("n" * length)
    with pytest.raises(UserError, match="too long: choose another name"):
        check_output(path, name="--json")
    check_output(tmp_path / ("n" * 250), name="--json")
