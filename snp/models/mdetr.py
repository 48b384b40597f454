"""The MDETR-style grounding model: two towers, a fusion encoder, a decoder of object queries, and their heads."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snp.compression.statistics import TokenMask
from snp.errors import InputError
from snp.models import pictures, trimmed
from snp.models.config import ModelConfig
from snp.models.fusion import DecoderLayer, EncoderLayer, mlp, sine_positions
from snp.models.grounder import Grounder, Inputs
from snp.models.towers import encode_text, text_tower, vision_tower, weights_below
from snp.trimming.trim import Trim
from snp.trimming.trimmer import Kept, Trimmer

TOWERS = {"vision": "vision", "text": "text"}
"""Tower name -> path of its module in the model; the vision tower gives, the text tower takes."""
TYPE = "type"
"""The head that says of which type a question is."""


@dataclass(frozen=True)
class Grounding:
    """What the model says of B captions: K decoder layers, Q queries, N image tokens, L text tokens, C contrastive.

    logits_KBQS: over the S = context + 1 token slots, the last one "no object"; boxes are centre, width and height as
    shares of the image's own sides; the patch_ and tower_ fields are None without proposals. answers: "type" and every
    type of questions -> logits [B, n] over the types, and over the answers of that type; None without answer heads.
    start_BQ: the image token that each query started from, with proposals. kept: what was left of each input, of a
    model that trims.
    """

    logits_KBQS: Tensor
    boxes_KBQ4: Tensor
    query_KBQC: Tensor
    token_BLC: Tensor
    patch_score_BN: Tensor | None
    patches: "Patches | None"
    answers: dict[str, Tensor] | None = None
    start_BQ: Tensor | None = None
    kept: Kept | None = None

    @property
    def judged(self) -> tuple[Tensor, ...]:
        """What evaluators go by, a row for every caption: of the last layer, and the answers."""
        return self.logits_KBQS[-1], self.boxes_KBQ4[-1], *(self.answers or {}).values()


@dataclass(frozen=True)
class Patches:
    """What the towers alone say: image tokens, a box for each, and image and text tokens in one space. [ours]

    keep_BN: 1 for the tokens that a model that trims has kept, else 0; None for all.
    """

    image_BND: Tensor
    boxes_BN4: Tensor
    centres_N2: Tensor
    patch_BNC: Tensor
    token_BLC: Tensor
    keep_BN: Tensor | None = None


class MDETR(Grounder):
    """MDETR (Kamath et al. 2021) on two transformer towers of one shape [paper].

    With `config.proposals`, queries start at the best image tokens and carry those tokens' boxes (two-stage, after
    Deformable DETR): from scratch on a small machine learned queries start to find objects far too late. [ours]

    With `config.answers` it answers questions, as MDETR does on GQA: the decoder has one query more for the type of the
    question and one for every type's answer, each with a linear head. As in MDETR they and the object queries see each
    other, so that adding them changes what is said of objects.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d, c = config.fusion_width, config.contrastive
        self.vision = vision_tower(config)
        self.text = text_tower(config)
        self.vision_to_fusion = nn.Linear(config.width, d)
        self.text_to_fusion = nn.Sequential(
            nn.Linear(config.width, d), nn.LayerNorm(d, eps=1e-12), nn.Dropout(config.dropout)
        )
        shape = (d, config.fusion_heads, config.fusion_ffn, config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*shape) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*shape) for _ in range(config.decoder_layers))
        self.slot_head = nn.Linear(d, config.context + 1)
        self.box_head = mlp(d, 4)
        self.query_contrast, self.token_contrast = nn.Linear(d, c), nn.Linear(d, c)
        if config.proposals:
            self.patch_box, self.patch_score = mlp(d, 4), nn.Linear(d, 1)
            self.query_position = nn.Linear(2 * d, d)
            self.patch_contrast, self.word_contrast = nn.Linear(d, c), nn.Linear(d, c)
        else:
            self.queries = nn.Embedding(config.queries, d)
        self._initialise()
        if config.answers:  # last: the same seed gives the same weights with and without them
            self._make_answers()
        self.trimmer: Trimmer | None = None
        if config.trim is not None:
            self.add_trimmer(config.trim)

    def add_answers(self, sizes: Mapping[str, int]) -> None:
        """Let the model, dense or compressed, answer questions; new heads take the place of any that it has.

        Args:
            sizes: type of questions -> number of its answers, in the order of the data set's types.
        """
        if not sizes or TYPE in sizes or min(sizes.values()) < 1:
            raise InputError("answers", f"{dict(sizes)} are not sizes of types; {TYPE!r} is the name of another head")
        self.config = self.config.model_copy(update={"answers": tuple(sizes.items())})
        self._make_answers()

    def _make_answers(self) -> None:
        d, sizes = self.config.fusion_width, dict(self.config.answers)
        like = self.slot_head.weight
        self.answer_queries = nn.Embedding(1 + len(sizes), d, device=like.device, dtype=like.dtype)
        self.answer_heads = nn.ModuleList(nn.Linear(d, n) for n in (len(sizes), *sizes.values())).to(like)

    def add_trimmer(self, trim: Trim) -> None:
        """Let the model, dense or compressed, leave out what an input does not need; new gates take the place of any.

        Raises:
            InputError: it has fewer layers than are to have gates.
        """
        if trim.sites and trim.sites[-1] >= self.config.depth:
            raise InputError("sites", f"{trim.sites} are not layers of a tower of {self.config.depth}, from 0")
        self.config = c = self.config.model_copy(update={"trim": trim})
        like = self.slot_head.weight
        tokens = (c.image_size // c.patch) ** 2
        self.trimmer = Trimmer(trim, c.width, c.depth, c.heads, tokens, c.queries if c.proposals else 1).to(like)

    def fusion_weights(self) -> list[str]:
        """Names of the weights of the linear maps of fusion: of encoder and decoder, without projections and heads."""
        return weights_below(self, "encoder.", "decoder.")

    def token_masks(self) -> dict[str, TokenMask]:
        """Pattern of weights -> which of the tokens that these maps see are no padding; all others see no padding.

        In the decoder these are the keys and values of image and text; all else of it sees queries.
        """

        def fused(batch: Any) -> Tensor:
            return self._fused(Inputs(*batch.inputs))

        return {
            "vision.blocks.*": lambda batch: pictures.attended(self.vision, batch.sizes_I2),
            "text.*": lambda batch: batch.text_BL,
            "encoder.*": fused,
            "decoder.*.across.[kv].*": fused,
        }

    def _fused(self, inputs: Inputs) -> Tensor:
        """Which tokens of fusion's input are no padding, [B, N + L]."""
        images_ICHW, image_index_B, _, text_BL, sizes_I2 = inputs
        patches_IN = pictures.patches(sizes_I2, self.config.patch)
        if patches_IN is not None:
            return torch.cat([patches_IN[image_index_B], text_BL], 1)
        size = images_ICHW.shape[-2:] if sizes_I2 is None else sizes_I2[0].tolist()
        return F.pad(text_BL, (math.prod(pictures.grid(size, self.config.patch)), 0), value=True)

    def _initialise(self) -> None:
        # CLIP's 0.02 leaves words indistinguishable for the first thousands of steps of a small tower. [ours]
        if self.config.proposals:
            nn.init.normal_(self.text.token_embedding.weight, std=0.7)
        for head in (self.box_head, getattr(self, "patch_box", None)):
            if head is not None:
                for parameter in head[-1].parameters():
                    nn.init.zeros_(parameter)
        if self.config.proposals:
            nn.init.constant_(self.patch_score.bias, -4.6)  # focal loss starts from rare positives: -log(99)

    def forward(self, *given: Any) -> Grounding:
        """Ground B captions in the images they belong to; `given` as `Inputs`."""
        inputs = Inputs(*given)
        v_BND, t_BLD, centres, kept = self._towers(inputs)
        patches = self._patches(v_BND, t_BLD, centres, kept) if self.config.proposals else None
        B, N, D = v_BND.shape

        memory = torch.cat([v_BND, t_BLD], 1)
        grid = sine_positions(centres, D, self.config.position_temperature)  # [N, D], or [B, N, D]
        position = F.pad(grid, (0, 0, 0, t_BLD.shape[1])).expand(B, -1, -1)
        seen = self._fused(inputs) if kept is None else trimmed.seen(kept, inputs.text_BL)
        for layer in self.encoder:
            memory = self.through(layer, memory, position, seen)
        token_BLC = F.normalize(self.token_contrast(memory[:, N:]), dim=-1)

        score_BN = start_BQ = None
        if patches is not None:
            score_BN = self.patch_score(memory[:, :N]).squeeze(-1)
            rank_BN = score_BN.detach()
            if patches.keep_BN is not None:
                rank_BN = rank_BN.masked_fill(patches.keep_BN < 0.5, float("-inf"))
            start_BQ = rank_BN.topk(min(self.config.queries, N), dim=1).indices
            reference = patches.boxes_BN4.detach().gather(1, start_BQ[..., None].expand(-1, -1, 4))
            x = memory[:, :N].gather(1, start_BQ[..., None].expand(-1, -1, D))
            at = torch.cat(
                [
                    sine_positions(part, D, self.config.position_temperature)
                    for part in (reference[..., :2], reference[..., 2:])
                ],
                -1,
            )
            query = self.query_position(at)
            anchor = reference.logit(eps=1e-4)
        else:
            query = self.queries.weight.expand(B, -1, -1)
            x, anchor = torch.zeros_like(query), torch.zeros(())

        Q = query.shape[1]
        if self.config.answers:
            query = torch.cat([query, self.answer_queries.weight.expand(B, -1, -1)], 1)
            x = F.pad(x, (0, 0, 0, query.shape[1] - Q))

        states = []
        key = memory + position
        for layer in self.decoder:
            x = self.through(layer, x, query, key, memory, seen)
            states.append(x)
        x_KBQD, answers = torch.stack([state[:, :Q] for state in states]), None
        if self.config.answers:
            asked = states[0 if self.config.answer_layer == "first" else -1][:, Q:].unbind(1)
            names = (TYPE, *dict(self.config.answers))
            answers = {name: head(x_BD) for name, head, x_BD in zip(names, self.answer_heads, asked, strict=True)}
        return Grounding(
            self.slot_head(x_KBQD),
            (anchor + self.box_head(x_KBQD)).sigmoid(),
            F.normalize(self.query_contrast(x_KBQD), dim=-1),
            token_BLC,
            score_BN,
            patches,
            answers,
            start_BQ,
            kept,
        )

    def towers_only(self, *given: Any) -> Patches:
        """What the towers say before any fusion: enough for the warm-up, at half the cost of a whole pass."""
        v_BND, t_BLD, centres, _ = self._towers(Inputs(*given))
        return self._patches(v_BND, t_BLD, centres)

    def _towers(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Kept | None]:
        """States of patches and of words in fusion's width; centres of the patches, [N, 2] or [B, N, 2]; what is kept.

        Of a model that trims, in inference, those patches alone that are left.
        """
        if self.trimmer is not None and self.trimmer.active:
            words_BLD = encode_text(self.text, inputs.tokens_BL, inputs.text_BL, self.config.heads)
            kept, centres = trimmed.see(self, self.trimmer, inputs, words_BLD)
            return self.vision_to_fusion(kept.x_RND), self.text_to_fusion(words_BLD), centres, kept
        seen = self.see(inputs)
        v_BND = self.vision_to_fusion(seen.x_IND)[inputs.image_index_B]
        t_BLD = self.text_to_fusion(encode_text(self.text, inputs.tokens_BL, inputs.text_BL, self.config.heads))
        centres = pictures.centres(seen.grids, seen.x_IND)
        return v_BND, t_BLD, centres if centres.dim() == 2 else centres[inputs.image_index_B], None

    def _patches(self, v_BND: Tensor, t_BLD: Tensor, centres_N2: Tensor, kept: Kept | None = None) -> Patches:
        start = torch.cat([centres_N2, torch.full_like(centres_N2, 0.2)], -1).logit()
        return Patches(
            v_BND,
            (start + self.patch_box(v_BND)).sigmoid(),
            centres_N2,
            F.normalize(self.patch_contrast(v_BND), dim=-1),
            F.normalize(self.word_contrast(t_BLD), dim=-1),
            None if kept is None else kept.keep_RN,
        )
