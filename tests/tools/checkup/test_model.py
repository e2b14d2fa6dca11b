from tools.checkup import model


def test_the_engine_and_the_default_avatar_are_really_made():
    assert [(f.name, f.status) for f in model.check_engine("fake")] == [("engine", "ok"), ("avatar", "ok")]


def test_the_shipped_checkpoint_is_read():
    finding = model.check_checkpoint()
    assert finding.status == "ok" and "s3dnerf_compact" in finding.detail and "fingerprint" in finding.detail


def test_a_checkpoint_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CHECKPOINT", str(tmp_path / "none.safetensors"))
    finding = model.check_checkpoint()
    assert finding.status == "fail" and "none.safetensors" in finding.detail and "VISAVIS_CHECKPOINT" in finding.remedy


def test_backends_are_named(monkeypatch):
    monkeypatch.delenv("VISAVIS_BACKEND", raising=False)
    finding = model.check_backend()
    assert finding.status == "ok" and "auto tries" in finding.detail and "eager" in finding.detail


def test_a_backend_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("VISAVIS_BACKEND", "abacus")
    finding = model.check_backend()
    assert finding.status == "fail" and "'abacus'" in finding.detail and "VISAVIS_BACKEND" in finding.remedy
