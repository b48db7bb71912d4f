"""The types of settings: what a stack may say, and what a template gets.

Each type is a pydantic type. Conversions are explicit, so that `no` or `012` never turns into something else.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StrictStr, WithJsonSchema
from pydantic_core import SchemaError, SchemaValidator, core_schema

from consolidate.errors import did_you_mean
from consolidate.variables import Substituted

LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
DOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})*")
# The dot-atom of RFC 5322 without the characters that mean something to a shell or a map file.
EMAIL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]*[A-Za-z0-9])?@(?P<domain>[^@]+)")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE | re.ASCII)
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.ASCII)
WHOLE = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})", re.ASCII)  # as in a stack file: no octal, no exponent
DECIMAL = re.compile(rf"{WHOLE.pattern}(?:\.\d{{1,40}})?", re.ASCII)
DEVIATIONS = re.compile("[ßẞς\u200c\u200d]")  # what IDNA 2003, which Python speaks, and browsers read differently
# The grammar of the distribution specification.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
IMAGE = re.compile(
    rf"(?P<name>(?:{_HOST}(?::[0-9]+)?/)?{_PART}(?:/{_PART})*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}))?"
)
# Those of capabilities(7), and the engine's word for all of them.
_CAPABILITIES = """\
AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH
FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN
NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT
SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
ALL"""
CAPABILITIES = _CAPABILITIES.split()
LOOPBACK = "127.0.0.1"
ADDRESSES = "write 127.0.0.1 for this machine alone, 0.0.0.0 for all addresses, [::1] or [::] for IPv6"
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Wrong(ValueError):
    """A value that can't stand, and what to write instead."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


LONGEST = 20  # digits of a number
LEAST_CPUS = 0.01  # the engine gives them in periods of 100 ms, of which Linux takes no less than 1 ms


def check_pattern(pattern: str) -> None:
    """Raises Wrong for a pattern that pydantic can't use."""
    try:
        SchemaValidator(core_schema.str_schema(pattern=f"^(?:{pattern})$"))
    except SchemaError as error:
        why = str(error).strip().splitlines()[-1].strip().removeprefix("error: ")
        hint = "patterns are Rust's: no look-around, no back-references"
        raise Wrong(f"the pattern {pattern} is refused: {why}", hint) from None


def filled_whole(value: Any) -> Any:
    """A whole number where the text of a variable is one."""
    return int(value) if isinstance(value, Substituted) and WHOLE.fullmatch(value) else value


def filled_number(value: Any) -> Any:
    """A number where the text of a variable is one."""
    if isinstance(value, Substituted) and not WHOLE.fullmatch(value) and DECIMAL.fullmatch(value):
        return float(value)
    return filled_whole(value)


def filled_boolean(value: Any) -> Any:
    """True or false where the text of a variable says so."""
    words = {"true": True, "false": False}
    return words.get(value.lower(), value) if isinstance(value, Substituted) else value


def number(value: Any) -> int | float:
    value = filled_number(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError(f"should be a number, not {value!r}")


def size(value: Any) -> int:
    """Bytes from `512M`, `2GiB` or a number of bytes. Units are powers of 1024, as Compose has them."""
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match and len(match[1]) <= LONGEST:
        return int(float(match[1]) * UNITS[match[2].lower()])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"should be a size such as 512M or 2G, not {value!r}")


def duration(value: Any) -> float:
    """Seconds from `10s`, `1m` or a number of seconds."""
    value = filled_number(value)
    if isinstance(value, str):
        parts = list(DURATION.finditer(value))
        if parts and "".join(p[0] for p in parts) == value.strip() and all(len(p[1]) <= LONGEST for p in parts):
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
        if deviation := DEVIATIONS.search(value):
            hint = "write its ASCII form, which begins with xn--"
            raise Wrong(f"'{value}' has {deviation[0]!r} in it, which not everybody reads in the same way", hint)
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise Wrong(f"'{value}' is not a domain name", "write its ASCII form, which begins with xn--") from None
    if len(name) > 253 or not DOMAIN.fullmatch(name):
        hint = "letters, digits and dashes between dots; no https://, port, path, * or _"
        raise Wrong(f"'{value}' is not a domain name", hint)
    if re.fullmatch(r"\d+|0x[0-9a-f]*", name.rpartition(".")[2]):  # which a browser takes for an address of IPv4
        raise Wrong(f"'{value}' is not a domain name but an address", "write a name; a site is found by its name")
    return name


def email(value: Any) -> str:
    match = EMAIL.fullmatch(value) if isinstance(value, str) else None
    if match is None or ".." in str(value):
        raise Wrong(
            f"should be an email address, not {value!r}", "write it as name@example.org, without a display name"
        )
    local = match[0].rpartition("@")[0]
    return f"{local}@{domain(match['domain'])}"


def listen(value: Any) -> str:
    """`8080` binds 127.0.0.1, `0.0.0.0:80` what it says; the result is always ADDRESS:PORT."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(f"should be a port or ADDRESS:PORT, not {value!r}")
    given, separator, port = text.rpartition(":")
    host = address(given) if separator else LOOPBACK
    return f"[{host}]:{port_number(port)}" if ":" in host else f"{host}:{port_number(port)}"


def address(text: str) -> str:
    """An IP address of the host as everybody writes it; one of IPv6 is given in brackets, with no zone.

    Raises ValueError.
    """
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        found = ipaddress.ip_address(inner)
    except ValueError:
        raise Wrong(f"'{text}' is not an IP address", ADDRESSES) from None
    if (found.version == 6) != (inner is not text) or "%" in inner:
        raise Wrong(f"'{text}' should be an address of IPv4, or one of IPv6 in brackets, without a zone", ADDRESSES)
    return found.compressed


def port_number(text: str) -> int:
    """Raises ValueError."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= 65535:
        raise ValueError(f"'{text}' is not a port (1 to 65535)")
    return int(text)


def image(value: str) -> str:
    """An image's name: REGISTRY/NAME:TAG, all but the name optional.

    Raises ValueError.
    """
    match = IMAGE.fullmatch(value)
    if match is None or len(match["name"]) > 255:
        hint = "write it as redis:7 or ghcr.io/acme/app:1.2: the name in small letters, one tag after a colon"
        raise Wrong(f"{value!r} is not an image's name", hint)
    return value


def command(value: Any) -> list[str]:
    """An argument vector; text is split as a shell would split it, which is what Compose does."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise Wrong(f"can't be split into words: {str(error).lower()}", "write a list: [echo, it's]") from None
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return value
    raise ValueError("should be a list of words, or one line of them")


def health_test(value: Any) -> list[str]:
    """A health check's command; text goes to a shell, as Compose has it."""
    words = ["CMD-SHELL", value] if isinstance(value, str) else command(value)
    if not [w for w in words if w.strip() and w not in ("CMD", "CMD-SHELL")] or words[0] == "NONE":
        raise Wrong("this tests nothing", "write [CMD, a program, …], or a line for sh")
    return words


def capability(value: str) -> str:
    """A capability's name without the CAP_ that the engine takes as well."""
    name = value.removeprefix("CAP_")
    if name not in CAPABILITIES:
        hint = did_you_mean(name, CAPABILITIES) or f"there are: {', '.join(CAPABILITIES)}; see capabilities(7)"
        raise Wrong(f"'{value}' is no capability", hint)
    return name


def path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\n" in value:
        raise Wrong(f"should be a path below the stack's folder, not {value!r}", "write it as ./sites/www")
    return value


def _text(description: str, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, **more})


Integer = Annotated[StrictInt, BeforeValidator(filled_whole)]
Boolean = Annotated[StrictBool, BeforeValidator(filled_boolean)]
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
Image = Annotated[
    StrictStr,
    AfterValidator(image),
    _text("an image, e.g. redis:7", pattern=f"^{IMAGE.pattern}$".replace("?P<name>", "?:")),
]
Capability = Annotated[
    StrictStr,
    AfterValidator(capability),
    _text("a capability, e.g. NET_ADMIN", pattern=f"^(?:CAP_)?(?:{'|'.join(CAPABILITIES)})$"),
]
RelativePath = Annotated[str, BeforeValidator(path), _text("a path below the stack's folder")]
Port = Annotated[Integer, Field(ge=1, le=65535)]
Number = Annotated[int | float, BeforeValidator(number)]

TYPES: dict[str, Any] = {
    "string": StrictStr,
    "text": StrictStr,
    "integer": Integer,
    "number": Number,
    "boolean": Boolean,
    "port": Port,
    "size": Size,
    "duration": Duration,
    "domain": Domain,
    "email": Email,
    "listen": Listen,
    "command": Command,
    "test": HealthTest,
    "path": RelativePath,
    "capability": Capability,
    "choice": StrictStr,
    "list": list,
    "map": dict,
}

NUMBERS = frozenset({"integer", "number", "port", "size", "duration"})  # what can have a least and a most
TEXTS = frozenset({"string", "text", "domain", "email", "listen", "path"})  # what can have a pattern

# Values of these types can't hold a character that means something to a configuration file.
SAFE_TYPES = frozenset(
    {"integer", "number", "boolean", "port", "size", "duration", "domain", "email", "listen", "choice", "capability"}
)
