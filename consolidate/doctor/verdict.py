"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict: what was looked at, how it is, and what to do where it is not well."""

    name: str
    status: Status
    detail: str
    hint: str = ""
