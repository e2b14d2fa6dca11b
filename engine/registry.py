"""Engine names -> engines. The only place that knows which engines exist."""

from __future__ import annotations

from collections.abc import Callable

from engine.api import Engine
from engine.errors import EngineUnavailable

DEFAULT_ENGINE = "s3dnerf"


def _s3dnerf() -> Engine:
    from engine.s3dnerf.engine import S3DNerfEngine

    return S3DNerfEngine()


def _fake() -> Engine:
    from engine.fake import FakeEngine

    return FakeEngine()


_MAKERS: dict[str, Callable[[], Engine]] = {"s3dnerf": _s3dnerf, "fake": _fake}


def engine_names() -> tuple[str, ...]:
    return tuple(_MAKERS)


def create_engine(name: str = DEFAULT_ENGINE) -> Engine:
    """Load an engine by name; imports only what that engine needs.

    Raises:
        EngineUnavailable: no engine of that name.
    """
    if name not in _MAKERS:
        raise EngineUnavailable(f"no engine is called {name!r}; choose one of {', '.join(_MAKERS)}")
    return _MAKERS[name]()
