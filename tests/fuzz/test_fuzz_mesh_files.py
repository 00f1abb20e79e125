"""The fuzz target on its seeds, its kept corpus, drawn damage, and twenty thousand inputs of atheris where that is installed."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TARGET = Path(__file__).with_name("fuzz_mesh_files.py")
_spec = importlib.util.spec_from_file_location("fuzz_mesh_files", TARGET)
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)

NUMBERS = [b"-1", b"0", b"3", b"255", b"4294967296", b"9" * 18, b"9" * 30, b"1e308", b"nan", b"1_0", b"0x1"]
needs_atheris = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="no atheris: pip install atheris")


@pytest.mark.parametrize("kind", fuzz.FORMATS)
def test_seeds_and_corpus_obey_the_law(kind):
    kept = [path.read_bytes() for path in (fuzz.CORPUS / kind).glob("*")]
    began = time.process_time()
    for data in [*fuzz.seeds(kind), *kept]:
        fuzz.check(kind, data)
    assert time.process_time() - began < 60  # a second, if nothing hangs


@st.composite
def damaged(draw, kind):
    """A seed that is cut, has bytes changed, numbers replaced, lines doubled or moved, or another seed's end."""
    seeds = fuzz.seeds(kind)
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "bytes", "number", "line", "graft"])):
            case "cut":
                data = data[:place]
            case "bytes":
                data = data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place + draw(st.integers(0, 4)) :]
            case "number":
                numbers = list(re.finditer(rb"-?\d+", data)) or [re.match(b"", data)]
                found = draw(st.sampled_from(numbers))
                number = draw(st.sampled_from(NUMBERS))
                data = data[: found.start()] + number + data[found.end() :]
            case "line":
                lines = data.split(b"\n")
                line = draw(st.sampled_from(lines))
                lines.insert(draw(st.integers(0, len(lines))), line)
                data = b"\n".join(lines)
            case "graft":
                data = data[:place] + draw(st.sampled_from(seeds))[place:]
    return data


@pytest.mark.parametrize("kind", fuzz.FORMATS)
@given(data=st.data())
@settings(max_examples=200)
def test_damage_gives_a_valid_mesh_or_a_mesh_file_error(kind, data):
    content = data.draw(damaged(kind))
    began = time.process_time()
    fuzz.check(kind, content)
    assert time.process_time() - began < 10  # milliseconds, if nothing hangs


def run(*arguments, folder):
    command = [sys.executable, str(TARGET), *arguments]
    # The order of sets and the clock would make every run another one.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=environment)


@needs_atheris
@pytest.mark.parametrize("kind", fuzz.FORMATS)
def test_atheris_finds_nothing_in_twenty_thousand_inputs(kind, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    bounds = ("-runs=20000", "-timeout=5", "-rss_limit_mb=2048", "-seed=1")
    done = run(kind, str(corpus), f"-dict={TARGET.with_name('mesh_files.dict')}", *bounds, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DONE" in done.stderr
    assert list(tmp_path.iterdir()) == [corpus], "an input that fails was kept"
    # Instrumented: the fuzzer saw new paths beyond the seeds.
    assert len(list(corpus.iterdir())) > len(fuzz.seeds(kind))


@needs_atheris
def test_an_unknown_format_is_refused(tmp_path):
    done = run("vtk", folder=tmp_path)
    assert done.returncode != 0
    assert "name a format first: ply, obj, off, stl" in done.stderr
