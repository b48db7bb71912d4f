"""The store of secrets on the engine: one file, in a volume that no server mounts."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime

from consolidate import files, naming, vault
from consolidate.desired import WRITE_PATH
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.files import FileSpec
from consolidate.observed import Observed
from consolidate.secret import Secret, SecretRecord


def read_secrets(engine: Engine, observed: Observed) -> dict[str, SecretRecord]:
    """The store on the engine.

    Raises OperationFailed where it is damaged.
    """
    volume = naming.store_volume(observed.stack)
    if volume not in observed.volume_names:
        return {}
    helper = next((c.name for c in observed.containers if c.helper == "secrets"), "")
    if not helper:
        helper = naming.helper(observed.stack, "", "secrets")
        # Somebody removed the helper. Without it nothing can be read, so this one thing comes back even for a plan.
        labels = {naming.STACK: observed.stack, naming.HELPER: "secrets"}
        engine.create_helper(helper, labels, {volume: WRITE_PATH})
    try:
        return vault.parse(only_file(engine.get(helper, f"{WRITE_PATH}/{vault.STORE_FILE}")))
    except OperationFailed as error:
        if "no such file" in error.what.lower() or "could not find" in error.what.lower():
            return {}  # a run was stopped between making the volume and filling it
        raise
    except (ValueError, KeyError) as error:
        raise OperationFailed(f"the store of secrets in the volume {volume} is damaged: {error}") from None


def read_secret(engine: Engine, container: str, path: str, address: str) -> SecretRecord:
    """A secret as a generation has it, in its own volume.

    Raises OperationFailed.
    """
    try:
        value = only_file(engine.get(container, path))
    except (OperationFailed, ValueError, tarfile.TarError) as error:
        raise OperationFailed(f"the secret {address} of then can't be read in {container}: {error}") from None
    return SecretRecord(address, Secret(value), "", datetime.now(UTC))


def only_file(archive: bytes) -> str:
    """The text of the one file in an archive.

    Raises ValueError where there is none.
    """
    return only_bytes(archive).decode()


def only_bytes(archive: bytes) -> bytes:
    import io

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                return content.read()
    raise ValueError("it is empty")


def write_store(engine: Engine, stack: str, records: tuple[SecretRecord, ...]) -> None:
    """Write the store of secrets: one file, in a volume that no server mounts, through a helper that is kept."""
    helper = naming.helper(stack, "", "secrets")
    labels = {naming.STACK: stack, naming.HELPER: "secrets"}
    engine.create_helper(helper, labels, {naming.store_volume(stack): WRITE_PATH})
    with files.archive([FileSpec(vault.STORE_FILE, 0o400, text=vault.dump(records))], lambda a: a) as tar:
        engine.put(helper, WRITE_PATH, tar)


def save_secrets(engine: Engine, stack: str, records: Mapping[str, SecretRecord]) -> None:
    """Write the store under the stack's lock."""
    volume = naming.store_volume(stack)
    engine.create_volume(volume, {naming.STACK: stack, naming.OF: "", naming.ROLE: "store"})
    write_store(engine, stack, tuple(records.values()))
