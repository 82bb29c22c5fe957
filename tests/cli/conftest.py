"""What tests of the command line share."""

import pytest

from mlxtune.cli import main


@pytest.fixture
def run(capsys):
    """Runs a command line; gives exit code, standard output, standard error."""

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return command
