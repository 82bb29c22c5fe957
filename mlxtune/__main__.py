"""``python -m mlxtune`` is the command ``mlxtune``."""

from mlxtune.cli import main

main()
