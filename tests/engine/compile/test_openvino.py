"""The OpenVINO backend apart from the model: cache, damage, threads."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from engine.compile import cache, compile_stage, openvino
from engine.compile.cache import cache_folder
from engine.compile.openvino import engine_threads

torch.set_num_threads(1)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x) + y, x * 2


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))


def check(stage: Two) -> None:
    x, y = torch.randn(1, 4), torch.randn(1, 3)
    run = compile_stage("two", stage, (x, y), "openvino", "k")
    for given, wanted in zip(run(x, y), stage(x, y), strict=True):
        torch.testing.assert_close(given, wanted, atol=2e-2, rtol=2e-2)  # bfloat16 where the CPU has it


def test_gives_what_eager_gives_and_keeps_the_export():
    stage = Two().eval()
    check(stage)
    assert len(list(cache_folder().glob("two-k-*.xml"))) == 1
    check(stage)


def test_a_stage_is_compiled_for_the_sizes_of_its_example():
    run = compile_stage("two", Two().eval(), (torch.randn(1, 4), torch.randn(1, 3)), "openvino", "k")
    with pytest.raises(RuntimeError, match="incompatible"):
        run(torch.randn(2, 4), torch.randn(2, 3))


def test_an_export_of_other_code_is_not_read(monkeypatch):
    stage = Two().eval()
    check(stage)
    monkeypatch.setattr(openvino, "code_digest", lambda: "0" * 12)
    check(stage)
    assert len(list(cache_folder().glob("two-k-*.xml"))) == 2


def test_upgrades_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(cache, "KEPT_FILES", 1)
    stage = Two().eval()
    for digest in ("0" * 12, "1" * 12):
        monkeypatch.setattr(openvino, "code_digest", lambda digest=digest: digest)
        check(stage)
    kept = sorted(path.name for path in cache_folder().iterdir())
    assert [name.rpartition("-")[2] for name in kept] == ["1" * 12 + ".bin", "1" * 12 + ".xml"]


def test_a_damaged_export_is_made_again():
    stage = Two().eval()
    check(stage)
    next(cache_folder().glob("two-k-*.xml")).write_text("damaged")
    check(stage)


def test_a_folder_that_cannot_be_written_to_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "file" / "cache"))
    check(Two().eval())


def test_nothing_is_reported_to_anybody():
    """In a process of its own: what another test imported first must not matter."""
    code = (
        "import sys; from engine.compile.openvino import _import_openvino; _import_openvino();"
        "import openvino.tools.ovc; sys.exit(sys.modules['openvino_telemetry'] is not None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("asked", "given"), [("3", 3), ("0", 1)])
def test_threads_are_the_operators_choice(monkeypatch, asked, given):
    monkeypatch.setenv("VISAVIS_THREADS", asked)
    assert engine_threads() == given
