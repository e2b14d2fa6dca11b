"""Runnable examples; each says at its top how."""
