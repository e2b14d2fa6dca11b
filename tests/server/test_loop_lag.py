import asyncio
import time

from server.loop_lag import EVERY_S, LoopLag


async def test_a_loop_that_is_held_up_is_seen() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    assert lag.percentile_ms(99) == 0
    lag.start()
    await asyncio.sleep(EVERY_S * 1.5)
    time.sleep(0.3)  # whoever blocks the loop
    await asyncio.sleep(EVERY_S * 3)
    lag.stop()
    assert lag.percentile_ms(99) > 200 > lag.percentile_ms(0)


async def test_nothing_is_asked_of_the_loop_after_the_stop() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    lag.start()
    lag.stop()
    await asyncio.sleep(EVERY_S * 3)
    assert lag.percentile_ms(99) == 0
