"""The public face of meshpde: every name, each once, and documented."""

from neuralpde import meshpde


def test_every_name_is_there_and_documented() -> None:
    assert meshpde.__all__ == sorted(set(meshpde.__all__))
    assert [name for name in meshpde.__all__ if not (getattr(meshpde, name).__doc__ or "").strip()] == []
