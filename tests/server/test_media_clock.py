import random

import pytest

from server.media_clock import MAX_SLEW, SAMPLE_RATE_HZ, DelayControl, MediaClock

DAY_S = 86_400


@pytest.mark.parametrize("ppm", [-150, 0, 150])
def test_a_day_of_a_drifting_microphone_moves_nothing(ppm: int) -> None:
    """Frames, sound and microphone stay together for 24 h: 864,000 packets of a crystal that is off."""
    rng = random.Random(ppm)
    clock, delay_s, packet = MediaClock(0.0, 0.16), 0.16, 1_600
    seconds_per_sample = (1 + ppm * 1e-6) / SAMPLE_RATE_HZ
    worst_delay_s = 0.0
    for n in range(1, DAY_S * 10 + 1):
        spoken_s = n * packet * seconds_per_sample
        arrived_s = spoken_s + 0.02 + rng.random() * 0.02
        clock.observe(n * packet, arrived_s)
        if n % 50 == 0:
            frame, sound = clock.leaving(arrived_s) // 640, clock.leaving(arrived_s) // 320
            assert 0 <= sound * 320 - frame * 640 < 640, "the newest sound lies within the newest frame"
            worst_delay_s = max(worst_delay_s, abs(clock.due_s(n * packet) - spoken_s - 0.02 - delay_s))
    assert worst_delay_s < 0.025, "what leaves is as late as on the first second, but for the network's jitter"
    if ppm:
        assert abs(clock.due_s(0) - delay_s) > 10, "a clock of its own would be seconds away by now"


def test_sound_and_frames_of_one_position_leave_at_one_time() -> None:
    clock = MediaClock(5.0, 0.16)
    assert clock.due_s(0) == pytest.approx(5.16)
    assert clock.due_s(25 * 640) == clock.due_s(50 * 320) == pytest.approx(6.16)


def test_the_clock_follows_the_fastest_packets_not_the_jitter() -> None:
    clock = MediaClock(0.0, 0.1)
    for n in range(1, 500):
        clock.observe(n * 320, n * 0.02 + (0.08 if n % 5 else 0.0))
    assert clock.due_s(0) == pytest.approx(0.1, abs=1e-6)


def test_the_clock_never_jumps() -> None:
    clock = MediaClock(0.0, 0.1)
    for n in range(1, 100):
        clock.observe(n * 320, n * 0.02)
    before_s = clock.due_s(0)
    for n in range(100, 200):
        clock.observe(n * 320, n * 0.02 + 0.2)
        assert abs(clock.due_s(0) - before_s) <= MAX_SLEW * (0.2 + 0.02) + 1e-9
        before_s = clock.due_s(0)
    assert clock.due_s(0) > 0.1, "it does move towards the longer way"


def test_a_wanted_delay_is_reached_slowly_by_both() -> None:
    clock = MediaClock(0.0, 0.16)
    clock.set_delay(0.2)
    clock.advance(0.5)
    assert clock.delay_s == pytest.approx(0.16 + MAX_SLEW / 2)
    clock.advance(10.0)
    assert clock.delay_s == pytest.approx(0.2)


def control() -> DelayControl:
    return DelayControl(lookahead_ms=120, margin_ms=40, max_margin_ms=100)


def test_late_frames_buy_more_delay_up_to_a_limit() -> None:
    delays = control()
    assert delays.review(frames=25, late=2) == pytest.approx(0.16)
    assert delays.review(frames=25, late=20) == pytest.approx(0.18)
    for _ in range(10):
        last = delays.review(frames=25, late=25)
    assert last == pytest.approx(0.22)


def test_calm_gives_the_delay_back() -> None:
    delays = control()
    delays.review(frames=25, late=25)
    after_s = [delays.review(frames=25, late=0) for _ in range(60)]
    assert after_s[8] == pytest.approx(0.18)
    assert after_s[-1] == pytest.approx(0.16)


def test_a_frame_that_is_late_now_and_then_buys_delay_too() -> None:
    delays = control()
    margins_ms = [round(delays.review(frames=25, late=second % 2) * 1000) - 120 for second in range(24)]
    assert margins_ms[4:6] == [40, 60] and margins_ms[-1] == 100
    calm = control()
    for second in range(200):  # seldom enough: one in ten seconds is 0.4 % of the frames
        assert calm.review(frames=25, late=int(second % 10 == 0)) == pytest.approx(0.16)


def test_what_shrank_too_early_waits_longer_the_next_time() -> None:
    delays = control()
    calm_s = []
    for _ in range(6):
        grown = delays.review(frames=25, late=25)
        seconds = 1
        while delays.review(frames=25, late=0) == grown:
            seconds += 1
        calm_s.append(seconds)
    assert calm_s == [10, 20, 40, 80, 80, 80]
