"""A run's relatives as a graph: what it stands on, and what stands on it. Pure."""

from collections.abc import Mapping
from typing import Any

from flopmeter.collector.spelling import figure_json
from flopmeter.contract.flop import total

from .tenancy import HIDDEN, Sight
from .view import View

MOST = 500


def graph(view: View, sight: Sight, run: str) -> dict[str, Any]:
    """`nodes`, `edges` and `more`: the nearest first, those it stands on before those that stand on it."""
    links = view.registry.stands_on
    parents: dict[str, list[tuple[str, str]]] = {}
    children: dict[str, list[tuple[str, str]]] = {}
    for link in sorted(links, key=lambda k: (k.run, k.parent, k.relation)):
        parents.setdefault(link.run, []).append((link.parent, link.relation.value))
        children.setdefault(link.parent, []).append((link.run, link.relation.value))
    distance = {run: 0}
    more = _walk(run, parents, -1, distance) | _walk(run, children, 1, distance)
    names = {n: n for n in distance}
    for i, name in enumerate(sorted(n for n in distance if not sight.named(n)), 1):
        names[name] = f"{HIDDEN} {i}"
    nodes = [
        {"name": names[n], "kind": _kind(view, sight, n), "distance": d, "flop": _flop(view, sight, n)}
        for n, d in distance.items()
    ]
    edges = [
        {"from": names[child], "to": names[parent], "relation": relation}
        for child in distance
        for parent, relation in parents.get(child, ())
        if parent in distance
    ]
    return {"nodes": nodes, "edges": edges, "more": more}


def _walk(run: str, steps: Mapping[str, list[tuple[str, str]]], sign: int, distance: dict[str, int]) -> bool:
    """Note how far each is; whether there are more than are shown."""
    queue = [run]
    for name in queue:
        for other, _ in steps.get(name, ()):
            if other in distance:
                continue
            if len(distance) >= MOST:
                return True
            distance[other] = distance[name] + sign if name != run else sign
            queue.append(other)
    return False


def _kind(view: View, sight: Sight, name: str) -> str:
    if not sight.named(name):
        return "hidden"
    if name in view.owners:
        return "run"
    return "external" if name in view.registry.externals else "unknown"


def _flop(view: View, sight: Sight, name: str) -> dict[str, str] | None:
    if not sight.named(name) or (name in view.lines and view.lines[name]["fault"] is not None):
        return None
    shares = view.side.counting.shares(name)
    return figure_json(total(s.flop for s in shares)) if shares else None
