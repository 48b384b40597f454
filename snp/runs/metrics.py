"""What each kind of run measures: checked when a result is written and again when it is read."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from snp.errors import InputError
from snp.experiment.benchmarks import ABOUT
from snp.experiment.explained import explain
from snp.experiment.scores import Measures
from snp.experiment.spec import Finetune, Run
from snp.files import not_finite

Share = Annotated[float, Field(ge=0)]
Kind = Literal["structured", "unstructured", "shared", "joint", "dense"]


class PretrainMetrics(Measures):
    """The dense model on its own benchmarks, and its parameter counts."""

    params: dict[str, int] = {}


class CompressMetrics(Measures):
    """What a plan costs. Ratios are shares of the whole dense model, `tower_ratio` of its towers alone.

    `sparsity` is the share of the prunable weights that is zero, where the size was given so.
    `session_seconds` of the phase's training `seconds` went into the method's own steps.
    """

    kind: Kind
    stored_params: Annotated[int, Field(gt=0)]
    stored_ratio: Share
    tower_ratio: Share
    nonzero_ratio: Share
    flops_ratio: Share
    sparsity: Share | None = None
    projection_gap: float | None = None
    seconds: Share | None = None
    session_seconds: Share | None = None
    note: str = ""
    plan: dict[str, Any] = {}
    options: dict[str, Any] = {}

    @property
    def overhead(self) -> float | None:
        """Time of the phase over the same phase without the method's own steps."""
        if not self.seconds or self.session_seconds is None:
            return None
        return self.seconds / (self.seconds - self.session_seconds)


class Spread(Measures):
    """Over captions: their mean, and the 10th and 90th percentile."""

    mean: Share
    p10: Share
    p90: Share


class Trimmed(Measures):
    """What was kept of each input, of the first split: shares of what the dense model has, or does, for it.

    `flops`: of a caption whose picture is new; `flops_cached`: of several of one picture. `tokens_deciles`: the least
    of any caption, nine in between, and the most.
    """

    tokens: Spread
    heads: Spread
    flops: Spread
    flops_cached: Spread
    tokens_deciles: tuple[Share, ...]
    tokens_by_layer: tuple[Share, ...]
    heads_by_layer: tuple[Share, ...]
    target: Share | None = None


class Kept(Measures):
    """What a caption costs a dual encoder, beside the dense model: see `snp.training.taught.costs`."""

    stored: Share
    flops_new: Share
    flops_kept: Share
    flops_kept_beside_kept: Share
    bytes: Annotated[int, Field(gt=0)]


class Asked(Measures):
    """The captions without a target that were made for a run: see `snp.asking.judged.report`.

    `pairs`: true ones that were learned from; `seconds`: that it took to make them.
    """

    noise: Share
    doubt: Share
    readable: Share
    related: Share
    copied: Share
    count: Annotated[int, Field(gt=0)]
    pairs: Annotated[int, Field(gt=0)]
    seconds: Share


class FinetuneMetrics(Measures):
    """Every split after fine-tuning, and before it (`zero_shot`) where that was measured; each with parts by type.

    `baselines`: name -> split -> figures of what needs no model. `trimmed`: of a model that trims its inputs;
    `untrimmed`: split -> its figures where it keeps all of them. `dual`: of a dual encoder. `learns`: share of the
    parameters that are there which learn, where a model is adapted. `asked`: of captions that were made for it.
    """

    splits: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    zero_shot: dict[str, dict[str, Any]] = {}
    baselines: dict[str, dict[str, dict[str, Any]]] = {}
    trimmed: Trimmed | None = None
    untrimmed: dict[str, dict[str, Any]] = {}
    dual: Kept | None = None
    learns: Annotated[float | None, Field(gt=0, le=1)] = None
    asked: Asked | None = None


SCHEMAS: dict[str, type[Measures]] = {
    "pretrain": PretrainMetrics,
    "compress": CompressMetrics,
    "finetune": FinetuneMetrics,
}


def check(run: Run, metrics: dict[str, Any], where: object) -> Measures:
    """The measurements that a run owes, all finite; an InputError names the first field at fault."""
    if (field := not_finite(metrics)) is not None:
        raise InputError(where, f"{field}: is not finite (nan or infinite), and so no measurement", "run it again")
    try:
        measured = SCHEMAS[run.kind].model_validate(metrics)
    except ValidationError as error:
        raise explain(error, where) from None
    if not isinstance(measured, FinetuneMetrics) or not isinstance(run, Finetune):
        return measured
    schema = ABOUT[run.benchmark].task.score
    for group in ("splits", "zero_shot", "untrimmed"):
        splits: dict[str, dict[str, Any]] = getattr(measured, group)
        for split, score in splits.items():
            if split not in (known := ABOUT[run.benchmark].splits):
                hint = f"its splits are {', '.join(known)}"
                raise InputError(f"{where}.{group}.{split}", f"{run.benchmark} has no such split", hint)
            parts = {(): score} | {("by_type", kind): part for kind, part in score.get("by_type", {}).items()}
            for place, part in parts.items():
                try:
                    schema.model_validate(part)
                except ValidationError as error:
                    raise explain(error, where, group, split, *place) from None
    return measured
