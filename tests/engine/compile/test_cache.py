"""The cache folder: old exports go, and nothing else does."""

import os
import time

import pytest

from engine.compile.cache import KEPT_DAYS, KEPT_FILES, cache_folder, drop_stale, mark_used

DIGESTS = [f"{i:012x}" for i in range(10)]


@pytest.fixture
def keep(tmp_path):
    """Write a file that was used so many days ago."""

    def write(name: str, days_ago: float = 0.0):
        path = tmp_path / name
        path.write_text("kept")
        then = time.time() - days_ago * 86400
        os.utime(path, (then, then))
        return path

    return write


def test_the_files_used_last_stay(keep):
    files = [keep(f"two-1-k-{digest}.xml", days_ago=i + 1) for i, digest in enumerate(DIGESTS)]
    newest = keep("two-1-k-abcdefabcdef.xml")
    drop_stale(newest, "two")
    assert newest.exists() and [f.exists() for f in files] == [i < KEPT_FILES - 1 for i in range(len(files))]


def test_what_nobody_used_for_long_goes(keep):
    fresh, old = keep(f"two-k-{DIGESTS[0]}.xml", KEPT_DAYS - 1), keep(f"two-k-{DIGESTS[1]}.xml", KEPT_DAYS + 1)
    drop_stale(keep(f"two-k-{DIGESTS[2]}.xml"), "two")
    assert fresh.exists() and not old.exists()


def test_companions_go_with_their_file(keep):
    weights = keep(f"two-k-{DIGESTS[0]}.bin", KEPT_DAYS + 1)
    keep(f"two-k-{DIGESTS[0]}.xml", KEPT_DAYS + 1)
    drop_stale(keep(f"two-k-{DIGESTS[1]}.xml"), "two", (".bin",))
    assert not weights.exists()


@pytest.mark.parametrize(
    "name",
    [
        f"twofold-k-{DIGESTS[0]}.xml",  # another stage
        f"two-k-{DIGESTS[0]}.bin",
        "two-k-notadigestxx.xml",
        "two-notes.xml",
        f"my two-k-{DIGESTS[0]}.xml",
    ],
)
def test_no_other_file_is_touched(keep, name):
    other = keep(name, KEPT_DAYS + 1)
    drop_stale(keep(f"two-k-{DIGESTS[1]}.xml"), "two")
    assert other.exists()


def test_a_file_in_use_is_not_old(keep):
    used = keep(f"two-k-{DIGESTS[0]}.xml", KEPT_DAYS + 1)
    mark_used(used)
    drop_stale(keep(f"two-k-{DIGESTS[1]}.xml"), "two")
    assert used.exists()


def test_a_folder_that_is_not_there_is_no_failure(tmp_path):
    drop_stale(tmp_path / "none" / f"two-k-{DIGESTS[0]}.xml", "two")


def test_the_operator_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
