"""Packets to pictures, by hand; a whole call is in test_live.py."""

from aiortc.rtp import RtpPacket

from client.tap import ASK_EVERY_S, PATIENCE_S, Tap, stands_alone

WHOLE = b"\x10\x00\x00\x9d\x01\x2a"  # how a key frame of VP8 begins


def packet(number: int, ticks: int, *, last: bool = True, data: bytes = b"x") -> RtpPacket:
    made = RtpPacket(sequence_number=number & 0xFFFF, timestamp=ticks & 0xFFFFFFFF, marker=int(last))
    made._data = data  # type: ignore[attr-defined]
    return made


class Noted(Tap):
    def __init__(self, *, is_video: bool) -> None:
        self.now_s = 0.0
        super().__init__(is_video=is_video, now=lambda: self.now_s)
        self.ticks: list[int] = []

    def note(self, ticks: int) -> None:
        self.ticks.append(ticks)


def test_a_picture_passes_with_its_last_packet():
    tap = Noted(is_video=True)
    assert tap.add(packet(65_535, 9000, last=False, data=b"a")) == (False, None)
    _, frame = tap.add(packet(65_536, 9000, data=b"b"))
    assert frame is not None and frame.data == b"ab" and frame.timestamp == 9000
    tap.add(packet(1, 12_600))
    assert tap.ticks == [0, 3600] and tap.lost_packets == 0


def test_a_packet_that_comes_late_completes_all_that_waited_for_it():
    tap = Noted(is_video=True)
    tap.add(packet(10, 0))
    assert tap.add(packet(12, 7200, data=b"c")) == (False, None)
    tap.now_s += PATIENCE_S / 2
    asks, frame = tap.add(packet(11, 3600, data=b"b"))
    assert not asks and frame is not None and frame.data == b"b"
    assert [frame.data for frame in tap.spare] == [b"c"] and tap.lost_packets == 0


def test_a_lost_packet_costs_all_pictures_up_to_one_that_stands_alone():
    tap = Noted(is_video=True)
    tap.add(packet(10, 0))
    assert tap.add(packet(13, 3600, data=b"torn")) == (False, None)
    tap.now_s += PATIENCE_S
    assert tap.add(packet(14, 7200)) == (True, None)
    assert tap.lost_packets == 2
    assert tap.add(packet(15, 10_800)) == (False, None)  # asked for just now
    tap.now_s += 2 * ASK_EVERY_S
    assert tap.add(packet(16, 14_400)) == (True, None)
    asks, frame = tap.add(packet(17, 18_000, data=WHOLE))
    assert not asks and frame is not None and frame.timestamp == 18_000
    assert tap.add(packet(12, 0)) == (False, None)  # a late copy
    assert tap.add(packet(18, 21_600))[1] is not None


def test_a_torn_picture_is_dropped_whole():
    tap = Noted(is_video=True)
    tap.add(packet(1, 0))
    tap.add(packet(2, 3600, last=False))
    tap.add(packet(4, 3600, last=False))
    tap.add(packet(5, 3600))
    tap.now_s += PATIENCE_S
    _, frame = tap.add(packet(6, 7200, data=WHOLE))
    assert frame is not None and frame.data == WHOLE


def test_sound_passes_at_once_and_what_was_overtaken_is_dropped():
    tap = Noted(is_video=False)
    for index in (0, 1, 3):
        _, frame = tap.add(packet(index, 960 * index, last=False))
        assert frame is not None and frame.timestamp == 960 * index
    assert tap.add(packet(2, 1920)) == (False, None)
    assert tap.ticks == [0, 960, 2880] and tap.lost_packets == 1


def test_ticks_go_on_where_the_rtp_time_wraps():
    tap = Noted(is_video=False)
    assert tap.ticks_of(0) is None
    tap.add(packet(0, 2**32 - 960))
    tap.add(packet(1, 0))
    assert tap.ticks == [0, 960]
    assert tap.ticks_of(960) == 1920 and tap.ticks_of(2**32 - 1920) == -960


def test_whole_pictures_are_told_from_others():
    assert stands_alone(WHOLE) and not stands_alone(b"\x11\x00\x00abc")
    assert stands_alone(b"\0\0\0\1\x67sps\0\0\0\1\x65idr") and not stands_alone(b"\0\0\0\1\x41slice")
