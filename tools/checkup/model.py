"""The engine: its checkpoint, what computes it, and a first avatar."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from engine.api import Engine
from tools.checkup.finding import Finding, guarded

FETCH_AGAIN = "a file of the project is missing or damaged: get the project again"


def check_backend() -> Finding:
    """What S3D-NeRF may compute on here; whether it does, the engine's own line tells."""
    from engine.compile.choice import BACKENDS, candidates, what_is_missing
    from engine.errors import EngineUnavailable

    asked = os.environ.get("VISAVIS_BACKEND", "auto")
    try:
        tried = candidates(asked)
    except EngineUnavailable as error:
        return Finding("backend", "fail", f"VISAVIS_BACKEND={asked}: {error}", "unset VISAVIS_BACKEND, or install it")
    lacking = [name for name in BACKENDS if name != "auto" and what_is_missing(name)]
    others = f"; not usable here: {', '.join(lacking)}" if lacking else ""
    return Finding("backend", "ok", f"{asked} tries {', '.join(tried)}{others}")


def check_checkpoint() -> Finding:
    """Read it whole, as the engine does."""
    from engine.errors import CheckpointError
    from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint

    path = Path(os.environ.get("VISAVIS_CHECKPOINT", DEFAULT_CHECKPOINT))
    try:
        loaded = load_checkpoint(path)
    except CheckpointError as error:
        remedy = FETCH_AGAIN if path == DEFAULT_CHECKPOINT else "correct or unset VISAVIS_CHECKPOINT"
        return Finding("checkpoint", "fail", str(error), remedy)
    weights = sum(p.numel() for p in loaded.model.parameters())
    detail = f"{path.name}, {weights / 1e6:.1f} million weights, fingerprint {loaded.fingerprint}"
    return Finding("checkpoint", "ok", detail)


def check_engine(name: str) -> Iterator[Finding]:
    """Load the engine, and with it enrol the default portrait."""
    engine: Engine | None = None

    def load() -> Finding:
        nonlocal engine
        from engine.registry import create_engine

        began_s = time.perf_counter()
        engine = create_engine(name)
        return Finding("engine", "ok", f"{name} on {engine.backend}, loaded in {time.perf_counter() - began_s:.1f} s")

    def enrol_default() -> Finding:
        from engine.cache import DEFAULT_AVATAR_ID, AvatarStore

        assert engine is not None
        began_s = time.perf_counter()
        AvatarStore(None).get(DEFAULT_AVATAR_ID, engine)
        return Finding("avatar", "ok", f"the default portrait enrols in {time.perf_counter() - began_s:.1f} s")

    yield from guarded("engine", load, remedy=FETCH_AGAIN)
    if engine is None:
        yield Finding("avatar", "fail", "not tried, there is no engine", "mend the engine first")
        return
    yield from guarded("avatar", enrol_default, remedy=FETCH_AGAIN)
    engine.close()
