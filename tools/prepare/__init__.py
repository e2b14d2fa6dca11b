"""The parts of ``tools/prepare_data.py``: files on disk -> clips that training reads."""


class Unusable(Exception):
    """A clip that training cannot use; the message is the reason, as the list of left-out files gives it."""
