"""The types of settings: what a stack may say, and what a template gets.

Each type is a pydantic type. Conversions are explicit, so that `no` or `012` never turns into something else.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, WithJsonSchema

LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
DOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})*")
# The dot-atom of RFC 5322 without the characters that mean something to a shell or a map file.
EMAIL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]*[A-Za-z0-9])?@(?P<domain>[^@]+)")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def size(value: Any) -> int:
    """Bytes from `512M`, `2GiB` or a number of bytes. Units are powers of 1024, as Compose has them."""
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        return int(float(match[1]) * UNITS[match[2].lower()])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"should be a size such as 512M or 2G, not {value!r}")


def duration(value: Any) -> float:
    """Seconds from `10s`, `1m` or a number of seconds."""
    if isinstance(value, str):
        parts = list(DURATION.finditer(value))
        if parts and "".join(p[0] for p in parts) == value.strip():
            return sum(float(p[1]) * SECONDS[p[2]] for p in parts)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ValueError(f"should be a duration such as 30s or 5m, not {value!r}")


def domain(value: Any) -> str:
    """A host name in lower case, international names in their ASCII form (RFC 5890)."""
    if not isinstance(value, str):
        raise ValueError(f"should be a domain name, not {value!r}")
    name = value.strip().rstrip(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise ValueError(f"'{value}' is not a domain name") from None
    if len(name) > 253 or not DOMAIN.fullmatch(name):
        raise ValueError(f"'{value}' is not a domain name")
    return name


def email(value: Any) -> str:
    match = EMAIL.fullmatch(value) if isinstance(value, str) else None
    if match is None or ".." in str(value):
        raise ValueError(f"should be an email address, not {value!r}")
    local = match[0].rpartition("@")[0]
    return f"{local}@{domain(match['domain'])}"


def listen(value: Any) -> str:
    """`8080` binds 127.0.0.1, `0.0.0.0:80` what it says; the result is always ADDRESS:PORT."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(f"should be a port or ADDRESS:PORT, not {value!r}")
    address, _, port = text.rpartition(":")
    address = address.strip("[]") or "127.0.0.1"
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"'{address}' is not an IP address") from None
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"'{port}' is not a port (1 to 65535)")
    return f"[{address}]:{int(port)}" if ":" in address else f"{address}:{int(port)}"


def command(value: Any) -> list[str]:
    """An argument vector; text is split as a shell would split it, which is what Compose does."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ValueError(f"can't be split into words: {error}") from None
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return value
    raise ValueError("should be a list of words, or one line of them")


def health_test(value: Any) -> list[str]:
    """A health check's command; text goes to a shell, as Compose has it."""
    return ["CMD-SHELL", value] if isinstance(value, str) else command(value)


def path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\n" in value:
        raise ValueError(f"should be a path below the stack's folder, not {value!r}")
    return value


def _text(description: str, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, **more})


Size = Annotated[int, BeforeValidator(size), WithJsonSchema({"type": ["string", "integer"], "examples": ["512M"]})]
Duration = Annotated[
    float, BeforeValidator(duration), WithJsonSchema({"type": ["string", "number"], "examples": ["30s"]})
]
Domain = Annotated[str, BeforeValidator(domain), _text("a domain name")]
Email = Annotated[str, BeforeValidator(email), _text("an email address", format="email")]
Listen = Annotated[
    str, BeforeValidator(listen), WithJsonSchema({"type": ["string", "integer"], "description": "PORT or ADDRESS:PORT"})
]
Command = Annotated[
    list[str],
    BeforeValidator(command),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
HealthTest = Annotated[
    list[str],
    BeforeValidator(health_test),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
RelativePath = Annotated[str, BeforeValidator(path), _text("a path below the stack's folder")]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Number = StrictInt | StrictFloat

TYPES: dict[str, Any] = {
    "string": StrictStr,
    "text": StrictStr,
    "integer": StrictInt,
    "number": Number,
    "boolean": StrictBool,
    "port": Port,
    "size": Size,
    "duration": Duration,
    "domain": Domain,
    "email": Email,
    "listen": Listen,
    "command": Command,
    "path": RelativePath,
    "choice": StrictStr,
    "list": list,
    "map": dict,
}

# Values of these types can't hold a character that means something to a configuration file.
SAFE_TYPES = frozenset(
    {"integer", "number", "boolean", "port", "size", "duration", "domain", "email", "listen", "choice"}
)
