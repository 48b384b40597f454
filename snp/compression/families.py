"""What the maps of a layer are called, family by family: a new one is a line in a table here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from snp.compression.modules import Attention
from snp.compression.padded import PaddedLinear
from snp.compression.tied import TiedLinear

LINEAR = (nn.Linear, TiedLinear, PaddedLinear)
Kind = Literal["attention", "ffn"]


class Names(NamedTuple):
    """The maps whose rows are units, then the one whose columns are; relative to the module that holds them all.

    A map whose outputs are two or three times what the last one takes in is packed: it holds a gate too, or q, k and v.
    """

    inputs: tuple[str, ...]
    output: str
    whole: bool = True  # heads can go one by one: no mask is made for all of them elsewhere


#: Queries, keys and values (or one map for the three), and the output of an attention.
ATTENTION = (
    Names(("q_proj", "k_proj", "v_proj"), "out_proj"),  # CLIP and its kin, SigLIP, OWLv2, BART, Grounding DINO's vision
    Names(("q_proj", "k_proj", "v_proj"), "o_proj"),  # ViT, DeiT, DINOv2 and v3, DETR, LLaVA, Llama, Qwen2-VL, Gemma
    Names(("q_proj", "k_proj", "v_proj"), "dense"),  # Phi
    Names(("q_proj", "k_proj", "v_proj"), "proj"),  # timm's eva without fused maps
    Names(("query", "key", "value"), "out_proj", whole=False),  # Grounding DINO
    Names(("q_lin", "k_lin", "v_lin"), "out_lin"),  # DistilBERT
    Names(
        ("self.query", "self.key", "self.value"), "output.dense"
    ),  # BERT, RoBERTa, BLIP text, ChineseCLIP, BridgeTower
    Names(("attention.query", "attention.key", "attention.value"), "output.dense"),  # ViLT, BEiT, older ViT
    Names(("qkv",), "proj"),  # timm, Qwen2-VL's vision
    Names(("qkv",), "projection"),  # BLIP's vision
    Names(("qkv_proj",), "o_proj"),  # Phi-3
)
#: The maps into the hidden units of a feed-forward module, gates included, and the map out of them.
FEED_FORWARD = (
    Names(("fc1",), "fc2"),  # most; timm's SwiGLU of one map
    Names(("fc1_g", "fc1_x"), "fc2"),  # timm's SwiGLU
    Names(("gate_proj", "up_proj"), "down_proj"),  # Llama, Qwen2-VL, Gemma, DINOv2 and v3 with gates
    Names(("up_proj",), "down_proj"),  # DINOv3
    Names(("gate_up_proj",), "down_proj"),  # Phi-3
    Names(("weights_in",), "weights_out"),  # DINOv2 of older transformers
    Names(("w12",), "w3"),
    Names(("intermediate.dense",), "output.dense"),  # BERT and all that is named like it, ViLT
    Names(("lin1",), "lin2"),  # DistilBERT
    Names(("linear1",), "linear2"),  # torch's encoder layer
    Names(("c_fc",), "c_proj"),  # open_clip
)
TABLES: dict[Kind, tuple[Names, ...]] = {"attention": ATTENTION, "ffn": FEED_FORWARD}
#: Parameters of an attention that go with its heads, and the dimension that heads are along.
WITH_HEADS = {"relative_position_bias_table": 1, "logit_scale": 0}
#: What an attention calls its sizes; those that it has are set when it is cut.
HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")
GROUPS = ("num_key_value_heads", "num_kv_heads")
DIMS = ("head_dim", "attention_head_size")
WIDTHS = ("all_head_size", "attn_dim")


@dataclass(frozen=True)
class Found:
    """One attention or feed-forward module of a layer.

    Attributes:
        path: of the module that holds its maps, in the layer; "" is the layer.
        inputs, output: paths of the maps, in the layer.
        packed: maps that each input holds.
        whole: heads of an attention can go one by one.
    """

    kind: Kind
    path: str
    inputs: tuple[str, ...]
    output: str
    packed: int
    whole: bool = True

    @property
    def maps(self) -> tuple[str, ...]:
        return (*self.inputs, self.output)


def parts_of(layer: nn.Module) -> list[Found]:
    """The attentions and feed-forward modules of a layer, in the order in which it holds them; a map is of one."""
    modules = dict(layer.named_modules())
    found: dict[str, Found] = {}
    for path in modules:
        module: Any = modules[path]
        if isinstance(module, nn.MultiheadAttention | Attention):
            found[path] = Found("attention", path, (), "", 3)
            continue
        for kind, table in TABLES.items():
            for names in table:
                inputs, (output,) = _at(path, names.inputs), _at(path, (names.output,))
                if all(
                    isinstance(modules.get(name), nn.Linear | TiedLinear | PaddedLinear) for name in (*inputs, output)
                ):
                    packed = _packed(modules, kind, inputs, output)
                    if packed and not any(set(part.maps) & {*inputs, output} for part in found.values()):
                        found[f"{path}:{inputs[0]}"] = Found(kind, path, inputs, output, packed, names.whole)
    whole = {path for path, part in found.items() if not part.output}
    whole |= {part.path for part in found.values() if part.kind == "attention" and part.path}
    inside = [p for k, p in found.items() if p.kind == "attention" or not any(_in(p.path, path) for path in whole)]
    return sorted(inside, key=lambda part: part.kind)  # attention first


def _packed(modules: dict[str, Any], kind: str, inputs: tuple[str, ...], output: str) -> int:
    """How many maps each input holds; 0: sizes do not fit."""
    out = modules[output].in_features
    sizes = [modules[name].out_features for name in inputs]
    if kind == "attention":
        return 3 if len(inputs) == 1 and sizes[0] == 3 * out else 1 if len(inputs) == 3 else 0
    if len(set(sizes)) != 1 or sizes[0] % out or sizes[0] // out > 2:
        return 0
    return int(sizes[0] // out)


def _at(path: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(".".join(filter(None, (path, name))) for name in names)


def _in(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def lists_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of the outermost lists of layers inside a module, itself included."""
    taken: list[str] = []
    for path, inner in module.named_modules():
        inside = any(_in(path, outer) or not outer for outer in taken)
        if isinstance(inner, nn.ModuleList | nn.Sequential) and not inside:
            first = next(iter(inner.children()), None)
            if first is not None and _layer(first):
                taken.append(path)
                yield path, inner


def _layer(module: nn.Module) -> bool:
    """Whether it is one layer: an attention, a feed-forward module, and no list of layers inside."""
    kinds = {part.kind for part in parts_of(module)}
    return len(kinds) == 2 and not any(True for _ in lists_of(module))
