"""``visavis enrol``: a portrait -> an avatar in the server's data folder."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from engine.cache import AvatarStore
from engine.data_folder import default_data_folder
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, create_engine, engine_names
from tools.files import read_bytes

DAY_S = 86_400
KEEP_DAYS_MAX = 366  # as long as the server's API allows


class ConsentMissing(VisavisError):
    """Nobody has said that the person shown agrees."""

    code = "consent_required"


def enrol(picture: bytes, *, folder: Path, engine_name: str, keep_days: float) -> str:
    """Keep a portrait, with its picture, so that it outlives a change of engine or checkpoint.

    Args:
        picture: encoded JPEG, PNG or WebP.
        folder: made if missing.
        engine_name: who enrols it; another engine enrols it again when it is first used.
        keep_days: 0 keeps it until it is deleted.

    Returns:
        the new avatar's id.

    Raises:
        PortraitError, AvatarError, CheckpointError, EngineUnavailable: as they say.
    """
    store = AvatarStore(folder)
    store.sweep(time.time())  # what has expired goes, although no server may be running
    engine = create_engine(engine_name)
    try:
        avatar = engine.enrol(picture)
    finally:
        engine.close()
    expires_at = time.time() + keep_days * DAY_S if keep_days else None
    return store.put(avatar, expires_at=expires_at, source=picture)


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    if not args.consent:
        raise ConsentMissing(
            "not enrolled: an avatar can be made to say anything, so the person shown must have agreed. "
            "If they have, or the picture is of nobody, say so with --consent"
        )
    picture = read_bytes(args.portrait, "portrait")
    avatar_id = enrol(picture, folder=args.data, engine_name=args.engine, keep_days=args.keep_days)
    print(avatar_id)
    kept = f"for {args.keep_days:g} days" if args.keep_days else "until it is deleted"
    where = "" if args.data == default_data_folder() else f" --data {shlex.quote(str(args.data))}"
    print(f"Kept {kept}. Serve it with: visavis serve{where}", file=sys.stderr)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="visavis enrol", description="Keep a portrait as an avatar for the server, and print its id."
    )
    parser.add_argument("--portrait", type=Path, required=True, help="JPEG, PNG or WebP with one face")
    parser.add_argument("--consent", action="store_true", help="the person shown agrees to be animated")
    parser.add_argument(
        "--keep-days", type=_days, default=30.0, metavar="N", help="delete it after so long; 0 never; default 30"
    )
    parser.add_argument(
        "--data", type=Path, default=default_data_folder(), metavar="DIR", help="data folder; default %(default)s"
    )
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default %(default)s")
    return parser


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= KEEP_DAYS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days from 0 to {KEEP_DAYS_MAX}")
    return days


if __name__ == "__main__":
    from tools.cli import run

    sys.exit(run(main, sys.argv[1:]))
