"""One kept avatar as one safetensors file: its arrays, its metadata and, if given, its picture.

Metadata: ``visavis_avatar`` (format version), ``engine``, ``fingerprint``, ``created_at``,
``expires_at`` (seconds since 1970, the latter empty for none), ``notes`` (JSON), ``crc32`` of the tensors.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from engine.api import Avatar
from engine.errors import AvatarDamaged, AvatarNotFound, AvatarStorage

FORMAT_VERSION = 1  # an avatar of another version is enrolled again, never guessed at

_ARRAY = "array."  # prefix of the avatar's arrays; the picture's bytes are _SOURCE
_SOURCE = "source"


@dataclass(frozen=True, kw_only=True)
class AvatarRecord:
    """What is known of a kept avatar without loading it. Times are seconds since 1970."""

    id: str
    created_at: float
    expires_at: float | None  # None: kept until deleted
    engine: str  # "" for the default avatar before its first use
    fingerprint: str

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True)
class KeptAvatar:
    """One avatar in full; ``avatar`` is None where its file is of another format version."""

    record: AvatarRecord
    avatar: Avatar | None = field(repr=False)
    source: bytes | None = field(repr=False)  # encoded picture, as uploaded

    @property
    def nbytes(self) -> int:
        return (self.avatar.nbytes if self.avatar else 0) + len(self.source or b"")


@contextmanager
def written(path: Path, kept: KeptAvatar) -> Iterator[Path]:
    """``kept`` in a new file beside ``path``, to be moved there; removed where it is not."""
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")  # mode 0600
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(_file_bytes(kept))
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except OSError as error:
        raise AvatarStorage(
            f"avatar {kept.record.id} could not be saved: {error.strerror or error}; free some space, "
            "or choose another data folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _file_bytes(kept: KeptAvatar) -> bytes:
    assert kept.avatar is not None
    tensors = {_ARRAY + name: np.ascontiguousarray(array) for name, array in kept.avatar.arrays.items()}
    if kept.source is not None:
        tensors[_SOURCE] = np.frombuffer(kept.source, np.uint8)
    record = kept.record
    metadata = {
        "visavis_avatar": str(FORMAT_VERSION),
        "engine": record.engine,
        "fingerprint": record.fingerprint,
        "created_at": repr(record.created_at),
        "expires_at": "" if record.expires_at is None else repr(record.expires_at),
        "notes": json.dumps(dict(kept.avatar.notes)),
        "crc32": _checksum(tensors),
    }
    return save_tensors(tensors, metadata)


def _checksum(tensors: dict[str, np.ndarray]) -> str:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def read_record(path: Path) -> AvatarRecord:
    with _opened(path) as file:
        return _record_from(path, file.metadata() or {})


def read_avatar(path: Path) -> KeptAvatar:
    with _opened(path) as file:
        metadata = file.metadata() or {}
        record = _record_from(path, metadata)
        tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}
        if _checksum(tensors) != metadata["crc32"]:
            raise ValueError("its checksum is wrong")
        source = tensors.pop(_SOURCE).tobytes() if _SOURCE in tensors else None
        if metadata["visavis_avatar"] != str(FORMAT_VERSION):
            return KeptAvatar(record, None, source)
        arrays = {name.removeprefix(_ARRAY): array for name, array in tensors.items()}
        notes = json.loads(metadata["notes"])
    avatar = Avatar(engine=record.engine, fingerprint=record.fingerprint, arrays=arrays, notes=notes)
    return KeptAvatar(record, avatar, source)


def _record_from(path: Path, metadata: dict[str, str]) -> AvatarRecord:
    if "visavis_avatar" not in metadata:
        raise ValueError("it is not an avatar's file")
    return AvatarRecord(
        id=path.stem,
        created_at=float(metadata["created_at"]),
        expires_at=float(metadata["expires_at"]) if metadata["expires_at"] else None,
        engine=metadata["engine"],
        fingerprint=metadata["fingerprint"],
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An avatar's file, open for reading; what goes wrong inside becomes one of our errors."""
    try:
        with safe_open(str(path), framework="np") as file:
            yield file
    except FileNotFoundError as error:
        raise not_found(path.stem) from error
    except OSError as error:  # the disk or a limit of the system, not the file
        raise AvatarStorage(f"avatar {path.stem} cannot be read just now: {error}; try again") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise AvatarDamaged(
            f"the file of avatar {path.stem} is damaged ({error}); delete it and enrol the portrait again"
        ) from error


def not_found(avatar_id: str) -> AvatarNotFound:
    return AvatarNotFound(f"no avatar {avatar_id[:40]!r}: it expired, was deleted or never was; enrol the portrait")
