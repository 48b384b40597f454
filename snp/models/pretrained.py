"""Published weights for the two towers: from a file, or by the name that timm or open_clip has for a model."""

import math
import pickle
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, TextTransformer
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from snp.data.tokens import END, START
from snp.errors import InputError
from snp.models import torchscript
from snp.models.named import TEXT, VISION, file_of

Weights = dict[str, Tensor]
HEADS = ("head.", "head_dist.", "fc_norm.", "pre_logits.")
"""Of classifiers, which the vision tower does not have."""
DISTILLED = ("dist_token", "head_dist.")
"""What a DeiT has for the teacher that it was distilled from."""
BESIDE_TEXT = re.compile(
    r"(visual|vision_model|(visual|text)_projection|logit_(scale|bias)|input_resolution|context_length|vocab_size)(\.|$)"
    r"|(.*\.)?attn_mask$"
)
"""What files of a whole CLIP hold beside the text transformer."""
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(_orig_mod|module)\.")
"""What torch.compile and DataParallel put into names, at whatever depth."""
BEFORE_PATCHES = ("cls_token", "dist_token", "reg_token")
"""Tokens of a vision tower that may have positions of their own, ahead of the patches'."""
TRANSFORMERS = (
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.", ".attn."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^final_layer_norm\.", "ln_final."),
)
"""transformers' names in a CLIP text model -> open_clip's."""


def load_vision(tower: VisionTransformer, source: str) -> list[str]:
    """Fill the vision tower; all of its tensors, or none.

    Positions are resampled where the image size differs (bicubic, as timm does). A class token that only one side has:
    the tower's stays as it is, the file's is left out. Classifiers are left out, and the token of a DeiT that was
    distilled, with its position: no tower here has one, so that patches attend to one token less than they did.

    Args:
        source: a file with timm's or DeiT's names (.safetensors, or .pth, .pt, .bin, also nested in 'model' or
            'state_dict', and wrapped as torch.compile, DataParallel and Lightning do), or timm's name of a model, as
            deit_base_patch16_224, which timm fetches.

    Returns:
        The names of tensors of a distilled model that are left out; none of another.

    Raises:
        InputError: neither is to be had; or a tensor is missing, unexpected, not finite, not of floating-point numbers,
            or of a shape that does not fit.
    """
    weights = _weights(source, _from_timm, "--vision-weights", VISION)
    distilled = sorted(name for name in weights if name.startswith(DISTILLED)) if "dist_token" in weights else []
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(HEADS)}
    _check_numbers(weights, source)
    before = sum(weights[name].shape[1] for name in BEFORE_PATCHES if name in weights and weights[name].dim() == 3)
    weights.pop("dist_token", None)
    if tower.cls_token is None:
        weights.pop("cls_token", None)
    else:
        weights.setdefault("cls_token", tower.cls_token.detach())
    if (positions := weights.get("pos_embed")) is not None and positions.dim() == 3:
        first = _before_grid(positions.shape[1], before)
        if first is None:
            problem = f"its {positions.shape[1]} positions are no square grid, with or without {before} ahead of it"
            raise InputError(f"{source}: pos_embed", problem, "take weights that were trained on square pictures")
        grid = resample_abs_pos_embed(positions[:, first:], list(tower.patch_embed.grid_size), num_prefix_tokens=0)
        if tower.cls_token is not None:
            assert tower.pos_embed is not None
            own = positions[:, :1] if first else tower.pos_embed.detach()[:, :1]
            grid = torch.cat([own, grid], 1) if own.shape[2:] == grid.shape[2:] else grid
        weights["pos_embed"] = grid
    _fill(tower, weights, source)
    return distilled


def load_text(tower: TextTransformer, source: str, clip_ids: Sequence[int] | None = None) -> None:
    """Fill the text tower; all of its tensors, or none.

    CLIP has 77 positions. A longer context (GLIP needs 256) gets them interpolated linearly, a shorter one the first.
    OpenAI's weights want QuickGELU, `quick_gelu` of the configuration; a file does not say which it wants.

    Args:
        source: a file with the names of open_clip or of transformers, of a text model or of a whole CLIP (endings and
            nesting as in `load_vision`; OpenAI's TorchScript archive, of which no code is run), or open_clip's name of
            model and weights, as ViT-L-14/openai.
        clip_ids: CLIP's numbers of the words of a `Vocabulary`; its padding and unknown word keep what the tower has.
            None: the tower's words are CLIP's, all of them.

    Raises:
        InputError: as in `load_vision`; or weights of that name want another activation than the tower's.
    """
    quick = isinstance(tower.transformer.resblocks[0].mlp.gelu, QuickGELU)
    fetch = partial(_from_open_clip, quick=quick)
    weights = _text_part(_weights(source, fetch, "--text-weights", TEXT))
    _check_numbers(weights, source)
    positions, length = weights.get("positional_embedding"), len(tower.positional_embedding)
    if positions is not None and positions.dim() == 2 and len(positions) != length:
        longer = F.interpolate(positions.T[None].float(), length, mode="linear", align_corners=True)[0].T
        weights["positional_embedding"] = longer if length > len(positions) else positions[:length]
    words = weights.get("token_embedding.weight")
    if clip_ids is not None and words is not None and words.shape[1:] == tower.token_embedding.weight.shape[1:]:
        if len(words) <= max(clip_ids, default=0):
            problem = f"has {len(words)} words, and CLIP's number {max(clip_ids)} is needed"
            raise InputError(f"{source}: token_embedding.weight", problem, "take a text tower with all words of CLIP")
        own = tower.token_embedding.weight.detach().clone()
        own[[START, END]] = words[-2:].to(own)  # the last two of CLIP's
        own[4:] = words[list(clip_ids)].to(own)
        weights["token_embedding.weight"] = own
    _fill(tower, weights, source)


def _weights(source: str, fetch: Callable[[str], Weights], option: str, example: str) -> Weights:
    """Tensors by name from a file, or as `fetch` gets them."""
    if (path := file_of(source, option)) is not None:
        return _read(path)
    try:
        return fetch(source)
    except InputError:
        raise
    except Exception as error:  # of many kinds: no such model, none of its weights, no network
        problem = f"is no file, and as the name of a model it cannot be fetched: {' '.join(str(error).split())}"
        hint = f"give a file ({option} FILE), or a name, as {example}, and a network"
        raise InputError(source, problem, hint) from None


def _read(path: Path) -> Weights:
    try:
        read: Any = load_file if path.suffix == ".safetensors" else _load
        found = read(path)
    except InputError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise InputError(path, f"cannot be read: {error}", "fetch it again") from None
    for key in ("model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    tensors = found.items() if isinstance(found, dict) else ()
    weights = {name: tensor for name, tensor in tensors if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not weights:
        raise InputError(path, "holds no tensors by name", "give a file of a model's state")
    return _unwrapped(weights)


def _load(path: Path) -> Any:
    if torchscript.is_archive(path):
        return torchscript.read(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # what torch says of it tells people to run the code
        others = get_unsafe_globals_in_checkpoint(path) if is_zipfile(path) else []
        if not others:
            raise InputError(path, "cannot be read: it is no file of torch.save", "fetch it again") from None
        problem = f"holds more than tensors ({others[0]}): to read that would run code of the file"
        hint = "where you trust it, save its weights alone: torch.save(model.state_dict(), FILE)"
        raise InputError(path, problem, hint) from None


def _unwrapped(weights: Weights) -> Weights:
    """Without what wrappers put before names: `_orig_mod.`, `module.`, and whatever all names have in front."""
    found = {WRAPPERS.sub("", name): tensor for name, tensor in weights.items()}
    while True:
        fronts = {name.partition(".")[0] for name in found}
        inner = {name.partition(".")[2]: tensor for name, tensor in found.items()}
        if len(fronts) > 1 or any(not name or name[0].isdigit() for name in inner):  # digits: in front is a list
            return found
        found = inner


def _check_numbers(weights: Weights, source: str) -> None:
    """Whether all tensors are of finite floating-point numbers, in the precision of the towers too."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            problem = f"is of {str(tensor.dtype).removeprefix('torch.')}, and weights are floating-point numbers"
            raise InputError(f"{source}: {name}", problem, "take weights that are not quantized")
        if not tensor.float().isfinite().all():
            problem = "holds numbers that are not finite (nan or infinite)"
            raise InputError(f"{source}: {name}", problem, "fetch the file again, or save it anew in a wider precision")


def _before_grid(count: int, most: int) -> int | None:
    """How many of `count` positions stand before those of a square grid, the most that are possible; else None."""
    return next((n for n in range(most, -1, -1) if count > n and math.isqrt(count - n) ** 2 == count - n), None)


def _from_timm(name: str) -> Weights:
    return dict(timm.create_model(name, pretrained=True).state_dict())


def _from_open_clip(name: str, quick: bool) -> Weights:
    model, _, tag = name.rpartition("/")
    if not open_clip.is_pretrained_cfg(model, tag):
        raise ValueError(f"open_clip knows no weights {tag!r} of a model {model!r}")
    about = (open_clip.get_model_config(model) or {}) | (open_clip.get_pretrained_cfg(model, tag) or {})
    if about.get("quick_gelu", False) != quick:
        theirs, ours = ("GELU", "QuickGELU") if quick else ("QuickGELU", "GELU")
        hint = "change quick_gelu of the model's configuration"
        raise InputError(name, f"was trained with {theirs}, the tower has {ours}", hint)
    return dict(open_clip.create_model(model, pretrained=tag).state_dict())


def _text_part(weights: Weights) -> Weights:
    """The tensors of the text transformer alone, under open_clip's names."""
    for prefix in ("text_model.", "text."):
        if any(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
    weights = {name: tensor for name, tensor in weights.items() if not BESIDE_TEXT.match(name)}
    if "embeddings.token_embedding.weight" not in weights:
        return weights
    found: Weights = {}
    for name, tensor in weights.items():
        for theirs, ours in TRANSFORMERS:
            name = re.sub(theirs, ours, name)
        found[name] = tensor
    found.pop("embeddings.position_ids", None)  # older files have it
    for name in [name for name in found if ".attn.q_proj." in name]:
        parts = [name.replace("q_proj", f"{role}_proj") for role in "qkv"]
        if all(part in found for part in parts):
            found[name.replace("q_proj.", "in_proj_")] = torch.cat([found.pop(part) for part in parts])
    return found


def _fill(tower: nn.Module, weights: Weights, source: str) -> None:
    """Copy weights into the tower, all or none."""
    own = dict(tower.named_parameters())
    for name in sorted(own.keys() ^ weights.keys()):
        problem = "tensor is missing" if name in own else "the tower has no such tensor"
        raise InputError(f"{source}: {name}", problem, "is it a model of the same kind and depth?")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            problem = f"is of shape {list(tensor.shape)}, the tower needs {list(own[name].shape)}"
            raise InputError(f"{source}: {name}", problem, "choose weights of the tower's size")
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)
