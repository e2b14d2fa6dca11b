"""The stages of training, each with the augmentation it needs; ``tools/train.py`` runs them."""
