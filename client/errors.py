"""What the client raises, and which of a server's answers are worth a second try.

::

    VisavisError (engine/errors.py)
    └── ClientError
        ├── ServerTrouble           the server cannot be reached, or answered with an error
        │   └── Refused             503: it is full or not ready; carries retry_after_s
        ├── SoundUnavailable        no PortAudio, or no such sound device
        ├── CameraUnavailable       no virtual camera to send to
        ├── DisplayUnavailable      no window can be opened here
        └── OrderInvalid            a command line that contradicts itself
"""

from __future__ import annotations

from engine.errors import VisavisError


class ClientError(VisavisError):
    """Root of what the client raises itself."""

    code = "client"


class ServerTrouble(ClientError):
    """The server did not start, is not there, or answered with an error.

    Args:
        message: in words.
        status: of HTTP, None where there was no answer at all.
        said: the ``code`` of the error in its answer, "" where it named none.
    """

    code = "server_trouble"

    def __init__(self, message: str, *, status: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status == 429 or self.status >= 500


class Refused(ServerTrouble):
    """The server answered 503: it is full, or not ready."""

    code = "server_full"

    def __init__(self, message: str, retry_after_s: str | None, *, said: str = "") -> None:
        super().__init__(message, status=503, said=said)
        self.retry_after_s = retry_after_s


class SoundUnavailable(ClientError):
    code = "sound_unavailable"


class CameraUnavailable(ClientError):
    code = "camera_unavailable"


class DisplayUnavailable(ClientError):
    code = "display_unavailable"


class OrderInvalid(ClientError):
    code = "order_invalid"
