"""How much memory a pass takes: bytes of all tensors that live at the same time, counted as they are made and go."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Within, the tensors that operations make are counted; those that were there before are not.

    Attributes:
        now, peak: bytes that live now, and lived at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        self._meet((arguments, named), counted=False)  # a view of what was there takes nothing
        made = function(*arguments, **(named or {}))
        self._meet(made, counted=True)
        return made

    def _meet(self, values: Any, counted: bool) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known[storage._cdata] = size = storage.nbytes() if counted else 0
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, storage: int) -> None:
        self.now -= self._known.pop(storage, 0)
