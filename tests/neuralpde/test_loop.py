"""The public face: every name, each once, and none forgotten."""

from neuralpde import loop


def test_every_name_is_there() -> None:
    assert sorted(loop.__all__) == sorted(set(loop.__all__))
    assert all(getattr(loop, name) is not None for name in loop.__all__)


def test_public_names_are_documented() -> None:
    assert [name for name in loop.__all__ if not (getattr(loop, name).__doc__ or "").strip()] == []


def test_no_public_name_is_left_out() -> None:
    modules = {getattr(loop, name).__module__ for name in loop.__all__}
    assert modules >= {f"neuralpde.{name}" for name in ("ablation", "closure", "correction", "estimation", "guard", "receipt")}
