"""Packages of an image, read on the engine."""

from __future__ import annotations

from collections.abc import Mapping

from consolidate import naming, packages
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.store import only_file


def packages_of(engine: Engine, stack: str, image: str, reader: str = "") -> Mapping[str, str] | None:
    """The packages of an image; None where it has no list that we can read.

    Several may be read at once, also the same one by several, which are each a `reader` of a name of its own.
    """
    probe = naming.helper(stack, "", f"probe.{naming.digest([image, reader])}")
    engine.create_helper(probe, {naming.STACK: stack, naming.HELPER: "probe"}, {}, image=image)
    try:
        for path, read in ((packages.DPKG, packages.installed_by_dpkg), (packages.APK, packages.installed_by_apk)):
            try:
                return read(only_file(engine.get(probe, path)))
            except (OperationFailed, ValueError):
                continue
        return None
    finally:
        engine.remove(probe)
