"""Lanes: what a process owns of the tiles, and the one order of all of them.

The tiles, in the order of the rows of their matrix, are cut into `LANES` ranges, however many
processes there are; a process owns neighbouring lanes, and so one range of the matrix. The order of
all tiles merges the lanes evenly: row j of a lane of n rows stands at time (2j + 1) / (2n), the
lower lane first where two meet (F. V. Webster's method of apportionment: M. L. Balinski and
H. P. Young (1982), "Fair representation"). Neither cuts nor order depend on the number of
processes, and a process finds the positions of its own rows from the sizes of the lanes alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LANES = 64
NEAR = 4  # a cut moves to the boundary of a part by at most a lane over this

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lanes:
    """Ranges of some tiles, which are in the order of the rows of their matrix.

    Parameters
    ----------
    edges
        Where each lane begins, and the number of tiles; shape (`LANES` + 1,).
    """

    edges: Rows

    @classmethod
    def cut(cls, rows: Rows, starts: Rows) -> "Lanes":
        """Return lanes of nearly as many tiles each, of whole parts where these are many.

        Parameters
        ----------
        rows
            Of the matrix, ascending.
        starts
            The first row of each part of the matrix, ascending.
        """
        number = len(rows)
        even = np.arange(LANES + 1) * number // LANES
        boundaries = np.append(np.searchsorted(rows, starts), number)
        after = np.searchsorted(boundaries, even).clip(max=len(boundaries) - 1)
        near = np.stack([boundaries[np.maximum(after - 1, 0)], boundaries[after]])
        distance = np.abs(near - even)
        nearest = np.where(distance[0] < distance[1], near[0], near[1])
        is_near = NEAR * LANES * distance.min(axis=0) <= number
        return cls(np.where(is_near, nearest, even))

    def __len__(self) -> int:
        return int(self.edges[-1])

    @property
    def sizes(self) -> Rows:
        """Tiles of each lane, shape (`LANES`,)."""
        return np.diff(self.edges)

    def rows(self, lanes: range) -> slice:
        """Return which tiles neighbouring lanes hold."""
        return slice(int(self.edges[lanes.start]), int(self.edges[lanes.stop]))

    def positions(self, lanes: range) -> Rows:
        """Return the positions of the tiles of some lanes in the order of all tiles.

        Returns
        -------
        ndarray of int64, shape (tiles of these lanes,)
            Ascending within each lane.
        """
        return np.concatenate([np.empty(0, np.int64), *map(self._positions, lanes)])

    def _positions(self, lane: int) -> Rows:
        size = int(self.sizes[lane])
        positions, odd = np.zeros(size, dtype=np.int64), 2 * np.arange(size) + 1
        # Row i of a lane of n rows comes first if (2i + 1) / (2n) < odd / (2 size); a lower lane's
        # if they are equal as well. Lanes of one size count alike.
        sizes, number = np.unique(self.sizes, return_inverse=True)
        for is_lower, lanes in ((1, number[:lane]), (0, number[lane:])):
            counts = np.bincount(lanes, minlength=len(sizes))
            for rows, count in zip(sizes[counts > 0], counts[counts > 0], strict=True):
                positions += count * ((odd * rows + size - 1 + is_lower) // (2 * size))
        return positions

    def shuffled(self, lanes: range, seed: int) -> Rows:
        """Return the tiles of some lanes, counted from the first of them, each lane at random."""
        first = int(self.edges[lanes.start])
        return np.concatenate([
            np.empty(0, np.int64),
            *(self.edges[lane] - first
              + np.random.default_rng([seed, lane]).permutation(self.sizes[lane])
              for lane in lanes),
        ])  # fmt: skip


def owned(rank: int, world: int) -> range:
    """Return the lanes of one of several processes."""
    return range(LANES * rank // world, LANES * (rank + 1) // world)
