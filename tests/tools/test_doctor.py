import json
import socket
import subprocess
from pathlib import Path

import pytest

from engine.errors import CheckpointError
from tools import doctor
from tools.doctor import Finding, Plan, examine, main

NAMES = "python packages cv2 mediapipe codecs torch nvidia engine avatar port udp network data".split()


def plan(data: Path, **more) -> Plan:
    return Plan(**{"engine": "fake", "host": "127.0.0.1", "port": 0, "data": data, **more})


def test_every_check_reports_once_and_in_order(tmp_path, capsys):
    status = main(["--engine", "fake", "--port", "0", "--data", str(tmp_path), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert [f["name"] for f in report["findings"]] == NAMES
    failed = [f for f in report["findings"] if f["status"] == "fail"]
    assert report["ok"] == (not failed) and status == (1 if failed else 0)
    assert all(f["remedy"] for f in report["findings"] if f["status"] != "ok")


def test_lines_say_what_to_do_and_failing_is_status_1(tmp_path, monkeypatch, capsys):
    findings = [Finding("python", "ok", "3.11.9"), Finding("udp", "fail", "a packet did not arrive", "open the wall")]
    monkeypatch.setattr(doctor, "examine", lambda plan: iter(findings))
    assert main(["--data", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "ok    python    3.11.9" in out and "fail  udp" in out and "-> open the wall" in out
    assert "1 failed: udp" in out


def test_warnings_do_not_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda plan: iter([Finding("port", "warn", "taken", "choose another")]))
    assert main(["--data", str(tmp_path)]) == 0


def test_an_engine_that_does_not_load_is_a_finding_and_the_rest_goes_on(tmp_path, monkeypatch):
    def broken(name):
        raise CheckpointError("the checkpoint is damaged")

    monkeypatch.setattr("engine.registry.create_engine", broken)
    found = {f.name: f for f in examine(plan(tmp_path))}
    assert found["engine"].status == "fail" and "the checkpoint is damaged" in found["engine"].detail
    assert found["avatar"].status == "fail" and list(found) == NAMES


def test_the_engine_and_the_default_avatar_are_really_made():
    assert [(f.name, f.status) for f in doctor.check_engine("fake")] == [("engine", "ok"), ("avatar", "ok")]


def test_a_taken_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = doctor.check_port("127.0.0.1", port)
    assert taken.status == "warn" and str(port) in taken.detail and "--port" in taken.remedy
    assert doctor.check_port("127.0.0.1", 0).status == "ok"


def test_udp_reaches_this_machine():
    assert doctor.check_udp().status == "ok"


def test_a_folder_that_cannot_hold_files_fails(tmp_path):
    (tmp_path / "file").touch()
    assert doctor.check_data_folder(tmp_path / "file").status == "fail"
    assert doctor.check_data_folder(tmp_path).status == "ok"


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path):
    finding = doctor.check_data_folder(tmp_path / "a" / "b")
    assert finding.status == "ok" and "made when needed" in finding.detail
    assert list(tmp_path.iterdir()) == []


def test_packages_out_of_range_or_missing_are_named(monkeypatch):
    monkeypatch.setattr(
        doctor, "_declared_requirements", lambda: ["numpy>=99", "no-such-thing>=1", "gone; extra == 'x'"]
    )
    finding = doctor.check_packages()
    assert finding.status == "fail"
    assert (
        "numpy is" in finding.detail and "no-such-thing is missing" in finding.detail and "gone" not in finding.detail
    )


def test_the_declared_requirements_are_found():
    assert any(line.startswith("torch") for line in doctor._declared_requirements())


def test_a_mediapipe_that_imports_but_does_not_run_fails(tmp_path, monkeypatch):
    def broken(self, **options):
        raise AttributeError("FieldDescriptor has no attribute 'label'")  # what protobuf 6 makes of it

    monkeypatch.setattr("engine.landmarks.FaceMesh.__init__", broken)
    found = {f.name: f for f in examine(plan(tmp_path))}
    assert found["mediapipe"].status == "fail" and "label" in found["mediapipe"].detail and found["mediapipe"].remedy


def test_an_import_that_lacks_libgl_says_how_to_mend_it(monkeypatch):
    def refuse(name, *rest):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("builtins.__import__", refuse)
    finding = doctor.check_opencv()
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
    finding = doctor.check_nvidia()
    assert finding.status == status and said in finding.detail


def test_no_gpu_is_fine(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert doctor.check_nvidia() == Finding("nvidia", "ok", "no GPU found; the CPU is used")
