"""Towers that start from published weights, which the run is told by."""

import sys
from pathlib import Path
from typing import Any

from snp import ranks
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.models.family import GroundingModel
from snp.models.named import Weights, identity
from snp.models.pretrained import load_text, load_vision
from snp.training.setup import Setup


def fill_towers(model: GroundingModel, weights: Weights, setup: Setup, vocabulary: Vocabulary) -> dict[str, Any]:
    """Fill the towers with the weights that the run is told by; what the manifest says of them.

    Raises:
        InputError: the setup names others.
    """
    began: dict[str, Any] = {}
    for tower, wanted, given in (
        ("vision", weights.vision, setup.vision_weights),
        ("text", weights.text, setup.text_weights),
    ):
        if wanted is None:
            continue
        if given is None or identity(given, f"--{tower}-weights") != wanted:
            problem = f"{given or 'missing'}, where the run starts from {wanted}"
            raise InputError(f"--{tower}-weights", problem, "name the weights that it was begun with")
        kind, _, hash = wanted.rpartition(":")
        began[tower] = {"name": Path(given).name, "sha256": hash} if kind == "sha256" else {"name": given}
        if tower == "text":
            load_text(model.text, given, vocabulary.clip_ids)
        elif left := load_vision(model.vision, given):
            began[tower]["left_out"] = left
            if ranks.rank() == 0:
                print(f"snp: {given}: of a distilled model, left out: {', '.join(left)}", file=sys.stderr)
    return began
