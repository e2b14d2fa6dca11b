"""A Visavis avatar for voice agents: push speech, receive the talking picture.

It needs neither the server's code nor its packages, and is a distribution of its own (``pyproject.toml`` beside this
file), because pipecat and LiveKit Agents want a newer protobuf than the server's MediaPipe can live with.
"""
