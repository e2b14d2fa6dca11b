"""What can go wrong at an agent's end.

::

    AgentError
    ├── Refused         the server answered with an error; carries its code
    ├── Unreachable     no server, or it went away
    └── PackageMissing  pipecat or LiveKit Agents is not installed here
"""

from __future__ import annotations


class AgentError(Exception):
    """Root of them."""


class Refused(AgentError):
    """The server said no.

    Args:
        code: the server's, as docs/api.md lists them.
        message: what was wrong, with which value, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Unreachable(AgentError):
    pass


class PackageMissing(AgentError, ImportError):
    pass
