"""The shape of the repository: tests mirror modules, imports point down, the wheel holds the tree."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
# Each package may import those before it.
PACKAGES = ("operators", "integrators", "neuralpde")
MAY_IMPORT = {
    "operators": {"operators"},
    "integrators": {"integrators"},
    "neuralpde": {"operators", "integrators", "neuralpde"},
}
TOP_LEVEL = {
    "pyproject.toml",
    "neuralpde",
    "integrators",
    "operators",
    "tests",
    "examples",
    "README.md",
    ".ci",
    "LICENSE",
    "CHANGELOG.md",
    "constraints.txt",
    ".gitignore",
}
CODE = sorted(path for folder in (*PACKAGES, "tests", "examples") for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in CODE if path.relative_to(ROOT).parts[0] in PACKAGES]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_modules(package: str) -> None:
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__", "__main__"}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / package).glob("test_*.py")}
    assert modules - tests == set(), "modules without tests"
    assert tests - modules == set(), "tests of no module"


def test_packages_are_flat() -> None:
    assert [name(path) for path in MODULES if len(path.relative_to(ROOT).parts) != 2] == []


def test_tests_are_no_packages() -> None:
    # tests/operators/__init__.py would shadow the package `operators`.
    assert [name(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_down(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            imported.add((node.module or "").split(".")[0])
    assert imported & set(PACKAGES) <= MAY_IMPORT[package]
    if not path.name.startswith("testing"):
        assert not imported & {"pytest", "hypothesis"} or path.name == "pytest_plugin.py", "needs the test extra"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_promise_hangs_on_an_assert(path: Path) -> None:
    # python -O strips them.
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("path", CODE, ids=name)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_top_level() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"git cannot list the files: {listed.stderr.strip()}")
    assert {PurePosixPath(line).parts[0] for line in listed.stdout.splitlines()} <= TOP_LEVEL


def test_wheel_holds_the_tree(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for entry in sorted(TOP_LEVEL):
        source = ROOT / entry
        if source.is_dir():
            shutil.copytree(source, copy / entry, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, copy / entry)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path / "dist")], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {PurePosixPath(entry) for entry in archive.namelist()}
    held = {str(file) for file in files if not file.parts[0].endswith(".dist-info")}
    expected = {name(path) for path in MODULES}
    expected |= {f"{package}/py.typed" for package in PACKAGES}
    assets = ROOT / "neuralpde" / "report_assets"
    expected |= {name(path) for path in assets.iterdir() if path.is_file()}
    assert held == expected
