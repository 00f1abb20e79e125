"""The facade offers what the modules behind it offer, once, and `import neuralpde` does without it."""

from pathlib import Path

import hypothesis.strategies as st
import pytest

import neuralpde.testing as kit


def test_every_name_is_there_once_and_says_what_it_is():
    assert len(set(kit.__all__)) == len(kit.__all__)
    for name in kit.__all__:
        assert getattr(kit, name).__doc__, name


@pytest.mark.parametrize(
    "strategy",
    [kit.graphs, kit.large_graphs, kit.meshes, kit.damaged_meshes, kit.grids, kit.point_clouds, kit.surface_samples, kit.domains],
)
def test_strategies_of_domains_need_no_argument(strategy):
    assert isinstance(strategy(), st.SearchStrategy)


def test_no_other_module_of_the_package_imports_the_kit():
    folder = Path(kit.__file__).parent
    for path in folder.glob("*.py"):
        if not path.stem.startswith("testing") and path.stem != "pytest_plugin":
            assert "import neuralpde.testing" not in (text := path.read_text(encoding="utf-8")), path.name
            assert "from neuralpde.testing" not in text, path.name
