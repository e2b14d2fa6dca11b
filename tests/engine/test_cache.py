"""The avatar store: what goes in comes out, and nothing outlives its time."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine import avatar_file, cache
from engine.api import Avatar, Engine, EngineSpec, StepRow, StreamOptions, StreamState
from engine.cache import DEFAULT_AVATAR_ID, AvatarStore
from engine.errors import AvatarDamaged, AvatarError, AvatarNotFound, AvatarStale, AvatarStorage, NoFace

SOURCE = b"an encoded picture"


class NoState(StreamState):
    def reset(self, slot: int, options: StreamOptions) -> None:
        pass

    def hush(self, slot: int) -> None:
        pass

    def adjust(self, slot: int, options: StreamOptions) -> None:
        pass


class BytesEngine(Engine):
    """Its avatar is the picture's bytes; it refuses an empty picture, and counts enrolments."""

    spec = EngineSpec(name="bytes", window_ms=40, lookahead_ms=0, frame_size=4, max_batch=1)

    def __init__(self, fingerprint: str = "one") -> None:
        self.fingerprint = fingerprint
        self.enrolled: list[bytes] = []

    def enrol(self, image: bytes) -> Avatar:
        if not image:
            raise NoFace("nothing there")
        self.enrolled.append(image)
        arrays: dict[str, np.ndarray] = {
            "crop": np.full((4, 4, 3), len(image) % 251, np.uint8),
            "planes": np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, :, ::-1],  # not contiguous
            "half": np.array(0.5, np.float16),
        }
        return Avatar(engine="bytes", fingerprint=self.fingerprint, arrays=arrays, notes={"warning": "schief ↯"})

    def batch_key(self, avatar: Avatar) -> Hashable:
        return None

    def init_state(self, max_batch: int) -> StreamState:
        return NoState()

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        return np.stack([row.avatar.crop for row in rows])


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine() -> BytesEngine:
    return BytesEngine()


@pytest.fixture(params=["folder", "memory"])
def folder(request, tmp_path: Path) -> Path | None:
    return tmp_path / "avatars" if request.param == "folder" else None


def reopen(folder: Path | None, store: AvatarStore, **options) -> AvatarStore:
    """The store of a new process where there is a folder; else the same one."""
    return store if folder is None else AvatarStore(folder, **options)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_an_avatar_comes_back_as_it_was(folder, engine):
    store = AvatarStore(folder)
    avatar = engine.enrol(SOURCE)
    avatar_id = store.put(avatar)
    back = reopen(folder, store).get(avatar_id, engine)
    assert back.notes == avatar.notes
    assert back.arrays.keys() == avatar.arrays.keys()
    for name, array in avatar.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[name], array)
    assert len(engine.enrolled) == 1


def test_record_tells_times_and_maker(folder, engine):
    store = AvatarStore(folder, clock=Clock())
    avatar_id = store.put(engine.enrol(SOURCE), expires_at=1234.5)
    record = reopen(folder, store, clock=Clock()).describe(avatar_id)
    assert (record.id, record.created_at, record.expires_at) == (avatar_id, 1000.0, 1234.5)
    assert (record.engine, record.fingerprint) == ("bytes", "one")


def test_ids_are_unguessable_and_url_safe(engine):
    store = AvatarStore(None)
    ids = {store.put(engine.enrol(SOURCE)) for _ in range(20)}
    assert len(ids) == 20
    assert all(len(i) == 32 and i.isalnum() for i in ids)


@pytest.mark.parametrize("bad", ["", ".", "../secret", "a" * 31, "A" * 32, "/etc/passwd", "0" * 32 + "\n", "\0" * 32])
def test_foreign_ids_are_not_found_and_touch_no_file(folder, engine, bad, tmp_path):
    (tmp_path / "secret.safetensors").write_bytes(b"mine")
    store = AvatarStore(folder)
    for act in (lambda: store.get(bad, engine), lambda: store.describe(bad), lambda: store.delete(bad)):
        with pytest.raises(AvatarNotFound):
            act()
    assert (tmp_path / "secret.safetensors").exists()


def test_stale_avatar_is_enrolled_again_from_its_picture(folder, engine):
    store = AvatarStore(folder)
    avatar_id = store.put(engine.enrol(SOURCE), expires_at=9e9, source=SOURCE)
    newer = BytesEngine("two")
    store = reopen(folder, store)
    assert store.get(avatar_id, newer).fingerprint == "two"
    assert newer.enrolled == [SOURCE]
    assert reopen(folder, store).get(avatar_id, newer).fingerprint == "two"
    assert newer.enrolled == [SOURCE], "the renewed avatar was kept"
    record = reopen(folder, store).describe(avatar_id)
    assert (record.fingerprint, record.expires_at) == ("two", 9e9)


def test_a_stale_avatar_shows_its_crop_without_being_enrolled_again(folder, engine):
    store = AvatarStore(folder)
    avatar = engine.enrol(SOURCE)
    avatar_id = store.put(avatar, source=SOURCE)
    crop = reopen(folder, store).find_crop(avatar_id)
    assert crop is not None and (crop == avatar.crop).all()
    with pytest.raises(AvatarNotFound):
        store.find_crop("0" * 32)


def test_the_default_avatar_has_no_crop_before_its_first_use():
    assert AvatarStore(None).find_crop(DEFAULT_AVATAR_ID) is None


def test_stale_avatar_without_its_picture_says_so(folder, engine):
    store = AvatarStore(folder)
    avatar_id = store.put(engine.enrol(SOURCE))
    with pytest.raises(AvatarStale, match="enrol the portrait again"):
        reopen(folder, store).get(avatar_id, BytesEngine("two"))


def test_another_format_version_is_enrolled_again_not_misread(tmp_path, engine):
    avatar_id = AvatarStore(tmp_path).put(engine.enrol(SOURCE), source=SOURCE)
    rewrite_metadata(only_file(tmp_path), visavis_avatar="2")
    AvatarStore(tmp_path).get(avatar_id, engine)
    assert engine.enrolled == [SOURCE, SOURCE]


def test_avatar_deleted_while_enrolled_again_stays_deleted(folder, engine):
    store = AvatarStore(folder)
    avatar_id = store.put(engine.enrol(SOURCE), source=SOURCE)

    class Deleting(BytesEngine):
        def enrol(self, image: bytes) -> Avatar:
            store.delete(avatar_id)
            return super().enrol(image)

    store.get(avatar_id, Deleting("two"))
    with pytest.raises(AvatarNotFound):
        store.describe(avatar_id)
    assert folder is None or not list(folder.iterdir())


def test_refusal_of_a_kept_picture_passes_through(folder, engine):
    store = AvatarStore(folder)
    avatar_id = store.put(engine.enrol(SOURCE), source=b"")
    with pytest.raises(NoFace):
        store.get(avatar_id, BytesEngine("two"))


def rewrite_metadata(path: Path, **changes: str) -> None:
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | changes)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def fill_with_text(path: Path) -> None:
    path.write_text("this is no avatar, but a note of some length")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def strip_metadata(path: Path) -> None:
    save_file(load_file(path), path)


def spoil_time(path: Path) -> None:
    rewrite_metadata(path, created_at="yesterday")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, fill_with_text, empty, strip_metadata, spoil_time])
def test_damaged_file_is_named_and_the_others_survive(tmp_path, engine, damage):
    store = AvatarStore(tmp_path)
    bad = store.put(engine.enrol(SOURCE))
    damage(only_file(tmp_path))
    good = store.put(engine.enrol(SOURCE))
    store = AvatarStore(tmp_path)
    with pytest.raises(AvatarDamaged, match=bad):
        store.get(bad, engine)
    assert store.get(good, engine).engine == "bytes"
    assert good in {r.id for r in store.list()}
    store.delete(bad)
    assert only_file(tmp_path).stem == good


def test_unreadable_disk_is_not_taken_for_damage(tmp_path, engine, monkeypatch):
    avatar_id = AvatarStore(tmp_path).put(engine.enrol(SOURCE))

    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(avatar_file, "safe_open", fail)
        with pytest.raises(AvatarStorage, match="Too many open files"):
            AvatarStore(tmp_path).get(avatar_id, engine)
        assert AvatarStore(tmp_path).sweep(9e18) == 0
    assert AvatarStore(tmp_path).get(avatar_id, engine)


def test_delete_leaves_nothing_behind(folder, engine):
    store = AvatarStore(folder)
    avatar_id = store.put(engine.enrol(SOURCE), source=SOURCE)
    store.delete(avatar_id)
    for act in (lambda: store.get(avatar_id, engine), lambda: store.delete(avatar_id)):
        with pytest.raises(AvatarNotFound):
            act()
    assert [r.id for r in store.list()] == [DEFAULT_AVATAR_ID]
    assert folder is None or not list(folder.iterdir())


def test_file_removed_by_another_process_is_gone_here_too(tmp_path, engine):
    store, other = AvatarStore(tmp_path), AvatarStore(tmp_path)
    avatar_id = store.put(engine.enrol(SOURCE))
    other.delete(avatar_id)
    with pytest.raises(AvatarNotFound):
        store.get(avatar_id, engine)


def test_expired_avatar_is_not_served_even_before_the_sweep(folder, engine):
    clock = Clock()
    store = AvatarStore(folder, clock=clock)
    avatar_id = store.put(engine.enrol(SOURCE), expires_at=1010)
    assert store.get(avatar_id, engine)
    clock.now = 1010
    for act in (lambda: store.get(avatar_id, engine), lambda: store.describe(avatar_id)):
        with pytest.raises(AvatarNotFound):
            act()
    assert [r.id for r in store.list()] == [DEFAULT_AVATAR_ID]


def test_sweep_drops_the_expired_only(folder, engine):
    store = AvatarStore(folder, clock=Clock())
    old = store.put(engine.enrol(SOURCE), expires_at=1010, source=SOURCE)
    young = store.put(engine.enrol(SOURCE), expires_at=1020)
    lasting = store.put(engine.enrol(SOURCE))
    store = reopen(folder, store, clock=Clock())
    assert store.sweep(1015) == 1
    assert {r.id for r in store.list()} == {DEFAULT_AVATAR_ID, young, lasting}
    if folder is not None:
        assert {p.stem for p in folder.iterdir()} == {young, lasting}
    with pytest.raises(AvatarNotFound):
        store.delete(old)


def test_sweep_drops_damaged_files_and_what_dead_writers_left(tmp_path, engine):
    store = AvatarStore(tmp_path)
    store.put(engine.enrol(SOURCE))
    truncate(only_file(tmp_path))
    for name, age_s in (("dead.tmp", 2 * cache.LEFTOVER_S), ("alive.tmp", 1)):
        path = tmp_path / name
        path.touch()
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    assert store.sweep(path.stat().st_mtime + 1) == 1
    assert only_file(tmp_path).name == "alive.tmp"


def test_list_has_the_default_first_then_the_newest(folder, engine):
    clock = Clock()
    store = AvatarStore(folder, clock=clock)
    ids = []
    for clock.now in (5.0, 7.0, 6.0):
        ids.append(store.put(engine.enrol(SOURCE)))
    assert [r.id for r in reopen(folder, store).list()] == [DEFAULT_AVATAR_ID, ids[1], ids[2], ids[0]]


def test_memory_is_bounded_and_drops_the_least_recently_used(engine):
    avatar = engine.enrol(SOURCE)
    store = AvatarStore(None, memory_bytes=2 * avatar.nbytes + 1)
    first, second = store.put(avatar), store.put(avatar)
    store.get(first, engine)
    third = store.put(avatar)
    assert store.get(first, engine) and store.get(third, engine)
    with pytest.raises(AvatarNotFound):
        store.get(second, engine)


def test_pictures_count_as_memory(engine):
    avatar = engine.enrol(SOURCE)
    store = AvatarStore(None, memory_bytes=2 * avatar.nbytes + 1)
    first = store.put(avatar, source=SOURCE)
    store.put(avatar)
    with pytest.raises(AvatarNotFound):
        store.get(first, engine)


def test_what_leaves_the_memory_stays_in_the_folder(tmp_path, engine):
    store = AvatarStore(tmp_path, memory_bytes=0)
    ids = [store.put(engine.enrol(bytes(n))) for n in (3, 4, 5)]
    assert [store.get(i, engine).crop[0, 0, 0] for i in ids] == [3, 4, 5]


def test_one_avatar_in_memory_is_shared(tmp_path, engine):
    store = AvatarStore(tmp_path)
    avatar_id = store.put(engine.enrol(SOURCE))
    store = AvatarStore(tmp_path)
    assert store.get(avatar_id, engine) is store.get(avatar_id, engine)


def test_default_avatar_is_there_enrolled_once_and_stays(folder, engine):
    store = AvatarStore(folder)
    assert [r.id for r in store.list()] == [DEFAULT_AVATAR_ID]
    assert store.get(DEFAULT_AVATAR_ID, engine) is store.get(DEFAULT_AVATAR_ID, engine)
    assert engine.enrolled == [cache.DEFAULT_PORTRAIT.read_bytes()]
    assert store.describe(DEFAULT_AVATAR_ID).fingerprint == "one"
    with pytest.raises(AvatarError, match="cannot be deleted"):
        store.delete(DEFAULT_AVATAR_ID)
    assert store.sweep(9e18) == 0
    assert store.get(DEFAULT_AVATAR_ID, BytesEngine("two")).fingerprint == "two"


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AvatarStorage, match="file"):
        AvatarStore(tmp_path / "file" / "avatars")


def test_failed_write_leaves_no_file_and_says_why(tmp_path, engine, monkeypatch):
    store = AvatarStore(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(avatar_file.os, "fsync", full)
    with pytest.raises(AvatarStorage, match="No space left"):
        store.put(engine.enrol(SOURCE))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_owner_may_read(tmp_path, engine):
    folder = tmp_path / "avatars"
    AvatarStore(folder).put(engine.enrol(SOURCE))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(folder).stat().st_mode) == 0o600


def test_many_threads_at_once(folder, engine):
    store = AvatarStore(folder, memory_bytes=1 << 20 if folder is None else 500)
    avatar = engine.enrol(SOURCE)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                avatar_id = store.put(replace(avatar))
                assert store.get(avatar_id, engine).crop.shape == (4, 4, 3)
                assert any(r.id == avatar_id for r in store.list())
                store.delete(avatar_id)
                store.sweep(0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [r.id for r in store.list()] == [DEFAULT_AVATAR_ID]
