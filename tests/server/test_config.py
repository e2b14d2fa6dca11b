import socket
import subprocess
import sys
from pathlib import Path

import pytest

from server.config import ServerConfig, is_loopback
from server.errors import ConfigError
from server.main import main, read_config


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert ServerConfig(host=host).api_key is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(ConfigError, match="API key is required"):
        ServerConfig(host=host)
    assert ServerConfig(host=host, api_key="long enough").host == host


@pytest.mark.parametrize(
    "fields",
    [
        {"port": 70_000},
        {"engine": "nosuch"},
        {"max_sessions": 0},
        {"api_key": "short"},
        {"api_key": "schlüssel-wort"},
        {"api_key": "ends in a space "},
    ],
)
def test_what_cannot_work_is_refused(fields: dict) -> None:
    with pytest.raises(ConfigError):
        ServerConfig(**fields)


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_API_KEY", "from the environment")
    assert read_config(["--host", "0.0.0.0"]).api_key == "from the environment"
    assert read_config(["--api-key", "from the line"]).api_key == "from the line"


def test_the_command_refuses_an_open_door_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VISAVIS_API_KEY", raising=False)
    assert main(["--host", "0.0.0.0"]) == 2
    assert "--api-key" in capsys.readouterr().err


def test_the_command_serves_and_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    command = [sys.executable, "-m", "server.main", "--engine", "fake", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Visavis serves on http://127.0.0.1:")
    finally:
        process.terminate()
    assert process.wait(20) == 0


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--engine", "fake", "--port", "0", "--data", str(tmp_path / "file" / "avatars")]) == 2
    assert "no folder for avatars" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["--engine", "fake", "--port", str(port)]) == 2
    assert f"port {port}" in capsys.readouterr().err
