"""A peer's journey: signalling, microphone in, paced tracks out."""
