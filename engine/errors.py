"""The exception tree of the project: one root, and what the engine side may raise.

::

    VisavisError
    ├── PortraitError               the picture cannot become an avatar
    │   ├── ImageUnreadable         truncated, hostile or not an image
    │   ├── ImageTooLarge           more pixels than may be decoded
    │   ├── NoFace
    │   ├── SeveralFaces
    │   ├── FaceTooSmall
    │   ├── FaceCropped             part of the face lies outside the picture
    │   └── FaceTurned              turned or tilted too far from the camera
    ├── AvatarError
    │   ├── AvatarNotFound
    │   ├── AvatarStale             enrolled by another engine, version or checkpoint
    │   ├── AvatarDamaged           its file holds nonsense
    │   └── AvatarStorage           the disk does not take or give it: full, missing, out of handles
    ├── AudioUnreadable             no audio stream, or one that cannot be decoded
    ├── FileError                   a path that cannot be read or written
    ├── CheckpointError             missing, damaged or of another configuration
    └── EngineUnavailable           an engine or backend that this machine cannot run

Every class has a stable ``code``, which clients see; ``server/errors.py`` holds the one table that
maps each to an HTTP status. Messages say what was wrong, with which value, and what to do.
"""


class VisavisError(Exception):
    """Root of everything that Visavis raises on purpose."""

    code = "internal"


class PortraitError(VisavisError):
    code = "portrait"


class ImageUnreadable(PortraitError):
    code = "image_unreadable"


class ImageTooLarge(PortraitError):
    code = "image_too_large"


class NoFace(PortraitError):
    code = "no_face"


class SeveralFaces(PortraitError):
    code = "several_faces"


class FaceTooSmall(PortraitError):
    code = "face_too_small"


class FaceCropped(PortraitError):
    code = "face_cropped"


class FaceTurned(PortraitError):
    code = "face_turned"


class AvatarError(VisavisError):
    code = "avatar"


class AvatarNotFound(AvatarError):
    code = "avatar_not_found"


class AvatarStale(AvatarError):
    code = "avatar_stale"


class AvatarDamaged(AvatarError):
    code = "avatar_damaged"


class AvatarStorage(AvatarError):
    code = "avatar_storage"


class AudioUnreadable(VisavisError):
    code = "audio_unreadable"


class FileError(VisavisError):
    code = "file"


class CheckpointError(VisavisError):
    code = "checkpoint"


class EngineUnavailable(VisavisError):
    code = "engine_unavailable"
