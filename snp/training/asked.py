"""Captions without a target that are made for a run: of what, once, and in which order they are learned from."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from snp import ranks
from snp.asking import judged
from snp.asking.captions import generate
from snp.asking.generator import Look, Scene
from snp.asking.pairs import Pair, parse, read, split
from snp.data.annotations import Entry
from snp.data.drawn import notarget
from snp.data.fields import need
from snp.errors import InputError
from snp.experiment.explained import explain
from snp.experiment.spec import Finetune, dense_of
from snp.files import read_json, write_json
from snp.models.mdetr import MDETR
from snp.runs.metrics import Asked
from snp.runs.store import Store
from snp.tasks import grounding
from snp.training import saved
from snp.training.learning import Planned
from snp.training.prepare import Source
from snp.training.tuning import Expressions, Rejecting, Tuning

FILE = "asked.json"
"""In the folder of a run: what was made for it, so that it goes on with the same."""
FIRST = 2 / 3
"""Share of the steps that what is made has for itself, where it comes first. [ours]"""


def asked(run: Finetune, store: Store, on: Tuning[Any], steps: int, device: str) -> tuple[Planned, dict[str, Any]]:
    """What a run learns from, for how many steps each, and what is told of the captions that were made for it.

    Captions without a target, true or made, have the same share of every batch in all phases, and without any being
    made: what differs is which they are. [ours]
    """
    how, path = run.ask, store.folder(run) / FILE
    assert how is not None and isinstance(on, Rejecting)
    entries = Expressions.samples(on.source, "refcoco", "train")
    pairs = read(notarget.ready(on.source.root) / f"{notarget.PAIRS}.json", entries)
    true = split(pairs, how.pairs)[0]
    ranks.once(lambda: path.exists() or _make(run, store, on.source, entries, pairs, path, device))
    found = read_json(path)
    made = parse(need(found, "captions", list, path), entries, f"{path}: captions")
    if not made:
        raise InputError(f"{path}: captions", "there are none", "delete the file: they are made again")
    report = need(found, "report", dict, path) | {"count": len(made), "pairs": len(true)}
    try:
        Asked.model_validate(report)
    except ValidationError as error:
        raise explain(error, f"{path} (delete it, and it is made again): report") from None
    few, many = ([pair.entry(k, notarget.FOLDER) for k, pair in enumerate(some)] for some in (true, made))
    if how.phases == 1:
        return [(on.learned(few + many), steps)], report
    first = round(FIRST * steps)
    return [(on.learned(many), first), (on.learned(few), steps - first)], report


def _make(
    run: Finetune, store: Store, source: Source, entries: list[Entry], pairs: list[Pair], path: Path, device: str
) -> Path:
    began = time.monotonic()
    assert run.ask is not None
    scenes, language = judged.drawn(source.root)
    made = generate(run.ask, entries, pairs, language, looking(run, store, source, device), run.seed)
    seconds = time.monotonic() - began
    report = judged.report(made, scenes, language) | {"seconds": seconds}
    return write_json(path, {"captions": [pair.to_json() for pair in made], "report": report}, indent=None)


def looking(run: Finetune, store: Store, source: Source, device: str) -> Look:
    """Sees pictures as the dense model does that a run starts from: what of them enters its fusion."""
    dense, _, vocabulary = saved.load(store.folder(dense_of(run)))
    assert isinstance(dense, MDETR)
    model = dense.eval().to(device)

    @torch.no_grad()
    def look(entries: Sequence[Entry]) -> Scene:
        batch = source.set(list(entries), vocabulary, model.config).batch(np.arange(len(entries))).to(device)
        seen = model.towers_only(*batch.inputs)
        return Scene(seen.image_BND.cpu(), grounding.inside(seen.centres_N2, batch)[:, 0].cpu())

    return look
