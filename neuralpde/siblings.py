"""Making sure that `operators` and `integrators` are ours: their names are common, and a stray file would shadow them."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def check_siblings() -> None:
    """Raise ImportError, naming the offending file, if another `operators` or `integrators` would be imported."""
    home = Path(__file__).resolve().parent.parent
    for name in ("operators", "integrators"):
        spec = importlib.util.find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found is None or found.parent != home / name:
            raise ImportError(
                f"neuralpde needs its own package `{name}` in {home}, but Python finds {found or 'none'}: rename that file "
                "or folder, or run from another folder"
            )
