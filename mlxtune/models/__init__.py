"""Stage 1: a pre-trained model, from any source to a network that is ready to work."""
