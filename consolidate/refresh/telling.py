"""`update --check`: what there is newer, told as far as it can be without building or pulling anything."""

from __future__ import annotations

from collections.abc import Sequence

from consolidate import naming
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.pipeline import Prepared
from consolidate.refresh.look import Change, Look, News, once, running
from consolidate.refresh.tools import BACKUPS, news, tools


def check(engine: Engine, prepared: Prepared, servers: Sequence[str]) -> News:
    """What `update` would change, as far as it can be told without building or pulling anything."""
    look = Look(engine, prepared.observed)
    found, changes, notes, failures = running(prepared.desired, prepared.observed, servers), [], [], {}
    idle = () if servers else tools(prepared.observed)
    look.ask([*(r.container.image_id for r in found if r.image.how == "build"), *(t.has for t in idle)])
    for each in found:
        has = each.container.image_id
        try:
            if each.image.how == "build":
                offers = look.offered(has)
            else:
                offers = [moved] if (moved := look.moved(each.image, has)) else []
        except OperationFailed as error:
            failures[naming.server_of(each.server)] = error
            continue
        changes += [Change(each.server, c) for c in offers or ()]
        if offers is None:
            notes.append(
                f"{naming.server_of(each.server)}: its image has no apt to ask; `update` builds it again and compares"
            )
    for tool in idle:
        try:
            changes += news(look, tool)
        except OperationFailed as error:
            failures[BACKUPS] = error
    return News(prepared.desired.stack, once(changes), tuple(dict.fromkeys(notes)), failures)
