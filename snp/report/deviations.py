"""Paper scale beside its sources: every setting that they publish, ours as it is read now, and why where they differ.

The sources are the public code of MDETR (ashkamath/mdetr: README, the pages of its `.github`, `configs`, defaults of
`main.py`, transforms of `datasets/coco.py`) and of GLIP (microsoft/GLIP: README, `configs/pretrain`), and their
papers. What the paper on joint sharing and pruning itself trained with is not at hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from snp.data.sources.layout import MIXTURE
from snp.experiment.recipes import (
    COCO,
    FLICKR,
    GQA_BALANCED,
    MIXED,
    RECIPES,
    REFCOCO,
    REFCOCOG,
    Phase,
)
from snp.models.config import GLIP_PAPER, PAPER, TowerConfig

GQA_ALL = 14_305_356
"""Questions of GQA's whole training split, as its authors count them."""
MDETR, GLIP = "MDETR", "GLIP-T"
RATES = "rates of heads, vision, text"
CLIP = "the text transformer of CLIP ViT-L/14"


@dataclass(frozen=True)
class Setting:
    """One thing that a source says of a run.

    Args:
        run, what: of which run, and what of it. published, source: what is said, and where.
        ours: the same here. reason: of a difference; none where there is none.
    """

    run: str
    what: str
    published: Any
    source: str
    ours: Any
    reason: str = ""

    @property
    def differs(self) -> bool:
        return bool(self.ours != self.published)


def settings() -> list[Setting]:
    """All of them, run by run."""
    return [*_mdetr(), *_glip()]


# fmt: off
def _mdetr() -> Iterator[Setting]:
    recipe = RECIPES["paper"].mdetr
    defaults, page = "main.py", ".github/pretrain.md"
    run = f"{MDETR} pre-training"
    yield Setting(run, "vision tower", "ResNet-101", page, f"DeiT-B/{PAPER.patch}", "the towers of the paper [paper]")
    yield Setting(run, "text tower", "RoBERTa-base", defaults, CLIP,
                  "the one public text tower of DeiT-B's shape, which sharing needs [ours]")
    yield Setting(run, "tokens of a caption", 256, "datasets/coco.py", PAPER.context,
                  "CLIP has positions for so many; a longer caption is refused by its place in the file")
    yield Setting(run, "captions", ("final_mixed_train", "final_flickr_separateGT_train"), "configs/pretrain.json",
                  MIXTURE)
    yield from _phase(run, recipe.pretrain, MIXED, {
        "batch": (64, page), "epochs": (40, defaults), RATES: ((1e-4, 1e-5, 5e-5), defaults),
        "drops after epochs": ((35,), defaults), "rise of the text tower's rate": (0.01, defaults),
    })
    yield from _common(run, recipe.pretrain, {
        "weight decay": (1e-4, defaults), "largest gradient norm": (0.1, defaults), "EMA": (0.9998, defaults),
        "precision": ("float32", defaults, "half the memory; weights, optimizer and losses stay float32"),
        "sides in training": (tuple(range(480, 801, 32)), "datasets/coco.py"),
        "share of crops": (0.5, "datasets/coco.py"),
    })
    yield from _sizes(run, PAPER, "datasets/coco.py")
    for name, phase, samples, epochs, drop in (
        ("RefCOCO and RefCOCO+", recipe.finetune, REFCOCO, 5, 3), ("RefCOCOg", recipe.tune["refcocog"], REFCOCOG, 3, 2),
    ):
        config = "configs/refcoco.json" if epochs == 5 else "configs/refcocog.json"
        yield from _phase(f"{MDETR} on {name}", phase, samples, {
            "batch": (8, ".github/refexp.md"), "epochs": (epochs, config),
            RATES: ((5e-5, 1e-5, 1e-5), ".github/refexp.md"), "drops after epochs": ((drop,), config),
            "rise of the text tower's rate": (0.01, defaults),
        })
    run, page = f"{MDETR} on GQA", ".github/gqa.md"
    yield from _phase(run, recipe.tune["gqa"], GQA_BALANCED, {
        "batch": (128, page), "epochs": (10, "paper"), RATES: ((1.4e-4, 1.4e-5, 7e-5), page),
        "drops after epochs": ((), page), "rise of the text tower's rate": (0.01, defaults),
    })
    yield Setting(run, "passes over all questions before", 5, page, 0,
                  f"{5 * GQA_ALL / 1e6:.0f} million samples for every row of Table 2, where pre-training has "
                  f"{40 * MIXED / 1e6:.0f} million once")
    yield Setting(run, "questions", "train and val", "datasets/gqa.py", "train", "val is what rows are judged by")
    yield Setting(run, "auxiliary losses", "none", page, "of every layer", "one set of losses for all benchmarks")
    yield Setting(f"{MDETR} on Flickr30k", "epochs", 0, ".github/flickr.md",
                  _epochs(recipe.tune["flickr30k"], FLICKR),
                  "MDETR is judged as pre-trained; here every model learns a benchmark before")


def _glip() -> Iterator[Setting]:
    recipe = RECIPES["paper"].glip
    config = "configs/pretrain/glip_Swin_T_O365.yaml"
    run = f"{GLIP} pre-training"
    yield Setting(run, "vision tower", "Swin-T", config, f"DeiT-B/{GLIP_PAPER.patch}",
                  "the towers of the paper [paper]; the pyramid is made of its last map, as ViTDet's")
    yield Setting(run, "text tower", "BERT-base", config, CLIP, "as MDETR's [ours]")
    yield Setting(run, "tokens of a prompt", 256, "defaults.py", GLIP_PAPER.context)
    yield Setting(run, "data", "Objects365, GoldG (MDETR's captions without COCO's pictures), CC3M, SBU", "README",
                  "COCO, MDETR's captions", "published benchmarks that a folder here may hold; COCO's figures are none "
                  "of zero-shot")
    yield Setting(run, "class names of a prompt", "shuffled, negatives drawn", config, "all, in one order",
                  "a prompt that all pictures share passes the text tower once")
    yield Setting(run, "deformable convolutions", True, config, GLIP_PAPER.deformable,
                  "an option (`deformable`): in float32 alone, and its operations are not counted")
    yield Setting(run, "share of mirror images", 0.5, "defaults.py", 0.0, "captions speak of left and right")
    yield from _phase(run, recipe.pretrain, COCO + MIXED, {
        "batch": (64, config), "epochs": (30, config), RATES: ((1e-4, 1e-4, 1e-5), config),
        "drops after shares": ((0.67, 0.89), config), "steps of linear rise": (2000, config),
    })
    yield from _common(run, recipe.pretrain, {
        "weight decay": (1e-4, config), "largest gradient norm": (1.0, config), "EMA": (0.999, config),
        "precision": ("float16", config, "bfloat16 has float32's range, so that losses need no scaling"),
        "sides in training": ((480, 560, 640, 720, 800), config), "share of crops": (0.0, "data/transforms/build.py"),
    })
    yield from _sizes(run, GLIP_PAPER, config)
    yield from _phase(f"{GLIP} on COCO", recipe.finetune, COCO, {
        "batch": (32, "README"), "epochs": (24, "README"), RATES: ((1e-5, 1e-5, 1e-5), "README"),
        "drops after shares": ((0.67, 0.89), "README"), "steps of linear rise": (2000, config),
    })
# fmt: on


def _phase(run: str, phase: Phase, samples: int, said: dict[str, tuple[Any, str]]) -> Iterator[Setting]:
    """What a phase of training is, of all that is said of it: (value, source)."""
    epochs = _epochs(phase, samples)
    drops = phase.drop or ()
    ours = {
        "batch": phase.batch,
        "epochs": epochs,
        RATES: tuple(phase.held(tower) for tower in ("fusion", "vision", "text")),
        "drops after epochs": tuple(round(share * epochs, 2) for share in drops),
        "drops after shares": drops,
        "rise of the text tower's rate": phase.text_rise,
        "steps of linear rise": phase.warm_up,
    }
    for what, (published, source) in said.items():
        yield Setting(run, what, published, source, ours[what])


def _common(run: str, phase: Phase, said: dict[str, tuple[Any, ...]]) -> Iterator[Setting]:
    """What all phases of a model have alike: (value, source), and the reason of a difference."""
    ours = {
        "weight decay": phase.weight_decay,
        "largest gradient norm": phase.clip,
        "EMA": phase.ema,
        "precision": phase.precision,
        "sides in training": phase.sides,
        "share of crops": phase.crop,
    }
    for what, (published, source, *reason) in said.items():
        yield Setting(run, what, published, source, ours[what], *reason)


def _sizes(run: str, config: TowerConfig, source: str) -> Iterator[Setting]:
    yield Setting(run, "shorter side in evaluation", 800, source, config.shortest)
    yield Setting(run, "longest side", 1333, source, config.longest)


def _epochs(phase: Phase, samples: int) -> float:
    return round(phase.steps * phase.batch / samples, 2)


def markdown() -> str:
    """Differences with their reasons; then all that is as it was published."""
    found = settings()
    apart = [[s.run, s.what, _text(s.published), s.source, _text(s.ours), s.reason] for s in found if s.differs]
    alike = [[s.run, s.what, _text(s.ours), s.source] for s in found if not s.differs]
    head = ["run", "what", "published", "source", "here", "why"]
    return (
        "\n\n".join(
            (
                tabulate(apart, head, tablefmt="pipe", disable_numparse=True),
                "As published:",
                tabulate(alike, ["run", "what", "value", "source"], tablefmt="pipe", disable_numparse=True),
            )
        )
        + "\n"
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
