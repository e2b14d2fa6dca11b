"""Plans built ahead of time, with the extra rtx: for real, on whatever machine this is."""

import pytest
import torch

from engine.compile.plan_cache import MAGIC
from engine.errors import EngineUnavailable
from tools import compile_engine
from tools.cli import run

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
pytest.importorskip("onnxscript", reason="the extra rtx is not installed")


def main(*argv: str) -> int:
    return run(compile_engine.main, list(argv))


def test_a_stage_is_built_and_its_bindings_are_told(tmp_path, capsys):
    assert main("--target", "sm_89", "--target", "sm_75", "--stage", "hear", "--out", str(tmp_path)) == 0
    files = sorted(tmp_path.iterdir())
    assert [path.name.split("-")[:3] for path in files] == [["hear", "tensorrt_rtx", t] for t in ("sm_75", "sm_89")]
    assert all(path.read_bytes().startswith(MAGIC) and path.stat().st_size > 1_000_000 for path in files)
    out = capsys.readouterr().out
    assert "| window ?x32x128 | out0 ?x8x128, out1 ?x8 |" in out and "hear: window 1..8" in out
    assert "| stage | sm_75" in out and "| sm_89" in out


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (["sm_89"], ["sm_89"]),
        (["sm_89", "sm_75", "sm_89"], ["sm_75", "sm_89"]),
        (["sm_80..sm_89"], ["sm_80", "sm_86", "sm_89"]),
        (["sm_81..sm_100", "sm_75"], ["sm_75", "sm_86", "sm_89"]),
    ],
)
def test_targets_are_named_one_by_one_or_as_a_range(asked, wanted):
    assert compile_engine.resolve_targets("tensorrt_rtx", asked) == wanted


@pytest.mark.parametrize("asked", ["sm_90", "sm_20..sm_30", "sm_89..sm_75"])
def test_targets_that_are_not_known_are_refused(asked):
    with pytest.raises(EngineUnavailable, match="builds for sm_75, "):
        compile_engine.resolve_targets("tensorrt_rtx", [asked])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--target", "sm_89", "--stage", "sing"], "no stage is called 'sing'; choose from hear, "),
        (["--target", "sm_89", "--checkpoint", "none.safetensors"], "no checkpoint at none.safetensors"),
        (["--target", "sm_89", "--backend", "tensorrt"], "tensorrt"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(argv, said, tmp_path, capsys):
    assert main(*argv, "--out", str(tmp_path)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to build for")
def test_without_a_gpu_a_target_must_be_named(capsys):
    assert main() == 2
    assert "torch sees no GPU here to build for; name a --target: sm_75, " in capsys.readouterr().err


def test_a_word_that_is_no_target_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        main("--target", "ada")
    assert "'ada' is no target" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main("--target", "sm_89", "--stage", "hear", "--out", str(tmp_path / "file")) == 2
    assert "plans cannot be written to" in capsys.readouterr().err
