"""How an answer is drawn where nobody says otherwise; the rest is as in `inference.sampling.Sampling`.

Apart from the work, so that the command line can show it without loading mlx.
"""

MAX_TOKENS = 256
"""The longest answer."""
TEMPERATURE = 0.0
"""The likeliest token is taken, always."""
SEED = 0
"""Of the draws, where there are any."""
