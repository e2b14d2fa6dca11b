"""Where backends keep what took long to make, under which names, and when it is thrown away.

A name ends in the digest of the source that the file was made from. Every upgrade (and every edit) makes
another set of files, so the old ones go: of one stage only the KEPT_FILES used last are kept, and none that
nobody used for KEPT_DAYS. Nothing but files of such names is ever removed: the folder may be shared.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import time
from pathlib import Path

KEPT_FILES = 4  # of a stage and suffix: two checkpoints or two versions side by side, and room for a change of mind
KEPT_DAYS = 30
DIGEST = "[0-9a-f]{12}"


def cache_folder() -> Path:
    """Where exports are kept: ``VISAVIS_CACHE``, or ``visavis`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VISAVIS_CACHE") or Path(home) / "visavis")


@functools.cache
def code_digest() -> str:
    """Of the source that exports are made from: after an upgrade, an export of the code before is not read."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def mark_used(path: Path) -> None:
    """Note that a kept file was of use just now; its time of change says so."""
    with contextlib.suppress(OSError):  # a cache of somebody else's, read only
        path.touch()


def drop_stale(newest: Path, name: str, companions: tuple[str, ...] = ()) -> None:
    """Remove files that ``newest`` makes superfluous: same stage, same suffix, long or least recently used.

    Args:
        newest: the file just written or used; never removed.
        name: the first part of the names of the files that compete, a stage's.
        companions: suffixes of files that go with each, such as ``.bin``.
    """
    ours = re.compile(rf"{re.escape(name)}-\S+-{DIGEST}{re.escape(newest.suffix)}")
    used: dict[Path, float] = {}
    with contextlib.suppress(OSError):
        for path in newest.parent.iterdir():
            if ours.fullmatch(path.name) and path != newest and path.is_file():
                used[path] = path.stat().st_mtime
    long_ago = time.time() - KEPT_DAYS * 86400
    latest_first = sorted(used, key=lambda path: used[path], reverse=True)
    for place, path in enumerate(latest_first, start=1):  # ``newest`` itself is one of those kept
        if place >= KEPT_FILES or used[path] < long_ago:
            for gone in (path, *(path.with_suffix(suffix) for suffix in companions)):
                with contextlib.suppress(OSError):  # another process was quicker, or may and we may not
                    gone.unlink()
