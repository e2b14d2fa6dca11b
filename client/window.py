"""A window that shows the avatar (tkinter). Belongs to the main thread; pictures may come from any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from client.errors import DisplayUnavailable

POLL_MS = 10
FIRST_EDGE = 512
BACKGROUND = "#101010"


class Window:
    """A sink for pictures (``pictures.Sink``); keys: m mutes, q and Escape end.

    Args:
        on_mute: called when the user wants to be muted, or heard again.

    Raises:
        DisplayUnavailable: no window can be opened here; says what to do.
    """

    def __init__(self, on_mute: Callable[[], None]) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise DisplayUnavailable(
                "a window needs tkinter, which this Python lacks. Debian and Ubuntu: sudo apt install python3-tk. "
                "Fedora: sudo dnf install python3-tkinter. macOS: brew install python-tk. Windows: the installer of "
                "python.org, option 'tcl/tk'. Or do without: --no-window, --virtual-camera, --out FILE.mp4"
            ) from error
        self._tk = tkinter
        try:
            self._root = tkinter.Tk(className="Visavis")
        except tkinter.TclError as error:
            raise DisplayUnavailable(
                f"no window can be opened: there is no display here ({error}). Run it in a desktop session, or do "
                "without: --no-window, --virtual-camera, --out FILE.mp4"
            ) from error
        self._lock = threading.Lock()
        self._newest: np.ndarray | None = None
        self._words = "connecting"
        self._size = (FIRST_EDGE, FIRST_EDGE)
        self._open = True
        self._build(on_mute)

    def show(self, picture: np.ndarray) -> None:
        edge = max(64, min(self._size))
        kind = cv2.INTER_AREA if edge < picture.shape[1] else cv2.INTER_CUBIC
        scaled = cv2.resize(picture, (edge, edge), interpolation=kind)
        with self._lock:
            self._newest = scaled

    def say(self, words: str) -> None:
        """Put ``words`` below the picture; from any thread."""
        with self._lock:
            self._words = words

    def close(self) -> None:
        """The picture stays until ``run`` returns."""

    def run(self, stopped: threading.Event) -> None:
        """Show what comes until ``stopped`` is set or the user closes the window; then it is gone."""
        self._poll(stopped)
        self._root.mainloop()
        self._open = False

    def destroy(self) -> None:
        """Take it away. For a window that never ran."""
        if self._open:
            self._root.destroy()
            self._open = False

    def _build(self, on_mute: Callable[[], None]) -> None:
        tk, root = self._tk, self._root
        root.title("Visavis: synthetic avatar")
        root.configure(background=BACKGROUND)
        root.geometry(f"{FIRST_EDGE}x{FIRST_EDGE + 28}")
        self._label = tk.Label(
            root, textvariable=(words := tk.StringVar(root)), background=BACKGROUND, fg="#d0d0d0", wraplength=FIRST_EDGE
        )
        self._label.pack(side="bottom", fill="x")
        self._canvas = tk.Label(root, background=BACKGROUND, borderwidth=0)
        self._canvas.pack(expand=True, fill="both")
        self._canvas.bind("<Configure>", self._resized)
        self._text = words
        self._photo: Any = None
        for key in ("m", "M"):
            root.bind(f"<KeyPress-{key}>", lambda _event: on_mute())
        for key in ("q", "Q", "Escape"):
            root.bind(f"<KeyPress-{key}>", lambda _event: root.destroy())
        root.protocol("WM_DELETE_WINDOW", root.destroy)

    def _resized(self, event: Any) -> None:
        self._size = event.width, event.height

    def _poll(self, stopped: threading.Event) -> None:
        if stopped.is_set():
            self._root.destroy()
            return
        with self._lock:
            picture, self._newest, words = self._newest, None, self._words
        self._text.set(words)
        if picture is not None:
            high, wide = picture.shape[:2]
            data = b"P6 %d %d 255 " % (wide, high) + picture.tobytes()
            self._photo = self._tk.PhotoImage(master=self._root, data=data, format="PPM")
            self._canvas.configure(image=self._photo)
        self._root.after(POLL_MS, self._poll, stopped)
