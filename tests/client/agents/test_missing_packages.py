"""Where pipecat or LiveKit is not installed, importing their part says what to do."""

from __future__ import annotations

import importlib
import sys

import pytest

from client.agents.errors import PackageMissing


@pytest.mark.parametrize(("module", "package"), [("pipecat_service", "pipecat"), ("livekit_avatar", "livekit")])
def test_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"client.agents.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PackageMissing, match=rf"visavis-agents\[{package}\]"):
        importlib.import_module(f"client.agents.{module}")
