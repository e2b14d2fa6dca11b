"""WHIP and WHEP from GStreamer: publish a WAV file, or record what a player gets, unmodified, into Matroska.

Runs on the system's Python with GStreamer 1.22 or newer. On Debian:

    apt install python3-gst-1.0 gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-{good,bad} gstreamer1.0-nice
    /usr/bin/python3 client/examples/gstreamer_peer.py publish http://127.0.0.1:8000/whip/stage speech.wav
    /usr/bin/python3 client/examples/gstreamer_peer.py record http://127.0.0.1:8000/whep/stage avatar.mkv --seconds 10

Signalling is one POST of an offer with all its candidates (RFC 9725, section 4.2), and a DELETE at the end. The key of
a server that wants one is taken from VISAVIS_API_KEY.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=96,clock-rate=48000,encoding-params=(string)2"
VP8 = "application/x-rtp,media=video,encoding-name=VP8,payload=97,clock-rate=90000"
# A file has no clock of its own: identity lets its sound out in real time.
PUBLISH = (
    "webrtcbin name=peer bundle-policy=max-bundle "
    "filesrc name=file ! wavparse ! audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=1 ! "
    f"identity sync=true ! opusenc ! rtpopuspay name=last pt=96 ! {OPUS} ! peer."
)
RECORD = (
    "webrtcbin name=peer bundle-policy=max-bundle matroskamux name=mux ! identity name=last ! filesink name=file "
    "rtpopusdepay name=OPUS ! opusparse ! queue ! mux. rtpvp8depay name=VP8 wait-for-keyframe=true ! queue ! mux."
)


class Peer:
    """A pipeline with one ``webrtcbin``, and the session it has at ``url``; ``key`` is the server's, or None."""

    def __init__(self, pipeline: str, path: str, url: str, key: str | None) -> None:
        self.pipeline = Gst.parse_launch(pipeline)
        self.pipeline.get_by_name("file").set_property("location", path)
        self.webrtc = self.pipeline.get_by_name("peer")
        self._url, self._key = url, key
        self._loop = GLib.MainLoop()
        self._resource = ""
        self._failure = ""

    def receive(self) -> None:
        """Ask for sound and picture; each goes to the multiplexer as it comes."""
        for caps in (OPUS, VP8):
            direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            self.webrtc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
        self.webrtc.connect("pad-added", self._record)

    def run(self, seconds: float | None) -> None:
        """Until the file's end, ``seconds`` are over or a signal comes. Exits with a sentence where it fails."""
        self.webrtc.connect("on-negotiation-needed", self._negotiate)
        self.webrtc.connect("notify::ice-gathering-state", self._gathered)
        self.webrtc.connect("notify::connection-state", self._changed)
        # Not the bus's EOS: that waits for webrtcbin, which never ends by itself.
        last = self.pipeline.get_by_name("last")
        last.get_static_pad("src").add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self._look_for_end)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: self._fail(str(message.parse_error()[0].message)))
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self._finish)
        if seconds is not None:
            GLib.timeout_add(int(1000 * seconds), self._finish)
        self.pipeline.set_state(Gst.State.PLAYING)
        self._loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        if self._resource:
            with contextlib.suppress(OSError):  # it may have ended already
                self._request("DELETE", self._resource)
        if self._failure:
            sys.exit(f"gstreamer_peer: {self._failure}")

    def _negotiate(self, webrtc: Gst.Element) -> None:
        def offered(promise: Gst.Promise) -> None:
            reply = promise.get_reply()  # held: it owns the offer
            webrtc.emit("set-local-description", reply["offer"], None)

        webrtc.emit("create-offer", None, Gst.Promise.new_with_change_func(offered))

    def _gathered(self, webrtc: Gst.Element, _: object) -> None:
        if webrtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self._offer)  # HTTP not on webrtcbin's own thread

    def _offer(self) -> None:
        offer = self.webrtc.get_property("local-description").sdp.as_text()
        try:
            answer, location = self._request("POST", self._url, offer)
        except OSError as error:
            return self._fail(str(error))
        self._resource = urllib.parse.urljoin(self._url, location)
        _, sdp = GstSdp.SDPMessage.new_from_text(answer)
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self.webrtc.emit("set-remote-description", described, None)

    def _request(self, method: str, url: str, sdp: str = "") -> tuple[str, str]:
        headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(url, sdp.encode() or None, headers, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as reply:
                return reply.read().decode(), reply.headers.get("Location", "")
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {url} was answered {error.code}: {error.read().decode()}") from error

    def _changed(self, webrtc: Gst.Element, _: object) -> None:
        state = webrtc.get_property("connection-state")
        print(f"gstreamer_peer: {state.value_nick}", flush=True)
        if state == GstWebRTC.WebRTCPeerConnectionState.FAILED:
            self._fail("the connection failed")

    def _look_for_end(self, _: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        if info.get_event().type == Gst.EventType.EOS:
            GLib.idle_add(self._loop.quit)
        return Gst.PadProbeReturn.OK

    def _record(self, _: Gst.Element, pad: Gst.Pad) -> None:
        if pad.direction != Gst.PadDirection.SRC:
            return
        depayload = self.pipeline.get_by_name(pad.get_current_caps()[0]["encoding-name"])
        pad.link(depayload.get_static_pad("sink"))

    def _finish(self) -> bool:
        """End at once, or, while a file is written, when its index is."""
        inputs = [self.pipeline.get_by_name(name) for name in ("OPUS", "VP8")]
        for each in filter(None, inputs):
            each.get_static_pad("sink").send_event(Gst.Event.new_eos())
        if not any(inputs):
            self._loop.quit()
        return GLib.SOURCE_REMOVE

    def _fail(self, why: str) -> None:
        self._failure = why
        self._loop.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("publish", "record"))
    parser.add_argument("url", help="the server's /whip/NAME or /whep/NAME")
    parser.add_argument("file", help="WAV to publish, or Matroska to write")
    parser.add_argument("--seconds", type=float, help="end after so long; default: at the file's end, or on Ctrl-C")
    args = parser.parse_args()
    Gst.init(None)
    peer = Peer(PUBLISH if args.what == "publish" else RECORD, args.file, args.url, os.environ.get("VISAVIS_API_KEY"))
    if args.what == "record":
        peer.receive()
    peer.run(args.seconds)


if __name__ == "__main__":
    main()
