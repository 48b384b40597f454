"""Masked weights: parameters whose zeros stay zero in training and in every copy of a model."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MaskedParameter(nn.Parameter):
    """A parameter whose masked weights are and stay zero, since their gradients are zero (also in copies).

    With a zero gradient from the start, momentum, Adam's moments, decoupled weight decay, and averages of
    weights all keep a zero weight at zero. [ours]
    """

    mask: Tensor

    def __new__(cls, data: Tensor, mask: Tensor, requires_grad: bool = True) -> "MaskedParameter":
        return cls._of(torch.where(mask, data, 0.0), mask, requires_grad)

    @classmethod
    def _of(cls, zeroed: Tensor, mask: Tensor, requires_grad: bool) -> "MaskedParameter":
        """Of weights that are zero where they shall be, and may be other processes' too: they are not copied."""
        parameter: Any = torch.Tensor._make_subclass(cls, zeroed, True)
        parameter.mask = mask
        parameter.register_hook(_Zeroing(mask))  # it knows the mask and not the parameter: no reference cycle
        return parameter.requires_grad_(requires_grad)  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> "MaskedParameter":
        if id(self) not in memo:
            memo[id(self)] = self._of(self.data.clone(), copy.deepcopy(self.mask, memo), self.requires_grad)
        return memo[id(self)]  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._of, (self.data, self.mask, self.requires_grad)


def learn_only(parameter: nn.Parameter, mask: Tensor) -> None:
    """From here on a parameter learns where a mask is True alone; it stays as it is elsewhere, unless weights decay."""
    parameter.register_hook(_Zeroing(mask))


class _Zeroing:
    """Makes a gradient zero where a mask is False; the mask follows it to its device."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, gradient: Tensor) -> Tensor:
        if self.mask.device != gradient.device:
            self.mask = self.mask.to(gradient.device)
        return torch.where(self.mask, gradient, 0.0)


class StayMasked:
    """What masks one parameter, at all of its places, and does so again when weights are loaded into its modules.

    load_state_dict puts plain parameters in the place of masked ones (assign=True), or any values into them.

    Args:
        mask: bool, False = zero; on the CPU, whatever the device of the weights, which may have no values yet.
        places: modules and the names of the parameter there: a tied one has several, and stays tied.
    """

    def __init__(self, mask: Tensor, places: list[tuple[nn.Module, str]]) -> None:
        self.mask, self.places = mask, places
        self._put(getattr(*places[0]))
        for module in {id(module): module for module, _ in places}.values():
            module.register_load_state_dict_post_hook(self)

    def __call__(self, loaded: nn.Module, _: Any) -> None:
        """Called by `loaded`, one of the modules, after its weights were loaded."""
        for name in [name for module, name in self.places if module is loaded]:
            found: Any = getattr(loaded, name)
            if isinstance(found, MaskedParameter):
                found.data.masked_fill_(~self.mask.to(found.device), 0)
            else:
                self._put(found)

    def _put(self, plain: nn.Parameter) -> None:
        masked = MaskedParameter(plain.data, self.mask.to(plain.device), plain.requires_grad)
        for module, name in self.places:
            setattr(module, name, masked)
