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


def coarse_cahn_hilliard(module: ModuleType, result: dict[str, float]) -> None:
    assert result["solver"] > 3
    assert result["solver"] > result["ablation"] > 1
    assert result["mass"] < 1e-12
    assert Path("coarse_cahn_hilliard.png").read_bytes().startswith(b"\x89PNG")


def initial_heat(module: ModuleType, result: dict[str, float]) -> None:
    assert result["harmonic"] > 3 * result["estimate"]
    assert Path("initial_heat.png").read_bytes().startswith(b"\x89PNG")


def learn_diffusivity(module: ModuleType, result: dict[str, float]) -> None:
    assert result["error"] < 0.05
    assert result["guess"] > 0.2
    assert result["misfit"] == pytest.approx(1, abs=0.1)
    assert result["receipt"] < 1e-5
    assert Path("learn_diffusivity.png").read_bytes().startswith(b"\x89PNG")


def custom_pde(module: ModuleType, result: dict[str, float]) -> None:
    assert result == pytest.approx({"D": 0.02, "r": 1.5}, rel=0.001)
    assert Path("custom_pde.png").read_bytes().startswith(b"\x89PNG")


def denoise(module: ModuleType, result: dict[str, float]) -> None:
    # The noise has a standard deviation of a tenth.
    assert result["noisy"] == pytest.approx(20, abs=0.1)
    assert result["heat"] > result["noisy"] + 4
    assert result["Beltrami"] > result["heat"] + 3
    assert result["Beltrami"] > result["Perona-Malik"]
    assert Path("denoise.png").read_bytes().startswith(b"\x89PNG")


def exact_waves(module: ModuleType, result: dict[str, float]) -> None:
    assert result["Exponential"] < 1e-12
    assert result["StoermerVerlet"] < result["bound"]
    assert result["RK4"] > 0.05
    assert result["Exponential products"] < result["StoermerVerlet products"]
    assert result["back again"] < 1e-10
    assert Path("exact_waves.png").read_bytes().startswith(b"\x89PNG")


def gray_scott(module: ModuleType, result: dict[str, float]) -> None:
    assert result["spots"] >= 8
    assert result["contrast"] > 0.3
    assert result["wavelength"] == pytest.approx(result["theory"], rel=0.05)
    assert Path("gray_scott.png").read_bytes().startswith(b"\x89PNG")


def learned_generator(module: ModuleType, found: Any) -> None:
    for name, true in (("tension", module.TENSION), ("stiffness", module.STIFFNESS), ("viscosity", module.VISCOSITY)):
        assert found[name] == pytest.approx(true, rel=0.02)
    assert found["error"] < 0.005
    assert found["energy gained"] < 1e-9
    assert Path("learned_generator.png").stat().st_size > 10_000


def property_test(module: ModuleType, result: dict[str, float]) -> None:
    assert 0 < result["cotangent, in tolerances"] <= 1
    assert result["clamped, in tolerances"] > 1e6
    assert result["|L x| of cotangent_laplacian"] < 1e-10
    assert result["|L x| of clamped_laplacian"] > 1
    assert Path("property_test.png").read_bytes().startswith(b"\x89PNG")


def scattered_sensors(module: ModuleType, found: dict[str, float]) -> None:
    assert found["learned"] < 0.9 * found["not learned"] < 0.1
    # No closer: at the hull no stencil with one sign is exact, and the learned rates make up for it.
    assert found["spread"] == pytest.approx(module.SPREAD, rel=0.35)
    # A maximum principle: decay is positive, so the largest value falls.
    assert found["growth"] < 0
    assert Path("scattered_sensors.png").read_bytes().startswith(b"\x89PNG")


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
    "coarse_cahn_hilliard": coarse_cahn_hilliard,
    "custom_pde": custom_pde,
    "denoise": denoise,
    "exact_waves": exact_waves,
    "gray_scott": gray_scott,
    "initial_heat": initial_heat,
    "learn_diffusivity": learn_diffusivity,
    "learned_generator": learned_generator,
    "property_test": property_test,
    "scattered_sensors": scattered_sensors,
    "stiff_pde": stiff_pde,
    "surface_operators": surface_operators,
}
# Longer ones, that walk through a whole package.
TOURS = {"learned_generator", "scattered_sensors", "stiff_pde", "surface_operators"}


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
    for equation in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        assert [ast.unparse(base) for base in equation.bases] == ["npde.RightHandSide"]
        assert equation.end_lineno is not None
        assert equation.end_lineno - equation.lineno + 1 <= 15


@pytest.mark.parametrize("name", sorted(set(CLAIMS) - TOURS))
def test_an_example_is_read_in_one_go(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60
