"""What the tests of the command line share."""

import pytest

from sb3_fcdl.cli import main

SMALL = ["n_objects=4", "n_colors=3"]
PLANS = ["--planner-kwargs", "horizon=2", "n_iterations=2", "n_candidates=8"]
SIZES = ["--env-kwargs", *SMALL, "--dynamics-kwargs", "hidden_dim=16", "n_codes=4", *PLANS]


def error_of(capsys, *arguments):
    """The last line on stderr of a command that must end with code 2."""
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    assert exit_info.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]
