"""What should be on the engine. Pure: a resolved stack and the secrets' records in, `Desired` out."""

from __future__ import annotations

from collections.abc import Mapping

from consolidate import naming, render
from consolidate.desire.content import Copies, image_of
from consolidate.desire.grants import grants
from consolidate.desire.networks import networks
from consolidate.desire.servers import desired_server
from consolidate.desired import Desired, Image
from consolidate.resolved import Resolved
from consolidate.secret import SecretRecord

__all__ = ["desire"]


def desire(resolved: Resolved, records: Mapping[str, SecretRecord]) -> Desired:
    """What should be, with the `records` of every secret that the stack needs.

    Raises StackInvalid where a template fails.
    """
    render.environment.cache_clear()  # templates may have changed since an `up` planned first
    copies: Copies = {}
    servers = {s.name: desired_server(s, resolved, records, copies) for s in resolved.servers.values()}
    images: dict[str, Image] = {naming.BASE_IMAGE: Image(naming.BASE_IMAGE, "base")}
    for server in resolved.servers.values():
        image = image_of(server, resolved)
        known = images.get(image.tag)
        images[image.tag] = (
            image if known is None else Image(image.tag, known.how, known.context, (*known.servers, server.name))
        )
    return Desired(
        stack=resolved.name,
        resolved=resolved,
        images=tuple(images.values()),
        networks=networks(resolved),
        servers=servers,
        grants=grants(resolved, records),
    )
