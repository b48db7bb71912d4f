"""The stack of the planner's examples: a gate, a page that links to a depot."""

from __future__ import annotations

from typing import Any

from consolidate.plan import Operation, Plan
from tests.world import resolved

PAGE = {"kind": "page", "domains": ["www.test"], "storage": "db", "rolling": False}
SERVERS: dict[str, Any] = {"edge": {"kind": "gate"}, "www": PAGE, "db": {"kind": "depot"}}


def shop(**servers: Any) -> Any:
    """The stack with servers changed, or left out where None is given."""
    return resolved({"stack": "shop", "servers": {n: s for n, s in (SERVERS | servers).items() if s is not None}})


def acts(plan: Plan, server: str | None = None) -> list[str]:
    return [o.verb for o in plan.operations if server in (None, o.server)]


def the(plan: Plan, id_: str) -> Operation:
    return next(o for o in plan.operations if o.id == id_)
