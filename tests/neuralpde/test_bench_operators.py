"""The benchmark measures what it says: every alternative computes the same thing, and the promised rows are there."""

import json

import pytest
import torch

from neuralpde import bench_operators as module
from neuralpde.bench_operators import OperatorBench, bench_operators
from neuralpde.cli import main
from neuralpde.files import RunFolderError

TINY = OperatorBench(around=8, across=6, channels=3, repeats=1)


@pytest.fixture
def restored_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_every_alternative_computes_the_same(monkeypatch, restored_threads):
    seen = {}

    def once(candidates, repeats, title):
        seen[title] = {name: candidate() for name, candidate in candidates.items()}
        return dict.fromkeys(candidates, 1.0)

    monkeypatch.setattr(module, "interleaved", once)
    bench_operators(TINY)
    for title, results in seen.items():
        results.pop("copy", None)
        expected = _flat(results["ours"])
        for name, result in results.items():
            pieces = _flat(result)
            # SciPy also returns y itself, which autograd.grad does not.
            pieces = pieces[len(pieces) - len(expected) :]
            for ours, theirs in zip(expected, pieces, strict=True):
                torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4, msg=f"{title}, {name}")


def _flat(result):
    if isinstance(result, (tuple, list)):
        return [piece for part in result for piece in _flat(part)]
    return [torch.as_tensor(result)]


def test_the_promised_rows_are_written(tmp_path, capsys, restored_threads):
    target = tmp_path / "bench.json"
    command = ["bench", "operators", "--around", "8", "--across", "6", "--channels", "3", "--repeats", "1", "--json", str(target)]
    assert main(command) == 0
    rows = json.loads(target.read_text())["rows"]
    ours = {(row["table"], row["metric"]): row["value"] for row in rows if row["method"] == "ours"}
    for key in [("sparse-product", "ratio_to_best"), ("attention", "speedup_over_pyg")]:
        assert ours[key] > 0
    modes = ["forward", "forward+backward x", "forward+backward x and values"]
    assert ours["sparse-product", "ratio_to_best"] == max(ours["sparse-product", f"ratio_to_best, {mode}"] for mode in modes)
    assert ours["sparse-product", "fraction_of_copy_bandwidth"] > 0
    methods = {row["method"] for row in rows if row["table"] == "sparse-product"}
    assert {"ours", "torch-csr", "torch-coo", "pyg-message-passing", "pyg-scatter", "scipy"} <= methods
    said = capsys.readouterr().out
    assert "ratio_to_best" in said
    assert "speedup_over_pyg" in said


@pytest.mark.parametrize("name", ["channels", "repeats", "threads"])
def test_settings_that_measure_nothing_are_refused(name):
    with pytest.raises(RunFolderError, match=f"--{name} must be at least 1"):
        OperatorBench(**{name: 0})
