"""Speech that waits: bounded, in utterances, of one epoch."""

from __future__ import annotations

import numpy as np
import pytest

from server.speech_queue import PER_MS, Marks, SpeechQueue

HOP_48 = 1_920


def ramp(ms: int, first: int = 1) -> np.ndarray:
    return (np.arange(ms * PER_MS) % 10_000 + first).astype(np.int16)


@pytest.fixture
def queue() -> SpeechQueue:
    return SpeechQueue(Marks(capacity_ms=1_000, low_ms=200, prebuffer_ms=60))


def test_what_is_pushed_comes_out_in_order_then_silence(queue: SpeechQueue) -> None:
    sound = ramp(100)
    for chunk in np.array_split(sound, 7):
        queue.push(chunk, 0.0)
    pieces = [queue.take(HOP_48, 0.0) for _ in range(4)]
    heard = np.concatenate([p.samples for p in pieces])
    assert (heard[: len(sound)] == sound).all() and not heard[len(sound) :].any()
    assert [p.speech for p in pieces] == [HOP_48, HOP_48, 960, 0]
    assert [p.begins for p in pieces] == [True, False, False, False]


def test_no_more_than_fits_is_taken(queue: SpeechQueue) -> None:
    assert queue.push(ramp(1_500), 0.0) == 1_000 * PER_MS
    assert queue.room == 0 and queue.push(ramp(1), 0.0) == 0
    queue.take(HOP_48, 0.0)
    assert queue.room == HOP_48


def test_an_utterance_waits_for_its_prebuffer_but_not_longer_than_that(queue: SpeechQueue) -> None:
    queue.push(ramp(20), 0.0)
    assert queue.take(HOP_48, 0.05).speech == 0
    assert queue.take(HOP_48, 0.061).speech == 20 * PER_MS
    queue.push(ramp(1), 1.0)
    assert queue.take(HOP_48, 1.0).speech == PER_MS, "it goes on at once while it has not ended"


def test_a_complete_utterance_does_not_wait(queue: SpeechQueue) -> None:
    queue.push(ramp(10), 0.0)
    queue.end()
    piece = queue.take(HOP_48, 0.0)
    assert piece.begins and piece.done and piece.speech == 10 * PER_MS


def test_the_next_utterance_begins_with_a_piece_of_its_own(queue: SpeechQueue) -> None:
    queue.push(ramp(10), 0.0)
    queue.end()
    queue.push(ramp(100), 0.0)
    first, second = queue.take(HOP_48, 0.0), queue.take(HOP_48, 0.0)
    assert first.done and first.speech == 10 * PER_MS
    assert second.begins and second.speech == HOP_48 and not second.done


def test_an_end_that_comes_after_the_last_sample_went_is_still_told(queue: SpeechQueue) -> None:
    queue.push(ramp(60), 0.0)
    queue.take(2 * HOP_48, 0.0)
    queue.end()
    piece = queue.take(HOP_48, 0.0)
    assert piece.done and piece.speech == 0 and not piece.begins


def test_clear_empties_it_and_counts_the_epoch(queue: SpeechQueue) -> None:
    queue.push(ramp(500), 0.0)
    queue.take(HOP_48, 0.0)
    assert queue.clear() == 460 * PER_MS
    assert (queue.epoch, queue.held, queue.take(HOP_48, 9.0).speech) == (1, 0, 0)
    queue.push(ramp(60), 10.0)
    assert queue.take(HOP_48, 10.0).begins


def test_low_is_told_once_each_time_it_runs_low_and_not_at_an_end(queue: SpeechQueue) -> None:
    queue.push(ramp(100), 0.0)
    assert not queue.fell_low(), "it was never high"
    queue.push(ramp(150), 0.0)
    assert not queue.fell_low()
    for _ in range(2):
        queue.take(HOP_48, 0.0)
    assert queue.fell_low() and not queue.fell_low()
    queue.push(ramp(100), 0.0)
    queue.end()
    queue.take(3 * HOP_48, 0.0)
    assert not queue.fell_low(), "nothing more is awaited"


def test_after_starving_a_new_utterance_begins(queue: SpeechQueue) -> None:
    queue.push(ramp(60), 0.0)
    queue.take(2 * HOP_48, 0.0)
    queue.starve()
    queue.push(ramp(60), 1.0)
    assert queue.take(HOP_48, 1.0).begins
