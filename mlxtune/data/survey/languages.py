"""The language of a row that is written in Latin letters, by its commonest words.

A light stand-in for a language model: each language has words that hardly any sentence does without, and those of the
best are counted against those of the next. Seven languages; a row that is short, is code, or is none of them has none.
Knows text alone. The price: it misses rather than guesses, and close relatives of the seven pass for them.
"""

import re

LEAST_WORDS = 5
"""Common words of the language that a row must have, counted once each time."""
LEAD = 2
"""How many times those of the next language."""

_WORDS = {
    # with a few that others have too, so that these alone make no English sentence another's
    "English": "the of and to is in that it was for on are with as this be by not have you what from or an a no do me",
    "German": "der die und den von zu das mit sich des auf für ist im dem nicht ein eine als auch es werden aus ich",
    "French": "de un en le la les des et du est une dans qui que pour pas sur au plus par ce avec vous il ne je sont",
    "Spanish": "el la los las y de que en un una por con para es se del no su lo como más pero al le este está muy",
    "Italian": "il di che e la per un non una con del sono è si da della le dei nel alla gli anche più come questo",
    "Portuguese": "o a os as e de que do da em um uma para com não por mais dos na no se é ao como foi são você",
    "Dutch": "de het een van en in is dat op te zijn met voor niet aan er ook als bij naar maar wordt deze worden uit",
}
_LANGUAGES = {
    word: frozenset(name for name, words in _WORDS.items() if word in words.split())
    for words in _WORDS.values()
    for word in words.split()
}
_WORD = re.compile(r"[^\W\d_]+")
_READ = 1500
"""Characters of a row that are looked at: enough to tell."""


def language_of(text: str) -> str | None:
    """The language, in English; None where that cannot be told."""
    hits = dict.fromkeys(_WORDS, 0)
    for word in _WORD.findall(text[:_READ].lower()):
        for name in _LANGUAGES.get(word, ()):
            hits[name] += 1
    (best, most), (_, next_most) = sorted(hits.items(), key=lambda item: -item[1])[:2]
    return best if most >= LEAST_WORDS and most >= LEAD * next_most else None
