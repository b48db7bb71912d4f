"""What a plain scalar means, where all YAML readers agree on it."""

from __future__ import annotations

import re
from typing import Any

from consolidate.loader.words import quote

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SWITCHES = dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"], "true")
_SWITCHES |= dict.fromkeys(["n", "N", "no", "No", "NO", "off", "Off", "OFF"], "false")
_INT = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})\.\d{1,40}", re.ASCII)
_OCTAL = re.compile(r"[-+]?0\d{1,17}", re.ASCII)
_BASE_60 = re.compile(r"[-+]?\d[\d_]*(?::[0-5]?\d)+(?:\.[\d_]*)?", re.ASCII)
_NUMBER = re.compile(  # whatever else some reader takes for a number
    r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[\da-fA-F_]+|(?:\.\d[\d_]*|\d[\d_]*(?:\.[\d_]*)?)(?:[eE][-+]?\d+)?"
    r"|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
    re.ASCII,
)


def plain_value(text: str) -> tuple[Any, str, str]:
    """What a plain scalar means; or what is wrong with it, and what to do."""
    if text in NULLS or text in _BOOLS:
        return _BOOLS.get(text), "", ""
    meaning = _SWITCHES.get(text)
    if meaning is None and text[0] not in "+-.0123456789":
        return text, "", ""
    if _INT.fullmatch(text):
        return int(text), "", ""
    if _FLOAT.fullmatch(text):
        return float(text), "", ""
    short, quoted = text if len(text) <= 60 else text[:59] + "…", quote(text)
    if meaning:
        what = f"`{text}` is ambiguous: YAML 1.1 reads it as {meaning}"
        return text, what, f"write {meaning}, or quote it: {quoted}"
    if _OCTAL.fullmatch(text):
        old = int(text, 8) if not set(text) & {"8", "9"} else "text"
        what = f"`{text}` is ambiguous: YAML 1.1 reads it as {old}, YAML 1.2 as {int(text)}"
        return text, what, f"write {int(text)}, or quote it: {quoted}"
    if _BASE_60.fullmatch(text):
        return text, f"`{short}` is ambiguous: YAML 1.1 reads it as a number in base 60", f"quote it: {quoted}"
    if _NUMBER.fullmatch(text):
        hint = f"write a finite number in plain decimals, or quote it: {quoted}"
        return text, f"`{short}` is not the same number to every YAML reader", hint
    return text, "", ""
