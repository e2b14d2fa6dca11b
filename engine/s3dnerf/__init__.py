"""S3D-NeRF: single-shot, speech-driven neural radiance field (Li et al., ECCV 2024), one block a file."""
