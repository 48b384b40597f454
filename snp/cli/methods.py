"""Commands about methods and what they cost: methods, new-method, check-method, params, bench."""

import sys
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from snp.cli.options import AtScale, Plugin, app
from snp.errors import InputError
from snp.experiment.scores import Model
from snp.experiment.spec import Scale
from snp.flags import Named


@app.command
def params(
    scale: AtScale = "paper",
    model: Annotated[Model, tyro.conf.arg(help="which of the two grounding models")] = "mdetr",
) -> None:
    """Print where a model's parameters are, dense and at the paper's sizes; its weights are not made."""
    print(import_module("snp.bench.params").table(scale, model))


@app.command
def methods(plugin: Plugin = ()) -> None:
    """List the compression methods, and the names of rows that are one of them with options."""
    from snp.compression import plugins
    from snp.compression.aliases import ALIASES, TICKETS
    from snp.compression.registry import methods as registered
    from snp.report.fitted import width

    plugins.use(plugin)
    found = [(name, cls, cls.summary) for name, cls in registered().items()]
    for name, (method, options) in ALIASES.items():
        told = ", ".join([method, *(f"{option}={value}" for option, value in options.items())])
        ticket = f": {TICKETS[name]}" if name in TICKETS else ""
        found.append((name, registered()[method], f"the same as {told}{ticket}"))
    for name, cls, summary in found:
        modes = f" (modes: {', '.join(cls.modes())})" if cls.modes() else ""
        print(f"{name}  {cls.kind}, {cls.stage}{modes}")
        print(fill(f"{summary}. From: {cls.source}", width(), initial_indent="    ", subsequent_indent="    "))


@app.command
def new_method(
    name: Annotated[str, tyro.conf.arg(help="of the method, as my-method"), Positional],
    folder: Annotated[Named, tyro.conf.arg(help="where the file is written")] = Path(),
) -> None:
    """Write the beginning of a method of your own: a file that works as it stands."""
    from snp.compression.template import begin

    path = begin(name, folder)
    print(f"{path}\n\nsnp check-method {name} --plugin {path}\nsnp run scenes/{name}@60 --plugin {path} --scale smoke")


@app.command
def check_method(
    name: Annotated[str, tyro.conf.arg(help="of the method"), Positional],
    plugin: Plugin = (),
) -> None:
    """Run the tests that every method must pass on one of them: budget, seeds, types, copies, errors."""
    from snp.checkout import checkout
    from snp.compression import plugins
    from snp.compression.registry import get

    plugins.use(plugin)
    get(name)
    if (home := checkout()) is None:
        raise InputError("snp check-method", "needs the tests, which an installation does not bring", "use a checkout")
    pytest = import_module("pytest")
    verdicts: dict[str, bool] = {}

    class Count:
        def pytest_runtest_logreport(self, report: Any) -> None:
            """A test is passed when its preparation, itself and what follows are."""
            verdicts[report.nodeid] = verdicts.get(report.nodeid, True) and not report.failed

    shown = ["-q", "--disable-warnings"]  # with the -q of pyproject.toml: failures alone, and no count of others
    code = pytest.main([f"--rootdir={home}", *shown, "-k", name, str(home / "tests" / "test_contract.py")], [Count()])
    failed = [test.rpartition("::")[2] for test, passed in verdicts.items() if not passed]
    if failed:
        print(f"{name} fails {len(failed)} of {len(verdicts)} contract tests: {', '.join(failed)}")
    elif not code:
        print(f"\n{name} passes all {len(verdicts)} contract tests")
    sys.exit(int(code))


@app.command
def bench(
    what: Annotated[
        Literal[
            "train", "scoring", "eval", "annotations", "scaling", "plan", "launch", "trimming", "dual", "inference"
        ],
        tyro.conf.arg(
            help="train: samples/s, share of the matmul peak, step overheads; scoring; eval: evaluators; annotations: "
            "reading them; plan: planning; launch: how much of twenty short jobs is starting them; scaling: what its "
            "model rests on, written to results/bench; trimming: the time that it saves, by the committed rows of "
            "Table 5, and dual: that of a dual encoder, both written there too; inference: time, memory and bytes of "
            "compressed models of public shapes, written there too, case by case: killed, it goes on"
        ),
        Positional,
    ],
    scale: Annotated[Scale | None, tyro.conf.arg(help="train: of the model; default: desk")] = None,
    data: Annotated[
        Literal["scenes", "stamps"] | None, tyro.conf.arg(help="train: what it sees; default: scenes")
    ] = None,
    keep: Annotated[bool, tyro.conf.arg(help="scaling: keep the measured step times, count the rest anew")] = False,
) -> None:
    """Measure what one part of the program costs, in time and throughput."""
    if what != "train" and (scale or data):
        raise InputError("--scale, --data", f"are not of `snp bench {what}`", "it has one size")
    if what == "scoring":
        print(import_module("snp.bench.scoring").scoring())
    elif what == "eval":
        print(import_module("snp.bench.evaluation").evaluators())
    elif what == "annotations":
        print(import_module("snp.bench.annotations").reading())
    elif what == "scaling":
        print(import_module("snp.bench.scaling").measure(keep=keep))
    elif what == "launch":
        print(import_module("snp.bench.launching").starting())
    elif what == "trimming":
        store = import_module("snp.runs.store").Store.at("desk")
        print(import_module("snp.bench.trimming").trimming(store))
    elif what == "dual":
        print(import_module("snp.bench.dual").dual())
    elif what == "inference":
        print(import_module("snp.bench.inference").inference())
    elif what == "plan":
        print(import_module("snp.bench.planning").planning())
    else:
        print(import_module("snp.bench.training").train(scale or "desk", data or "scenes"))
