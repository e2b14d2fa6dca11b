"""Reading inputs and replacing outputs: a path that fails is told in a sentence, a half file never stands."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import FileError

_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)


def check_readable(path: Path, what: str) -> None:
    """See that ``path`` is a file we may read.

    Raises:
        FileError: there is none, it is a folder, or it may not be read. ``what`` names it, e.g. "portrait".
    """
    try:
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise FileError(f"cannot read the {what} {str(path)!r}: {_reason(error)}") from error


def read_bytes(path: Path, what: str) -> bytes:
    """The whole file.

    Raises:
        FileError: as ``check_readable``.
    """
    check_readable(path, what)
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read the {what} {str(path)!r}: {_reason(error)}") from error


def check_writable(path: Path, what: str) -> None:
    """See that a file could be made at ``path``, before the work that fills it.

    Raises:
        FileError: as ``replacing``.
    """
    if path.is_dir():
        raise FileError(f"cannot write the {what} {str(path)!r}: it is a folder, give a file name")
    temporary = _beside(path)
    try:
        temporary.touch(exist_ok=False)
        temporary.unlink()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write the {what} {str(path)!r}: {_reason(error)}") from error


@contextmanager
def replacing(path: Path, what: str) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends well.

    The temporary file is made at once, so that an unwritable place is told before any work is done.
    When the block fails or is interrupted it is removed, and what stood at ``path`` before still stands.

    Raises:
        FileError: the folder is missing or may not be written, the disk is full, or ``path`` is a folder.
    """
    check_writable(path, what)
    temporary = _beside(path)
    try:
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _DISK_TROUBLE and error.filename not in (str(temporary), str(path)):
            raise  # the block's own, not about this file
        raise FileError(f"cannot write the {what} {str(path)!r}: {_reason(error)}") from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")


def _reason(error: Exception) -> str:
    """What went wrong, and what to do where that is known."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, give a file"
    if isinstance(error, PermissionError):
        return "permission is missing"
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
