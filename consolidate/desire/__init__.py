"""What should be on the engine. Pure: a resolved stack and the secrets' records in, `Desired` out."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from consolidate import naming, render
from consolidate.desire.content import Copies, image_of
from consolidate.desire.grants import grants
from consolidate.desire.networks import memberships, networks
from consolidate.desire.servers import desired_server
from consolidate.desired import Desired, DesiredServer, Image
from consolidate.resolved import Resolved
from consolidate.secret import SecretRecord

__all__ = ["desire"]


def desire(resolved: Resolved, records: Mapping[str, SecretRecord]) -> Desired:
    """What should be, with the `records` of every secret that the stack needs.

    Raises StackInvalid where a template fails.
    """
    render.environment.cache_clear()  # templates may have changed since an `up` planned first
    copies: Copies = {}
    members = memberships(resolved)
    servers: dict[str, DesiredServer] = {}
    for server in resolved.servers.values():
        made = desired_server(server, resolved, records, networks=members[server.name], copies=copies)
        servers |= {
            n: made.replica(n) if n != made.name else made for n in naming.replicas(server.name, server.replicas)
        }
    images: dict[str, Image] = {naming.BASE_IMAGE: Image(naming.BASE_IMAGE, "base")}
    users: dict[str, list[str]] = {naming.BASE_IMAGE: []}
    for server in resolved.servers.values():
        image = image_of(server, resolved)
        images.setdefault(image.tag, image)
        users.setdefault(image.tag, []).append(server.name)
    return Desired(
        stack=resolved.name,
        resolved=resolved,
        images=tuple(replace(i, servers=tuple(users[i.tag])) for i in images.values()),
        networks=networks(resolved),
        servers=servers,
        grants=grants(resolved, records),
    )
