"""Checkpoints: safetensors beside the Plan as JSON, hardly larger than the stored parameters."""

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from snp.compression.plan import Plan
from snp.compression.surgery import M, apply, verify
from snp.errors import InputError
from snp.files import read_json, write_atomic, write_json

WEIGHTS, PLAN, EXTRA = "weights.safetensors", "plan.json", "extra.json"
_VECTORS = "vectors"  # all small float tensors in one: a header entry costs as much as 25 weights
_JOINED = "joined"  # the name of that one, where the model has a tensor that is called so


def save(
    folder: str | Path, model: nn.Module, plan: Plan, extra: Any = None, paths: dict[str, str] | None = None
) -> Path:
    """Write weights.safetensors, plan.json and, if given, extra.json into `folder`.

    Of masked weights only the kept values are stored, and the mask as packed bits in the plan. Vectors
    (biases, norms) are stored as one tensor, with their names in the metadata. [ours]

    Args:
        model: what `surgery.apply` made of `plan` (or the dense model, for the dense plan).
        extra: anything JSON-able, for example a manifest.
        paths: tower name -> submodule, needed to rebuild the model; by default a tower's name is its path.

    Raises:
        InputError: `paths` do not lead to the plan's towers, the model is another than the plan makes, or a tensor
            cannot be stored; nothing is written then.
    """
    folder = Path(folder)
    paths = {name: name for name in plan.towers} if paths is None else dict(paths)
    verify(model, plan, paths)
    tensors, vectors = _split(model, plan)
    names = {name: len(vector) for name, vector in vectors.items()}
    metadata = {_VECTORS: _pack(json.dumps(names)), "plan": plan.digest, "paths": json.dumps(paths)}
    joined = _VECTORS
    while joined in tensors:  # the model has a tensor of this name
        joined = metadata[_JOINED] = joined + "_"
    tensors[joined] = torch.cat([torch.empty(0, dtype=torch.float32, device="cpu"), *vectors.values()])
    try:
        data = _in_order(to_bytes(tensors, metadata))
        json.dumps(extra)
    except Exception as error:  # of many kinds: a type that the format does not have, an `extra` that is no JSON
        raise InputError(folder, f"cannot be stored: {' '.join(str(error).split())}", "leave out what is odd") from None
    # the weights name the plan that they belong to, so that a crash between the files cannot go unnoticed
    write_atomic(folder / PLAN, plan.to_json() + "\n")
    if extra is not None:
        write_json(folder / EXTRA, extra)
    write_atomic(folder / WEIGHTS, data)
    return folder


def load(folder: str | Path, build: Callable[[], M]) -> tuple[M, Plan]:
    """Rebuild a saved model.

    Args:
        build: makes the dense module, with any weights.

    Returns:
        The compressed model with its ties and masks in place, and its plan.

    Raises:
        InputError: names the file and the tensor that is missing, cut, unexpected, not finite, or of another shape
            or type.
    """
    if isinstance(build, nn.Module) or not callable(build):
        raise InputError("build", f"is a {type(build).__name__}", "give what makes the dense model: lambda: Model()")
    folder = Path(folder)
    file = folder / WEIGHTS
    for needed in (folder / PLAN, file):
        if not needed.exists():
            raise InputError(needed, "file not found")
    plan = Plan.from_json((folder / PLAN).read_text(encoding="utf-8", errors="replace"), folder / PLAN)
    try:
        with safe_open(file, framework="pt") as opened:  # type: ignore[no-untyped-call]
            metadata: dict[str, str] = opened.metadata() or {}
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(file, f"not a whole safetensors file: {error}", "save or copy it again") from None
    if metadata.get("plan") != plan.digest:
        raise InputError(file, f"was not saved with the plan beside it ({PLAN})", "save the checkpoint again")
    try:
        paths = dict(json.loads(metadata["paths"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{file}: paths", f"cannot be read: {error}", "save the checkpoint again") from None
    model = apply(build(), plan, paths)
    stored |= _unpack_vectors(file, stored.pop(metadata.get(_JOINED, _VECTORS), None), metadata)
    _fill(file, model, plan, stored)
    return model, plan


def read_extra(folder: str | Path) -> Any:
    """What `save` was given as `extra`."""
    return read_json(Path(folder) / EXTRA)


def _split(model: nn.Module, plan: Plan) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State as it is stored: (tensors, float32 vectors), by name; of a masked weight the kept values [n]."""
    tensors, vectors = {}, {}
    memories: set[int] = set()
    trained = dict(model.named_parameters(remove_duplicate=False))  # buffers may well be infinite: attention masks
    for name, tensor in _state(model).items():
        if tensor.is_meta:
            raise InputError(name, "has no values: it is on the meta device", "fill the model first")
        if name in trained and not tensor.isfinite().all():
            raise InputError(name, "holds values that are not finite", "see where training went wrong")
        tensor = tensor.cpu().contiguous()
        if (memory := tensor.untyped_storage().data_ptr()) in memories:
            tensor = tensor.clone()  # a view of another tensor; safetensors wants them apart
        memories.add(memory)
        if name in plan.masks:
            tensors[name] = tensor[plan.masks[name]]
        elif tensor.dim() == 1 and tensor.dtype == torch.float32:
            vectors[name] = tensor
        else:
            tensors[name] = tensor
    return tensors, vectors


def _fill(file: Path, model: nn.Module, plan: Plan, stored: dict[str, Tensor]) -> None:
    """Copy stored tensors into the model, all or none."""
    state, trained = _state(model), dict(model.named_parameters(remove_duplicate=False))
    for name in sorted(stored.keys() ^ state.keys()):
        raise InputError(
            f"{file}: {name}",
            "tensor is missing" if name in state else "the model has no such tensor",
            "is it another model's?",
        )
    for name, tensor in stored.items():
        shape = [int(plan.masks[name].sum())] if name in plan.masks else list(state[name].shape)
        if list(tensor.shape) != shape or tensor.dtype != state[name].dtype:
            raise InputError(
                f"{file}: {name}",
                f"is {tensor.dtype} {list(tensor.shape)}, the model needs {state[name].dtype} {shape}",
                "build the model that was saved, in the type that it had",
            )
        if name in trained and not tensor.isfinite().all():
            raise InputError(f"{file}: {name}", "holds values that are not finite", "save a sound model again")
    for name, tensor in stored.items():
        if name in plan.masks:
            state[name].zero_()[plan.masks[name]] = tensor.to(state[name].device)
        else:
            state[name].copy_(tensor)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, with a tensor that goes by several names under the first alone."""
    first: dict[Any, str] = {}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name == "__metadata__":
            raise InputError(name, "is a name that safetensors keeps for itself", "give the tensor another")
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise InputError(name, "is no plain tensor, and a checkpoint holds no others", "keep it out of the state")
        # load_state_dict(assign=True) makes two parameters of a tied one, with one memory; an empty tensor has none
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.data_ptr() else id(tensor)
        if first.setdefault(place, name) == name:
            state[name] = tensor.detach()
    return state


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: safetensors shuffles it, and equal models shall give equal bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[end:]


def _pack(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _unpack_vectors(file: Path, joined: Tensor | None, metadata: dict[str, str]) -> dict[str, Tensor]:
    if joined is None:
        raise InputError(f"{file}: {_VECTORS}", "tensor is missing", "is it a checkpoint of this project?")
    try:
        sizes: dict[str, int] = json.loads(zlib.decompress(base64.b64decode(metadata[_VECTORS])))
        return dict(zip(sizes, joined.split(list(sizes.values())), strict=True))
    except (KeyError, ValueError, TypeError, AttributeError, zlib.error, RuntimeError) as error:
        raise InputError(f"{file}: {_VECTORS}", f"does not match its list of names: {error}", "save it again") from None
