"""A new configuration is checked before its predecessor stops."""

from __future__ import annotations

from consolidate import naming
from consolidate.actions import CheckConfiguration, CreateContainer, WriteFiles
from consolidate.desired import DesiredServer
from consolidate.diff.draft import Draft
from consolidate.diff.replicas import replicas
from consolidate.diff.undo import undo_of_check


def add_check(draft: Draft, server: DesiredServer, generation: int, image: str, reason: str) -> list[str]:
    """The operation that checks a new configuration while the old one serves, for a kind that can.

    `image` is what the new container is made of, `reason` why there is one.
    """
    trial, name = server.trial, server.name
    if trial is None or any(f"check:{n}" in draft.ids for n in replicas(draft, server)):
        return []
    helper = naming.helper(draft.desired.stack, name, "check")
    labels = ((naming.HELPER, "check"), (naming.OF, server.server.name), (naming.STACK, draft.desired.stack))
    creation = CreateContainer(helper, generation, trial.container, (), labels, (), image, once=True)
    # What a killed run has left goes first.
    needs = [f"image:{image}", f"remove:{helper}"]
    needs += [f"files:{m.volume}" for m in trial.container.mounts]
    if trial.files:
        write = WriteFiles(trial.files)
        draft.add(f"files:{trial.files.name}", write, name, "its reloadable files, to be checked", needs=["secrets"])
    action = CheckConfiguration(name, creation, trial.timeout, trial.files.name if trial.files else None)
    undo = undo_of_check(draft, server, generation, reason)
    return [draft.add(f"check:{name}", action, name, "before the old one stops", needs=needs, undo=undo)]
