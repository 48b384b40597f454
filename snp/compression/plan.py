"""A Plan is what a method decides, as a value: units pruned and shared, weights masked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snp.compression import accounting
from snp.compression.codec import decode_mask, decode_units, encode_mask, encode_units
from snp.compression.tower import Shape, Site, Tower, alike, iterate
from snp.errors import InputError

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Share:
    """The receiver's `units` (bool [n_share]) are the donor layer's units of the same component and index."""

    receiver: Site
    donor: tuple[str, int]
    units: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "receiver", Site(*self.receiver))  # a plain tuple will do


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What is decided of one layer, by component.

    Attributes:
        kept: bool [n_prune], the pruning units that survive.
        survives: bool [n_share], the same in sharing units.
        owner: long [n_share], the index into `Plan.layers` of the layer that stores each unit.
        own: bool [n_share], the units that survive and are stored here.
    """

    kept: Mapping[str, Tensor]
    survives: Mapping[str, Tensor]
    owner: Mapping[str, Tensor]
    own: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """A compression decision that has checked itself. Immutable: make a new one with dataclasses.replace.

    Attributes:
        towers: sizes of the dense towers, donor first.
        keep: site (or a plain tuple) -> bool [n_prune], False = pruned; absent = all kept.
        shares: which units are another layer's; a donor may itself receive: chains end where one is stored.
        masks: parameter name -> bool tensor of its shape, False = zero (unstructured).
        note: what a reader of the table must know, for example that the budget is out of this method's reach.
        may_empty: a mask may leave no weight, as those of official modes do. Else that is an error.

    Raises:
        InputError: sizes that do not fit, a unit with two donors, a shared unit that is pruned in the
            receiver or the donor, a cycle of donors, a component or a mask without survivor.
    """

    towers: Mapping[str, Shape]
    keep: Mapping[Site, Tensor] = field(default_factory=dict)
    shares: tuple[Share, ...] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    note: str = ""
    may_empty: bool = False

    def __post_init__(self) -> None:
        given = {Site(*key): kept for key, kept in self.keep.items()}  # plain tuples will do
        keep = {s: _bool(f"keep {s}", kept, (self._shape(s).units(s.component),)) for s, kept in given.items()}
        merged: dict[tuple[Site, tuple[str, int]], Tensor] = {}
        for share in self.shares:
            n = self._shape(share.receiver).units(share.receiver.component, "share")
            units = _bool(f"share {share.receiver}", share.units, (n,))
            same = (share.receiver, share.donor)
            if same in merged and bool((merged[same] & units).any()):
                raise InputError(f"plan: share {share.receiver}", "names a unit twice")
            merged[same] = merged[same] | units if same in merged else units
        masks = {name: _bool(f"mask {name}", mask) for name, mask in self.masks.items()}
        normal = {
            "towers": dict(self.towers),
            "keep": {key: keep[key] for key in sorted(keep) if not keep[key].all()},
            "shares": tuple(Share(*key, merged[key]) for key in sorted(merged) if merged[key].any()),
            "masks": {name: masks[name] for name in sorted(masks) if not masks[name].all()},
            "may_empty": self.may_empty and not all(mask.any() for mask in masks.values()),  # only where it matters
        }
        for name, value in normal.items():
            object.__setattr__(self, name, value)
        for key, kept in self.keep.items():
            if not kept.any():
                raise InputError(f"plan: keep {key}", "leaves no unit", "keep at least one")
        for name, mask in self.masks.items():
            if not (mask.any() or self.may_empty):
                raise InputError(f"plan: mask {name}", "leaves no weight", "keep at least one")
        layers = [(name, layer) for name, shape in self.towers.items() for layer in range(shape.layers)]
        object.__setattr__(self, "_layers", layers)
        components = dict.fromkeys(c for shape in self.towers.values() for c in shape.components)
        object.__setattr__(self, "_owners", {component: self._resolve(component) for component in components})

    # ------------------------------------------------------------------ what is decided

    @classmethod
    def dense(cls, towers: Mapping[str, Tower | Shape]) -> "Plan":
        """The plan that changes nothing."""
        return cls(shapes(towers))

    @property
    def layers(self) -> list[tuple[str, int]]:
        """All (tower, layer), in the order that `owner` counts in."""
        return self._layers  # type: ignore[attr-defined, no-any-return]

    def kept(self, tower: str, layer: int, component: str) -> Tensor:
        """Bool [n_prune]: the pruning units that survive."""
        site = Site(tower, layer, component)
        return self.keep.get(site, torch.ones(self._shape(site).units(component), dtype=torch.bool))

    def survives(self, tower: str, layer: int, component: str) -> Tensor:
        """Bool [n_share]: the same in sharing units."""
        return self.towers[tower].expand(component, self.kept(tower, layer, component))

    def owner(self, tower: str, layer: int, component: str) -> Tensor:
        """Long [n_share]: index into `layers` of the layer that stores each unit, at the end of its chain."""
        owners: Tensor = self._owners[component]  # type: ignore[attr-defined]
        return owners[self.layers.index((tower, layer)), : self.towers[tower].units(component, "share")]

    def own(self, tower: str, layer: int, component: str) -> Tensor:
        """Bool [n_share]: the units that survive and are stored in this layer itself."""
        here = self.owner(tower, layer, component) == self.layers.index((tower, layer))
        return here & self.survives(tower, layer, component)

    def layer(self, tower: str, layer: int) -> LayerPlan:
        """All that is decided of a layer."""
        row = self.layers.index((tower, layer))
        components = self.towers[tower].components
        kept, survives, owner = ({c: of(tower, layer, c) for c in components}
                                 for of in (self.kept, self.survives, self.owner))  # fmt: skip
        return LayerPlan(kept, survives, owner, {c: (owner[c] == row) & survives[c] for c in components})

    def cost(self) -> dict[str, Any]:
        """Parameters of the towers that are stored, shared, pruned and masked: see `accounting.cost`."""
        return accounting.cost(self)

    def summary(self) -> dict[str, Any]:
        """Cost and unit counts per layer: small and JSON-able."""
        return accounting.summary(self)

    def report(self) -> str:
        """A table for people."""
        return accounting.report(self)

    # ------------------------------------------------------------------ checks

    def check(self, towers: Mapping[str, Tower], model: nn.Module) -> None:
        """InputError unless it fits this model: same towers; masks of weights neither cut nor shared."""
        if shapes(towers) != dict(self.towers):
            raise InputError("plan", f"made for towers {dict(self.towers)}, but the model has {shapes(towers)}")
        blocks = {(name, layer): block for name, layer, block in iterate(dict(towers))}
        if self.shares:
            alike(towers.values())
        for share in self.shares:
            if why := blocks[share.receiver.place].alone(share.receiver.component):
                raise InputError(f"plan: share {share.receiver}", why, "prune its units, and share none of them")
        touched = (
            {site.place for site in self.keep}
            | {share.receiver.place for share in self.shares}
            | {s.donor for s in self.shares}
        )
        busy = set().union(*(blocks[layer].parameter_names for layer in touched))
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, mask in self.masks.items():
            if name not in parameters:
                raise InputError(f"plan: mask {name}", "the model has no such parameter")
            if (there := list(parameters[name].shape)) != list(mask.shape):
                raise InputError(f"plan: mask {name}", f"has shape {list(mask.shape)}, the parameter {there}")
            if name in busy:
                hint = "mask other weights, or do not cut that layer"
                raise InputError(f"plan: mask {name}", "its layer is cut or shared", hint)

    def _shape(self, site: Site) -> Shape:
        shape = self.towers.get(site.tower)
        if shape is None or not 0 <= site.layer < shape.layers or site.component not in shape.components:
            problem = "there is no such tower, layer or component"
            raise InputError(f"plan: {site}", problem, f"towers: {dict(self.towers)}")
        return shape

    def _resolve(self, component: str) -> Tensor:
        """Long [all layers, largest n_share]: index of the layer that stores each unit."""
        rows = {layer: row for row, layer in enumerate(self.layers)}
        having = [shape for shape in self.towers.values() if component in shape.components]
        width = max((shape.units(component, "share") for shape in having), default=0)
        donor = torch.arange(len(rows))[:, None].expand(-1, width).clone()
        received = torch.zeros(len(rows), width, dtype=torch.bool)
        for share in self.shares:
            (tower, layer, which), units = share.receiver, share.units
            if which != component:
                continue
            where = f"plan: share {share.receiver} from {share.donor}"
            sizes = self._shape(Site(*share.donor, component)), self.towers[tower]
            if len({(s.d_model, s.heads(component), s.unit_cost(component, "share")) for s in sizes}) != 1:
                raise InputError(where, "the two layers differ in size")
            there = sizes[0].units(component, "share")
            if there != len(units) and (sizes[0].heads(component) > 1 or bool(units[there:].any())):
                raise InputError(where, "the two layers differ in size: one has no such units")
            for side in ((tower, layer), share.donor):
                alive = self.survives(*side, component)[: len(units)]
                if bool((units[: len(alive)] & ~alive).any()):
                    raise InputError(where, f"a shared unit is pruned in {side}", "prune a unit or share it")
            row = rows[tower, layer]
            if bool((received[row, : len(units)] & units).any()):
                raise InputError(where, "a unit has two donors")
            received[row, : len(units)] |= units
            donor[row, : len(units)][units] = rows[share.donor]
        owner = donor
        for _ in rows:  # a chain is at most as long as there are layers
            owner = donor.gather(0, owner)
        if bool(received.gather(0, owner).any()):
            raise InputError(f"plan: shares of {component}", "donors form a cycle, so that no layer stores the unit")
        return owner

    # ------------------------------------------------------------------ as text

    def to_json(self) -> str:
        """Compact JSON; equal plans give equal text."""
        shares: dict[str, dict[str, str]] = {}
        for share in self.shares:
            shares.setdefault(_name(share.receiver), {})[_name(share.donor)] = encode_units(share.units)
        value = {
            "format": _FORMAT,
            "towers": {name: shape.to_json() for name, shape in self.towers.items()},
            "keep": {_name(key): encode_units(kept) for key, kept in self.keep.items()},
            "shares": shares,
            "masks": {name: [list(mask.shape), encode_mask(mask)] for name, mask in self.masks.items()},
            "note": self.note,
        } | ({"may_empty": True} if self.may_empty else {})
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: object = "plan") -> "Plan":
        """Inverse of `to_json`; `where` names the file in errors."""
        try:
            value = json.loads(text)
            if value["format"] != _FORMAT:
                raise ValueError(f"format {value['format']} is not {_FORMAT}")
            towers = {name: Shape.from_json(sizes) for name, sizes in value["towers"].items()}
            keep = {}
            for name, units in value["keep"].items():
                key = _key(name)
                keep[key] = decode_units(units, towers[key.tower].units(key.component))
            shares = []
            for name, donors in value["shares"].items():
                key = _key(name)
                for donor, units in donors.items():
                    tower, layer = donor.rsplit("/", 1)
                    decoded = decode_units(units, towers[key.tower].units(key.component, "share"))
                    shares.append(Share(key, (tower, int(layer)), decoded))
            masks = {name: decode_mask(bits, tuple(shape)) for name, (shape, bits) in value["masks"].items()}
            return cls(towers, keep, tuple(shares), masks, value["note"], value.get("may_empty") is True)
        except InputError as error:
            raise InputError(where, str(error)) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"not a valid plan: {type(error).__name__}: {error}"
            raise InputError(where, problem, "write it again") from None

    @property
    def digest(self) -> str:
        """SHA-256 of the text: equal for equal plans."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())


def shapes(towers: Mapping[str, Tower | Shape]) -> dict[str, Shape]:
    """{name: Tower or Shape} -> {name: Shape}."""
    return {name: tower.shape if isinstance(tower, Tower) else tower for name, tower in towers.items()}


def _name(key: tuple[str | int, ...]) -> str:
    return "/".join(map(str, key))


def _key(name: str) -> Site:
    tower, layer, component = name.rsplit("/", 2)  # a tower may have any name
    return Site(tower, int(layer), component)


def _bool(what: str, value: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        raise InputError(f"plan: {what}", f"is {getattr(value, 'dtype', type(value))}, not a bool tensor")
    if shape is not None and value.shape != shape:
        raise InputError(f"plan: {what}", f"has shape {list(value.shape)}, not {list(shape)}")
    return value.detach().cpu().clone()
