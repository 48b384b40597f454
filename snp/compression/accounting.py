"""What a Plan costs, and how it looks: parameters stored, shared, pruned and masked, per tower and layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snp.compression.plan import Plan


def cost(plan: Plan) -> dict[str, Any]:
    """Parameters of the towers' weights and biases, in total and (under "towers") per tower.

    dense
        before compression: stored + shared + pruned.
    stored
        own units, and what belongs to no unit: the biases of o and fc2.
    shared
        units that another layer stores.
    pruned
        units cut out.
    masked
        zeros of unstructured masks, stored nonetheless; in the total only.
    removed
        shared + pruned + masked: what a budget counts.
    """
    towers = {}
    for name, shape in plan.towers.items():
        own = surviving = 0
        for layer in range(shape.layers):
            for c in shape.components:
                each = shape.unit_cost(c, "share")
                own += each * int(plan.own(name, layer, c).sum())
                surviving += each * int(plan.survives(name, layer, c).sum())
        fixed = shape.rest * shape.layers
        towers[name] = {
            "dense": shape.cost,
            "stored": own + fixed,
            "own": own,
            "shared": surviving - own,
            "pruned": shape.cost - fixed - surviving,
        }
    total = {
        key: sum(tower[key] for tower in towers.values()) for key in ("dense", "stored", "own", "shared", "pruned")
    }
    masked = sum(int((~mask).sum()) for mask in plan.masks.values())
    removed = total["shared"] + total["pruned"] + masked
    return {**total, "masked": masked, "removed": removed, "towers": towers}


def summary(plan: Plan) -> dict[str, Any]:
    """The cost, and per tower and component how many sharing units each layer keeps and stores itself."""
    units: dict[str, dict[str, dict[str, Any]]] = {}
    for name, shape in plan.towers.items():
        units[name] = {}
        for c in shape.components:
            kept, own = (
                [int(which(name, layer, c).sum()) for layer in range(shape.layers)]
                for which in (plan.survives, plan.own)
            )
            units[name][c] = {"units": shape.units(c, "share"), "kept": kept, "own": own}
    return {"cost": cost(plan), "units": units, "masks": len(plan.masks), "note": plan.note}


def report(plan: Plan) -> str:
    """Per layer the units kept of each component, in brackets those that another layer stores."""
    totals, units = cost(plan), summary(plan)["units"]
    names = list(dict.fromkeys(c for shape in plan.towers.values() for c in shape.components))
    lines = [f"{'tower':<10}{'layer':>5}" + "".join(f"{c + ' kept (shared)':>24}" for c in names)]
    for name, layer in plan.layers:
        cells = []
        for c in names:
            if c not in units[name]:
                cells.append("")
                continue
            kept, own = units[name][c]["kept"][layer], units[name][c]["own"][layer]
            cells.append(f"{kept}/{units[name][c]['units']}" + (f" ({kept - own})" if kept > own else ""))
        lines.append(f"{name:<10}{layer:>5}" + "".join(f"{cell:>24}" for cell in cells))
    parts = ", ".join(f"{key} {totals[key]:,}" for key in ("stored", "shared", "pruned", "masked"))
    # a plan of weights alone knows no tower
    share = f"; {totals['removed'] / totals['dense']:.1%} removed" if totals["dense"] else ""
    lines.append(f"towers: {totals['dense']:,} parameters: {parts}{share}")
    return "\n".join(lines + ([f"note: {plan.note}"] if plan.note else []))
