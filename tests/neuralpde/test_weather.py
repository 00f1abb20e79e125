"""The public face of weather: every name, each once, and documented."""

from neuralpde import weather


def test_every_name_is_there_and_documented() -> None:
    assert weather.__all__ == sorted(set(weather.__all__))
    assert [name for name in weather.__all__ if not (getattr(weather, name).__doc__ or "").strip()] == []
