"""The server's exceptions, and the one table that turns every Visavis error into an HTTP status.

::

    VisavisError (engine/errors.py)
    └── ServerError
        ├── Unauthorized            no API key, or a wrong one
        ├── ForeignOrigin           a page of another site, or an unknown host name
        ├── ConsentRequired         the person shown has not agreed
        ├── RequestInvalid          a field is missing or out of range
        ├── OfferInvalid            SDP that cannot be answered
        │   ├── CodecUnsupported    the offer lacks the codec that was asked for
        │   └── OfferUnfit          SDP, but not of the sections or directions that are due
        ├── CandidateInvalid        an ICE candidate that cannot be read
        ├── UploadTooLarge
        ├── TypeUnsupported         a body of another media type than is due
        ├── PreconditionRequired    no If-Match where an ICE session must be named
        ├── PreconditionFailed      If-Match names another ICE session
        ├── RestartUnsupported      ICE cannot be restarted
        ├── RateLimited             carries retry_after_s
        ├── ServerFull              every session slot is taken; carries retry_after_s
        ├── RoomFull                a room's places, or all rooms, are taken; carries retry_after_s
        ├── RoomKeyWrong
        ├── NothingLive             a player came before the publisher; carries retry_after_s
        ├── NotReady                the engine is still loading, or could not be loaded
        ├── SessionNotFound
        │   └── ViewerNotFound
        ├── NameTaken               a live session is called so already
        ├── SourceTaken             somebody else speaks through this session already
        ├── EngineFailed            a step or an enrolment raised something unexpected
        └── ConfigError             the server must not start like this
"""

from __future__ import annotations

from engine import errors as engine_errors
from engine.errors import VisavisError


class ServerError(VisavisError):
    """Root of what the server raises itself."""

    code = "server"


class Unauthorized(ServerError):
    code = "unauthorized"


class ForeignOrigin(ServerError):
    code = "foreign_origin"


class ConsentRequired(ServerError):
    code = "consent_required"


class RequestInvalid(ServerError):
    code = "request_invalid"


class OfferInvalid(ServerError):
    code = "offer_invalid"


class CodecUnsupported(OfferInvalid):
    code = "codec_unsupported"


class OfferUnfit(OfferInvalid):
    code = "offer_unfit"


class CandidateInvalid(ServerError):
    code = "candidate_invalid"


class UploadTooLarge(ServerError):
    code = "upload_too_large"


class TypeUnsupported(ServerError):
    code = "type_unsupported"


class PreconditionRequired(ServerError):
    code = "precondition_required"


class PreconditionFailed(ServerError):
    code = "precondition_failed"


class RestartUnsupported(ServerError):
    code = "restart_unsupported"


class TryLater(ServerError):
    """A refusal that time may lift.

    Args:
        retry_after_s: seconds after which trying again makes sense, at least 1.
    """

    code = "try_later"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)


class RateLimited(TryLater):
    code = "rate_limited"


class ServerFull(TryLater):
    code = "server_full"


class RoomFull(TryLater):
    code = "room_full"


class RoomKeyWrong(ServerError):
    code = "room_key_wrong"


class NothingLive(TryLater):
    code = "nothing_live"


class NotReady(TryLater):
    code = "not_ready"


class SessionNotFound(ServerError):
    code = "session_not_found"


class ViewerNotFound(SessionNotFound):
    code = "viewer_not_found"


class NameTaken(ServerError):
    code = "name_taken"


class SourceTaken(ServerError):
    code = "source_taken"


class EngineFailed(ServerError):
    code = "engine_failed"


class ConfigError(ServerError):
    code = "config"


# The most specific class of an error's ancestry wins, so a new PortraitError is a 422 by itself.
HTTP_STATUS: dict[type[VisavisError], int] = {
    VisavisError: 500,
    engine_errors.PortraitError: 422,
    engine_errors.ImageUnreadable: 415,
    engine_errors.ImageTooLarge: 413,
    engine_errors.AvatarError: 409,
    engine_errors.AvatarNotFound: 404,
    engine_errors.AvatarStale: 410,
    engine_errors.AvatarDamaged: 410,
    engine_errors.AvatarStorage: 507,
    engine_errors.AudioUnreadable: 415,
    engine_errors.FileError: 400,
    engine_errors.CheckpointError: 503,
    engine_errors.EngineUnavailable: 503,
    Unauthorized: 401,
    ForeignOrigin: 403,
    ConsentRequired: 403,
    RequestInvalid: 400,
    OfferInvalid: 400,
    OfferUnfit: 422,
    CandidateInvalid: 400,
    UploadTooLarge: 413,
    RateLimited: 429,
    ServerFull: 503,
    RoomFull: 503,
    RoomKeyWrong: 403,
    NotReady: 503,
    SessionNotFound: 404,
    SourceTaken: 409,
    NameTaken: 409,
    NothingLive: 409,  # as draft-ietf-wish-whep-03, section 4.2.8, has it
    TypeUnsupported: 415,
    PreconditionRequired: 428,
    PreconditionFailed: 412,
    RestartUnsupported: 422,
}


def status_of(kind: type[VisavisError]) -> int:
    """The status of a class of errors."""
    return next(HTTP_STATUS[base] for base in kind.__mro__ if base in HTTP_STATUS)


def http_status(error: VisavisError) -> int:
    """The status that tells an HTTP client of ``error``."""
    return status_of(type(error))


def http_headers(error: VisavisError) -> dict[str, str]:
    """Headers that go with it."""
    if isinstance(error, TryLater):
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'Bearer realm="visavis"'}
    return {}


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """The JSON body of every failure."""
    return {"error": {"code": code, "message": message}}
