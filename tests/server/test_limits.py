import pytest

from server.errors import RateLimited
from server.limits import RateLimit


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_passes_then_a_wait_is_asked_for() -> None:
    clock = Clock()
    limit = RateLimit(6, clock=clock)
    for _ in range(6):
        limit.take("a")
    with pytest.raises(RateLimited) as refused:
        limit.take("a")
    assert refused.value.retry_after_s == 10
    limit.take("b")
    clock.now_s = 10.0
    limit.take("a")
    with pytest.raises(RateLimited):
        limit.take("a")


def test_only_the_newest_keys_are_remembered() -> None:
    limit = RateLimit(1, keep=2, clock=Clock())
    for key in "abc":
        limit.take(key)
    limit.take("a")
    with pytest.raises(RateLimited):
        limit.take("c")
