"""Loops over numbers compiled for the CPU that runs them, by Numba: no compiler is needed on the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from engine.compile.cache import cache_folder

_settings: Any = numba.config
_settings.CACHE_DIR = _settings.CACHE_DIR or str(cache_folder() / "kernels")


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function of arrays and numbers at its first call with their types; it runs without the GIL.

    What was compiled is kept in the cache, under the source's time and the CPU's name. A cache that cannot be
    written to costs some seconds at each start, nothing else.
    """
    options: dict[str, Any] = dict(fastmath=True, nogil=True, error_model="numpy")
    try:
        made: Callable[..., None] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place for the cache
        made = numba.njit(**options)(function)
    return made
