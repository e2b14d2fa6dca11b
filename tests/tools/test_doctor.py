import json
from pathlib import Path

import pytest

from engine.errors import CheckpointError
from server.errors import ConfigError
from tools import doctor
from tools.checkup.finding import Finding
from tools.doctor import Plan, examine, main

MACHINE = ["python", "packages", "cv2", "mediapipe", "fonts", "codecs", "torch", "nvidia"]
MODEL = ["backend", "checkpoint", "engine", "avatar"]
NETWORK = ["port", "udp", "network", "udp ports", "public", "relay"]
NAMES = [*MACHINE, *MODEL, *NETWORK, "data"]


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
    assert "ok    python     3.11.9" in out and "fail  udp" in out and "-> open the wall" in out
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


def test_a_mediapipe_that_imports_but_does_not_run_fails(tmp_path, monkeypatch):
    def broken(self, **options):
        raise AttributeError("FieldDescriptor has no attribute 'label'")  # what protobuf 6 makes of it

    monkeypatch.setattr("engine.landmarks.FaceMesh.__init__", broken)
    found = {f.name: f for f in examine(plan(tmp_path))}
    assert found["mediapipe"].status == "fail" and "label" in found["mediapipe"].detail and found["mediapipe"].remedy


def test_an_ice_server_that_is_down_fails_in_words(tmp_path, capsys):
    options = ["--ice-server", "turn:127.0.0.1:9?transport=tcp", "--turn-secret", "a shared secret"]
    assert main(["--engine", "fake", "--port", "0", "--data", str(tmp_path), *options]) == 1
    out = capsys.readouterr().out
    assert "nothing listens at 127.0.0.1:9 over TCP" in out and "-> start the TURN server" in out


def test_an_ice_server_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'http'"):
        main(["--data", str(tmp_path), "--ice-server", "http:example.org"])
