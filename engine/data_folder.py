"""Where avatars enrolled on the command line are kept unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_folder() -> Path:
    """The user's data folder by the XDG convention: ``visavis enrol`` writes there, ``visavis serve`` reads it.

    Raises:
        RuntimeError: this user has no home.
    """
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "visavis"
