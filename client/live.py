"""``visavis live``: speak, and the avatar speaks in a window, a virtual camera or a file."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from client.arguments import LOCAL_SERVER, STATS_EVERY_S, build_parser, check_arguments
from client.errors import ServerTrouble
from client.service import check_url, request_json
from engine.errors import AudioUnreadable, VisavisError

MAX_WAV_S = 600.0  # prepared speech is held in memory
WATCH_EVERY_S = 1.0
LEAVE_S = 20.0  # what an orderly end may take; it needs the server's answers


def main(argv: Sequence[str] | None = None) -> int:
    """Talk until the user ends it.

    Returns:
        0 after an orderly end.

    Raises:
        VisavisError: it cannot be done like this; says why and what to do.
    """
    args = build_parser().parse_args(argv)
    for chatty in ("aioice", "aiortc"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    if args.list_devices:
        from client.sound_device import list_devices

        print("\n".join(map(str, list_devices())) or "this machine has no sound devices")
        return 0
    check_arguments(args)
    Show(args).run()
    return 0


def read_speech(path: Path, *, most_s: float = MAX_WAV_S) -> Any:
    """A sound file as float32 [n] at 48 kHz.

    Raises:
        FileError, AudioUnreadable: it cannot be read, or is longer than ``most_s``.
    """
    from client.speech import SOUND_RATE_HZ
    from tools.sound_file import SoundFile, read_mono

    with SoundFile(path) as sound:
        length_s = sound.expected_seconds or 0.0
    if length_s > most_s:
        raise AudioUnreadable(
            f"{path.name!r} is {length_s / 60:.0f} minutes long; at most {most_s / 60:.0f} are spoken live: cut it, "
            "or make a video of it with 'visavis render'"
        )
    return read_mono(path, SOUND_RATE_HZ)


def find_server(url: str | None, key: str | None, *, local: str = LOCAL_SERVER) -> str | None:
    """The server to use; None where one has to be started.

    Raises:
        OrderInvalid: ``url`` is none.
    """
    if url is not None:
        return check_url(url)
    try:
        request_json("GET", f"{local}/healthz", key=key, timeout_s=5)
    except ServerTrouble as error:
        return local if error.status is not None and error.status != 404 else None
    return local


class Show:
    """All that a run of ``visavis live`` opens, and the order in which it is closed.

    The window has the main thread, as some systems demand; sessions and sound have one beside it.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        self._conversation: Any = None
        self._failure: BaseException | None = None
        self._window: Any = None
        self._mutes = args.mute

    def run(self) -> None:
        """Until the user, the end of --wav or --seconds ends it.

        Raises:
            VisavisError: it could not be begun, or could not go on.
        """
        with ExitStack() as stack:
            outlets = self._open_outlets(stack)
            order = self._make_order(stack)
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, lambda *_: self._stopped.set()))
            thread = threading.Thread(target=self._run_loop, args=(order, outlets), name="live")
            thread.start()
            try:
                if sys.stdin is not None and sys.stdin.isatty():
                    threading.Thread(target=self._read_keys, name="keys", daemon=True).start()
                if self._window is not None:
                    self._window.run(self._stopped)
                else:
                    while not self._stopped.wait(0.2):
                        pass
            finally:
                self._stopped.set()
                self._cancel()
                thread.join(LEAVE_S)
        if self._failure is not None:
            raise self._failure

    def say(self, words: str, *, in_window: bool = True) -> None:
        """Tell the user, on the terminal and in the window."""
        print(f"visavis live: {' '.join(words.split())}", flush=True)
        if self._window is not None and in_window:
            self._window.say(words)

    # ---- opening ---------------------------------------------------------------------------------

    def _open_outlets(self, stack: ExitStack) -> dict[str, Any]:
        """Everything that can be missing on this machine, before a server is troubled."""
        from client.recorder import Recorder
        from client.skew import SkewGauge
        from client.virtual_camera import VirtualCamera, read_size

        args = self._args
        size = read_size(args.camera_size)
        opened: dict[str, Any] = {"gauge": SkewGauge(), "sinks": [], "recorder": None, "microphone": None}
        if args.wav is not None:
            opened["samples"] = read_speech(args.wav)
        else:
            from client.sound_device import DEFAULT, find_device

            opened["microphone"] = find_device(args.input or DEFAULT, "input")
        if args.output is not None:
            from client.sound_device import find_device

            opened["output"] = find_device(args.output, "output")
        if args.out is not None:
            opened["recorder"] = recorder = Recorder(args.out)
            stack.callback(self._finish_recording, recorder)
        if args.virtual_camera:
            camera = VirtualCamera(*size, args.camera)
            stack.callback(camera.close)
            opened["sinks"].append(camera)
            self.say(f"other programs see the avatar as the camera {camera.name}")
        if not args.no_window and (args.window or not args.virtual_camera):
            self._window = self._open_window(stack)
            opened["sinks"].append(self._window)
        return opened

    def _open_window(self, stack: ExitStack) -> Any:
        from client.window import Window

        window = Window(self._toggle_mute)
        stack.callback(window.destroy)
        return window

    def _make_order(self, stack: ExitStack) -> Any:
        from client.conversation import CallOrder
        from tools.files import read_bytes

        args = self._args
        key = args.key or os.environ.get("VISAVIS_API_KEY") or None
        portrait = None if args.portrait is None else read_bytes(args.portrait, "portrait")
        url = find_server(args.server, key)
        if url is None:
            from tools.server_process import ServerProcess

            self.say(f"no server answers at {LOCAL_SERVER}: starting one, which takes a while")
            url, key = stack.enter_context(ServerProcess(args.engine, own_group=True)).url, None
        options = {"motion": args.motion, "codec": args.codec}
        return CallOrder(url=url, key=key, avatar_id=args.avatar or "default", portrait=portrait, options=options)

    def _finish_recording(self, recorder: Any) -> None:
        if recorder.close():
            lost = f"; {recorder.dropped} pictures and packets left out, for the encoder was behind" * bool(
                recorder.dropped
            )
            self.say(f"wrote {self._args.out}{lost}")
        else:
            self.say(f"nothing came, so {self._args.out} was not written")

    # ---- the thread beside -----------------------------------------------------------------------

    def _run_loop(self, order: Any, opened: dict[str, Any]) -> None:
        try:
            asyncio.run(self._talk(order, opened))
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._failure = error
        finally:
            self._stopped.set()

    async def _talk(self, order: Any, opened: dict[str, Any]) -> None:
        from client.conversation import Conversation, Outlets
        from client.pictures import PicturePacer
        from client.player import Player
        from client.speech import MuteSwitch

        self._loop, self._work = asyncio.get_running_loop(), asyncio.current_task()
        if self._stopped.is_set():
            return
        gauge = opened["gauge"]
        player = Player(gauge)
        pacer = PicturePacer(opened["sinks"], gauge)
        outlets = Outlets(player, pacer, opened["recorder"], gauge)
        with ExitStack() as stack:
            speech = self._open_speech(stack, opened)
            if "output" in opened:
                from client.sound_device import Playback

                stack.callback(Playback(opened["output"], player).close)
            switch = MuteSwitch()
            switch.muted = self._mutes
            self._conversation = Conversation(order, speech, switch, outlets, self.say)
            works = [self._conversation.run(), pacer.run(), self._watch(gauge, speech, opened["recorder"])]
            if self._args.seconds is not None:
                works.append(asyncio.sleep(self._args.seconds))
            try:
                await _first_to_end(works)
            finally:
                if (skew := gauge.read()) is not None:
                    self.say(f"{pacer.gallery.shown} pictures shown; after their sound by {skew}")

    def _open_speech(self, stack: ExitStack, opened: dict[str, Any]) -> Any:
        from client.speech import CapturedSpeech, RecordedSpeech

        if opened["microphone"] is None:
            return RecordedSpeech(opened["samples"], repeat=self._args.loop)
        from client.sound_device import Capture

        speech = CapturedSpeech()
        stack.callback(Capture(opened["microphone"], speech).close)
        self.say(f"listening to {opened['microphone'].name!r}")
        return speech

    async def _watch(self, gauge: Any, speech: Any, recorder: Any) -> None:
        """Tell figures where they are wanted, and when a microphone falls silent or comes back.

        Raises:
            VisavisError: the recording failed.
        """
        was_starved, told_s = False, asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if recorder is not None and recorder.failure is not None:
                raise recorder.failure
            starved = getattr(speech, "starved", False)
            if starved != was_starved:
                was_starved = starved
                self.say("nothing comes from the microphone: is it unplugged?" if starved else "the microphone is back")
            call, now_s = self._conversation.call, asyncio.get_running_loop().time()
            if self._args.stats and call is not None and now_s - told_s >= STATS_EVERY_S:
                told_s = now_s
                stats = call.stats
                self.say(
                    f"{stats.get('fps')} frames/s, delay {stats.get('delay_ms')} ms in the server and "
                    f"{1000 * call.timeline.buffer_s:.0f} ms here; pictures leave after their sound by {gauge.read()}",
                    in_window=False,
                )

    # ---- what the user does ----------------------------------------------------------------------

    def _cancel(self) -> None:
        if self._loop is not None and self._work is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._work.cancel)

    def _toggle_mute(self) -> None:
        """From the window's or the terminal's thread."""
        self._mutes = not self._mutes
        if self._loop is not None and self._conversation is not None and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._conversation.mute(self._mutes), self._loop)

    def _read_keys(self) -> None:
        acts: dict[str, Callable[[], None]] = {"m": self._toggle_mute, "q": self._stopped.set}
        for line in sys.stdin:
            acts.get(line.strip().lower(), lambda: None)()


async def _first_to_end(works: list[Any]) -> None:
    """Run all until one ends, then cancel and await the others. Raises what that one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VisavisError as error:
        sys.exit(f"visavis live: {error}")
