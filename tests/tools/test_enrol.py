import time
from pathlib import Path

import pytest

from engine.cache import AvatarStore
from engine.fake import FakeEngine
from tests.tools.media import portrait_jpeg
from tools.cli import main


@pytest.fixture
def portrait(tmp_path) -> Path:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(portrait_jpeg())
    return path


def enrol(portrait: Path, *more: str) -> int:
    data = portrait.with_name("data")
    return main(["enrol", "--portrait", str(portrait), "--engine", "fake", "--data", str(data), *more])


def test_without_consent_nothing_is_kept_and_the_reason_is_told(portrait, capsys):
    assert enrol(portrait) == 2
    out = capsys.readouterr()
    assert out.out == "" and "must have agreed" in out.err and "--consent" in out.err
    assert not portrait.with_name("data").exists()


def test_the_printed_id_is_an_avatar_that_the_server_finds(portrait, capsys):
    assert enrol(portrait, "--consent", "--keep-days", "2") == 0
    avatar_id = capsys.readouterr().out.strip()
    store = AvatarStore(portrait.with_name("data"))
    assert store.get(avatar_id, FakeEngine()).crop.shape == (256, 256, 3)
    expires_at = store.describe(avatar_id).expires_at
    assert expires_at is not None and abs(expires_at - time.time() - 2 * 86_400) < 60


def test_it_says_how_to_serve_the_folder_it_used(portrait, capsys):
    assert enrol(portrait, "--consent") == 0
    assert capsys.readouterr().err.strip().endswith(f"visavis serve --data {portrait.with_name('data')}")


def test_avatars_whose_time_is_over_go_with_the_next_enrolment(portrait, capsys):
    store = AvatarStore(portrait.with_name("data"))
    old = store.put(FakeEngine().enrol(portrait_jpeg()), expires_at=1.0, source=portrait_jpeg())
    assert enrol(portrait, "--consent") == 0
    kept = [path.stem for path in portrait.with_name("data").iterdir()]
    assert kept == [capsys.readouterr().out.strip()] and old not in kept


def test_zero_days_keep_it_until_it_is_deleted(portrait, capsys):
    assert enrol(portrait, "--consent", "--keep-days", "0") == 0
    avatar_id = capsys.readouterr().out.strip()
    assert AvatarStore(portrait.with_name("data")).describe(avatar_id).expires_at is None


def test_the_picture_is_kept_so_that_another_engine_can_enrol_it_again(portrait, capsys):
    class Newer(FakeEngine):
        fingerprint = "fake-2"

    assert enrol(portrait, "--consent") == 0
    avatar_id = capsys.readouterr().out.strip()
    assert AvatarStore(portrait.with_name("data")).get(avatar_id, Newer()).fingerprint == "fake-2"


@pytest.mark.parametrize("days", ["-1", "367", "nan", "soon"])
def test_days_out_of_range_are_refused(portrait, days, capsys):
    with pytest.raises(SystemExit) as caught:
        enrol(portrait, "--consent", "--keep-days", days)
    assert caught.value.code == 2 and "--keep-days" in capsys.readouterr().err


def test_a_picture_that_is_refused_is_not_kept(portrait, capsys):
    portrait.write_text("no picture")
    assert enrol(portrait, "--consent") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(portrait.with_name("data").glob("*.safetensors")) == []


def test_a_data_folder_that_cannot_be_made_is_told(portrait, capsys):
    assert enrol(portrait, "--consent", "--data", str(portrait / "inside-a-file")) == 2
    err = capsys.readouterr().err
    assert "inside-a-file" in err and err.count("\n") == 1
