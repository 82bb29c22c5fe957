"""What a terminal would obey or hide is spelled out."""

from mlxtune.printable import printable


def test_control_and_invisible_characters_are_spelled_out_but_for_those_to_keep():
    assert printable("é\n\x1b[2J\u2028\u200b\r") == "é\\n\\x1b[2J\\u2028\\u200b\\r"
    assert printable("é\n\t\x1b", keep="\n\t") == "é\n\t\\x1b"
