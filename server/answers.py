"""What the OpenAPI description tells of failures, made from the table that decides their statuses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from engine.errors import VisavisError
from server.errors import ForeignOrigin, TryLater, Unauthorized, status_of


class Failure(BaseModel):
    code: str
    message: str


class FailureBody(BaseModel):
    """The body of every answer that is no success."""

    error: Failure


Answers = dict[int | str, dict[str, Any]]


def failures(*kinds: type[VisavisError]) -> Answers:
    """FastAPI's ``responses`` of a route: one entry a status, which names the codes it may come with.

    Args:
        kinds: what the route may raise, besides what the gate before all routes raises.
    """
    by_status: dict[int, list[type[VisavisError]]] = {}
    for kind in (*kinds, Unauthorized, ForeignOrigin):
        by_status.setdefault(status_of(kind), []).append(kind)
    return {status: _answer(by_status[status]) for status in sorted(by_status)}


def any_failure() -> Answers:
    """For the whole application. An entry named ``default`` keeps FastAPI from promising 422 for bad
    fields, which answer 400 here."""
    return {**failures(), "default": {"model": FailureBody, "description": "any other failure"}}


def _answer(kinds: list[type[VisavisError]]) -> dict[str, Any]:
    answer: dict[str, Any] = {"model": FailureBody, "description": ", ".join(kind.code for kind in kinds)}
    if any(issubclass(kind, TryLater) for kind in kinds):
        retry = {"description": "seconds, where waiting helps", "schema": {"type": "integer"}}
        answer["headers"] = {"Retry-After": retry}
    return answer
