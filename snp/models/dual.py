"""A dual encoder for grounding [paper: DiDE]: pictures and texts pass apart, so that all of a picture can be kept.

Both branches start as the whole of a trained MDETR-style model up to its fusion encoder, each with a copy of that
encoder of its own; nothing crosses but what is said last: a dot product of text and places, or a small head on both.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snp.errors import InputError
from snp.models import pictures
from snp.models.config import DualConfig
from snp.models.fusion import EncoderLayer, mlp, sine_positions
from snp.models.grounder import Grounder, Inputs
from snp.models.mdetr import MDETR, TYPE, Grounding, Patches
from snp.models.towers import encode_text, text_tower, vision_tower

TEMPERATURE = 0.07
"""Of the likeness of text and places, as of the towers' contrast. [ours]"""


@dataclass(frozen=True)
class Cache:
    """What is kept of I pictures: all that captions about them need.

    place_INC: unit vectors of the image tokens; boxes_IN4: a box for each; pooled_ID: of the whole picture; centres_N2.
    """

    place_INC: Tensor
    boxes_IN4: Tensor
    pooled_ID: Tensor
    centres_N2: Tensor

    def of(self, index_B: Tensor) -> "Cache":
        """The same for captions."""
        return Cache(self.place_INC[index_B], self.boxes_IN4[index_B], self.pooled_ID[index_B], self.centres_N2)

    @property
    def bytes(self) -> int:
        """Of one picture, but for the centres, which are those of every picture."""
        return sum(part[0].numel() * part.element_size() for part in (self.place_INC, self.boxes_IN4, self.pooled_ID))


class Pooler(nn.Module):
    """Mean of the tokens that are there -> linear -> tanh; DiDE takes the first token's state, of which there is none
    here. [ours]"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, there_BL: Tensor | None = None) -> Tensor:
        """[B, L, D] -> [B, D]"""
        if there_BL is None:
            return self.linear(x_BLD.mean(1)).tanh()
        there = there_BL[..., None].to(x_BLD)
        return self.linear((x_BLD * there).sum(1) / there.sum(1)).tanh()


class Dual(Grounder):
    """Two branches that meet in the end.

    Expressions: the place whose vector is nearest to the text's, and the box that is kept for it. [ours] Questions: a
    head on the pooled text and picture [DiDE's code].
    """

    def __init__(self, config: DualConfig) -> None:
        super().__init__()
        self.config = config
        d, c = config.fusion_width, config.contrastive
        self.vision, self.text = vision_tower(config), text_tower(config)
        self.vision_to_fusion = nn.Linear(config.width, d)
        self.text_to_fusion = nn.Sequential(
            nn.Linear(config.width, d), nn.LayerNorm(d, eps=1e-12), nn.Dropout(config.dropout)
        )
        shape = (d, config.fusion_heads, config.fusion_ffn, config.dropout)
        self.image_encoder = nn.ModuleList(EncoderLayer(*shape) for _ in range(config.encoder_layers))
        self.text_encoder = nn.ModuleList(EncoderLayer(*shape) for _ in range(config.encoder_layers))
        self.patch_box = mlp(d, 4)
        self.place, self.phrase = nn.Linear(d, c), nn.Linear(d, c)
        self.image_pooler, self.text_pooler = Pooler(d), Pooler(d)
        if config.answers:
            self._make_answers()

    @classmethod
    def from_mdetr(cls, model: MDETR) -> "Dual":
        """The student that starts as this model, dense or compressed; its towers are taken over, ties and all.

        Raises:
            InputError: it has no boxes of image tokens, or trims its inputs.
        """
        c = model.config
        if not c.proposals or c.trim is not None:
            raise InputError("dual", "starts from a model with proposals that trims nothing", "name another row")
        values = c.model_dump() | {"name": c.name.replace("mdetr", "dual"), "answers": ()}
        dual = cls(DualConfig.model_validate(values))
        for name in ("vision", "text", "vision_to_fusion", "text_to_fusion", "patch_box"):
            setattr(dual, name, getattr(model, name))
        dual.image_encoder, dual.text_encoder = deepcopy(model.encoder), deepcopy(model.encoder)
        dual.place.load_state_dict(model.patch_contrast.state_dict())
        dual.phrase.load_state_dict(model.word_contrast.state_dict())
        return dual

    def add_answers(self, sizes: dict[str, int]) -> None:
        """As `MDETR.add_answers`."""
        self.config = self.config.model_copy(update={"answers": tuple(sizes.items())})
        self._make_answers()

    def _make_answers(self) -> None:
        d, sizes = self.config.fusion_width, dict(self.config.answers)
        self.fuse = nn.Sequential(nn.Linear(2 * d, 2 * d), nn.LayerNorm(2 * d), nn.GELU(), nn.Linear(2 * d, d))
        self.answer_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 2 * d), nn.LayerNorm(2 * d), nn.GELU(), nn.Linear(2 * d, n))
            for n in (len(sizes), *sizes.values())
        )
        for module in (*self.fuse.modules(), *self.answer_heads.modules()):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def cache(self, inputs: Inputs) -> Cache:
        """The image branch: no word reaches it."""
        seen = self.see(inputs)
        centres = pictures.centres(seen.grids, seen.x_IND)
        v_IND = self.vision_to_fusion(seen.x_IND)
        position = sine_positions(centres, v_IND.shape[-1], self.config.position_temperature).expand_as(v_IND)
        there = torch.ones(v_IND.shape[:2], dtype=torch.bool, device=v_IND.device)
        x = v_IND
        for layer in self.image_encoder:
            x = self.through(layer, x, position, there)
        start = torch.cat([centres, torch.full_like(centres, 0.2)], -1).logit()
        boxes = (start + self.patch_box(v_IND)).sigmoid()
        return Cache(F.normalize(self.place(x), dim=-1), boxes, self.image_pooler(x), centres)

    def read(self, tokens_BL: Tensor, text_BL: Tensor) -> Tensor:
        """The text branch: no pixel reaches it; pooled, [B, D]."""
        x = self.text_to_fusion(encode_text(self.text, tokens_BL, text_BL, self.config.heads))
        nowhere = torch.zeros_like(x)
        for layer in self.text_encoder:
            x = self.through(layer, x, nowhere, text_BL)
        return self.text_pooler(x, text_BL)

    def say(self, cached: Cache, pooled_BD: Tensor, text_BL: Tensor) -> Grounding:
        """What is said of captions, from what is kept of the picture of each (`Cache.of`).

        Each place is one "query". That it is what the text speaks of is as likely as it is among all places; the words
        share in it alike.
        """
        phrase_BC = F.normalize(self.phrase(pooled_BD), dim=-1)
        score_BN = (cached.place_INC @ phrase_BC[..., None]).squeeze(-1)
        answers = None
        if self.config.answers:
            both = self.fuse(torch.cat([pooled_BD, cached.pooled_ID], -1))
            names = (TYPE, *dict(self.config.answers))
            answers = {name: head(both) for name, head in zip(names, self.answer_heads, strict=True)}
        likely_BN = (score_BN / TEMPERATURE).log_softmax(-1).clamp(max=-1e-6)
        odds_BN = likely_BN - torch.log(-torch.expm1(likely_BN))
        words_BL = F.pad(text_BL, (0, self.config.context - text_BL.shape[1]))
        own = odds_BN[..., None] - words_BL.sum(1).log()[:, None, None]
        own = torch.where(words_BL[:, None], own, -1e4)
        logits = F.pad(own, (0, 1))[None]
        token_BLC = phrase_BC[:, None]
        patches = Patches(cached.place_INC, cached.boxes_IN4, cached.centres_N2, cached.place_INC, token_BLC)
        boxes, places = cached.boxes_IN4[None], cached.place_INC[None]
        return Grounding(logits, boxes, places, token_BLC, score_BN, patches, answers)

    def forward(self, *given: Any) -> Grounding:
        """As MDETR's; `given` as `Inputs`. Each picture passes its branch once."""
        inputs = Inputs(*given)
        cached = self.cache(inputs).of(inputs.image_index_B)
        return self.say(cached, self.read(inputs.tokens_BL, inputs.text_BL), inputs.text_BL)
