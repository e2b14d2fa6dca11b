import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import AudioUnreadable
from tests.tools.media import bursts, portrait_jpeg, write_wav
from tools.cli import COMMANDS, main, run

ROOT = Path(__file__).parents[2]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out and command.summary in out for name, command in COMMANDS.items())


def test_help_imports_nothing_heavy():
    """Nothing else keeps the command quick: not torch, not even numpy."""
    code = (
        "import sys\nfrom tools.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'av', 'cv2', 'PIL', 'fastapi', 'mediapipe'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_main_with_help_of_its_own(name, capsys):
    assert callable(importlib.import_module(COMMANDS[name].module).main)
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"usage: visavis {name}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["sing"], ["--loud"], ["--loud", "render"]])
def test_a_wrong_command_is_refused_with_the_usage(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: visavis" in capsys.readouterr().err


def test_what_follows_the_command_reaches_it_untouched(monkeypatch):
    class Module:
        @staticmethod
        def main(argv):
            seen.append(argv)
            return 7

    seen: list[list[str]] = []
    monkeypatch.setattr(importlib, "import_module", lambda name: Module)
    words = ["--host", "0.0.0.0", "--version", "render", "-h", "--", "x"]
    assert main(["serve", *words]) == 7
    assert seen == [words]


def test_our_own_errors_are_one_line_and_status_2(capsys):
    def start(argv):
        raise AudioUnreadable("no sound\nin 'a.txt'")

    assert run(start, []) == 2
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", "visavis: no sound in 'a.txt'\n")


def test_a_bug_keeps_its_traceback():
    def start(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(start, [])


def test_ctrl_c_is_no_traceback(capsys):
    def start(argv):
        raise KeyboardInterrupt

    assert run(start, []) == 130
    assert capsys.readouterr().err == "visavis: interrupted\n"


def test_the_whole_way_as_a_user_goes_it(tmp_path):
    (tmp_path / "notes.txt").write_text("no sound here\n" * 50)
    (tmp_path / "p.jpg").write_bytes(portrait_jpeg())
    command = [sys.executable, "-m", "tools.cli", "render", "--engine", "fake", "--portrait", str(tmp_path / "p.jpg")]
    command += ["--audio", str(tmp_path / "notes.txt"), "--out", str(tmp_path / "o.mp4")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("visavis: 'notes.txt' is text, no audio or video file") and done.stderr.count("\n") == 1
    )


def test_an_unknown_engine_is_refused_with_the_known_ones(tmp_path, capsys):
    (tmp_path / "p.jpg").write_bytes(portrait_jpeg())
    audio = write_wav(tmp_path / "a.wav", bursts(0.1, 16_000))
    argv = ["render", "--portrait", str(tmp_path / "p.jpg"), "--audio", str(audio), "--out", str(tmp_path / "o.mp4")]
    assert main([*argv, "--engine", "magic"]) == 2
    err = capsys.readouterr().err
    assert "'magic'" in err and "fake" in err and err.count("\n") == 1
