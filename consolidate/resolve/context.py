"""What a template of a server sees."""

from __future__ import annotations

from typing import Any

from consolidate import naming, values
from consolidate.errors import Problem
from consolidate.filters import Safe, SecretRef
from consolidate.render import FAILURES, evaluate, is_expression, said
from consolidate.resolve.work import Draft, Work
from consolidate.resolved import SECRETS_PATH, Limits

EXPRESSION = "this is an expression of Jinja; docs/manifest.md lists the names that it may use"


def base_context(work: Work, draft: Draft) -> dict[str, Any]:
    return {
        "stack": {"name": Safe(work.name)},
        "server": {
            "name": Safe(draft.name),
            "kind": Safe(draft.kind.name),
            "account": Safe(naming.account(draft.name)),
        },
        "domains": [Safe(d) for d in draft.entry.domains],
        "settings": draft.settings,
        "publish": [Safe(p) for p in draft.entry.publish],
        "image": draft.entry.image,
        "base": Safe(naming.BASE_IMAGE),
    }


def add_limits(work: Work, draft: Draft) -> None:
    """The limits in force, which what follows may rest on."""
    draft.limits = limits(work, draft)
    draft.context["resources"] = {
        "memory": draft.limits.memory,
        "cpus": draft.limits.cpus,
        "pids": draft.limits.pids,
    }


def describe(work: Work, draft: Draft) -> None:
    """Fill in the context that needs the other servers."""
    proxy = work.proxy
    draft.context |= {
        "routed_by": (proxy.settings | {"server": Safe(proxy.name)}) if proxy and draft.name in work.routed else None,
        "routes": [
            {
                "server": Safe(r.server),
                "domains": [Safe(d) for d in r.domains],
                "host": Safe(r.server),
                "port": r.port,
                "replicas": r.replicas,
            }
            for r in sorted(work.routes, key=lambda r: r.server)  # the order in the file changes nothing
        ]
        if draft is proxy
        else [],
        "links": {n: _links_context(work, draft, n, many=need.many) for n, need in draft.kind.head.links.items()},
        "consumers": {p: _consumers(work, draft, p) for p in draft.kind.head.provides},
    }


def _links_context(work: Work, draft: Draft, name: str, *, many: bool) -> Any:
    if not many:
        return _link_context(work, draft, name)
    return [_link_context(work, draft, n) for n in draft.links if n.startswith(f"{name}.")]


def _link_context(work: Work, draft: Draft, name: str) -> dict[str, Any] | None:
    link = draft.links.get(name)
    if link is None:
        return None
    provider = work.drafts[link.provider]
    return {
        "server": Safe(link.provider),
        "host": Safe(link.provider),
        "port": link.port,
        "password": Safe(f"{SECRETS_PATH}/{name}_password") if link.password else None,
        **_provided_values(work, provider, link.provides, draft, name),
    }


def _provided_values(work: Work, provider: Draft, provides: str, consumer: Draft, link: str) -> dict[str, Any]:
    offered = provider.kind.head.provides[provides]
    context = provider.context | {"consumer": _consumer(work, consumer, link)}
    try:
        return {k: evaluate(v, context) if is_expression(v) else Safe(v) for k, v in offered.values.items()}
    except FAILURES as error:
        place = provider.kind.place("provides", provides, "values")
        work.problems.append(Problem(said(error), place, f"provides.{provides}.values", EXPRESSION))
        return {}


def _consumer(work: Work, consumer: Draft, link: str) -> dict[str, Any]:
    return {
        "server": Safe(consumer.name),
        "account": Safe(naming.account(consumer.name)),
        "domains": [Safe(d) for d in consumer.entry.domains],
        "link": Safe(link),
    }


def _consumers(work: Work, provider: Draft, provides: str) -> list[dict[str, Any]]:
    found = []
    for link in work.consumers.get((provider.name, provides), ()):
        consumer = work.drafts[link.consumer]
        values_ = _provided_values(work, provider, provides, consumer, link.name)
        password = SecretRef.of(link.password, needs_filter=True) if link.password else None
        found.append(_consumer(work, consumer, link.name) | values_ | {"password": password})
    return found


def limits(work: Work, draft: Draft) -> Limits:
    word, given = evaluate_word(work, draft, "resources") or {}, draft.entry.resources
    try:
        return Limits(
            memory=given.memory or values.size(word.get("memory", "256M")),
            cpus=float(given.cpus or word.get("cpus", 1)),
            pids=given.pids or word.get("pids", 200),
        )
    except ValueError as error:
        work.problems.append(Problem(str(error), draft.kind.place("resources"), "resources", "see docs/manifest.md"))
        return Limits(2**28, 1, 200)


def evaluate_word(work: Work, draft: Draft, word: str) -> Any:
    if word in draft.kind.constants:
        return draft.kind.recipe[word]
    try:
        return evaluate(draft.kind.recipe.get(word), draft.context)
    except FAILURES as error:
        work.problems.append(Problem(said(error), draft.kind.place(word), word, EXPRESSION))
        return None
