"""Plans on disk: under which key, and when they are not read."""

import dataclasses

import pytest

from engine.compile.cache import KEPT_FILES
from engine.compile.plan_cache import ANY, MAGIC, PlanKey, keep_plan, plan_folder, read_plan, write_plan

KEY = PlanKey(
    stage="two",
    library="tensorrt_rtx",
    library_version="1.4",
    capability="sm_89",
    gpu="NVIDIA GeForce RTX 4090",
    driver="580.1",
    checkpoint="1-abc",
    code="0123456789ab",
    torch="2.13.0",
    inputs="x=1x4",
)
FIELDS = [field.name for field in dataclasses.fields(PlanKey)]
PLAN = bytes(range(256)) * 9 + b"\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path))


def test_a_plan_comes_back_as_it_was(tmp_path):
    write_plan(KEY, PLAN, tmp_path)
    assert read_plan(KEY, tmp_path) == PLAN


@pytest.mark.parametrize("field", FIELDS)
def test_whatever_differs_it_is_another_plan(tmp_path, field):
    write_plan(KEY, PLAN, tmp_path)
    assert read_plan(dataclasses.replace(KEY, **{field: "other"}), tmp_path) is None


@pytest.mark.parametrize("field", FIELDS)
def test_a_file_under_the_name_of_another_plan_is_not_read(tmp_path, field):
    other = dataclasses.replace(KEY, **{field: "other"})
    write_plan(other, PLAN, tmp_path).rename(tmp_path / KEY.file_name)
    assert read_plan(KEY, tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-9] + b"\0" + data[-8:],
        lambda data: MAGIC + b"[]\n" + PLAN,
        lambda data: MAGIC + b"\xff\n" + PLAN,
        lambda data: data.replace(b"PLAN 1", b"PLAN 0", 1),
    ],
)
def test_a_damaged_file_is_not_read(tmp_path, damage):
    path = write_plan(KEY, PLAN, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert read_plan(KEY, tmp_path) is None


def test_a_damaged_file_is_written_over():
    keep_plan(KEY, PLAN)
    (plan_folder() / KEY.file_name).write_bytes(b"damaged")
    keep_plan(KEY, PLAN)
    assert read_plan(KEY, plan_folder()) == PLAN


def test_plans_of_one_stage_do_not_pile_up():
    for driver in range(KEPT_FILES + 3):
        keep_plan(dataclasses.replace(KEY, driver=str(driver)), PLAN)
    keep_plan(dataclasses.replace(KEY, capability="sm_75"), PLAN)
    names = [path.name for path in plan_folder().iterdir()]
    assert len(names) == KEPT_FILES + 1 and sum("sm_75" in name for name in names) == 1


def test_a_cache_that_cannot_be_written_to_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "file"))
    keep_plan(KEY, PLAN)
    assert read_plan(KEY, plan_folder()) is None


def test_nothing_half_written_stays_behind(tmp_path):
    (tmp_path / KEY.file_name).mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        write_plan(KEY, PLAN, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [KEY.file_name]


def test_a_plan_built_ahead_is_for_every_gpu_of_its_kind():
    other = dataclasses.replace(KEY, gpu="NVIDIA L4", driver="590.2")
    assert KEY.ahead() == other.ahead() and KEY.ahead() != KEY and KEY.ahead().gpu == ANY
