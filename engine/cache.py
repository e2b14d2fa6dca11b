"""Where avatars are kept: a bounded memory in front of a folder of safetensors files.

One avatar is one file, ``ID.safetensors``: its arrays, its metadata and, where the caller gave it, the
picture it was made of. So a write is atomic, a delete leaves nothing behind, and several processes may
use one folder. The folder holds people's faces: it and its files are readable by their owner only.
"""

from __future__ import annotations

import builtins
import logging
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.api import Avatar, Enrols
from engine.avatar_file import AvatarRecord, KeptAvatar, not_found, read_avatar, read_record, written
from engine.errors import AvatarDamaged, AvatarError, AvatarNotFound, AvatarStale, AvatarStorage

log = logging.getLogger(__name__)

DEFAULT_AVATAR_ID = "default"
DEFAULT_PORTRAIT = Path(__file__).parent / "assets" / "default_portrait.jpg"
LEFTOVER_S = 3600  # a temporary file this old belongs to a writer that died

_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIX = ".safetensors"


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
        self._memory: OrderedDict[str, KeptAvatar] = OrderedDict()  # oldest use first
        self._default: Avatar | None = None
        self._born = clock()
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise AvatarStorage(f"no folder for avatars at {folder}: {error.strerror}; choose another") from error

    def put(self, avatar: Avatar, *, expires_at: float | None = None, source: bytes | None = None) -> str:
        """Keep an avatar.

        Args:
            avatar: as ``Engine.enrol`` made it.
            expires_at: seconds since 1970, None for no end.
            source: the encoded picture; with it the avatar survives a change of engine or checkpoint.

        Returns:
            its new id, 32 hexadecimal digits.

        Raises:
            AvatarStorage: the folder cannot be written.
        """
        record = AvatarRecord(
            id=secrets.token_hex(16),
            created_at=self._clock(),
            expires_at=expires_at,
            engine=avatar.engine,
            fingerprint=avatar.fingerprint,
        )
        kept = KeptAvatar(record, avatar, source)
        if self._folder is not None:
            path = self._path(record.id)
            with written(path, kept) as temporary:
                os.replace(temporary, path)
        self._remember(kept)
        return record.id

    def get(self, avatar_id: str, engine: Enrols) -> Avatar:
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
        self._renew(KeptAvatar(record, avatar, kept.source))
        return avatar

    def find_crop(self, avatar_id: str) -> np.ndarray | None:
        """Its aligned view, uint8 [S, S, 3], as it was kept: a stale avatar is not enrolled again for it.

        Returns:
            None where there is none yet and ``get`` must make it.

        Raises:
            AvatarNotFound, AvatarDamaged: as ``get``.
        """
        if avatar_id == DEFAULT_AVATAR_ID:
            with self._lock:
                avatar = self._default
        else:
            avatar = self._find(avatar_id).avatar
        return None if avatar is None else avatar.crop

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
        record = read_record(path)
        if record.expired(self._clock()):
            raise not_found(avatar_id)
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
            raise not_found(avatar_id)

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

    def _get_default(self, engine: Enrols) -> Avatar:
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

    def _find(self, avatar_id: str) -> KeptAvatar:
        path = self._checked_path(avatar_id)
        with self._lock:
            kept = self._memory.get(avatar_id)
            if kept is not None:
                self._memory.move_to_end(avatar_id)
        if path is not None and (kept is None or not path.exists()):
            # Another process may have deleted the file: the file decides, not the memory.
            with self._lock:
                self._memory.pop(avatar_id, None)
            kept = read_avatar(path)
            self._remember(kept)
        if kept is None or kept.record.expired(self._clock()):
            raise not_found(avatar_id)
        return kept

    def _remember(self, kept: KeptAvatar) -> None:
        with self._lock:
            self._memory[kept.record.id] = kept
            self._memory.move_to_end(kept.record.id)
            total = sum(k.nbytes for k in self._memory.values())
            while total > self._memory_bytes and len(self._memory) > 1:
                avatar_id, dropped = self._memory.popitem(last=False)
                total -= dropped.nbytes
                if self._folder is None:
                    log.warning("avatar %s left the full memory; there is no folder to keep it in", avatar_id)

    def _renew(self, kept: KeptAvatar) -> None:
        """Replace an avatar that still exists; one deleted while it was enrolled again stays deleted."""
        avatar_id = kept.record.id
        if self._folder is None:
            with self._lock:
                present = avatar_id in self._memory
        else:
            path = self._path(avatar_id)
            with written(path, kept) as temporary, self._lock:
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
                records.append(read_record(path))
            except AvatarNotFound:
                pass  # deleted meanwhile
            except AvatarDamaged as error:
                log.warning("%s", error)
                damaged.append(path.stem)
            except AvatarError as error:
                log.warning("%s", error)  # not the file's fault; it stays
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
            raise not_found(avatar_id)
        return None if self._folder is None else self._path(avatar_id)


def _fits(avatar: Avatar | None, engine: Enrols) -> bool:
    return avatar is not None and (avatar.engine, avatar.fingerprint) == (engine.spec.name, engine.fingerprint)


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
