"""The state of a recovery that is under way, in one file: numbers, tensors by name, and the Plan that was decided."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from snp.compression.plan import Plan
from snp.errors import InputError
from snp.files import json_object, replacing

FILE, PLAN = "recover.safetensors", "plan"


@dataclass(frozen=True)
class State:
    """What was left in a folder.

    Attributes:
        numbers: as JSON has them.
        tensors: `group/name` -> tensor.
    """

    path: Path
    plan: Plan
    numbers: dict[str, Any]
    tensors: dict[str, Tensor]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of a group, by the rest of their name."""
        return {n.removeprefix(f"{name}/"): t for n, t in self.tensors.items() if n.startswith(f"{name}/")}


def write(
    folder: Path, about: Mapping[str, Any], plan: Plan, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Leave a state; the one before it is there until this one is whole.

    Raises:
        InputError: a tensor is of a type that the format does not have.
    """
    text = torch.frombuffer(bytearray(plan.to_json().encode()), dtype=torch.uint8)
    whole = {PLAN: text} | {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    memories: set[int] = set()
    for name, tensor in whole.items():
        if (memory := tensor.untyped_storage().data_ptr()) in memories:
            whole[name] = tensor.clone()  # a view of another's memory: safetensors wants them apart
        memories.add(memory)
    metadata = {"about": json.dumps(about), "numbers": json.dumps(numbers)}
    try:
        with replacing(folder / FILE) as temporary:
            save_file(whole, temporary, metadata)
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(folder / FILE, f"cannot be stored: {error}", "give no folder") from None


def read(folder: Path, about: Mapping[str, Any]) -> State | None:
    """The state that is in a folder, or None.

    Raises:
        InputError: it cannot be read, or is of another call: names the first argument that differs.
    """
    path, hint = folder / FILE, "give another folder, or delete the file to start again"
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as opened:  # type: ignore[no-untyped-call]
            metadata: dict[str, str] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        before, numbers = (json_object(metadata[name].encode()) for name in ("about", "numbers"))
        text = tensors.pop(PLAN).numpy().tobytes().decode()
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(path, f"cannot be read: {error}", hint) from None
    now = json.loads(json.dumps(about))
    for name in [*now, *(before.keys() - now.keys())]:
        if before.get(name) != now.get(name):
            problem = f"was left by another call: {name} was {before.get(name)}, now {now.get(name)}"
            raise InputError(path, problem, hint)
    return State(path, Plan.from_json(text, path), numbers, tensors)


def fingerprint(model: nn.Module) -> str:
    """Of the values of all parameters and buffers, with their names."""
    digest = hashlib.sha256()
    for name, tensor in tensors_of(model).items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
