"""Commands about models of the user's own: inspect, compress."""

import json as as_json
import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, PositiveFloat, PositiveInt
from tyro.conf import Positional

from snp.cli.options import Plugin, app, use_plugins
from snp.errors import InputError
from snp.experiment.labels import option as option_of
from snp.experiment.spec import Seed
from snp.flags import Named

Model = Annotated[
    str,
    tyro.conf.arg(
        help="a folder of transformers (config.json, weights as safetensors), timm:NAME or open_clip:NAME; "
        "nothing is fetched from a hub"
    ),
    Positional,
]
Weights = Annotated[
    Named | None, tyro.conf.arg(help="safetensors file, of timm and open_clip; default: random weights")
]
Exclude = Annotated[
    tuple[str, ...],
    tyro.conf.arg(help="patterns of paths of attentions and feed-forward modules to leave, as '*.attn'"),
]
NONE = "none"


@app.command
def inspect(
    model: Model,
    exclude: Exclude = (),
    json: Annotated[bool, tyro.conf.arg(help="print it as JSON")] = False,
    plugin: Plugin = (),
) -> None:
    """Show what of a model can be compressed: its towers, their units, and how small each method can make it.

    The model is built without its weights.
    """
    use_plugins(plugin)
    from snp.own.looking import facts, towers_in
    from snp.own.origin import WORDS, origin
    from snp.report.own import inspected

    source = origin(model)
    bare = source.bare()
    found = facts(bare, towers_in(bare, model, exclude), WORDS in source.reads(bare))
    found = {"name": model, "library": source.library} | found
    print(as_json.dumps(found, indent=2) if json else inspected(found), end="\n" if json else "")


@app.command
def compress(
    model: Model,
    out: Annotated[Named, tyro.conf.arg(help="folder to write; a new one")],
    method: Annotated[
        str, tyro.conf.arg(help="one of `snp methods`; `snp inspect MODEL` says which can be used")
    ] = "magnitude-structured-uniform-basis",
    keep: Annotated[
        float | None, tyro.conf.arg(help="share of all parameters to keep, in (0, 1]; default: 0.6")
    ] = None,
    sparsity: Annotated[
        float | None, tyro.conf.arg(help="in place of --keep: share of the weights of linear maps to zero")
    ] = None,
    data: Annotated[
        str,
        tyro.conf.arg(
            help="none, or a folder of pictures, for methods that look at data and for --recover; with captions.jsonl, "
            "captions.csv or captions.txt where the model reads texts. The loss is contrastive, from the model's own "
            "logits of pictures and texts; of a model that has none, the distance of its outputs from those of the "
            "dense model"
        ),
    ] = NONE,
    recover: Annotated[
        PositiveInt | None, tyro.conf.arg(help="weight steps afterwards, with the dense model as the teacher")
    ] = None,
    round_to: Annotated[
        PositiveInt, tyro.conf.arg(help="units that a layer keeps are a multiple of it, as kernels like them: 8")
    ] = 1,
    towers: Annotated[
        tuple[str, ...], tyro.conf.arg(help="name=path of each, the one that lends first; default: all that are found")
    ] = (),
    exclude: Exclude = (),
    weights: Weights = None,
    option: Annotated[tuple[str, ...], tyro.conf.arg(help="of the method, as scope=global")] = (),
    steps: Annotated[
        PositiveInt | None, tyro.conf.arg(help="weight steps of a method that decides while it trains; default: 50")
    ] = None,
    rate: Annotated[
        PositiveFloat | None, tyro.conf.arg(help="learning rate; default: 1e-5 while it decides, 1e-4 to recover")
    ] = None,
    batch: Annotated[PositiveInt, tyro.conf.arg(help="pictures of a batch")] = 16,
    seed: Annotated[Seed, tyro.conf.arg(help="of everything random")] = 0,
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$"), tyro.conf.arg(help="cpu or cuda")] = "cpu",
    dry_run: Annotated[bool, tyro.conf.arg(help="only say what would be done, and how long it takes")] = False,
    plugin: Plugin = (),
) -> None:
    """Compress a model of your own, and write it with the Python that loads it.

    A folder that holds anything else is left as it is; the same command again goes on, or shows what was found.
    """
    use_plugins(plugin)
    from snp.own import keeping
    from snp.own.asked import Asked
    from snp.own.work import Work
    from snp.report.own import compressed, long, planned

    asked = Asked(
        model=model,
        weights=weights,
        method=method,
        options=_options(option),
        keep=0.6 if keep is None and sparsity is None else keep,
        sparsity=sparsity,
        towers=_named(towers),
        exclude=exclude,
        data=None if data == NONE else Path(data),
        batch=batch,
        steps=steps,
        rate=rate,
        recover=recover,
        round_to=round_to,
        seed=seed,
        device=device,
    )
    asked.check()
    work = Work(asked, out)
    about = asked.about(work.origin.files)
    keeping.look(out)
    if dry_run:
        print(planned(work.about() | work.planned() | {"out": str(out)}), end="")
        return
    if (facts := keeping.begin(out, about)) is None:
        start = time.monotonic()
        small, plan = work.run()
        facts = work.facts(small, plan) | _measured(work, small)
        facts["seconds"] = time.monotonic() - start
        keeping.keep(out, small, plan, work.found.paths, facts)
    print(compressed(facts))
    print(f"Written to {out}, in {long(facts['seconds'])}. To load it:\n")
    print("\n".join(keeping.lines(out, work.origin)))


def _options(texts: tuple[str, ...]) -> dict[str, Any]:
    """Options of the method by name."""
    found: dict[str, Any] = {}
    for name, value in map(option_of, texts):
        if name in found:
            raise InputError(f"--option {name}", "is given twice", "give one of its values")
        found[name] = value
    return found


def _named(texts: tuple[str, ...]) -> dict[str, str]:
    """Tower -> path."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name or name in found:
            problem = "is named twice" if name in found else "is no name and path"
            raise InputError(f"--towers {text}", problem, "write name=path, as vision=vision_model")
        found[name] = path
    return found


def _measured(work: Any, small: Any) -> dict[str, Any]:
    """Operations and time of one input, or why they are not measured."""
    from snp.bench.own import latency

    try:
        calls = work.called(work.dense), work.called(small)
        calls[0]()
        flops = {"dense": work.flops(work.dense), "small": work.flops(small)}
        return {"flops": flops, "latency": latency(*calls), "unmeasured": ""}
    except Exception as error:  # of many kinds: models of others may want inputs of which nothing is known here
        why = " ".join(str(error).split())[:120]
        return {"flops": None, "latency": None, "unmeasured": f"{type(error).__name__}: {why}"}
