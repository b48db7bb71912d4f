"""Images of tools, which no server is made of: what backups are made with. They get today's packages with the servers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming, packages
from consolidate.actions import ProvideImage
from consolidate.desire.content import restic_image
from consolidate.desired import Image
from consolidate.errors import OperationFailed
from consolidate.observed import Observed
from consolidate.plan import Operation
from consolidate.refresh.look import Change, Look

BACKUPS = "(backups)"  # in place of a server, in what is told; no server has such a name


class Tool(Struct, frozen=True):
    """An image as its folder asks for it, and the newest that the engine has of it."""

    image: Image
    name: str
    has: str  # its id


def tools(observed: Observed) -> list[Tool]:
    """Those that the engine has: who makes no backups has none."""
    image = restic_image()
    name = observed.newest(image.tag)
    return [Tool(image, name, observed.images[name])] if name else []


def news(look: Look, tool: Tool) -> list[Change]:
    """What the distribution has newer. Raises OperationFailed where it can't tell."""
    return [Change(BACKUPS, c) for c in look.offered(tool.has) or ()]


@dataclass
class ToolUpdate:
    """Their update: builds, then what these have brought, then the end of the older ones."""

    look: Look
    found: Sequence[Tool]
    built: dict[str, Tool] = field(default_factory=dict)  # the name of a build → what it is made in place of
    failures: dict[str, OperationFailed] = field(default_factory=dict)

    @cached_property
    def old(self) -> list[Tool]:
        """Those of which there is something newer."""
        found = []
        for tool in self.found:
            try:
                found += [tool] if news(self.look, tool) else []
            except OperationFailed as error:
                self.failures[BACKUPS] = error
        return found

    def builds(self, stamp: str) -> list[Operation]:
        operations = []
        for tool in self.old:
            tag = naming.refreshed_image(tool.image.tag, stamp)
            self.built[tag] = tool
            action = ProvideImage(replace(tool.image, tag=tag), fresh=True)
            operations.append(Operation(f"image:{tag}", action, "", "built again with today's packages"))
        return operations

    def changes(self, observed: Observed) -> list[Change]:
        """What the builds that did not fail have brought."""
        found = []
        for tag, tool in self.built.items():
            if tag in observed.images:
                security = {c.package: c.security for c in self.look.offered(tool.has) or ()}
                old, new = (self.look.packages(i) or {} for i in (tool.has, observed.images[tag]))
                found += [Change(BACKUPS, c) for c in packages.compared(old, new, security)]
        return found

    def tidy(self, observed: Observed) -> None:
        """Remove what a build has taken the place of; where somebody uses it just now the engine keeps it."""
        for tag, tool in self.built.items():
            if tag in observed.images:
                for older in observed.refreshes.get(tool.image.tag, ())[1:]:
                    self.look.engine.remove_image(older)
