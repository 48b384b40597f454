"""What compressed models save in time, memory and bytes on disk, beside the operations that they have less.

Time does not depend on weights: models of public shapes have random ones, and plans are made at once. Each tower is
timed for itself, beside that of the dense model in interleaved pairs. What is measured is kept case by case: killed,
the bench goes on where it was, as long as code and machine are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch import Tensor, nn

from snp.bench.pairs import pairs
from snp.bench.trimming import THREADS
from snp.checkout import home
from snp.compression import checkpoint
from snp.compression.compress import compress
from snp.compression.count import flops
from snp.compression.materialize import materialize
from snp.compression.plan import Plan, Share, shapes
from snp.compression.surgery import apply
from snp.compression.tied import TiedLinear
from snp.compression.tower import COMPONENTS, Shape, Site, towers_of
from snp.files import read_json, write_json
from snp.runs.manifest import bench_state

MEASURED = Path("results", "bench", "inference.json")
KEEP = 0.6
"""Of all parameters."""
BATCHES = {1: 100, 16: 12}
"""Inputs at a time -> pairs."""
GOALS = {"structured": 1.05, "joint": 1.05, "shared": 1.02}
"""How a model is compressed -> how many times its operations over dense its time over dense may be at most."""
CASE = ("model", "kind", "tower", "way", "threads", "batch")
"""What tells one measured line from another. Way: the compressed model as it is, or `materialized`."""
SHARES = (0.2, 0.1)
"""Of the units that the second tower keeps: from the same layer of the first, and from its own first layer. [ours]"""
UNEVEN = 0.2
"""How far layers and components may differ from the mean in what they keep, so that heads have unequal sizes. [ours]"""


WAYS = ("as it is", "materialized")


class Timed(NamedTuple):
    """A tower: its path, inputs for a batch of so many, and what makes the model look at them."""

    path: str
    inputs: Callable[[int], Tensor]
    call: Callable[[Any, Tensor], object]


@dataclass(frozen=True, eq=False)
class Example:
    """A dense model; how it is compressed, and which towers are timed then; its towers, the donor first."""

    build: Callable[[], nn.Module]
    kinds: Mapping[str, tuple[str, ...]]
    towers: Mapping[str, Timed]

    @property
    def paths(self) -> dict[str, str]:
        """Tower -> its path."""
        return {name: tower.path for name, tower in self.towers.items()}

    def ways(self, kind: str, tower: str) -> tuple[str, ...]:
        """Which of `WAYS` a tower is timed in: one that shares nothing is the same in both."""
        return WAYS if kind != "structured" and tower == [*self.towers][-1] else WAYS[:1]


def _pictures(batch: int) -> Tensor:
    return torch.randn(batch, 3, 224, 224)


def _words(context: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randint(1, 30_000, (batch, context))


def _open_clip(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import open_clip

        return open_clip.create_model(name, load_weights=False)  # type: ignore[no-any-return]

    return build


def _deit() -> nn.Module:
    import timm

    return timm.create_model("deit_base_patch16_224")  # type: ignore[no-any-return]


def _look(model: Any, pictures: Tensor) -> object:
    return model.encode_image(pictures)


def _read(model: Any, words: Tensor) -> object:
    return model.encode_text(words)


EXAMPLES = {
    "DeiT-B": Example(_deit, {"structured": ("vision",)}, {"vision": Timed("", _pictures, nn.Module.__call__)}),
    "SigLIP-B/16": Example(
        _open_clip("ViT-B-16-SigLIP"),
        {"structured": ("vision", "text"), "joint": ("vision", "text"), "shared": ("text",)},
        {"vision": Timed("visual.trunk", _pictures, _look), "text": Timed("text", _words(64), _read)},
    ),
    "CLIP-B/32": Example(  # its towers differ in width: the second takes nothing from the first
        _open_clip("ViT-B-32"),
        {"structured": ("vision", "text"), "joint": ("vision", "text")},
        {"vision": Timed("visual", _pictures, _look), "text": Timed("transformer", _words(77), _read)},
    ),
}


def inference(
    examples: Mapping[str, Example] = EXAMPLES,
    batches: Mapping[int, int] = BATCHES,
    threads: tuple[int, ...] = THREADS,
    path: Path | None = None,
) -> str:
    """Measure what is not in the file yet, and tell all of it.

    Args:
        batches: inputs at a time -> pairs.
        path: of the file; default: `MEASURED`.
    """
    path = path or home() / MEASURED
    found = _begun(path)
    known = {tuple(line[key] for key in CASE) for line in found["measured"]}
    cases = [
        case
        for name, example in examples.items()
        for kind, towers in example.kinds.items()
        for tower in towers
        for way, count, batch in product(example.ways(kind, tower), threads, batches)
        if (case := (name, kind, tower, way, count, batch)) not in known
    ]
    before, ready = torch.get_num_threads(), _Ready()
    try:
        for case in track(cases, "cases"):
            name, kind, tower, way, count, batch = case
            torch.set_num_threads(count)
            ready.bring(examples[name], kind)
            line = dict(zip(CASE, case, strict=True)) | ready.measured(tower, way, batch, batches[batch])
            found["measured"].append(line)
            write_json(path, found, indent=1)
    finally:
        torch.set_num_threads(before)
    return "\n".join(map(_told, found["measured"]))


def _begun(path: Path) -> dict[str, Any]:
    """What this very code has measured on this machine, or nothing yet."""
    about, before = bench_state(), read_json(path) if path.exists() else {}
    same = all(before.get("manifest", {}).get(key) == about[key] for key in ("commit", "dirty", "cpu", "torch"))
    return before if same and about["dirty"] is False else {"manifest": about, "measured": []}


class _Ready:
    """A dense model and what is made of it, for one example and kind at a time."""

    here: tuple[Example, str] | None = None

    def bring(self, example: Example, kind: str) -> None:
        """Make them, unless they are here."""
        if self.here == (example, kind):
            return
        torch.manual_seed(0)
        self.here, self.dense = (example, kind), example.build().eval().requires_grad_(False)
        small, plan = compressed(self.dense, example.paths, kind)
        self.models = {"as it is": small, "materialized": small if kind == "structured" else materialize(small)}
        self.operations, self.bytes = {}, {"dense": resident(self.dense)}
        for name, tower in example.towers.items():
            dense, cut = (flops(_Called(model, tower.call).eval(), tower.inputs(1)) for model in (self.dense, small))
            self.operations[name] = cut / dense
        for way, model in self.models.items():
            with torch.inference_mode():  # what maps keep, they keep after a pass
                for tower in example.towers.values():
                    tower.call(model, tower.inputs(1))
            self.bytes[way] = resident(model)
        plans = ((self.dense, Plan.dense(plan.towers)), (small, plan))
        self.disk = [_disk(model, one, example.paths) for model, one in plans]

    @torch.inference_mode()
    def measured(self, tower: str, way: str, batch: int, rounds: int) -> dict[str, Any]:
        """Of a tower: operations and time over those of the dense model; bytes of both models, the dense one first."""
        assert self.here
        _, inputs, call = self.here[0].towers[tower]
        given, small = inputs(batch), self.models[way]
        time = pairs(lambda _: call(small, given), lambda _: call(self.dense, given), rounds)
        memory = [self.bytes["dense"], self.bytes[way]]
        return {"operations": self.operations[tower], **asdict(time), "memory": memory, "disk": self.disk}


class _Called(nn.Module):
    """A model whose forward pass is that of one tower."""

    def __init__(self, model: nn.Module, call: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, inputs: Tensor) -> object:
        return self.call(self.model, inputs)


def resident(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, each once, and of gathered weights that maps keep."""
    storages = {tensor.untyped_storage() for tensor in chain(model.parameters(), model.buffers())}
    kept = [module.kept.nbytes for module in model.modules() if isinstance(module, TiedLinear) and module.kept]
    return sum(storage.nbytes() for storage in storages) + sum(kept)


def _disk(model: nn.Module, plan: Plan, paths: dict[str, str]) -> int:
    with TemporaryDirectory() as folder:
        checkpoint.save(folder, model, plan, paths=paths)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def compressed(dense: nn.Module, paths: dict[str, str], kind: str) -> tuple[nn.Module, Plan]:
    """The model with `KEEP` of its parameters.

    structured: units of least norm are cut. shared: layers of the second tower are tied to the first. joint: units are
    cut, and some of those that stay in the second tower are shared.
    """
    if kind == "joint":
        plan = joint(dense, paths)
        return apply(dense, plan, paths).eval(), plan
    small, plan = compress(dense, {"structured": "magnitude-structured", "shared": "cross-modal"}[kind],
                           keep=KEEP, towers=paths)  # fmt: skip
    return small.eval(), plan


def joint(dense: nn.Module, paths: dict[str, str]) -> Plan:
    """Units drawn by chance, as many as leave no more than `KEEP` of all parameters; shared ones as SNP would."""
    sizes = shapes(towers_of(dense, paths))
    least = (1 - KEEP) * sum(parameter.numel() for parameter in dense.parameters())
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if _drawn(sizes, middle).cost()["removed"] >= least else (low, middle)
    return _drawn(sizes, low)


def _drawn(sizes: Mapping[str, Shape], share: float) -> Plan:
    """A plan that keeps about this share of all units."""
    source = torch.Generator().manual_seed(0)
    first, *_, second = [*sizes, *sizes]
    alike = first != second and sizes[first] == sizes[second]
    keep: dict[Site, Tensor] = {}
    shares = []
    for name, shape in sizes.items():
        for layer, component in product(range(shape.layers), COMPONENTS):
            here = Site(name, layer, component)
            if alike and name == second:  # units are one in both, so they stay or go in both
                keep[here] = keep[Site(first, layer, component)]
            else:
                uneven = 1 + UNEVEN * (2 * torch.rand(1, generator=source) - 1)
                ranks = torch.randperm(shape.units(component), generator=source)
                keep[here] = ranks < (share * uneven * len(ranks)).clamp(min=1)
            if name == second:
                alive, base = (shape.expand(component, keep[Site(name, at, component)]) for at in (layer, 0))
                chance = torch.rand(len(alive), generator=source)
                cross = alive & (chance < SHARES[0]) & alike
                block = alive & base & (chance < sum(SHARES)) & ~cross & (layer > 0)
                shares += [Share(here, (first, layer), cross)] if alike else []
                shares += [Share(here, (name, 0), block)] if layer else []
    return Plan(sizes, keep, tuple(shares))


def _told(line: dict[str, Any]) -> str:
    over, goal = line["ratio"] / line["operations"], GOALS[line["kind"]]
    memory, disk = (small / dense for dense, small in (line["memory"], line["disk"]))
    return (
        f"{line['model']:11} {line['kind']:10} {line['tower']:6} {line['way']:12} {line['threads']} threads  "
        f"batch {line['batch']:2}  {1e3 * line['other']:7.1f} ms dense  {line['ratio']:.2f}x "
        f"[{line['low']:.2f}, {line['high']:.2f}]  operations {line['operations']:.2f}x: "
        f"{over:.2f} of them, {'within' if over <= goal else 'above'} {goal:.2f}  "
        f"memory {memory:.2f}x  disk {disk:.2f}x"
    )
