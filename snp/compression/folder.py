"""A compressed model as a folder that loads by itself: what it was made from, its plan, its weights, and a card.

config.json           of a transformers model, as it was when dense
snp.json              how the dense model is built: library, name, arguments, type of the weights
plan.json             what was cut and shared: see `plan`
weights.safetensors   what is stored: see `checkpoint`
README.md             a model card: method, sizes, how to load
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snp.compression import checkpoint
from snp.compression.plan import Plan
from snp.compression.surgery import made_of
from snp.compression.tower import towers_of
from snp.errors import InputError
from snp.files import read_json, write_atomic, write_json

ABOUT, CONFIG, CARD = "snp.json", "config.json", "README.md"
FORMAT = 1


@dataclass(frozen=True)
class Origin:
    """How the dense model is built.

    Attributes:
        library: transformers, timm or open_clip; empty: by a function of the user's own.
        name: a class of transformers, or the name of a model.
        arguments: that it is built with, JSON-able; of transformers the config tells all.
    """

    library: str
    name: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, model: nn.Module, name: str | None, arguments: Mapping[str, Any] | None) -> "Origin":
        """What can be told of a model, and what the user says of it."""
        home = type(model).__module__.partition(".")[0]
        given = dict(arguments or {})
        if home == "transformers":
            return cls(home, type(model).__name__, {})
        if home == "timm":
            config: Any = getattr(model, "pretrained_cfg", None) or {}
            known = name or config.get("architecture")
            classes = {} if "num_classes" in given else {"num_classes": getattr(model, "num_classes", 0)}
            return cls(home, known, classes | given) if known else cls("", "", {})
        if home == "open_clip" and name:
            return cls(home, name, given)
        if name:
            problem = f"{type(model).__name__} is of no library that builds models by name"
            raise InputError("name", problem, "leave it out, and give build= to snp.load")
        return cls("", "", {})

    def build(self, folder: Path) -> nn.Module:
        """The dense model, with random weights.

        Raises:
            InputError: the library is missing, or does not know it.
        """
        try:
            library: Any = import_module(self.library)
            if self.library == "transformers":
                kind = getattr(library, self.name)
                return kind(kind.config_class.from_pretrained(folder))  # type: ignore[no-any-return]
            return library.create_model(self.name, pretrained=None, **self.arguments)  # type: ignore[no-any-return]
        except ImportError:
            raise InputError(folder / ABOUT, f"needs {self.library}", f"pip install {self.library}") from None
        except (AttributeError, TypeError, RuntimeError, OSError, ValueError) as error:
            problem = f"{self.library} cannot build {self.name}: {' '.join(str(error).split())}"
            raise InputError(folder / ABOUT, problem, "give build= to snp.load") from None


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    processor: Any = None,
) -> Path:
    """Write a compressed model, trained since or not, so that `load` needs the folder alone.

    Args:
        model: what `snp.compress` gave.
        folder: a new one, or one of a model that was saved before.
        name: of the model in timm or open_clip, where the model does not know it; transformers' do.
        arguments: that the dense model was made with, beside its name.
        processor: of transformers, saved along: a tokenizer, an image processor or both.

    Raises:
        InputError: the model was not compressed here, the folder holds something else, or the dense model that would
            be built has other weights; nothing is written then.
    """
    made = made_of(model)
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).exists():
        raise InputError(folder, "holds something else", "give a new folder")
    origin = Origin.of(model, name, arguments)
    text = model.config.to_json_string(use_diff=False) if origin.library == "transformers" else ""  # type: ignore[union-attr, operator]
    if text:
        write_atomic(folder / CONFIG, text)
    if origin.library:
        _fits(model, made.plan, made.paths, origin, folder)
    types = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    about = {"format": FORMAT, "library": origin.library, "name": origin.name, "arguments": origin.arguments}
    write_json(folder / ABOUT, about | {"type": types.pop() if len(types) == 1 else ""})
    write_atomic(folder / CARD, card(model, made.plan, made.about))
    if processor is not None:
        processor.save_pretrained(folder)
    return checkpoint.save(folder, model, made.plan, paths=dict(made.paths))


def load(folder: str | Path, build: Callable[[], nn.Module] | None = None) -> Any:
    """The model of a folder that `save` wrote, in eval mode.

    Args:
        build: makes the dense module, with any weights; needed where the folder does not say how.

    Raises:
        InputError: names the file that is missing, damaged or of another model.
    """
    folder = Path(folder)
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(folder / ABOUT, f"is not of format {FORMAT}", "save the model again")
    origin = Origin(about.get("library") or "", about.get("name") or "", about.get("arguments") or {})
    if build is None and origin.library not in ("transformers", "timm", "open_clip"):
        raise InputError("build", f"{folder} does not say how the dense model is made", "give build=lambda: Model()")

    def dense() -> nn.Module:
        module = origin.build(folder) if build is None else build()
        return module.to(getattr(torch, about["type"])) if about.get("type") else module

    model, _ = checkpoint.load(folder, dense)
    return model.eval()


class Model:
    """What has `from_pretrained`, for those who look for it: `load` by another name."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, build: Callable[[], nn.Module] | None = None) -> Any:
        """See `load`."""
        return load(folder, build)


def _fits(model: nn.Module, plan: Plan, paths: Mapping[str, str], origin: Origin, folder: Path) -> None:
    """InputError unless the dense model that is built has the weights that no plan changes."""
    with torch.device("meta"):
        dense = dict(origin.build(folder).named_parameters())
    towers = towers_of(model, paths, shapes=plan.towers)
    changed = set().union(*(tower.parameter_names for tower in towers.values()))
    for name, parameter in model.named_parameters():
        if name in changed or (name in dense and dense[name].shape == parameter.shape):
            continue
        there = f"of {list(dense[name].shape)}" if name in dense else "not at all"
        problem = f"{origin.name} has {name} {there}, the model of {list(parameter.shape)}"
        raise InputError("name, arguments", problem, "say what the dense model was made with")


def card(model: nn.Module, plan: Plan, about: Mapping[str, Any]) -> str:
    """The model card: what it is, its sizes, what each layer keeps, how to load it."""
    stored = sum(parameter.numel() for parameter in model.parameters())
    cost = plan.cost()
    dense = stored + cost["shared"] + cost["pruned"]
    masked = cost["masked"]
    options = ", ".join(f"{key}={value}" for key, value in about.get("options", {}).items() if value is not None)
    lines = [
        "---",
        "library_name: snp",
        "tags: [compression, pruning, weight-sharing]",
        "---",
        f"# {type(model).__name__}, compressed to {(stored - masked) / dense:.1%} of its parameters",
        "",
        f"Method: {about.get('method', 'a plan of its own')}{f' ({options})' if options else ''}.",
        f"Parameters: {dense:,} before, {stored:,} stored" + (f", of which {masked:,} are zero." if masked else "."),
        "Counted from the weights in this folder; what accuracy this costs is not measured by saving.",
        "",
        "```python",
        "import snp",
        "",
        'model = snp.load("FOLDER")',
        "```",
        "",
        "```text",
        plan.report(),
        "```",
        "",
    ]
    return "\n".join(lines)
