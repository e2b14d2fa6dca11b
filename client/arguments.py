"""What can be asked of ``visavis live``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from client.errors import OrderInvalid
from engine.registry import DEFAULT_ENGINE, engine_names

LOCAL_SERVER = "http://127.0.0.1:8000"
STATS_EVERY_S = 5.0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="visavis live",
        description="Speak, and the avatar speaks: in a window, as a camera for other programs, or into a file.",
        epilog="Keys, in the window, or on the terminal followed by Enter: m mutes, q ends.",
    )
    _add_server(parser.add_argument_group("server"))
    _add_avatar(parser.add_argument_group("avatar"))
    _add_sound(parser.add_argument_group("sound"))
    _add_picture(parser.add_argument_group("picture"))
    parser.add_argument("--seconds", type=float, metavar="S", help="end after so long")
    parser.add_argument("--stats", action="store_true", help=f"tell figures every {STATS_EVERY_S:.0f} s")
    return parser


def _add_server(server: argparse._ArgumentGroup) -> None:
    server.add_argument(
        "--server",
        metavar="URL",
        help=f"default: {LOCAL_SERVER}; where none answers there, one is started for as long as this program runs",
    )
    server.add_argument("--key", help="the server's API key; better: environment VISAVIS_API_KEY")
    server.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="of a server started here")
    server.add_argument("--codec", choices=("VP8", "H264"), help="default: whichever fits, VP8 first")


def _add_avatar(face: argparse._ArgumentGroup) -> None:
    face.add_argument("--avatar", metavar="ID", help="one that the server has; default: 'default'")
    face.add_argument("--portrait", type=Path, metavar="FILE", help="send this picture, and take it back at the end")
    face.add_argument(
        "--consent", action="store_true", help="the person in --portrait is you, or has agreed to be animated"
    )
    face.add_argument("--motion", type=float, default=1.0, metavar="0...1", help="amount of idle motion; default 1")


def _add_sound(sound: argparse._ArgumentGroup) -> None:
    sound.add_argument("--list-devices", action="store_true", help="list the sound devices and end")
    sound.add_argument("--input", metavar="DEVICE", help="microphone, by index or part of its name")
    sound.add_argument("--wav", type=Path, metavar="FILE", help="speak this sound file instead of the microphone, once")
    sound.add_argument("--loop", action="store_true", help="speak --wav over and over")
    sound.add_argument(
        "--output",
        metavar="DEVICE",
        help="play the avatar's sound there, by index, part of its name, or 'default'; otherwise it is not played",
    )
    sound.add_argument("--mute", action="store_true", help="begin muted")


def _add_picture(seen: argparse._ArgumentGroup) -> None:
    seen.add_argument("--virtual-camera", action="store_true", help="be a camera for other programs; no window then")
    seen.add_argument("--camera", metavar="DEVICE", help="which virtual camera, e.g. /dev/video10; default: the first")
    seen.add_argument("--camera-size", default="1280x720", metavar="WxH", help="default 1280x720")
    window = seen.add_mutually_exclusive_group()
    window.add_argument("--window", action="store_true", help="open a window beside the virtual camera")
    window.add_argument("--no-window", action="store_true", help="open no window")
    seen.add_argument("--out", type=Path, metavar="FILE.mp4", help="record what comes, picture and sound")


def check_arguments(args: argparse.Namespace) -> None:
    """See that the wishes agree with each other, before anything is opened for them.

    Raises:
        OrderInvalid: they do not.
    """
    if args.portrait is not None and not args.consent:
        raise OrderInvalid(
            "--portrait needs --consent: with it you state that the person shown is you or has agreed to be animated"
        )
    if args.portrait is not None and args.avatar is not None:
        raise OrderInvalid("--portrait and --avatar were both given: choose one")
    if args.wav is not None and args.input is not None:
        raise OrderInvalid("--wav and --input were both given: choose one")
    if args.loop and args.wav is None:
        raise OrderInvalid("--loop was given without --wav FILE")
    if not 0 <= args.motion <= 1:
        raise OrderInvalid(f"--motion is {args.motion:g}: it must be a number from 0 to 1")
    if args.seconds is not None and not 0 < args.seconds < 1e7:
        raise OrderInvalid(f"--seconds is {args.seconds:g}: it must be more than 0")
    if args.no_window and not (args.virtual_camera or args.out or args.output):
        raise OrderInvalid("nothing would be seen or heard: give --virtual-camera, --output DEVICE or --out FILE.mp4")
    key = args.key or os.environ.get("VISAVIS_API_KEY") or ""
    if not (key.isascii() and key.isprintable()):
        raise OrderInvalid("the key has characters that no key has: copy it again")
