"""The bar counts to the end, and keeps out of standard output."""

import pytest

from operators.progress import shown


@pytest.mark.parametrize("progress", [False, True])
def test_every_step_is_taken_and_standard_output_left_alone(progress, capsys):
    assert list(shown(5, "a long computation", progress)) == list(range(5))
    assert list(shown(0, "nothing", progress)) == []
    assert capsys.readouterr().out == ""
