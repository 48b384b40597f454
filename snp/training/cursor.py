"""Held-out batches, handed out one after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from snp.data.batch import Batch
from snp.training.device import Device


@dataclass
class Cursor:
    """Hands out held-out batches one after the other, on a device, and knows how many it has handed out."""

    stream: Callable[[int], Iterator[Batch]]
    position: int = 0
    device: str = "cpu"
    _batches: Iterator[Batch] | None = field(default=None, init=False)

    def __call__(self) -> Batch:
        if self._batches is None:
            self._batches = Device(self.device).batches(self.stream(self.position))
        self.position += 1
        return next(self._batches)

    def seek(self, position: int) -> None:
        self.position, self._batches = position, None
