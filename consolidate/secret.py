"""Secrets as a type: a value that never shows itself by accident."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

Generate = Literal["password", "authority", "certificate", "rsa"]

# Private-use characters frame a secret's placeholder in a rendered file. The loader refuses them in a stack file,
# so no text of a user's can pass for a placeholder.
OPEN, CLOSE, SEPARATOR = "\ue000", "\ue001", "\ue002"

LEAST_SECRET = 4  # characters: what is shorter would be found everywhere
LEAST_LINE = 16  # of a line of a secret that has several, such as a key: its shortest ones stand in any text


class Secret:
    """A secret value. `str()` and `repr()` give a mask; `reveal()` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that writes or shows it on demand."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled or copied into a file")


class Source(Struct, frozen=True):
    """Where a secret's value comes from: the stack says file, env or command; the kind says that it's a file of the proxy."""

    kind: Literal["file", "env", "command", "proxy's file"]
    value: str


class SecretSpec(Struct, frozen=True):
    """A secret that a server needs: how it comes into being and whether it is mounted.

    `address` is SERVER/NAME. `names` are the host names of a certificate. `authority` is the address of the
    authority that signs it; None makes it sign itself.
    """

    address: str
    generate: Generate | Literal["none"] = "password"  # none: it is given, and never made
    length: int = 24
    names: tuple[str, ...] = ()
    authority: str | None = None
    source: Source | None = None
    help: str = ""


class SecretRecord(Struct, frozen=True):
    """A secret as the store on the engine has it.

    `id` changes whenever the value does; it stands in fingerprints, so that nothing derived from the value does.
    """

    address: str
    value: Secret
    id: str
    created: datetime
    expires: datetime | None = None
    names: tuple[str, ...] = ()
    signed_by: str = ""
    opens: str = ""  # of the passphrase of backups: the repository that was made with it


def masked(text: str, secrets: Mapping[str, SecretRecord]) -> str:
    """A text of which nobody knows what is in it: whatever is a secret's value has its name instead.

    So has each line of a value with several: logs are told line by line.
    """
    names: dict[str, str] = {}
    for address, record in secrets.items():
        value = record.value.reveal()
        lines = value.splitlines() if "\n" in value.strip() else []
        for part in (value, value.strip(), *(li for li in lines if len(li) >= LEAST_LINE and "-----" not in li)):
            if len(part) >= LEAST_SECRET:
                names.setdefault(part, address)
    for part in sorted(names, key=len, reverse=True):  # one secret may be part of another
        text = text.replace(part, f"<secret {names[part]}>")
    return text
