"""Command lines: preparing, training, evaluating, rendering, measuring."""
