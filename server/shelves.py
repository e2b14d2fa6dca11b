"""The avatars that a server shows: those uploaded to it, and those enrolled on this machine's command line.

Unless the operator names a folder, uploads stay in memory, so a stranger's portrait never reaches the
disk and ends with the server at the latest. What ``visavis enrol`` put into the user's folder was meant to
be kept; it is shown, deleted and, when its time is over, removed here too.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.api import Avatar, Enrols
from engine.cache import DEFAULT_AVATAR_ID, AvatarRecord, AvatarStore
from engine.errors import AvatarError, AvatarNotFound

log = logging.getLogger(__name__)

T = TypeVar("T")


class Shelves:
    """Two avatar stores that look like one; new avatars go to the uploads. Thread-safe as they are.

    Args:
        data_folder: of the uploads; None keeps them in memory.
        enrolled_folder: of avatars enrolled on the command line; None shows none. Where it cannot be
            used the server does without it.
    """

    def __init__(self, data_folder: Path | None, enrolled_folder: Path | None) -> None:
        self._uploads = AvatarStore(data_folder)
        self._enrolled: AvatarStore | None = None
        if enrolled_folder is not None and enrolled_folder != data_folder:
            try:
                self._enrolled = AvatarStore(enrolled_folder)
            except AvatarError as error:
                log.warning("avatars enrolled on the command line are not shown: %s", error)

    def put(self, avatar: Avatar, *, expires_at: float | None = None, source: bytes | None = None) -> str:
        """As ``AvatarStore.put``."""
        return self._uploads.put(avatar, expires_at=expires_at, source=source)

    def get(self, avatar_id: str, engine: Enrols) -> Avatar:
        """As ``AvatarStore.get``."""
        return self._ask(lambda store: store.get(avatar_id, engine))

    def find_crop(self, avatar_id: str) -> np.ndarray | None:
        """As ``AvatarStore.find_crop``."""
        return self._ask(lambda store: store.find_crop(avatar_id))

    def describe(self, avatar_id: str) -> AvatarRecord:
        """As ``AvatarStore.describe``."""
        return self._ask(lambda store: store.describe(avatar_id))

    def delete(self, avatar_id: str) -> None:
        """As ``AvatarStore.delete``."""
        self._ask(lambda store: store.delete(avatar_id))

    def list(self) -> builtins.list[AvatarRecord]:
        """As ``AvatarStore.list``, of both: the default first, then the newest first."""
        default, *records = self._uploads.list()
        if self._enrolled is not None:
            records += [r for r in self._enrolled.list() if r.id != DEFAULT_AVATAR_ID]
        return [default, *sorted(records, key=lambda r: r.created_at, reverse=True)]

    def sweep(self, now: float) -> int:
        """As ``AvatarStore.sweep``, of both."""
        return self._uploads.sweep(now) + (self._enrolled.sweep(now) if self._enrolled is not None else 0)

    def _ask(self, act: Callable[[AvatarStore], T]) -> T:
        """What the store says that knows the avatar; the default one is the uploads' matter."""
        try:
            return act(self._uploads)
        except AvatarNotFound:
            if self._enrolled is None:
                raise
        return act(self._enrolled)
