"""What providers are told about their consumers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consolidate import render
from consolidate.desired import Grant, grant_hash
from consolidate.manifest import GrantCommand
from consolidate.resolved import Resolved, Server
from consolidate.secret import SecretRecord


def grants(resolved: Resolved, records: Mapping[str, SecretRecord]) -> tuple[Grant, ...]:
    made = []
    for link in resolved.links:
        provider = resolved.servers[link.provider]
        offered = provider.source.kind.head.provides[link.provides]
        if offered.grant is None:
            continue
        consumers = provider.source.context["consumers"][link.provides]
        consumer = next(c for c in consumers if (c["server"], c["link"]) == (link.consumer, link.name))
        context = {**provider.source.context, "consumer": consumer}
        text = _grant_input(provider, offered.grant, context)
        revoke = offered.revoke
        ids = {link.password: records[link.password].id} if link.password else {}
        made.append(
            Grant(
                link=link,
                command=tuple(offered.grant.command),
                input=text,
                applied=grant_hash(offered.grant.command, text, ids),
                revoke_command=tuple(revoke.command) if revoke else (),
                revoke_input=_grant_input(provider, revoke, context) if revoke else "",
            )
        )
    return tuple(made)


def _grant_input(provider: Server, command: GrantCommand, context: Mapping[str, Any]) -> str:
    if command.input is None:
        return ""
    return render.render(provider.source.kind.folder / "grants", command.input, context)
