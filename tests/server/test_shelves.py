"""What ``visavis enrol`` keeps, ``visavis serve`` shows; what is uploaded to it never reaches the disk unasked."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from engine.api import Avatar
from engine.cache import DEFAULT_AVATAR_ID, AvatarStore
from engine.errors import AvatarNotFound
from engine.fake import FakeEngine
from server.main import read_config
from server.shelves import Shelves
from tests.server.caller import running
from tools.enrol import main as enrol


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where both commands keep data by default, of a user who has nothing yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path / "share" / "visavis"


def kept_files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.rglob("*") if path.is_file())


def make_avatar(picture: bytes) -> Avatar:
    return FakeEngine().enrol(picture)


async def test_serve_without_options_shows_what_enrol_kept(home: Path, picture: bytes, tmp_path: Path, capsys) -> None:
    portrait = tmp_path / "me.png"
    portrait.write_bytes(picture)
    assert await asyncio.to_thread(enrol, ["--portrait", str(portrait), "--consent", "--engine", "fake"]) == 0
    told = capsys.readouterr()
    assert told.err.strip().endswith("visavis serve")
    avatar_id = told.out.strip()
    async with running(read_config(["--port", "0", "--engine", "fake"]), None, True) as server:
        listed = (await server.http.get("/v1/avatars")).json()["avatars"]
        assert [a["id"] for a in listed] == [DEFAULT_AVATAR_ID, avatar_id]
        assert (await server.http.get(f"/v1/avatars/{avatar_id}/thumbnail")).status_code == 200
        caller = await server.call(avatar_id=avatar_id)
        await caller.wait_for(3)
        assert (await server.http.delete(f"/v1/avatars/{avatar_id}")).status_code == 204
        assert (await server.http.get(f"/v1/avatars/{avatar_id}")).status_code == 404
    assert kept_files(home) == []


async def test_an_upload_stays_off_the_disk_unless_a_folder_is_named(
    home: Path, picture: bytes, tmp_path: Path
) -> None:
    for arguments, written in (([], 0), (["--data", str(tmp_path / "named")], 1)):
        config = read_config(["--port", "0", "--engine", "fake", *arguments])
        async with running(config, None, True) as server:
            avatar_id = (await server.upload(picture)).json()["id"]
            assert (await server.http.get(f"/v1/avatars/{avatar_id}")).status_code == 200
        assert len(kept_files(tmp_path)) == written


async def test_a_named_folder_is_the_only_one_shown(home: Path, picture: bytes, tmp_path: Path) -> None:
    AvatarStore(home).put(make_avatar(picture))
    named = AvatarStore(tmp_path / "named").put(make_avatar(picture))
    config = read_config(["--port", "0", "--engine", "fake", "--data", str(tmp_path / "named")])
    async with running(config, None, True) as server:
        listed = (await server.http.get("/v1/avatars")).json()["avatars"]
    assert [a["id"] for a in listed] == [DEFAULT_AVATAR_ID, named]


async def test_what_was_enrolled_for_a_time_goes_when_it_is_over(home: Path, picture: bytes) -> None:
    avatar = make_avatar(picture)
    store = AvatarStore(home)
    store.put(avatar, expires_at=1.0)
    kept = store.put(avatar)
    config = dataclasses.replace(read_config(["--port", "0", "--engine", "fake"]), sweep_every_s=0.05)
    async with running(config, None, True):
        async with asyncio.timeout(10):
            while kept_files(home) != [kept]:
                await asyncio.sleep(0.02)


def test_avatars_of_both_shelves_are_listed_newest_first(picture: bytes, tmp_path: Path) -> None:
    shelves = Shelves(None, tmp_path)
    avatar = make_avatar(picture)
    ids = [shelves.put(avatar), AvatarStore(tmp_path).put(avatar), shelves.put(avatar)]
    assert [r.id for r in shelves.list()] == [DEFAULT_AVATAR_ID, *reversed(ids)]


def test_an_unknown_avatar_is_on_no_shelf(tmp_path: Path) -> None:
    for shelves in (Shelves(None, tmp_path), Shelves(None, None)):
        for act in (shelves.describe, shelves.delete, lambda i, s=shelves: s.get(i, FakeEngine())):
            with pytest.raises(AvatarNotFound):
                act("0" * 32)


def test_an_unusable_folder_of_enrolled_avatars_does_not_stop_the_server(
    picture: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    shelves = Shelves(None, tmp_path / "file")
    assert "not shown" in caplog.text and str(tmp_path / "file") in caplog.text
    avatar_id = shelves.put(make_avatar(picture))
    assert [r.id for r in shelves.list()] == [DEFAULT_AVATAR_ID, avatar_id]


def test_a_user_without_a_home_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert read_config([]).enrolled_folder is None
