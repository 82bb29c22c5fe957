"""Stage 1: a pre-trained model, from any source to a network that is ready to work."""

DAMAGED = "the file is damaged or was not downloaded whole: get it again"
"""The remedy for a model's file that says what cannot be true, whatever its format."""
