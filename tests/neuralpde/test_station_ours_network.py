import torch
from sensor_cases import scattered

from neuralpde.station_ours_network import Committee, Surroundings, identity


def test_slopes_of_a_plane():
    around = Surroundings(scattered(20), 100.0)
    field = (around.plane @ torch.tensor([2.0, -3.0], dtype=torch.float64) + 5).float()
    slopes = torch.einsum("dij,j->di", around.gradient, field)
    # A ridge of a thousandth of the size of the neighbourhood shrinks slopes by about as much.
    torch.testing.assert_close(slopes, torch.tensor([[2.0], [-3.0]]).expand(-1, 20), atol=0.1, rtol=0)
    assert float((around.gradient @ torch.ones(20)).abs().max()) < 1e-4


def test_the_mean_of_neighbours_keeps_a_constant():
    around = Surroundings(scattered(9), 100.0)
    torch.testing.assert_close(around.mean_near @ torch.ones(9), torch.ones(9))
    assert not around.mean_near.diagonal().any()


def test_two_sensors_are_enough():
    around = Surroundings(scattered(2), 100.0)
    assert all(bool(t.isfinite().all()) for t in (around.mean_near, around.gradient, around.broad))


def test_a_committee_starts_at_zero_and_is_bounded_far_away():
    g = torch.Generator().manual_seed(0)
    committee = Committee(torch.zeros(5), torch.ones(5), torch.ones(3), 8, 4, 0.1, g)
    x = torch.randn(2, 6, 5, generator=g)
    assert committee(x).shape == (4, 2, 6, 3)
    assert not committee(x).any()
    with torch.no_grad():
        committee.weights[-1].normal_(generator=g)
    assert torch.equal(committee(1e6 * x.sign()), committee(5 * x.sign()))


def test_sensors_are_known_by_where_they_are():
    placement = scattered(6)
    stations = placement.take(torch.tensor([4, 1])).cloud.points
    who = identity(placement, stations, torch.arange(6) == 1)
    assert who.nonzero().tolist() == [[4, 0]]
