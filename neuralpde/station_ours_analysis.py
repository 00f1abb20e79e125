"""The expected field at any sensor and time, given measurements with gaps at any times."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from neuralpde.station_ours_climate import LocalClimate
from neuralpde.station_ours_kernel import DriftingCovariance

# More measurements than this are divided by place: a Cholesky factor of so many takes a second.
MOST = 2600
MOST_LAGS = 150


def conditional_mean(
    kernel: DriftingCovariance,
    plane: Tensor,
    climate: LocalClimate,
    anomalies: Tensor,
    seen: Tensor,
    times: Tensor,
    wanted: Tensor,
    most: int = MOST,
) -> Tensor:
    """E[x(wanted) | measurements] at every sensor, (K, m, n), each window by itself.

        C(wanted, seen) (C(seen, seen) + noise)⁻¹ anomalies

    Args:
        plane: (n, 2) positions. climate: there; only its doubts enter.
        anomalies, seen: (K, w, n). times, wanted: (K, w) and (K, m), in steps.
        most: measurements that are used at once. With more, the sensors are divided into compact groups, and each group is told
            by the sensors nearest to it.
    """
    (windows, w, n), m = anomalies.shape, wanted.shape[1]
    result = anomalies.new_zeros(windows, m, n, dtype=torch.float64)
    groups = list(_groups(times, wanted, seen))
    for targets, sources in _places(plane, w, most):
        among = Blocks(kernel, plane, climate.doubts, sources, sources, _lags(times, times))
        across = Blocks(kernel, plane, climate.doubts, targets, sources, _lags(wanted, times))
        for inside in groups:
            first = inside[0]
            mask = seen[first][:, sources]
            data = anomalies[inside][:, :, sources].double()
            path = expected(kernel, among, across, data, mask, times[first], wanted[first])
            result[inside[:, None], :, targets] = path.transpose(1, 2)
    return result


def expected(
    kernel: DriftingCovariance, among: Blocks, across: Blocks, data: Tensor, mask: Tensor, times: Tensor, wanted: Tensor
) -> Tensor:
    """The mean (K, m, targets) given the measurements `mask` (w, sources) of data (K, w, sources) at `times` (w,)."""
    keep = mask.flatten()
    if not bool(keep.any()):
        return data.new_zeros(len(data), len(wanted), across.rows)
    covariance = among(times, times)
    cross = across(wanted, times)
    if not bool(keep.all()):
        which = keep.nonzero()[:, 0]
        covariance, cross = covariance[which][:, which], cross[:, which]
    eye = torch.eye(len(covariance), dtype=torch.float64)
    noise = kernel.nugget
    # In exact arithmetic it is positive definite. Should rounding matter, measurements are trusted less.
    for _ in range(8):
        factor, failed = torch.linalg.cholesky_ex(covariance + noise * eye)
        if int(failed) == 0:
            break
        noise = 10 * noise
    else:
        raise FloatingPointError(
            "the covariance of the measurements is not positive definite, whatever the noise: learned scales, positions or times "
            "are not finite; check positions and times, or learn with a smaller kernel_rate"
        )
    solved = torch.cholesky_solve(data.flatten(1)[:, keep].T, factor)
    return (cross @ solved).T.reshape(len(data), len(wanted), across.rows)


class Blocks:
    """The covariance between sensors at many pairs of times; what depends on the lag alone is computed once.

    Args:
        rows, columns: sensors of the plane (n, 2).
        lags: (l,), all that will be asked for. More than `MOST_LAGS` are computed when asked.
    """

    def __init__(
        self, kernel: DriftingCovariance, plane: Tensor, doubts: Tensor, rows: Tensor, columns: Tensor, lags: Tensor
    ) -> None:
        self.kernel, self.rows = kernel, len(rows)
        self._offsets = plane[rows][:, None] - plane[columns]
        self._same = (rows[:, None] == columns).double()
        self._doubts = doubts[:, rows][:, :, columns]
        self._lags = lags
        self._table = self._at(lags) if len(lags) <= MOST_LAGS else None

    def _at(self, lags: Tensor) -> Tensor:
        table: Tensor = self.kernel(self._offsets, lags, self._same, self._doubts)
        return table

    def __call__(self, late: Tensor, early: Tensor) -> Tensor:
        """(len(late) rows, len(early) columns)."""
        lags = _rounded(late[:, None] - early)
        if self._table is None:
            few, which = np.unique(lags.numpy(), return_inverse=True)
            blocks = self._at(torch.from_numpy(few))[torch.from_numpy(which).reshape(lags.shape)]
        else:
            blocks = self._table[torch.searchsorted(self._lags, lags)]
        matrix: Tensor = blocks.transpose(1, 2).reshape(len(late) * blocks.shape[2], -1)
        return matrix


def _rounded(lags: Tensor) -> Tensor:
    """Lags that differ by rounding alone become equal."""
    return (lags * 2**20).round() / 2**20


def _lags(late: Tensor, early: Tensor) -> Tensor:
    """All lags of windows, ascending."""
    return torch.from_numpy(np.unique(_rounded(late[:, :, None] - early[:, None]).numpy()))


def _groups(times: Tensor, wanted: Tensor, seen: Tensor) -> Iterator[Tensor]:
    """The windows that share relative times and gaps, and so the weights."""
    last = times[:, -1:]
    relative = _rounded(torch.cat([times - last, wanted - last], dim=1))
    keys: dict[bytes, list[int]] = {}
    for k in range(len(times)):
        keys.setdefault(relative[k].numpy().tobytes() + seen[k].numpy().tobytes(), []).append(k)
    for members in keys.values():
        yield torch.tensor(members)


def _places(plane: Tensor, frames: int, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets and the sensors that tell of them."""
    n = len(plane)
    near = max(1, most // frames)
    everyone = torch.arange(n)
    if n <= near:
        yield everyone, everyone
        return
    for group in _halves(plane, everyone, max(1, near // 3)):
        distance = torch.linalg.vector_norm(plane - plane[group].mean(0), dim=1)
        yield group, distance.argsort(stable=True)[:near].sort().values


def _halves(plane: Tensor, nodes: Tensor, size: int) -> Iterator[Tensor]:
    """Compact groups of at most `size` sensors: halved across the longer side, again and again."""
    if len(nodes) <= size:
        yield nodes
        return
    sides = plane[nodes].amax(0) - plane[nodes].amin(0)
    order = nodes[plane[nodes][:, int(sides.argmax())].argsort(stable=True)]
    middle = math.ceil(len(order) / 2)
    yield from _halves(plane, order[:middle], size)
    yield from _halves(plane, order[middle:], size)
