"""Where command-line tools keep avatars unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_folder() -> Path:
    """The user's data folder by the XDG convention; ``visavis serve --data`` must be given the same."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "visavis"
