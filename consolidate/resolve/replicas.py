"""Servers with several replicas: which may have them."""

from __future__ import annotations

from collections.abc import Sequence

from consolidate.errors import Problem
from consolidate.manifest import Recipe
from consolidate.resolve.work import Draft, Work
from consolidate.resolved import Link, Publish
from consolidate.stack import MOST_REPLICAS


def check_replicas(work: Work, draft: Draft, recipe: Recipe, published: Sequence[Publish]) -> None:
    """Replicas share all that a server has, so it must be of a kind that says so, and have nothing that only one can."""
    if draft.entry.replicas == 1:
        return
    path = ("servers", draft.name, "replicas")
    if not recipe.replicas:
        work.problems.append(work.places.problem(_refusal(draft), *path, hint=_who_may(work, draft)))
    elif published:
        what = f"{draft.name} publishes {published[0].host}, which only one container of the host can have"
        hint = "leave out `publish` and let the proxy route to its `domains`, or leave out `replicas`"
        work.problems.append(work.places.problem(what, *path, hint=hint))
    else:
        _check_kind(work, draft, recipe)


def _refusal(draft: Draft) -> str:
    word = draft.kind.recipe.get("replicas")
    when = f", unless {word.strip('{} ')}" if isinstance(word, str) else ""
    return f"a server of the kind {draft.kind.name} has one container{when}"


def _who_may(work: Work, draft: Draft) -> str:
    if draft.kind.recipe.get("replicas"):
        return "two that write to the same data harm it: leave out `replicas`, or what stands in their way"
    able = [k.name for k in work.catalogue if k.recipe.get("replicas")]
    return f"leave out `replicas`; these kinds can have them: {', '.join(able) or 'none'}"


def _check_kind(work: Work, draft: Draft, recipe: Recipe) -> None:
    """What only one container would be told."""
    told = ""
    if any(f.reload for f in recipe.files):
        told = "files with `reload`"
    elif any(p.grant for p in draft.kind.head.provides.values()):
        told = "`grant`"
    if told:
        what = f"a kind with `replicas` has no {told}: one container would be told, and the others not"
        place, hint = draft.kind.place("replicas"), "leave out one of the two"
        work.problems.append(Problem(what, place, "replicas", hint))


def check_link(work: Work, link: Link, path: tuple[str | int, ...]) -> None:
    """The network of a link has room for so many."""
    consumer, provider = (work.drafts[n].entry.replicas for n in (link.consumer, link.provider))
    if consumer + provider > MOST_REPLICAS + 1:
        what = f"{consumer} replicas of {link.consumer} and {provider} of {link.provider} don't fit on their network"
        hint = f"it has room for {MOST_REPLICAS + 1}: lower `replicas` of one of them"
        work.problems.append(work.places.problem(what, *path, hint=hint))
