"""Every example runs, and finds the numbers it says it finds."""

import ast
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from operators import report_mesh

EXAMPLES = Path(__file__).parent.parent / "examples"


def custom_pde(module: ModuleType, result: dict[str, tuple[float, float]]) -> None:
    assert set(result) == {"direct", "adjoint"}
    truth = (module.TRUE_DIFFUSIVITY, module.TRUE_RATE)
    assert all(abs(guess / true - 1) > 0.5 for guess, true in zip(module.FIRST_GUESS, truth, strict=True))
    for found in result.values():
        assert found == pytest.approx(truth, rel=0.01)


def stiff_pde(module: ModuleType, result: dict[str, float]) -> None:
    # Tolerance 1e-3, and (200 steps)⁻² times the cube of the separation's rates.
    assert result["ARK324 error"] < 1e-3
    assert result["SBDF2 error"] < 5e-3
    assert result["Dopri5"] > 10 * max(result["ARK324"], result["SBDF2"])
    assert abs(module.FIRST_GUESS / module.TRUE_MOBILITY - 1) > 0.5
    # SBDF2 learns at twice the step, and its error is what is left.
    assert result["mobility"] == pytest.approx(module.TRUE_MOBILITY, rel=0.005)
    assert Path("stiff_pde.png").read_bytes().startswith(b"\x89PNG")


def surface_operators(module: ModuleType, result: dict[str, float]) -> None:
    before = report_mesh(*module.broken_torus())
    assert before.coincident_vertices > 10_000
    assert before.duplicate_faces == 100
    assert not before.consistently_oriented
    assert result["defects"] == 0
    # Sixty eigenfunctions do not hold the patch any better; without learning, D would be a quarter wrong.
    assert result["guess"] > 0.2
    assert result["learned"] < 0.03
    assert module.NOISE < result["misfit"] < 0.01
    assert Path("surface_operators.png").read_bytes().startswith(b"\x89PNG")


# The claim of each example; one without an entry here fails.
CLAIMS: dict[str, Callable[[ModuleType, Any], None]] = {
    "custom_pde": custom_pde,
    "stiff_pde": stiff_pde,
    "surface_operators": surface_operators,
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_example_has_a_claim() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(CLAIMS)


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_claim(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = load(name)
    assert inspect.getdoc(module)
    CLAIMS[name](module, module.main())
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_a_custom_equation_takes_at_most_fifteen_lines(name: str) -> None:
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    (equation,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [ast.unparse(base) for base in equation.bases] == ["npde.RightHandSide"]
    assert equation.end_lineno is not None
    assert equation.end_lineno - equation.lineno + 1 <= 15
