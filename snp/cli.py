"""The command `snp`: runs, tables, claims, figures and data. Bad input is one line on stderr and exit code 2.

Heavy parts are imported by the command that needs them: rendering a table never loads torch.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from tyro.conf import Positional

from snp.errors import InputError
from snp.experiment.resources import Resources
from snp.experiment.setup import Setup
from snp.experiment.spec import Data, Model, Scale, dense
from snp.experiment.stopping import Stopped
from snp.experiment.store import AnyRun, Store
from snp.experiment.tables import TABLES, Row, find
from snp.experiment.tables import rows as rows_of

Published = Literal["refcoco", "refcoco+", "refcocog", "gqa", "flickr30k", "coco", "mixed"]
app = tyro.extras.SubcommandApp()
Format = Literal["markdown", "csv", "latex"]
Table = Annotated[str, tyro.conf.arg(help="which table, as table1"), Positional]
Out = Annotated[Path | None, tyro.conf.arg(help="folder of the runs; default: results/<scale>")]


def main(arguments: list[str] | None = None) -> None:
    """Run one command; the entry point of the console script."""
    try:
        app.cli(prog="snp", description="Joint sharing and pruning of two towers.", args=arguments)
    except InputError as error:
        print("snp:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print("snp: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command
def rows(table: Table, scale: Scale = "desk", data: Data | None = None, out: Out = None) -> None:
    """List the rows of a table: label, state of every seed, and the time that is left to run."""
    from tabulate import tabulate

    store, chosen = _store(scale, out), _chosen(table, scale, data)
    costs = _mean_seconds(store)
    lines = [
        [
            row.label,
            row.group,
            "yes" if row.main else "",
            *_states(row, store),
            _left([row], row.seeds, store, costs),
        ]
        for row in chosen
    ]
    seeds = max(len(row.seeds) for row in chosen)
    head = ["row", "removed", "main", *(f"seed {seed}" for seed in range(seeds)), "time left"]
    print(tabulate([line[:-1] + [""] * (len(head) - len(line)) + line[-1:] for line in lines], head))
    print("\n@60: 60% of all parameters are kept. Time: mean of finished runs of the same kind; ?: none yet.")


@app.command
def run(
    row: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="labels as `snp rows` prints them, for example scenes/snp@60, or a table: all its rows"),
        Positional,
    ],
    seed: Annotated[tuple[int, ...], tyro.conf.arg(help="one or more; default: all seeds of a row")] = (),
    scale: Scale = "desk",
    keep: Annotated[float | None, tyro.conf.arg(help="share of all parameters to keep, in (0, 1]")] = None,
    out: Out = None,
    workers: int = 2,
    dry_run: bool = False,
    setup: Annotated[Setup, tyro.conf.OmitArgPrefixes] = Setup(),  # noqa: B008 - frozen
) -> None:
    """Run what is missing or incomplete of rows: pre-training, compression, fine-tuning.

    With --steps it is a trial, kept apart in .runs/trial.
    """
    if not row:
        raise InputError("snp run", "names no row", "see `snp rows table1`, or run all: `snp run table1`")
    if min(seed, default=0) < 0:
        raise InputError("--seed", f"must be 0 or more, got {min(seed)}")
    if keep is not None and (tables := TABLES.keys() & {*row}):
        raise InputError("--keep", f"does not go with a whole table ({min(tables)})", "name a row")
    chosen = [
        found for name in row for found in (rows_of(name, scale) if name in TABLES else [find(name, scale, keep)])
    ]
    store = _store_of(scale, out, setup)
    _run(chosen, seed or None, store, workers, dry_run, setup)


@app.command
def reproduce(
    table: Table,
    scale: Scale = "desk",
    data: Data = "scenes",
    seed: int = 0,
    out: Annotated[Path | None, tyro.conf.arg(help="default: .reproduce/<scale>")] = None,
    workers: int = 2,
    dry_run: bool = False,
    from_results: Annotated[
        bool, tyro.conf.arg(help="run nothing, only render the committed results")
    ] = False,
) -> None:
    """Run the main rows of a table's first group afresh, one seed; print them beside the committed ones."""
    from snp.report.table import reproduction
    from snp.report.table import table as render

    committed = Store.at(scale)
    if from_results:
        print(render(table, committed, scale), end="")
        return
    of_data = [row for row in rows_of(table, scale) if row.data == data]
    chosen = [
        row.model_copy(update={"seeds": (seed,)})
        for row in of_data
        if row.main and row.group == of_data[0].group
    ]
    if not chosen:
        raise InputError(f"{table} --data {data}", f"has no rows at scale {scale}")
    store = Store(out or Path(".reproduce") / scale, base=committed)
    if dry_run:
        _run(chosen, (seed,), store, workers, dry_run)
        return
    from snp import ranks

    with ranks.together():
        _run(chosen, (seed,), store, workers, dry_run)
        if ranks.rank() == 0:
            print(reproduction(table, chosen, store, committed, scale), end="")


@app.command
def launch(
    table: Table,
    scale: Scale = "desk",
    cluster: Literal["slurm", "local", "debug"] = "slurm",
    seeds: Annotated[str, tyro.conf.arg(help="as 0,1,2; default: all seeds of a row")] = "",
    data: Data | None = None,
    out: Out = None,
    array_parallelism: Annotated[
        int | None, tyro.conf.arg(help="elements of an array at a time; default: 256; local: runs at a time, 2")
    ] = None,
    dry_run: Annotated[bool, tyro.conf.arg(help="print every sbatch script; needs no SLURM")] = False,
    wish: Annotated[Resources, tyro.conf.OmitArgPrefixes] = Resources(),  # noqa: B008 - frozen
    setup: Annotated[Setup, tyro.conf.OmitArgPrefixes] = Setup(),  # noqa: B008 - frozen
) -> None:
    """Submit what is missing or incomplete of a table, a job for each run, and neither done nor queued.

    local: one process of this machine does it all and outlives this one; debug: this process does it.
    """
    from tabulate import tabulate

    from snp.experiment.jobs import live, statuses
    from snp.experiment.launch import Launch, arrays, resources
    from snp.experiment.runner import make_data, planned
    from snp.experiment.work import Place

    chosen, only = _chosen(table, scale, data), _seeds(seeds)
    store = _store_of(scale, out, setup)
    todo = planned(chosen, only, store)
    queued = {} if dry_run and not todo else live(statuses(todo, store))
    left = [run for run in todo if run.slug not in queued]
    if not left:
        print(f"nothing to submit: {len(queued)} runs are queued or running, all others are done")
        return
    here = cluster != "slurm"
    jobs = Launch(store, Place.of(store, setup), array_parallelism or (2 if here else 256))
    asked = arrays(resources(chosen, todo, wish), queued)
    if dry_run:
        print("\n\n".join(jobs.dry(asked, queued)))
        return
    make_data(left, setup)
    if cluster == "debug":
        jobs.debug(left)
    elif cluster == "local":
        print(f"process {jobs.local(chosen, only, left).job}: {len(left)} runs; see `snp status {table}`")
    else:
        lines = []
        for array, record, waits in jobs.slurm(asked, queued):
            of = array.resources
            lines.append([record.job, array.name, len(array.runs), of.time, of.mem, of.gpus or 0, waits or ""])
        print(tabulate(lines, ["job", "name", "runs", "time", "memory", "GPUs", "waits for"], disable_numparse=True))


@app.command
def status(
    table: Table,
    scale: Scale = "desk",
    seeds: Annotated[str, tyro.conf.arg(help="as 0,1,2; default: all seeds of a row")] = "",
    data: Data | None = None,
    out: Out = None,
) -> None:
    """List the runs of a table: done, running, queued or failed, and why; from SLURM and from the run folders."""
    from tabulate import tabulate

    from snp.experiment.jobs import Job, slurm_jobs, statuses, summary

    def ask(jobs: set[str]) -> dict[str, Job]:
        try:
            return slurm_jobs(jobs)
        except InputError as error:
            print("snp: only what the run folders say:", " ".join(str(error).split()), file=sys.stderr)
            return {}

    found = statuses(_runs(table, scale, data, seeds), _store(scale, out), ask)
    lines = [[one.run.name, one.state, one.job, one.progress, one.reason[:100]] for one in found]
    print(tabulate(lines, ["run", "state", "job", "steps", "reason"], disable_numparse=True))
    print(f"\n{summary(found)}")


@app.command
def cancel(
    table: Table,
    scale: Scale = "desk",
    seeds: Annotated[str, tyro.conf.arg(help="as 0,1,2; default: all seeds of a row")] = "",
    data: Data | None = None,
    out: Out = None,
) -> None:
    """End the queued and running jobs of a table; what runs saves its state first, and goes on when launched again."""
    from snp.experiment.jobs import cancel as end
    from snp.experiment.jobs import statuses

    store = _store(scale, out)
    ended = end(statuses(_runs(table, scale, data, seeds), store), store)
    for one in ended:
        print(f"cancelled: {one.run.name} (job {one.job}, {one.state})")
    if not ended:
        print("nothing to cancel: no job of these runs is queued or running")


@app.command
def pretrain(
    scale: Scale = "desk",
    data: Data = "scenes",
    model: Model = "mdetr",
    out: Out = None,
    threads: Annotated[int, tyro.conf.arg(help="compute threads; another number gives other sums")] = 1,
    setup: Annotated[Setup, tyro.conf.OmitArgPrefixes] = Setup(),  # noqa: B008 - frozen
) -> None:
    """Train the dense model that all rows start from, unless its result is there already."""
    from tqdm import tqdm

    from snp import ranks

    spec, store = dense(scale, data, model), _store_of(scale, out, setup)
    with ranks.together():
        first = ranks.rank() == 0
        if ranks.once(lambda: store.state(spec)) != "done":
            import_module("torch").set_num_threads(threads)
            total = import_module("snp.experiment.runner").captions(spec, setup)
            look = {"unit": "caption", "unit_scale": True, "smoothing": 0.05, "disable": not first}
            with tqdm(total=total, desc=spec.name, **look) as bar:
                import_module("snp.experiment.stages").run(spec, store, bar.update, setup)
        if first:
            print(f"done: {store.folder(spec)}")


@app.command
def params(scale: Scale = "paper", model: Literal["mdetr", "glip"] = "mdetr") -> None:
    """Print where a model's parameters are, dense and at the paper's sizes; its weights are not made."""
    print(import_module("snp.experiment.params").table(scale, model))


@app.command
def methods() -> None:
    """List the compression methods."""
    from tabulate import tabulate

    from snp.compression.registry import methods as registered

    lines = [
        [name, cls.kind, cls.stage, ", ".join(cls.modes()), cls.summary, cls.source]
        for name, cls in registered().items()
    ]
    print(tabulate(lines, ["method", "kind", "stage", "modes", "what it does", "source"]))


@app.command
def table(
    table: Table,
    scale: Scale = "desk",
    data: Data | None = None,
    format: Format = "markdown",
    out: Out = None,
) -> None:
    """Print a table from results alone: readable markdown, every metric as csv, or latex."""
    from snp.report.table import table as render

    print(render(table, _store(scale, out), scale, data, format), end="")


@app.command
def claims(table: Annotated[str, Positional] = "table1", scale: Scale = "desk", out: Out = None) -> None:
    """Print each claim of the paper that the rows can test: measured value, interval, verdict."""
    from snp.report.claims import claims_markdown
    from snp.report.frame import Measured

    print(claims_markdown(Measured(rows_of(table, scale), _store(scale, out))), end="")


@app.command
def figure(
    name: Annotated[
        str, tyro.conf.arg(help="figure1, tickets, scaling, or a table whose rows are drawn"), Positional
    ],
    png: Annotated[Path | None, tyro.conf.arg(help="file to write; default: <name>.png")] = None,
    scale: Scale = "desk",
    data: Data = "scenes",
    out: Out = None,
) -> None:
    """Draw a figure from results alone, and print how far each of its curves reaches without loss."""
    from snp.report.figures import figure as draw
    from snp.report.figures import limits
    from snp.report.table import markdown

    if name == "scaling":
        scaling = import_module("snp.report.scaling")
        print(scaling.figure(scaling.MEASURED, png or Path("scaling.png")))
        return
    store = _store(scale, out)
    print(draw(name, store, scale, data, png or Path(f"{name}.png")))
    print(f"\n{markdown(limits(name, store, scale, data))}", end="")


@app.command
def readme(path: Annotated[Path, Positional] = Path("README.md"), check: bool = False) -> None:
    """Write the tables of a README anew from the committed results; with --check only say whether they are stale."""
    from snp.report.readme import rendered, update

    store = Store.at("desk")
    if not check:
        print(f"{path}: {'rewritten' if update(path, store) else 'up to date'}")
    elif rendered(path.read_text(), store) != path.read_text():
        raise InputError(path, "its tables are not what the results say", "run `snp readme`")


@app.command
def data(
    action: Annotated[Literal["make", "show", "check"], Positional],
    name: Annotated[Data | Published, tyro.conf.arg(help="check: a published benchmark; else drawn data"), Positional],
    scale: Scale = "desk",
    root: Annotated[
        Path | None, tyro.conf.arg(help="folder of the data; default: .data/<name>-<scale>")
    ] = None,
    source: Annotated[Path | None, tyro.conf.arg(help="stamps: folder of the photographic cut-outs")] = None,
    png: Annotated[Path | None, tyro.conf.arg(help="show: the page to write; default: <name>.png")] = None,
    data_root: Annotated[Path | None, tyro.conf.arg(help="check: folder of annotations and pictures")] = None,
    decode: Annotated[bool, tyro.conf.arg(help="check: read every picture to its end")] = True,
    workers: int = 2,
) -> None:
    """Make a data set from its seed, show a page of its samples, or check the folder of a published benchmark."""
    if (action == "check") != (name in get_args(Published)):
        known = get_args(Published) if action == "check" else get_args(Data)
        raise InputError(f"snp data {action} {name}", "no such data", f"choose one of {', '.join(known)}")
    if action == "check":
        _check(name, data_root, decode)
        return
    from snp.experiment import prepare

    root = root or prepare.data_folder(scale, name)
    if source or not prepare.is_made(root):
        prepare.make(root, scale, name, workers, **({} if source is None else {"source": source}))
    if action == "make":
        print(root)
        return
    from snp.data.show import sample_page

    print(sample_page(root, png or Path(f"{name}.png")))


def _check(name: Published, root: Path | None, decode: bool) -> None:
    """Print the report on a folder; exit code 2 where it has an error."""
    from snp.data.sources.check import NEEDS, check, report

    if root is None:
        raise InputError("--data-root", "missing", f"the folder that holds {NEEDS[name]}")
    findings = check(name, root, decode)
    print(report(findings))
    if any(finding.level == "error" for finding in findings):
        sys.exit(2)


@app.command
def demo(
    picture: Annotated[Path, tyro.conf.arg(help="any picture file"), Positional],
    text: Annotated[str, tyro.conf.arg(help="a phrase or a question; GLIP: class names, as 'dog. cup'"), Positional],
    checkpoint: Annotated[
        tuple[Path, ...], tyro.conf.arg(help="folders of finished runs; default: the dense desk model of scenes")
    ] = (),
    png: Annotated[Path, tyro.conf.arg(help="file to write")] = Path("demo.png"),
) -> None:
    """Draw what trained models find in a picture for a sentence, side by side, and print it."""
    from snp.experiment.demo import Checkpoint, draw, predict

    folders = checkpoint or (Store.at("desk").folder(dense("desk", "scenes")),)
    found = [(one := Checkpoint.of(folder), predict(one, picture, text)) for folder in folders]
    for one, said in found:
        best = [f"{seen.words} {seen.score:.2f} at {tuple(round(v, 2) for v in seen.box)}" for seen in said.seen]
        print(f"{one.name}: {'; '.join(best) or 'nothing'}" + (f"; answer: {said.answer}" if said.answer else ""))
    print(draw([(one.name, picture, text, said) for one, said in found], png))


@app.command
def predictions(
    png: Annotated[Path, tyro.conf.arg(help="file to write")] = Path("predictions.png"),
    number: Annotated[int, tyro.conf.arg(help="which sample of each benchmark")] = 0,
    scale: Scale = "desk",
    data: Data = "scenes",
    out: Out = None,
) -> None:
    """Draw one sample of every task as the dense and as the compressed model see it."""
    from snp.experiment.demo import page

    print(page(_store(scale, out), scale, data, png, number))


@app.command
def bench(
    what: Annotated[Literal["train", "scoring", "eval", "annotations", "scaling", "plan"], Positional],
    scale: Scale = "desk",
    data: Data = "scenes",
    keep: Annotated[bool, tyro.conf.arg(help="scaling: keep the measured step times, count the rest anew")] = False,
) -> None:
    """Measure training (samples/s, share of the matmul peak, step overheads), scoring, evaluators, reading, planning,
    or what the model of scaling rests on (written to results/bench).
    """
    if what == "scoring":
        print(import_module("snp.experiment.bench_scoring").scoring())
    elif what == "eval":
        print(import_module("snp.experiment.bench_eval").evaluators())
    elif what == "annotations":
        print(import_module("snp.experiment.bench_annotations").reading())
    elif what == "scaling":
        print(import_module("snp.experiment.bench_scaling").measure(keep=keep))
    elif what == "plan":
        print(import_module("snp.experiment.bench_plan").planning())
    else:
        print(import_module("snp.experiment.bench").train(scale, data))


def _chosen(table: str, scale: Scale, data: Data | None) -> list[Row]:
    """The rows of a table, on one data set or on all."""
    chosen = [row for row in rows_of(table, scale) if data in (None, row.data)]
    if not chosen:
        raise InputError(f"{table} --data {data}", f"has no rows at scale {scale}")
    return chosen


def _seeds(text: str) -> tuple[int, ...] | None:
    """`0,1` as numbers; None for all."""
    if text and not all(part.isdecimal() for part in text.split(",")):
        raise InputError("--seeds", f"must be numbers of 0 or more, got {text}", "as --seeds 0,1,2")
    return tuple(map(int, text.split(","))) if text else None


def _runs(table: str, scale: Scale, data: Data | None, seeds: str) -> list[AnyRun]:
    """All runs of a table's rows, each once, parents first."""
    only = _seeds(seeds)
    chosen = _chosen(table, scale, data)
    return list(dict.fromkeys(run for row in chosen for seed in only or row.seeds for run in row.runs(seed)))


def _store(scale: Scale, out: Path | None) -> Store:
    """The committed results, or a folder of one's own that borrows their dense checkpoint."""
    return Store.at(scale) if out is None else Store(out, base=Store.at(scale))


def _store_of(scale: Scale, out: Path | None, setup: Setup) -> Store:
    """As `_store`, but trials are kept apart, and from all that is finished."""
    return Store(out or Path(".runs") / "trial") if setup.steps else _store(scale, out)


def _run(
    rows: list[Row],
    seeds: tuple[int, ...] | None,
    store: Store,
    workers: int,
    dry_run: bool,
    setup: Setup = Setup(),  # noqa: B008 - frozen
) -> None:
    from snp.experiment.runner import run_rows

    todo = run_rows(rows, seeds, store, workers=workers, dry_run=dry_run, setup=setup)
    for spec in todo if dry_run else ():
        print(f"{store.state(spec):10}  {spec.slug}")
    if dry_run and not todo:
        print("nothing to do: all runs are done")


def _states(row: Row, store: Store) -> list[str]:
    """Per seed: missing, done, or how many of the row's runs are done."""
    texts = []
    for seed in row.seeds:
        states = [store.state(run) for run in row.runs(seed)[1:]]
        done = states.count("done")
        partial = f"incomplete ({done} of {len(states)} runs)"
        texts.append("done" if done == len(states) else partial if {*states} != {"missing"} else "missing")
    return texts


def _mean_seconds(store: Store) -> dict[str, float]:
    """Mean wall time of the finished runs of each sort."""
    times: dict[str, list[float]] = {}
    for result in store.results():
        if seconds := result.manifest.get("wall_seconds"):
            times.setdefault(_sort(result.run), []).append(seconds)
    return {kind: sum(values) / len(values) for kind, values in times.items()}


def _left(rows: list[Row], seeds: tuple[int, ...], store: Store, costs: dict[str, float]) -> str:
    """Time that the missing and incomplete runs will take, pre-training left out."""
    todo = [_sort(run) for row in rows for seed in seeds for run in row.runs(seed)[1:] if not store.find(run)]
    if not all(sort in costs for sort in todo):
        return "?"
    return f"{sum(costs[sort] for sort in todo) / 60:.0f} min" if todo else ""


def _sort(run: AnyRun) -> str:
    """Runs that take about the same time: the kind, compression without training apart."""
    return run.kind if getattr(run, "recovery", True) else "compress at once"
