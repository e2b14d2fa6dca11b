from collections.abc import Iterator

import pytest

from engine.errors import NoFace, VisavisError
from server.errors import HTTP_STATUS, RateLimited, ServerError, http_headers, http_status


def tree(root: type[VisavisError]) -> Iterator[type[VisavisError]]:
    yield root
    for kind in root.__subclasses__():
        yield from tree(kind)


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [k for k in tree(VisavisError) if k.__module__ in ("engine.errors", "server.errors")]
    assert len({k.code for k in kinds}) == len(kinds) > 20


def test_client_faults_are_never_500() -> None:
    ours = {"config", "engine_failed", "server", "internal", "try_later"}
    for kind in tree(VisavisError):
        if kind.__module__ in ("engine.errors", "server.errors") and kind.code not in ours:
            assert http_status(kind.__new__(kind)) in HTTP_STATUS.values()
            assert http_status(kind.__new__(kind)) != 500, kind


def test_a_subclass_inherits_its_parents_status() -> None:
    assert http_status(NoFace("x")) == 422
    assert http_status(ServerError("x")) == 500


def test_try_later_says_when() -> None:
    assert http_headers(RateLimited("x", retry_after_s=7)) == {"Retry-After": "7"}
    with pytest.raises(TypeError):
        RateLimited("x")  # type: ignore[call-arg]
