"""The conversation of an agent with its session, without a socket."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from server.errors import RequestInvalid
from server.pcm_protocol import PcmProtocol, Start
from server.speech_queue import PER_MS, Marks, SpeechQueue

RATE = 16_000


@pytest.fixture
def protocol() -> PcmProtocol:
    return PcmProtocol(SpeechQueue(Marks(capacity_ms=1_000)))


@pytest.fixture
def begun(protocol: PcmProtocol) -> PcmProtocol:
    start = protocol.hear_text(json.dumps({"type": "start", "rate": RATE}), 0.0)
    assert start is not None
    protocol.begin(start, delay_ms=160)
    return protocol


def sound(ms: int) -> bytes:
    return np.full(ms * RATE // 1000, 1_000, "<i2").tobytes()


def told(protocol: PcmProtocol) -> list[dict[str, Any]]:
    messages = list(protocol.outgoing)
    protocol.outgoing.clear()
    return messages


def test_ready_says_what_was_settled(begun: PcmProtocol) -> None:
    (ready,) = told(begun)
    assert ready == {
        **{"type": "ready", "rate": RATE, "format": "s16le", "low_ms": 200, "prebuffer_ms": 40},
        **{"capacity_ms": 1_000, "credit": 900 * 16, "epoch": 0, "delay_ms": 160},
    }


def test_sound_goes_into_the_queue_at_48_khz(begun: PcmProtocol) -> None:
    begun.hear_sound(sound(100), 0.0)
    begun.hear_text('{"type": "end"}', 0.0)
    assert begun.queue.held == pytest.approx(100 * PER_MS, abs=60)
    assert begun.queue.take(200 * PER_MS, 0.0).done


def test_every_end_is_answered_also_where_nothing_waits(begun: PcmProtocol) -> None:
    told(begun)
    begun.hear_text('{"type": "end"}', 0.0)
    assert told(begun) == [{"type": "speech_ended", "epoch": 0, "reason": "done", "played_ms": 0}]


def test_credit_grows_with_what_has_been_heard(begun: PcmProtocol) -> None:
    told(begun)
    begun.hear_sound(sound(900), 0.0)
    begun.give_credit()
    assert told(begun) == [], "nothing has come out"
    begun.queue.take(400 * PER_MS, 0.0)
    begun.make_room(0.0)
    (credit,) = told(begun)
    assert credit["type"] == "credit" and credit["credit"] == pytest.approx(1_300 * 16, abs=32)


def test_an_agent_within_its_credit_is_always_read(begun: PcmProtocol) -> None:
    sent, credit, rng = 0, told(begun)[0]["credit"], np.random.default_rng(0)
    for _ in range(300):
        if credit > sent:
            size = min(int(rng.integers(1, 5_000)), credit - sent)
            begun.hear_sound(bytes(2 * size), 0.0)
            sent += size
        assert not len(begun.left_over)
        begun.queue.take(40 * PER_MS, 1.0)
        begun.make_room(0.0)
        credit = max([credit, *(m["credit"] for m in told(begun) if m["type"] == "credit")])
    assert sent > 300 * 30 * 16


def test_what_goes_beyond_the_capacity_is_kept_until_there_is_room(begun: PcmProtocol) -> None:
    begun.hear_sound(sound(1_300), 0.0)
    assert len(begun.left_over) == pytest.approx(300 * PER_MS, abs=60)
    begun.queue.take(200 * PER_MS, 0.0)
    begun.make_room(0.0)
    assert len(begun.left_over) == pytest.approx(100 * PER_MS, abs=60)
    begun.queue.take(200 * PER_MS, 0.0)
    begun.make_room(0.0)
    assert not len(begun.left_over)


def test_clear_asks_the_session_and_then_gives_all_credit(begun: PcmProtocol) -> None:
    begun.hear_sound(sound(900), 0.0)
    told(begun)
    begun.hear_text('{"type": "clear"}', 0.0)
    assert begun.wants_clear
    begun.forget()
    begun.cleared(begun.queue.clear())
    cleared, credit = told(begun)
    assert (cleared["type"], cleared["epoch"]) == ("cleared", 1)
    assert cleared["dropped_ms"] == pytest.approx(900, abs=3)
    assert credit["credit"] == (900 + 900) * 16


def test_nothing_of_the_old_epoch_is_left_in_the_filter(begun: PcmProtocol) -> None:
    begun.hear_sound(sound(100), 0.0)
    begun.forget()
    begun.queue.clear()
    begun.hear_sound(bytes(2 * 1_600), 0.0)
    begun.hear_text('{"type": "end"}', 0.0)
    assert not begun.queue.take(100 * PER_MS, 0.0).samples.any()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("no json", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"type": "dance"}', "no message is of type 'dance'"),
        ('{"type": "start", "rate": 16000}', "settled already"),
        (" " * 5_000, "at most 4096"),
    ],
)
def test_messages_that_cannot_be_obeyed_are_refused(begun: PcmProtocol, text: str, match: str) -> None:
    with pytest.raises(RequestInvalid, match=match):
        begun.hear_text(text, 0.0)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "rate is None"),
        ({"rate": "fast"}, "rate is fast"),
        ({"rate": True}, "rate is True"),
        ({"rate": 1e400}, "rate is inf"),
        ({"rate": 16_000.5}, "rate is 16000.5"),
        ({"rate": "16000", "low_ms": -1}, "low_ms is -1"),
        ({"rate": 16_000, "prebuffer_ms": 2_000}, "prebuffer_ms is 2000"),
        ({"rate": 16_000, "format": "mulaw"}, "'mulaw'"),
    ],
)
def test_a_start_with_a_wrong_field_names_it(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestInvalid, match=match):
        Start.read(fields)


def test_sound_before_its_format_half_samples_and_huge_messages_are_refused(protocol: PcmProtocol) -> None:
    with pytest.raises(RequestInvalid, match="before its format"):
        protocol.hear_sound(b"ab", 0.0)
    protocol.begin(Start.read({"rate": RATE}))
    with pytest.raises(RequestInvalid, match="1 bytes"):
        protocol.hear_sound(b"a", 0.0)
    with pytest.raises(RequestInvalid, match="at most"):
        protocol.hear_sound(bytes((1 << 20) + 2), 0.0)
    assert protocol.queue.held == 0


def test_an_agent_that_does_not_read_costs_a_bounded_number_of_messages(begun: PcmProtocol) -> None:
    for _ in range(1_000):
        begun.hear_text('{"type": "buffered"}', 0.0)
    assert len(begun.outgoing) == 256
