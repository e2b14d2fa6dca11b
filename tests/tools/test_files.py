import errno
import os

import pytest

from engine.errors import FileError
from tools.files import check_readable, check_writable, read_bytes, replacing


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with replacing(tmp_path / "a", "thing") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new" and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_told_and_the_old_file_stands(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileError, match="thing .* no space left"), replacing(tmp_path / "a", "thing"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_block_keeps_its_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "a", "thing"):
        (tmp_path / "elsewhere").read_text()
    assert os.listdir(tmp_path) == []


def test_a_new_file_has_the_usual_mode(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "a", "thing"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["none/a", "", "a\0b", "file/a"])
def test_a_place_that_cannot_be_written_is_told_and_nothing_is_made(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write the thing"):
        check_writable(tmp_path / name, "thing")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["none", "", "a\0b", "file/a"])
def test_a_path_that_cannot_be_read_is_told(tmp_path, name):
    (tmp_path / "file").touch()
    for read in (check_readable, read_bytes):
        with pytest.raises(FileError, match="cannot read the thing"):
            read(tmp_path / name, "thing")
