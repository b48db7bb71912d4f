"""The difference between what should be and what is, as a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consolidate.desired import Desired
from consolidate.diff.draft import Draft
from consolidate.diff.drift import Drift
from consolidate.diff.images import Refresh, add_image_removals, moves, pins
from consolidate.diff.live import add_live_needs
from consolidate.diff.names import add_renames, by_own_names, renamed
from consolidate.diff.ports import add_port_needs
from consolidate.diff.removals import add_removals
from consolidate.diff.routes import add_grants, add_leaving, add_routes
from consolidate.diff.servers import add_container
from consolidate.diff.supplies import add_files, add_images, add_networks, add_secrets
from consolidate.diff.turns import as_found
from consolidate.diff.undo import add_grants_back
from consolidate.observed import Observed
from consolidate.plan import Plan
from consolidate.secret import SecretRecord

__all__ = ["Drift", "Refresh", "diff"]


def diff(
    desired: Desired,
    observed: Observed,
    new_secrets: Iterable[SecretRecord] = (),
    refreshes: Mapping[str, Refresh] | None = None,
    drifts: Mapping[str, Drift] | None = None,
) -> Plan:
    """The plan that turns `observed` into `desired`.

    `new_secrets` is the whole store to be written, where any of it is new; `refreshes` are newer images for servers, which
    go before those of the lock, `drifts` what was changed of them by hand. Raises ValueError where the pool of subnets is too small.
    """
    found = renamed(observed)
    desired = as_found(desired, observed, drifts or {})
    observed = by_own_names(observed, found)
    pinned = pins(desired, observed)
    wanted = moves(desired, observed, pinned) | dict(refreshes or {})
    draft = Draft(desired, observed, tuple(new_secrets), wanted, drifts or {}, pinned)
    add_secrets(draft)
    add_images(draft)
    add_networks(draft)
    for server in desired.servers.values():
        add_files(draft, server)
    for server in desired.servers.values():
        add_container(draft, server)
    add_grants(draft)
    add_routes(draft)
    add_leaving(draft)
    add_removals(draft)
    add_image_removals(draft)
    add_grants_back(draft)
    add_port_needs(draft)
    add_live_needs(draft)
    add_renames(draft, found)
    return draft.plan()
