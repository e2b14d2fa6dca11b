"""A window's journey: from 16 kHz speech and one portrait to frames."""
