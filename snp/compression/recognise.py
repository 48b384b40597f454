"""A layer of somebody's model, taken for what it is: which of its parts can be cut, and in which units."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from inspect import signature
from itertools import count
from typing import Any

from torch import Tensor, nn

from snp.compression import trial
from snp.compression.block import FLOATS, PLAIN, Block, Component, Form, Part, Ref
from snp.compression.calling import FOREIGN
from snp.compression.families import DIMS, HEADS, WITH_HEADS, Found, parts_of
from snp.compression.modules import Attention, BlipAttention, TimmAttention, TorchAttention
from snp.compression.padded import PaddedLinear
from snp.errors import InputError

MARK = "compressed_as"
"""Attribute of a module that was cut in place: name -> Component, with the units that work in it."""


def recognise(
    model: nn.Module,
    layer: nn.Module,
    path: str,
    exclude: Collection[str] = (),
    only: Collection[str] | None = None,
    left: dict[str, str] | None = None,
) -> Block:
    """The Block of `layer`, which is at `path` in the model.

    Args:
        exclude: patterns of paths of parts that stay whole, as "*.attn".
        only: names of the components that are wanted; by default all.
        left: takes up the paths of parts that cannot be cut, and why; without it such a part is an error.

    Raises:
        InputError: it has no part that can be cut, or one that cannot be and is not excluded; names it.
    """
    if isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        raise InputError(path, "is torch's own layer, which reads the weights of its parts itself", trial.HINT)
    found = parts_of(layer)
    if not found:
        raise InputError(path, f"{type(layer).__name__} has no attention or feed-forward maps to view", trial.HINT)
    sight = _Sight(model, layer, path, only)
    numbers = {"attention": count(1), "ffn": count(1)}
    for part in found:
        number = next(numbers[part.kind])
        where = ".".join(filter(None, (path, part.path)))
        if not any(fnmatchcase(where, pattern) for pattern in exclude):
            try:
                sight.take(part, where, "" if number == 1 else str(number))
            except InputError as error:
                if left is None:
                    raise
                left[where] = str(error)
    if not sight.components:
        raise InputError(path, f"no part of {type(layer).__name__} is left to be cut", "exclude less")
    block = sight.block()
    _alike(block)
    return block


class _Sight:
    """What has been made out of a layer so far."""

    def __init__(self, model: nn.Module, layer: nn.Module, path: str, only: Collection[str] | None) -> None:
        self.model, self.layer, self.path, self.only = model, layer, path, only
        self.components: dict[str, Component] = {}
        self.refs: dict[str, Ref] = {}
        self.kind: type[Attention] | None = None
        self.compressed = False
        self.heads = self.width = self.keys = 0

    def block(self) -> Block:
        return Block(
            self.model, self.path, self.kind, self.compressed, self.heads, self.width, self.components, self.refs
        )

    def take(self, part: Found, where: str, suffix: str) -> None:
        """Take up one part, in the first of the ways in which it can be cut."""
        module: Any = self.layer.get_submodule(part.path)
        if isinstance(module, Attention):
            self._cut_apart(module, where)
            return
        mine = {_stem(part, form) + suffix for form in ("dims", "heads")}
        if name := next((name for name in getattr(module, MARK, {}) if name in mine), ""):
            self._cut(part, module, where, name, suffix)
            return
        refused: InputError | None = None
        for form in self._forms(part, module, suffix):
            names = ("qk", "vo") if form == "apart" else (_stem(part, form) + suffix,)
            if self.only is not None and not set(names) <= set(self.only):
                continue
            try:
                if form == "apart":
                    self._apart(part, module, where)
                else:
                    self._own(part, module, where, names[0], suffix, form)
                return
            except InputError as error:
                refused = refused or error
        if refused:
            raise refused

    def _forms(self, part: Found, module: Any, suffix: str) -> Iterator[Form]:
        if part.kind == "ffn":
            yield from ("hidden", "padded")
            return
        if not suffix and _successor(module, part):
            yield "apart"
        if not part.output:
            return
        yield "dims"
        if part.whole:
            yield "heads"
        yield "padded"

    # ------------------------------------------------------------------ attention that another takes the place of

    def _apart(self, part: Found, dense: Any, where: str) -> None:
        kind = _successor(dense, part)
        assert kind is not None
        heads = getattr(dense, "num_heads", None)
        packed = isinstance(dense, nn.MultiheadAttention)
        d = dense.embed_dim if packed else dense.qkv.out_features // 3
        output = "out_proj" if packed else part.output.rpartition(".")[2]
        last = getattr(dense, output, None)
        if not isinstance(heads, int) or heads < 1 or d % heads or not isinstance(last, nn.Linear):
            raise InputError(where, f"{type(dense).__name__} is no known attention module", trial.HINT)
        names = (f"{where}.in_proj_weight", f"{where}.in_proj_bias") if packed else _names(f"{where}.qkv")
        refs = {role: Ref(*names, i * d, i * d + d) for i, role in enumerate("qkv")}
        refs["o"] = Ref(*_names(f"{where}.{output}"), 0, last.out_features)
        present = {f"{where}.{name}" for name, _ in dense.named_parameters()}
        for odd in sorted(present ^ {name for ref in refs.values() for name in (ref.weight, ref.bias) if name}):
            problem = "is unexpected" if odd in present else "is missing"
            raise InputError(odd, problem, "only plain attention and FFN with biases can be compressed")
        components = {c: Component(where, "apart", PLAIN[c], heads, d) for c in ("qk", "vo")}
        block = Block(self.model, self.path, kind, False, heads, last.out_features, components, refs)
        trial.attention(dense, where, block, kind)
        self.kind, self.heads, self.width = kind, heads, last.out_features
        self.components |= components
        self.refs |= refs

    def _cut_apart(self, module: Attention, where: str) -> None:
        h, n_qk, n_vo = module.num_heads, module.stored_qk, module.stored_vo
        spans = (("q", 0, n_qk), ("k", n_qk, 2 * n_qk), ("v", 2 * n_qk, 2 * n_qk + n_vo))
        self.refs |= {role: Ref(*_names(f"{where}.qkv"), start, stop) for role, start, stop in spans}
        output: Any = module.proj
        self.refs["o"] = Ref(*_names(f"{where}.proj"), 0, output.out_features)
        self.kind, self.compressed, self.heads, self.width = type(module), True, h, output.out_features
        for c, d in (("qk", module.d_qk), ("vo", module.d_vo)):
            self.components[c] = Component(where, "apart", PLAIN[c], h, h * d)

    # ------------------------------------------------------------------ modules that are made smaller themselves

    def _own(self, part: Found, module: Any, where: str, name: str, suffix: str, form: Form) -> None:
        """A component of the module's own maps, once it is tried."""
        maps, refs = self._maps(part), self._refs(part, suffix)
        rows, wide = [ref.stop - ref.start for ref in refs.values()][:-1], maps[-1].in_features
        if part.kind == "ffn":
            heads, units = 1, wide
        else:
            heads, units = _heads(module, where, form, rows, wide)
        *first, last = refs
        parts = [Part(role, 0, n // units) for role, n in zip(first, rows, strict=True)]
        parts.append(Part(last, 1, wide // units))
        if form == "heads":
            for inner, dim in WITH_HEADS.items():
                if (beside := module._parameters.get(inner)) is not None:
                    refs[inner + suffix] = Ref(f"{where}.{inner}", None, 0, len(beside))
                    parts.append(Part(inner + suffix, dim))
        component = Component(where, form, tuple(parts), heads, units)
        if form == "heads" and (why := self._bound(part, module)):
            raise InputError(where, f"{type(module).__name__} cannot be cut by whole heads: {why}", trial.HINT)
        keys = maps[min(1, len(maps) - 2)].in_features
        self.keys = keys if part.kind == "attention" else self.keys or keys
        try:
            trial.own(module, where, component, refs, maps[0].in_features, keys)
        except InputError:
            if part.kind == "attention":
                raise
            # its maps may have no module of their own that can be called; the layer may attend to something else
            trial.own(self.layer, self.path, component, refs, maps[0].in_features, self.keys)
        self._add(part, name, component, refs)

    def _cut(self, part: Found, module: Any, where: str, name: str, suffix: str) -> None:
        """A component that is cut already: its maps hold what is stored here."""
        component = replace(getattr(module, MARK)[name], path=where)
        refs = self._refs(part, suffix)
        for extra in component.parts[len(refs) :]:
            inner = extra.role.removesuffix(suffix)
            refs[extra.role] = Ref(f"{where}.{inner}", None, 0, len(module._parameters[inner]))
        self.compressed = True
        self._add(part, name, component, refs)

    def _add(self, part: Found, name: str, component: Component, refs: dict[str, Ref]) -> None:
        self.components[name] = component
        self.refs |= refs
        self.width = self.width or self._maps(part)[-1].out_features
        if part.kind == "attention" and not self.heads:
            self.heads = component.units if component.form == "heads" else component.heads

    def _bound(self, part: Found, module: Any) -> str:
        """Why heads cannot go one by one, if something around the attention counts on all of them."""
        for name in FOREIGN:
            if name in signature(module.forward).parameters:
                return f"it takes {name}, which is made for all"
        pieces = part.path.split(".")
        for i in range(len(pieces)):
            outer = ".".join(pieces[:i])
            if any(name in vars(self.layer.get_submodule(outer)) for name in HEADS):
                return f"{type(self.layer.get_submodule(outer)).__name__} around it counts them"
        return ""

    def _maps(self, part: Found) -> list[Any]:
        return [self.layer.get_submodule(path) for path in part.maps]

    def _refs(self, part: Found, suffix: str) -> dict[str, Ref]:
        """Where the maps' parts are stored: an input that is packed holds several."""
        *inputs, output = zip((f"{self.path}.{path}" for path in part.maps), self._maps(part), strict=True)
        first, last = (("q", "k", "v"), "o") if part.kind == "attention" else (("fc1", "gate"), "fc2")
        places = [
            Ref(*_names(path, linear), i * n, i * n + n)
            for path, linear in inputs
            for n in [len(stored(linear)) // part.packed]
            for i in range(part.packed)
        ]
        refs = {role + suffix: place for role, place in zip(first, places, strict=False)}
        return refs | {last + suffix: Ref(*_names(*output), 0, len(stored(output[1])))}


def _stem(part: Found, form: Form) -> str:
    """What a component is called; the second of a layer has a 2 behind it, and so on."""
    return "ffn" if part.kind == "ffn" else "heads" if form == "heads" else "attn"


def _heads(module: Any, where: str, form: Form, rows: list[int], wide: int) -> tuple[int, int]:
    """(sharing units that a pruning unit is, sharing units) of an attention's maps."""
    said = {value for inner in module.modules() for name in HEADS if isinstance(value := vars(inner).get(name), int)}
    d_head = {value for inner in module.modules() for name in DIMS if isinstance(value := vars(inner).get(name), int)}
    heads = said.pop() if len(said) == 1 else wide // d_head.pop() if len(d_head) == 1 else 0
    if heads < 1 or wide % heads or any(n % (wide // heads) for n in rows):
        raise InputError(where, f"{type(module).__name__} does not say how many heads it has", trial.HINT)
    if form != "heads":
        if set(rows) != {wide}:
            raise InputError(where, f"gives {rows[1]} keys, and queries are {rows[0]}: they are grouped", trial.HINT)
        return heads, wide
    return 1, rows[1] // (wide // heads)  # a group of queries goes with its key and value


def _successor(module: Any, part: Found) -> type[Attention] | None:
    """What may take the place of an attention module, if it is plain."""
    if isinstance(module, nn.MultiheadAttention):
        return TorchAttention if module.in_proj_weight is not None else None
    names = {path.rpartition(".")[2] for path in part.maps}
    if names == {"qkv", "projection"}:
        return BlipAttention
    return TimmAttention if names == {"qkv", "proj"} and hasattr(module, "attn_drop") else None


def _names(path: str, linear: Any = None) -> tuple[str, str | None]:
    """Names of a map's weight and bias; a map that is given may have none."""
    weight = "stored" if isinstance(linear, PaddedLinear) else "weight"
    return f"{path}.{weight}", f"{path}.bias" if linear is None or linear.bias is not None else None


def stored(linear: Any) -> Tensor:
    """The weights that a map stores itself."""
    return linear.stored if isinstance(linear, PaddedLinear) else linear.weight  # type: ignore[no-any-return]


def _alike(block: Block) -> None:
    """InputError unless all weights of a layer are of one floating type, on one device."""
    names = [name for ref in block.refs.values() for name in (ref.weight, ref.bias) if name]
    first = block.model.get_parameter(names[0])
    for name in names:
        p = block.model.get_parameter(name)
        if p.dtype not in FLOATS or (p.dtype, p.device) != (first.dtype, first.device):
            problem = f"is of {p.dtype} on {p.device}, beside weights of {first.dtype} on {first.device}"
            raise InputError(name, problem, "bring a layer to one floating type and one device")
