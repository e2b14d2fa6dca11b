"""Where avatars are kept: a bounded memory in front of a folder of safetensors files.

One avatar is one file, ``ID.safetensors``: its arrays, its metadata and, where the caller gave it, the
picture it was made of. So a write is atomic, a delete leaves nothing behind, and several processes may
use one folder. The folder holds people's faces: it and its files are readable by their owner only.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import re
import secrets
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from engine.api import Avatar, Engine
from engine.errors import AvatarDamaged, AvatarError, AvatarNotFound, AvatarStale

log = logging.getLogger(__name__)

DEFAULT_AVATAR_ID = "default"
DEFAULT_PORTRAIT = Path(__file__).parent / "assets" / "default_portrait.jpg"
FORMAT_VERSION = 1  # of the files; an avatar of another version is enrolled again, never guessed at
LEFTOVER_S = 3600  # a temporary file this old belongs to a writer that died

_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIX = ".safetensors"
_ARRAY = "array."  # prefix of the avatar's arrays in a file; the picture's bytes are SOURCE
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
class _Kept:
    """One avatar in full; ``avatar`` is None where its file is of another format version."""

    record: AvatarRecord
    avatar: Avatar | None = field(repr=False)
    source: bytes | None = field(repr=False)  # encoded picture, as uploaded

    @property
    def nbytes(self) -> int:
        return (self.avatar.nbytes if self.avatar else 0) + len(self.source or b"")


class AvatarStore:
    """Keeps avatars by unguessable ids. Thread-safe; the lock is never held while an engine enrols.

    Memory is bounded: beyond ``memory_bytes`` the least recently used avatars leave it. With a folder
    they are read again when asked for; without one they are gone. The newest always stays, and so
    does the default avatar, which is not counted.

    Args:
        folder: where files go, made if missing; None keeps everything in memory.
        memory_bytes: most bytes of arrays and pictures in memory.
        clock: seconds since 1970.
    """

    def __init__(
        self, folder: Path | None, memory_bytes: int = 512 << 20, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, _Kept] = OrderedDict()  # oldest use first
        self._default: Avatar | None = None
        self._born = clock()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, avatar: Avatar, *, expires_at: float | None = None, source: bytes | None = None) -> str:
        """Keep an avatar.

        Args:
            avatar: as ``Engine.enrol`` made it.
            expires_at: seconds since 1970, None for no end.
            source: the encoded picture; with it the avatar survives a change of engine or checkpoint.

        Returns:
            its new id, 32 hexadecimal digits.

        Raises:
            AvatarError: the folder cannot be written.
        """
        record = AvatarRecord(
            id=secrets.token_hex(16),
            created_at=self._clock(),
            expires_at=expires_at,
            engine=avatar.engine,
            fingerprint=avatar.fingerprint,
        )
        kept = _Kept(record, avatar, source)
        if self._folder is not None:
            path = self._path(record.id)
            with _written(path, kept) as temporary:
                os.replace(temporary, path)
        self._remember(kept)
        return record.id

    def get(self, avatar_id: str, engine: Engine) -> Avatar:
        """The avatar, fit for ``engine``. One that another engine or checkpoint made is enrolled again.

        Call it on the engine's thread: it may enrol.

        Raises:
            AvatarNotFound: unknown, deleted or expired.
            AvatarStale: made by another engine or checkpoint, and its picture was not kept.
            AvatarDamaged: its file cannot be read.
            PortraitError: its picture was kept, and this engine refuses it.
        """
        if avatar_id == DEFAULT_AVATAR_ID:
            return self._get_default(engine)
        kept = self._find(avatar_id)
        if _fits(kept.avatar, engine):
            assert kept.avatar is not None
            return kept.avatar
        if kept.source is None:
            raise AvatarStale(
                f"avatar {avatar_id} was made by engine {kept.record.engine!r} ({kept.record.fingerprint}), "
                f"now {engine.spec.name!r} ({engine.fingerprint}) runs, and its picture was not kept: "
                "enrol the portrait again"
            )
        avatar = engine.enrol(kept.source)
        record = replace(kept.record, engine=avatar.engine, fingerprint=avatar.fingerprint)
        self._renew(_Kept(record, avatar, kept.source))
        return avatar

    def describe(self, avatar_id: str) -> AvatarRecord:
        """Its record, without loading it.

        Raises:
            AvatarNotFound, AvatarDamaged: as ``get``.
        """
        if avatar_id == DEFAULT_AVATAR_ID:
            return self._default_record()
        path = self._checked_path(avatar_id)
        if path is None:
            return self._find(avatar_id).record
        record = _read_record(path)
        if record.expired(self._clock()):
            raise _not_found(avatar_id)
        return record

    def list(self) -> builtins.list[AvatarRecord]:
        """Records of all avatars that have not expired: the default first, then the newest first."""
        now = self._clock()
        records = sorted(self._scan()[0], key=lambda r: r.created_at, reverse=True)
        return [self._default_record(), *(r for r in records if not r.expired(now))]

    def delete(self, avatar_id: str) -> None:
        """Remove an avatar with its picture, from memory and disk; works on a damaged file too.

        Raises:
            AvatarNotFound: there is none, or no longer.
            AvatarError: it is the default avatar.
        """
        if avatar_id == DEFAULT_AVATAR_ID:
            raise AvatarError("the default avatar is part of Visavis and cannot be deleted")
        path = self._checked_path(avatar_id)
        with self._lock:
            known = self._memory.pop(avatar_id, None) is not None
            if path is not None:
                known = _unlink(path)
        if not known:
            raise _not_found(avatar_id)

    def sweep(self, now: float) -> int:
        """Drop what has expired by ``now`` (seconds since 1970), and what nobody can use.

        A damaged file goes too: nothing can be read from it, not even how long it may be kept.

        Returns:
            number of avatars removed.
        """
        records, damaged = self._scan()
        gone = [r.id for r in records if r.expired(now)] + damaged
        if self._folder is not None:
            _remove_leftovers(self._folder, now)
        removed = 0
        for avatar_id in gone:
            try:
                self.delete(avatar_id)
                removed += 1
            except AvatarNotFound:
                pass  # someone else was quicker
        return removed

    def _get_default(self, engine: Engine) -> Avatar:
        with self._lock:
            avatar = self._default
        if avatar is None or not _fits(avatar, engine):
            avatar = engine.enrol(DEFAULT_PORTRAIT.read_bytes())
            with self._lock:
                self._default = avatar
        return avatar

    def _default_record(self) -> AvatarRecord:
        with self._lock:
            made = self._default
        return AvatarRecord(
            id=DEFAULT_AVATAR_ID,
            created_at=self._born,
            expires_at=None,
            engine=made.engine if made else "",
            fingerprint=made.fingerprint if made else "",
        )

    def _find(self, avatar_id: str) -> _Kept:
        path = self._checked_path(avatar_id)
        with self._lock:
            kept = self._memory.get(avatar_id)
            if kept is not None:
                self._memory.move_to_end(avatar_id)
        if path is not None and (kept is None or not path.exists()):
            # Another process may have deleted the file: the file decides, not the memory.
            kept = _read_file(path)
            self._remember(kept)
        if kept is None or kept.record.expired(self._clock()):
            raise _not_found(avatar_id)
        return kept

    def _remember(self, kept: _Kept) -> None:
        with self._lock:
            self._memory[kept.record.id] = kept
            self._memory.move_to_end(kept.record.id)
            total = sum(k.nbytes for k in self._memory.values())
            while total > self._memory_bytes and len(self._memory) > 1:
                avatar_id, dropped = self._memory.popitem(last=False)
                total -= dropped.nbytes
                if self._folder is None:
                    log.warning("avatar %s left the full memory; there is no folder to keep it in", avatar_id)

    def _renew(self, kept: _Kept) -> None:
        """Replace an avatar that still exists; one deleted while it was enrolled again stays deleted."""
        avatar_id = kept.record.id
        if self._folder is None:
            with self._lock:
                present = avatar_id in self._memory
        else:
            path = self._path(avatar_id)
            with _written(path, kept) as temporary, self._lock:
                present = path.exists()
                if present:
                    os.replace(temporary, path)
        if present:
            self._remember(kept)

    def _scan(self) -> tuple[builtins.list[AvatarRecord], builtins.list[str]]:
        """Records of all avatars, expired or not, and the ids of damaged files."""
        if self._folder is None:
            with self._lock:
                return [k.record for k in self._memory.values()], []
        records, damaged = [], []
        for path in self._paths():
            try:
                records.append(_read_record(path))
            except AvatarNotFound:
                pass  # deleted meanwhile
            except AvatarDamaged as error:
                log.warning("%s", error)
                damaged.append(path.stem)
        return records, damaged

    def _paths(self) -> builtins.list[Path]:
        assert self._folder is not None
        return [p for p in sorted(self._folder.glob("*" + _SUFFIX)) if _ID.fullmatch(p.stem)]

    def _path(self, avatar_id: str) -> Path:
        assert self._folder is not None
        return self._folder / (avatar_id + _SUFFIX)

    def _checked_path(self, avatar_id: str) -> Path | None:
        """The file of an id (None without a folder); only our own ids ever become a path."""
        if not _ID.fullmatch(avatar_id):
            raise _not_found(avatar_id)
        return None if self._folder is None else self._path(avatar_id)


def _fits(avatar: Avatar | None, engine: Engine) -> bool:
    return avatar is not None and (avatar.engine, avatar.fingerprint) == (engine.spec.name, engine.fingerprint)


def _not_found(avatar_id: str) -> AvatarNotFound:
    return AvatarNotFound(f"no avatar {avatar_id[:40]!r}: it expired, was deleted or never was; enrol the portrait")


@contextmanager
def _written(path: Path, kept: _Kept) -> Iterator[Path]:
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
        raise AvatarError(
            f"avatar {kept.record.id} could not be saved: {error.strerror or error}; free some space, "
            "or choose another data folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _file_bytes(kept: _Kept) -> bytes:
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


def _read_record(path: Path) -> AvatarRecord:
    with _opened(path) as file:
        return _record_from(path, file.metadata() or {})


def _read_file(path: Path) -> _Kept:
    with _opened(path) as file:
        metadata = file.metadata() or {}
        record = _record_from(path, metadata)
        tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}
        if _checksum(tensors) != metadata["crc32"]:
            raise ValueError("its checksum is wrong")
        source = tensors.pop(_SOURCE).tobytes() if _SOURCE in tensors else None
        if metadata["visavis_avatar"] != str(FORMAT_VERSION):
            return _Kept(record, None, source)
        arrays = {name.removeprefix(_ARRAY): array for name, array in tensors.items()}
        notes = json.loads(metadata["notes"])
    avatar = Avatar(engine=record.engine, fingerprint=record.fingerprint, arrays=arrays, notes=notes)
    return _Kept(record, avatar, source)


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
        raise _not_found(path.stem) from error
    except OSError as error:  # the disk or a limit of the system, not the file
        raise AvatarError(f"avatar {path.stem} cannot be read just now: {error}; try again") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise AvatarDamaged(
            f"the file of avatar {path.stem} is damaged ({error}); delete it and enrol the portrait again"
        ) from error


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _remove_leftovers(folder: Path, now: float) -> None:
    for path in folder.glob("*.tmp"):
        try:
            if now - path.stat().st_mtime > LEFTOVER_S:
                path.unlink()
        except FileNotFoundError:
            pass  # its writer lives
