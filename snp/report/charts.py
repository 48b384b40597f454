"""The charts of the page as Vega-Lite specifications without data, which the page fills in and its browser draws."""

from typing import Any

from snp import drawing

_SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "X": "cross",
    "D": "diamond",
    "v": "triangle-down",
    "P": "wedge",
}
KINDS = {kind: (color, _SHAPES[marker]) for kind, (color, marker) in drawing.KINDS.items()}
"""Colour and mark of each kind, as in figures."""
PARTS = {"own": drawing.BLUE, "shared": drawing.ORANGE, "pruned": "#b9bec7"}
"""Colours of what becomes of a unit: it has weights of its own, takes those of another, or is gone."""
SEEDS = [*drawing.COLORS[:4], drawing.GREY]
"""Colours of runs of several seeds; page.js has them too."""
DATA = "lines"


def charts() -> dict[str, Any]:
    """`cost`: scores over a cost; `curve`: one series over steps; `plan`: what becomes of the units of each layer."""
    return {"cost": _cost(), "curve": _curve(), "plan": _plan()}


def _cost() -> dict[str, Any]:
    """Every line of the leaderboard as a point with its interval, the sizes of a method joined, the front, and names.

    Data: `cost`, `score`, `low`, `high`, `method`, `kind`, `front` (on it or not), `named` (the side on which its name
    stands, if at all), and what the tooltip tells.
    """
    import altair as alt

    near = alt.selection_point(name="near", on="pointerover", fields=["method"], nearest=False, empty=True)
    colour = alt.Color("kind:N", scale=alt.Scale(domain=[*KINDS], range=[c for c, _ in KINDS.values()]), legend=None)
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=[*KINDS], range=[m for _, m in KINDS.values()]), legend=None)
    x = alt.X(
        "cost:Q",
        scale=alt.Scale(domain=[0, 1.04], nice=False),
        axis=alt.Axis(format="%", tickCount=6),
        title=None,
    )
    y = alt.Y(
        "score:Q",
        scale=alt.Scale(zero=False, padding=14),
        axis=alt.Axis(tickCount=6, format=".0f"),
        title=None,
    )
    told = [
        alt.Tooltip(f"{name}:N", title=title)
        for name, title in {
            "method": "method", "kind": "kind", "told": "score", "lost": "to dense", "size": "parameters",
            "flops": "FLOPs", "seeds": "seeds",
        }.items()
    ]  # fmt: skip
    base = alt.Chart(alt.NamedData(DATA)).encode(x=x, y=y)
    joined = base.mark_line(strokeWidth=1.2).encode(
        color=colour,
        detail=["method:N"],
        order="cost:Q",
        opacity=alt.condition(near, alt.value(0.55), alt.value(0.08)),
    )
    best = base.mark_line(strokeDash=[5, 4], strokeWidth=1.5).transform_filter("datum.front").encode(order="cost:Q")
    spread = base.mark_rule(strokeWidth=1.4).encode(
        y=alt.Y("low:Q"),
        y2="high:Q",
        color=colour,
        opacity=alt.condition(near, alt.value(0.6), alt.value(0.08)),
    )
    points = (
        base.mark_point(filled=True, size=62, cursor="pointer")
        .encode(
            color=colour,
            shape=shape,
            tooltip=told,
            opacity=alt.condition(near, alt.value(1), alt.value(0.15)),
        )
        .add_params(near)
    )
    places: dict[str, dict[str, Any]] = {
        "left": {"align": "right", "baseline": "bottom", "dx": -6, "dy": -4},
        "right": {"align": "left", "baseline": "top", "dx": 7, "dy": 4},
    }
    names = [
        base.mark_text(**offset, fontSize=11).transform_filter(f"datum.named == '{place}'").encode(text="method:N")
        for place, offset in places.items()
    ]
    return _spec(alt.layer(joined, spread, best, points, *names).properties(height=400))


def _curve() -> dict[str, Any]:
    """One series over the steps of a run, or of the runs of several seeds. Data: `step`, `value`, `seed`."""
    import altair as alt

    seeds = alt.Color("seed:N", scale=alt.Scale(range=SEEDS), legend=None)
    chart = (
        alt.Chart(alt.NamedData(DATA))
        .mark_line(strokeWidth=1.4, point={"size": 14, "filled": True})
        .encode(
            x=alt.X("step:Q", title=None, axis=alt.Axis(tickCount=3, format=".3~s", grid=False)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=3, format=".4~g")),
            color=seeds,
            tooltip=["seed:N", "step:Q", alt.Tooltip("value:Q", format=".4g")],
        )
        .properties(height=92)
    )
    return _spec(chart)


def _plan() -> dict[str, Any]:
    """Shares of the units of each layer that have own weights, shared ones, or are pruned.

    Data: `layer`, `part`, `units`, `share`, `place` (order from the axis up).
    """
    import altair as alt

    chart = (
        alt.Chart(alt.NamedData(DATA))
        .mark_bar()
        .encode(
            x=alt.X("layer:O", title=None, axis=alt.Axis(labelAngle=0, domain=False, ticks=False)),
            y=alt.Y("share:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=3)),
            color=alt.Color("part:N", scale=alt.Scale(domain=[*PARTS], range=[*PARTS.values()]), legend=None),
            order="place:O",
            tooltip=["layer:O", "part:N", "units:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=120)
    )
    return _spec(chart)


def _spec(chart: Any) -> dict[str, Any]:
    """A chart as wide as its place, without the address of a schema, which nothing needs to be asked for."""
    value = chart.properties(width="container").to_dict()
    value.pop("$schema", None)
    value.pop("config", None)
    return value
