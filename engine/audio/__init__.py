"""From sound to the features that drive a face."""
