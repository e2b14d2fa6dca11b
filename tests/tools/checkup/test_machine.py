import subprocess

import pytest

from tools.checkup import machine
from tools.checkup.finding import Finding


def test_a_folder_that_cannot_hold_files_fails(tmp_path):
    (tmp_path / "file").touch()
    assert machine.check_data_folder(tmp_path / "file").status == "fail"
    assert machine.check_data_folder(tmp_path).status == "ok"


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path):
    finding = machine.check_data_folder(tmp_path / "a" / "b")
    assert finding.status == "ok" and "made when needed" in finding.detail
    assert list(tmp_path.iterdir()) == []


def test_packages_out_of_range_or_missing_are_named(monkeypatch):
    monkeypatch.setattr(
        machine, "_declared_requirements", lambda: ["numpy>=99", "no-such-thing>=1", "gone; extra == 'x'"]
    )
    finding = machine.check_packages()
    assert finding.status == "fail"
    assert (
        "numpy is" in finding.detail and "no-such-thing is missing" in finding.detail and "gone" not in finding.detail
    )


def test_the_declared_requirements_are_found():
    assert any(line.startswith("torch") for line in machine._declared_requirements())


def test_an_import_that_lacks_libgl_says_how_to_mend_it(monkeypatch):
    def refuse(name, *rest):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("builtins.__import__", refuse)
    finding = machine.check_opencv()
    assert finding.status == "fail" and "headless" in finding.remedy


@pytest.mark.parametrize(
    ("cuda", "built", "status", "said"),
    [
        (True, "13.0", "ok", "H200, 580.1; backend auto tries "),
        (False, None, "warn", "without CUDA"),
        (False, "13.0", "warn", "cannot use it"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_worth_a_warning(monkeypatch, cuda, built, status, said):
    import torch

    listed = subprocess.CompletedProcess([], 0, stdout="NVIDIA H200, 580.1\n")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: listed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.version, "cuda", built)
    finding = machine.check_nvidia()
    assert finding.status == status and said in finding.detail


def test_no_gpu_is_fine(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert machine.check_nvidia() == Finding("nvidia", "ok", "no GPU found; the CPU is used")


def test_the_letters_of_the_mark_are_drawn():
    assert machine.check_fonts().status == "ok"


def test_a_mark_without_letters_fails(monkeypatch):
    monkeypatch.setattr("engine.mark.stamp", lambda frame: frame)
    finding = machine.check_fonts()
    assert finding.status == "fail" and "no letters" in finding.detail and finding.remedy
