"""What `snp inspect` and `snp compress` say of a model of the user's own, as text for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any

from pandas import DataFrame

from snp.report.fitted import fitted, width

Facts = Mapping[str, Any]


def inspected(facts: Facts) -> str:
    """A model before compression: towers, parameters, and what each method could leave."""
    total = facts["parameters"]
    units, places = [], []
    for name, tower in facts["towers"].items():
        for number, (component, about) in enumerate(tower["components"].items()):
            row = {"tower": "" if number else name, "layers": "" if number else str(tower["layers"]), "part": component}
            sizes = {"units": f"{about['units']:,}", "of size": f"{about['parameters']:,}"}
            units.append(row | sizes | {"what": about["what"]})
        places.append(_place(name, tower["parameters"], total) | {"can go": f"{tower['removable'] / total:.1%}"})
    places.append(_place("outside", facts["outside"], total))
    said = [f"Data: {facts['data']} (--data). Steps: of the method's own training (--steps)."]
    if any(line["kind"] == "unstructured" and line["least"] is not None for line in facts["methods"]):
        said.append("Unstructured methods zero weights, and store all: their share is of what is not zero.")
    unfit = {line["name"]: line["why"] for line in facts["methods"] if line["why"]}
    return _page(
        _filled(f"{facts['name']}: {facts['class']} of {facts['library']}"),
        _table(units, "What can be cut in each layer (of size: parameters of a unit):", ["what"]),
        _table(places, f"Parameters: {total:,}", ["where"]),
        _table(
            _methods(facts["methods"]), "Methods, and the smallest share of all parameters they leave:", ["methods"]
        ),
        _filled(" ".join(said)),
        _list("Not for this model:", unfit),
        _list("Left whole:", facts["left"]) or "Nothing in the towers is left whole.",
    )


def planned(facts: Facts) -> str:
    """What would be done, and how long it takes."""
    share = f"{facts['target'] / facts['total']:.1%}"
    said = [
        f"{_title(facts)}.",
        f"Towers: {', '.join(f'{name} ({path})' for name, path in facts['towers'].items())}.",
        *(f"Left whole: {path}: {why}." for path, why in facts["left"].items()),
        f"By {facts['method']} from {facts['total']:,} parameters to {facts['target']:,} ({share}).",
    ]
    if facts["batches"]:
        said += [f"Data: {facts['pictures']:,} pictures in {facts['batches']:,} batches.", f"Loss: {facts['loss']}."]
    if facts["steps"]:
        said.append(f"It decides after {facts['steps']:,} weight steps.")
    if facts["recover"]:
        said.append(f"Recovery: {facts['recover']:,} weight steps, taught by the dense model.")
    parts = [f"{what} {long(seconds)}" for what, seconds in facts["seconds"].items()]
    said.append(
        f"Roughly, by one batch that was tried here: {', '.join(parts)}."
        if parts
        else "It trains nothing: a minute or two."
    )
    said.append(f"It would be written to {facts['out']}; nothing was done.")
    return "\n".join(map(_filled, said)) + "\n"


def compressed(facts: Facts) -> str:
    """A model after compression: sizes, operations, time, and what each layer keeps."""
    dense, small = facts["dense"], facts["small"]
    rows = [_both("parameters stored", dense["parameters"], small["parameters"])]
    for (name, one), (_, other) in zip(dense["towers"], small["towers"], strict=True):
        rows.append(_both(f"- {name}", one, other))
    rows.append(_both("- elsewhere", dense["outside"], small["outside"]))
    if facts["weights_kept"]:
        rows.append(_both("not zero", dense["nonzero"], small["nonzero"]))
    if flops := facts["flops"]:
        scale, unit = (1e9, " G") if flops["dense"] > 1e9 else (1e6, " M")
        rows.append(_both("operations", flops["dense"] / scale, flops["small"] / scale, unit))
    if time := facts["latency"]:
        rows.append(_both("time, on this machine", 1e3 * time["one"], 1e3 * time["other"], " ms"))
        threads = f"{time['threads']} thread{'s' if time['threads'] > 1 else ''}"
        said = (
            f"Operations and time: of one input. Time: medians of {time['rounds']} rounds in turns, measured on this "
            f"machine with {threads}; {time['ratio']:.2f} times as fast, 95% interval {time['low']:.2f} to "
            f"{time['high']:.2f}. Another machine gives other times."
        )
    else:
        said = f"Operations and time are not measured: {facts['unmeasured']}."
    return _page(
        _table(rows, f"{_title(facts)}; by {facts['method']}:", ["what"]),
        _filled(said),
        _filled(f"Loss: {facts['loss']}.") if facts["loss"] else "",
        _table(_layers(facts["units"], _units), "Units that each layer keeps:")
        if not facts["weights_kept"]
        else _table(_layers(facts["weights_kept"], _weights), "Share of its weights that each layer keeps:"),
        _filled(f"Note: {facts['note']}.") if facts["note"] else "",
    )


def _title(facts: Facts) -> str:
    return f"{facts['name']}: {facts['class']} of {facts['library']}, {facts['weights']}"


def _methods(methods: Sequence[Facts]) -> list[dict[str, str]]:
    """A row for those that are alike."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for line in methods:
        if line["least"] is not None and line["kind"] != "dense":
            rows.setdefault((line["kind"], line["needs"], f"{line['least']:.1%}"), []).append(line["name"])
    return [
        {"kind": kind, "needs": needs, "smallest": least, "methods": ", ".join(names)}
        for (kind, needs, least), names in rows.items()
    ]


def _layers(components: Sequence[Facts], cell: Callable[[Facts, int], str]) -> list[dict[str, str]]:
    """A row for every layer of every tower, with what it keeps of each component."""
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for about in components:
        for layer in range(len(about["kept"])):
            first = {"tower": "" if layer else about["tower"], "layer": str(layer)}
            rows.setdefault((about["tower"], layer), first)[about["component"]] = cell(about, layer)
    return list(rows.values())


def _units(about: Facts, layer: int) -> str:
    """Units kept, of each head where they are dimensions, and how many of them another layer stores."""
    heads, kept, own = about["heads"], about["kept"][layer], about["own"][layer]
    each = f"{heads} x " if heads > 1 else ""
    shared = f", {1 - own / kept:.0%} shared" if kept > own else ""
    return f"{each}{kept // heads:,} of {about['units'] // heads:,}{shared}"


def _weights(about: Facts, layer: int) -> str:
    return f"{about['kept'][layer]:.1%}"


def _place(name: str, parameters: int, total: int) -> dict[str, str]:
    return {"where": name, "parameters": f"{parameters:,}", "share": f"{parameters / total:.1%}"}


def _both(what: str, dense: float, small: float, unit: str = "") -> dict[str, str]:
    digits = ".1f" if unit else ",.0f"
    share = f"{small / dense:.1%}" if dense else ""
    return {"what": what, "dense": f"{dense:{digits}}{unit}", "smaller": f"{small:{digits}}{unit}", "left": share}


def long(seconds: float) -> str:
    """A time, roughly."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def _table(rows: Sequence[Mapping[str, str]], title: str, folds: Sequence[str] = ()) -> str:
    frame = DataFrame([*map(dict, rows)]).fillna("")
    return fitted(frame, _filled(title), width(), folds, first=list(frame.columns))


def _list(title: str, lines: Mapping[str, str]) -> str:
    return "\n".join([title, *(_filled(f"- {name}: {why}") for name, why in lines.items())]) if lines else ""


def _filled(text: str) -> str:
    return fill(text, width(), subsequent_indent="  " if text.startswith("- ") else "")


def _page(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"
