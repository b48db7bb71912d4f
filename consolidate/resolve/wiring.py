"""Links found, routes found, circles refused."""

from __future__ import annotations

import graphlib

from consolidate.errors import Problem, did_you_mean
from consolidate.mistakes import shown
from consolidate.resolve.context import base_context, evaluate_word
from consolidate.resolve.replicas import check_link
from consolidate.resolve.work import Draft, Work
from consolidate.resolved import Link, Route


def link(work: Work) -> None:
    for draft in work.drafts.values():
        for name, need in draft.kind.head.links.items():
            given = getattr(draft.entry, name)
            if need.many:
                for index, target in enumerate(given):
                    _link_one(work, draft, f"{name}.{target}", need.provides, target, (name, index))
            elif given is not None:
                _link_one(work, draft, name, need.provides, given, (name,))
    order = {d.name: {link.provider for link in d.links.values()} for d in work.drafts.values()}
    try:
        graphlib.TopologicalSorter(order).prepare()
    except graphlib.CycleError as error:
        ring = error.args[1]
        first = work.drafts[ring[0]]
        link = next(n for n, li in first.links.items() if li.provider in ring)
        what = f"these servers need each other in a circle: {' → '.join(reversed(ring))}"
        hint = "a server starts after those that it needs: remove one of these links"
        work.problems.append(work.places.problem(what, "servers", first.name, link.partition(".")[0], hint=hint))


def _link_one(work: Work, draft: Draft, name: str, provides: str, target: str, key: tuple[str | int, ...]) -> None:
    path = ("servers", draft.name, *key)
    if target == draft.name:
        what, hint = "a server can't link to itself", f"name another server that provides '{provides}'"
        work.problems.append(work.places.problem(what, *path, hint=hint))
        return
    found = work.drafts.get(target)
    if found is not None and (offered := found.kind.head.provides.get(provides)):
        password = f"{draft.name}/{name}_password" if offered.password else None
        draft.links[name] = Link(name, draft.name, target, provides, offered.port, password)
        check_link(work, draft.links[name], path)
        return
    able = [d.name for d in work.drafts.values() if provides in d.kind.head.provides and d is not draft]
    hint = f"servers that provide it: {', '.join(able)}" if able else f"no server here provides '{provides}'"
    if found is None:
        what, hint = f"there is no server '{target}'", did_you_mean(target, able) or hint
    else:
        what = f"'{target}' is of the kind {found.kind.name}, which doesn't provide '{provides}'"
    work.problems.append(work.places.problem(what, *path, hint=hint))


def route(work: Work) -> None:
    """Find the proxy, and what it routes; a domain belongs to one routed server."""
    owner: dict[str, str] = {}
    twice: list[Problem] = []
    for draft in work.drafts.values():
        draft.context = base_context(work, draft)
        http = evaluate_word(work, draft, "http")
        if evaluate_word(work, draft, "routes"):
            if work.proxy:
                what = f"'{work.proxy.name}' is the proxy already; a stack has one"
                hint = "one proxy routes every server; on one host two would fight for the same ports"
                work.problems.append(work.places.problem(what, "servers", draft.name, "kind", hint=hint))
            work.proxy = draft
        if http is None:
            continue
        if isinstance(http, bool) or not str(http).isdecimal() or not 1 <= int(http) <= 65535:
            place, hint = draft.kind.place("http"), "write the port that the server listens on, e.g. 80"
            work.problems.append(Problem(f"should be a port, not {shown(http)}", place, "http", hint))
            continue
        for index, name in enumerate(draft.entry.domains):
            if name in owner:
                what = f"the domain {name} is routed to '{owner[name]}' already"
                hint = "a domain belongs to one server: remove it from the other one"
                twice.append(work.places.problem(what, "servers", draft.name, "domains", index, hint=hint))
            owner[name] = draft.name
        if draft.entry.domains:
            work.routes.append(Route(draft.name, tuple(draft.entry.domains), int(http), draft.entry.replicas))
    if work.proxy is None:
        work.routes = []
    else:
        work.problems += twice
