import threading
import time

import pytest

from engine.lanes import Lanes


@pytest.fixture(params=[1, 3])
def lanes(request):
    made = Lanes(request.param)
    yield made
    made.close()


def test_results_come_in_order(lanes):
    assert lanes.each(lambda x: x * x, range(20)) == [x * x for x in range(20)]
    assert lanes.each(str, []) == []


def test_work_may_share_out_parts_of_itself(lanes):
    assert lanes.each(lambda x: sum(lanes.each(lambda y: x * y, range(5))), range(6)) == [10 * x for x in range(6)]


def test_who_meets_no_other_caller_is_alone():
    lanes, met = Lanes(2), threading.Barrier(2, timeout=10)
    assert lanes.each(lambda _: lanes.alone(), [0]) == [True]

    def call():
        lanes.each(lambda _: met.wait(), [0])

    other = threading.Thread(target=call)
    other.start()
    call()
    other.join()
    assert lanes.each(lambda _: lanes.alone(), [0]) == [False], "another is about"
    lanes.close()


def test_several_threads_work():
    lanes, both = Lanes(2), threading.Barrier(2, timeout=10)
    lanes.each(lambda _: both.wait(), range(2))
    lanes.close()


def test_an_error_comes_once_all_that_began_has_ended():
    lanes, ended = Lanes(2), []

    def work(number):
        if number == 0:
            raise ValueError("no")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match="no"):
        lanes.each(work, range(9))
    assert len(ended) <= 1, "nothing begins after an error"
    began = list(ended)
    time.sleep(0.1)
    assert ended == began
    assert lanes.each(abs, [-1]) == [1]
    lanes.close()
