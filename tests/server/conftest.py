"""Fixtures: a real server on a loopback port with the fake engine, and a picture that it takes."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from PIL import Image

from engine.api import Engine
from engine.fake import FakeEngine
from server.config import ServerConfig
from tests.server.caller import Server, running

Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers: ``await serve(api_key=..., make_engine=...)``; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(*, make_engine: Callable[[], Engine] | None = None, wait: bool = True, **fields: Any) -> Server:
            config = ServerConfig(**{"port": 0, "engine": "fake", **fields})
            return await stack.enter_async_context(running(config, make_engine or FakeEngine, wait))

        yield start


@pytest.fixture
async def server(serve: Serve) -> Server:
    return await serve()


@pytest.fixture
def picture() -> bytes:
    """A PNG that the fake engine takes."""
    out = io.BytesIO()
    Image.new("RGB", (300, 280), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()
