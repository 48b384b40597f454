"""Two data sets of which every batch has fixed shares, so that what is rare is learned evenly."""

from itertools import islice

import numpy as np

from snp.data import orders
from snp.data.dataset import GroundingSet


class Mixture(GroundingSet):
    """The entries of two data sets: those of the second come again as often as those of the first need them.  [ours]

    Args:
        share: of every batch, from the second one; as near as whole images come to it, and one at least.
    """

    def __init__(self, common: GroundingSet, rare: GroundingSet, share: float) -> None:
        self._whole, self._common, self._share = common.joined(rare), len(common), share
        self.__dict__.update(vars(self._whole))

    def subset(self, index: np.ndarray) -> GroundingSet:
        """The entries at `index`, in whatever shares."""
        return self._whole.subset(index)

    def epoch(self, batch: int, seed: int, window: int = 64, per_image: int = 1) -> np.ndarray:
        """A seeded order of all entries of the first data set, and beside them of the second, [steps, batch]."""
        own = max(round(batch * self._share / per_image), 1) * per_image
        lengths, images = (np.split(each, [self._common]) for each in (self.lengths, self._image))
        common = orders.epoch(lengths[0], images[0], batch - own, seed, window, per_image)

        def again(seed: int) -> np.ndarray:
            return self._common + orders.epoch(lengths[1], images[1], own, seed, window, per_image)

        return np.concatenate([common, np.stack(list(islice(orders.endless(again, seed), len(common))))], 1)
