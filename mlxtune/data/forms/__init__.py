"""The forms that a row may have in its file, a file each."""
