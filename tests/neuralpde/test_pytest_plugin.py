"""`pytest --pde` in folders of its own: alone, beside tests, with -k and --collect-only, and with wrong names."""

import textwrap
from importlib.metadata import entry_points

import pytest

pytest_plugins = "pytester"

MINE = """
    import torch
    from neuralpde import Heat
    from operators import Graph, Laplacian, combinatorial_laplacian

    def right(graph: Graph):
        return combinatorial_laplacian(graph)

    def looped(graph: Graph):
        W = torch.zeros(graph.nodes, graph.nodes, dtype=graph.edge_weight.dtype)
        W.index_put_(tuple(graph.edge_index), graph.edge_weight, accumulate=True)
        return W.sum(1).diag() - W + W.diag().diag()

    def unannotated(graph):
        return combinatorial_laplacian(graph)

    def heat(laplacian: Laplacian):
        return Heat(laplacian)

    number = 3
"""

# Once installed with its entry point, the plugin is there without -p.
INSTALLED = any(point.value == "neuralpde.pytest_plugin" for point in entry_points(group="pytest11"))
PLUGIN = ["-p", "no:cacheprovider", *([] if INSTALLED else ["-p", "neuralpde.pytest_plugin"])]


@pytest.fixture
def folder(pytester):
    (pytester.path / "mine.py").write_text(textwrap.dedent(MINE))
    return pytester


def run(folder, *arguments):
    return folder.runpytest_inprocess(*PLUGIN, "--pde-examples=5", *arguments)


def test_a_right_laplacian_passes_every_law_without_a_test_file(folder):
    result = run(folder, "--pde", "mine:right")
    assert result.ret == 0
    assert set(result.parseoutcomes()) == {"passed"}
    assert result.parseoutcomes()["passed"] >= 15


def test_a_fault_is_told_with_its_law_and_its_smallest_example(folder):
    result = run(folder, "--pde", "mine:looped", "--pde-examples=100", "-k", "constants")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "looped breaks a law: constants of each component are killed",
            "*Graph of 1 nodes, 1 edges: 0→0 (1)*",
            "*replay*.neuralpde*",
        ]
    )
    assert list((folder.path / ".neuralpde").glob("looped*.json"))


def test_it_stands_beside_ordinary_tests_and_names_are_listed_and_chosen(folder):
    folder.makepyfile(test_plain="def test_plain(): pass")
    result = run(folder, "--pde", "mine:heat", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["test_plain.py::test_plain", "mine:heat::linear_plus_nonlinear_is_forward"])
    chosen = run(folder, "--pde", "mine:heat", "-k", "plain or linear_plus")
    chosen.assert_outcomes(passed=2, deselected=chosen.parseoutcomes()["deselected"])


def test_without_an_annotation_each_domain_is_tried_and_the_others_are_skipped_with_the_reason(folder):
    result = run(folder, "--pde", "mine:unannotated", "-rs", "-k", "builds or positive")
    result.assert_outcomes(passed=1, skipped=4, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["*it does not take a TriangleMesh*"])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("mine", "*write MODULE:NAME*"),
        ("absent.module:X", "*importing absent.module raises ModuleNotFoundError*"),
        ("mine:wrong", "*mine has no 'wrong'; it has *looped*"),
        ("mine:number", "*a int is no function of a domain*"),
    ],
)
def test_a_wrong_name_is_a_usage_error_before_anything_runs(folder, spec, told):
    result = run(folder, "--pde", spec)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])


def test_the_kit_is_not_imported_without_the_option(folder):
    folder.makepyfile("import sys\ndef test_light(): assert 'neuralpde.testing_items' not in sys.modules")
    result = folder.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=1)
