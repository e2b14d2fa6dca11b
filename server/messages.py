"""What all sockets have in common: messages are JSON objects, and an error is told by its code and its words."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import VisavisError
from server.errors import RequestInvalid

MAX_MESSAGE_CHARS = 16_384


def read_message(text: str, *, max_chars: int = MAX_MESSAGE_CHARS) -> dict[str, Any]:
    """A message as a JSON object.

    Raises:
        RequestInvalid: it is none, or too long.
    """
    if len(text) > max_chars:
        raise RequestInvalid(f"the message has {len(text)} characters: at most {max_chars} are read")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestInvalid(f"the message is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise RequestInvalid("the message is not a JSON object")
    return message


def write_error(error: VisavisError) -> dict[str, Any]:
    """The message that tells of ``error``."""
    return {"type": "error", "code": error.code, "message": str(error)}
