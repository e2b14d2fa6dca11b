import time

import numpy as np
import pytest

from client.speech import Microphone


async def test_a_packet_of_the_microphone_exists_when_its_last_sample_does():
    microphone = Microphone(np.full(1000, 0.5, np.float32))
    for index in range(3):
        frame = await microphone.recv()
        assert microphone.started_s is not None
        assert time.monotonic() - microphone.started_s >= 0.02 * (index + 1) - 0.001
        assert frame.pts == 960 * index and frame.samples == 960
        loud = np.count_nonzero(frame.to_ndarray())
        assert loud == [960, 40, 0][index]


async def test_a_repeating_microphone_begins_again():
    microphone = Microphone(np.linspace(0, 0.9, 2000, dtype=np.float32), repeat=True)
    frames = [await microphone.recv() for _ in range(3)]
    np.testing.assert_array_equal(frames[0].to_ndarray(), frames[2].to_ndarray())
    assert frames[2].pts == 1920
    assert frames[0].to_ndarray()[0, -1] == pytest.approx(0.9 * 959 / 1999 * 32_767, abs=2)
