"""The command ``visavis``. Each subcommand is a module of its own, imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """``main(argv) -> int`` of ``module``, in a line."""

    module: str
    summary: str


AGAIN_S = 3.0  # SIGTERM strikes once more after so long: a callback that it strikes in may swallow it

COMMANDS = {
    "serve": Command("server.main", "serve the page: talk, and the portrait speaks"),
    "live": Command("client.live", "speak, and the avatar speaks in a window or a camera"),
    "enrol": Command("tools.enrol", "keep a portrait as an avatar for the server"),
    "render": Command("tools.render", "make a video of a portrait speaking a sound file"),
    "doctor": Command("tools.doctor", "check this machine, and say what to do about what fails"),
}


def main(argv: list[str] | None = None) -> int:
    """Run ``visavis ARGV``; the exit status is 0, 1 (doctor found a fault), 2 (refused) or 130 (interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="visavis", description="A portrait that speaks.")
    parser.add_argument("--version", action="version", version=f"visavis {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.summary, add_help=False, prefix_chars="\0")
    # The subcommand's own parser reads what follows its name; this one must not touch it.
    at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    chosen = parser.parse_args(argv[: at + 1]).command

    def start(rest: list[str]) -> int:
        return importlib.import_module(COMMANDS[chosen].module).main(rest)

    return run(start, argv[at + 1 :])


def run(start: Callable[[list[str]], int], argv: list[str]) -> int:
    """Call a subcommand; what it raises on purpose becomes one line on stderr and exit status 2."""
    from engine.errors import VisavisError

    try:
        return _until_terminated(start, argv)
    except VisavisError as error:
        print("visavis: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("visavis: interrupted", file=sys.stderr)
        return 130


def _until_terminated(start: Callable[[list[str]], int], argv: list[str]) -> int:
    """SIGTERM unwinds like Ctrl-C, so that no temporary file stays behind. The server sets its own handlers later."""

    def stop(_number: int, _frame: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        sys.exit(128 + signal.SIGTERM)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        return start(argv)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("visavis")
    except PackageNotFoundError:
        return "from source"


if __name__ == "__main__":
    sys.exit(main())
