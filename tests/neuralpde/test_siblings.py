"""A stray operators.py or integrators.py in the working folder is named, not imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuralpde.siblings import check_siblings

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> str:
    """`import neuralpde` with the working folder first on the path; what it says."""
    done = subprocess.run(
        [sys.executable, "-c", "import neuralpde"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{done.returncode} {done.stderr}"


@pytest.mark.parametrize("stray", ["operators.py", "integrators.py", "operators/__init__.py"])
def test_a_stray_file_is_named(stray, tmp_path):
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_text("raise SystemExit('the stray file ran')\n")
    said = start(tmp_path)
    assert "the stray file ran" not in said
    name = stray.split("/")[0].removesuffix(".py")
    assert re.search(rf"ImportError: neuralpde needs its own package `{name}`", said)
    assert str(tmp_path / stray) in said
    assert "rename that file or folder, or run from another folder" in said


def test_an_innocent_folder_is_fine(tmp_path):
    (tmp_path / "solvers.py").touch()
    assert start(tmp_path) == "0 "
    check_siblings()
