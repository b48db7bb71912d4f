"""Times of the week at which something runs: as people write them, as systemd does, as cron does. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from consolidate.errors import UsageError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
HINT = "e.g. 03:00 (each day), 'sun 04:30', 'mon-fri 12:30,18:00', or '*:15' for each hour"
TIME = re.compile(r"(\*|[01]?\d|2[0-3]):([0-5]\d)")
CALENDAR = re.compile(r"(?:(?P<days>\S+) )?\*-\*-\* (?P<hours>\S+):(?P<minute>\d\d):00")


class When(Struct, frozen=True):
    """Days of the week, from 0 for Monday; times of those days, as hour (None: each) and minute."""

    days: tuple[int, ...]
    times: tuple[tuple[int | None, int], ...]

    def __str__(self) -> str:
        days = f"{','.join(_ranges(self.days))} " if len(self.days) < len(DAYS) else ""
        return days + ",".join(f"{'*' if h is None else f'{h:02d}'}:{m:02d}" for h, m in self.times)


def parse(text: str) -> When:
    """What a person wrote.

    Raises UsageError.
    """
    *before, times = text.lower().split() or [""]
    if len(before) > 1:
        raise _unclear(text)
    try:
        days = sorted({d for part in before for item in part.split(",") for d in _days(item)})
        found = {_time(item) for item in times.split(",")}
    except ValueError:
        raise _unclear(text) from None
    each_hour = {m for h, m in found if h is None}
    return When(
        tuple(days) or tuple(range(len(DAYS))),
        tuple(sorted((t for t in found if t[0] is None or t[1] not in each_hour), key=_order)),
    )


def _unclear(text: str) -> UsageError:
    return UsageError(f"'{text}' is no time of day", hint=HINT)


def _order(time: tuple[int | None, int]) -> tuple[int, int]:
    return (-1 if time[0] is None else time[0], time[1])


def _days(item: str) -> list[int]:
    """The days of `mon`, or of `mon-fri`, which systemd writes `mon..fri`. Raises ValueError."""
    first, _, last = item.replace("..", "-").partition("-")
    begin = _day(first)
    end = _day(last) if last else begin
    return [d % len(DAYS) for d in range(begin, end + 1 if end >= begin else end + 1 + len(DAYS))]


def _day(name: str) -> int:
    return LONG_DAYS.index(name) if name in LONG_DAYS else DAYS.index(name)


def _time(item: str) -> tuple[int | None, int]:
    if not (match := TIME.fullmatch(item)):
        raise ValueError(item)
    return (None if match[1] == "*" else int(match[1]), int(match[2]))


def _ranges(days: tuple[int, ...]) -> Iterator[str]:
    """Three days in a row, or more, as a range."""
    rows: list[list[int]] = []
    for day in days:
        if rows and rows[-1][-1] == day - 1:
            rows[-1].append(day)
        else:
            rows.append([day])
    for row in rows:
        if len(row) > 2:
            yield f"{DAYS[row[0]]}-{DAYS[row[-1]]}"
        else:
            yield from (DAYS[d] for d in row)


def _by_minute(when: When) -> dict[int, list[int | None]]:
    found: dict[int, list[int | None]] = {}
    for hour, minute in when.times:
        found.setdefault(minute, []).append(hour)
    return found


def calendar(when: When) -> list[str]:
    """The same for systemd: values of OnCalendar=."""
    days = f"{','.join(DAYS[d].capitalize() for d in when.days)} " if len(when.days) < len(DAYS) else ""
    return [
        f"{days}*-*-* {'*' if None in hours else ','.join(f'{h:02d}' for h in hours)}:{minute:02d}:00"
        for minute, hours in _by_minute(when).items()
    ]


def from_calendar(values: list[str]) -> When | None:
    """What `calendar` has made; None for what somebody else wrote."""
    return _merged(
        [(m["days"] or "", m["hours"], m["minute"]) if (m := CALENDAR.fullmatch(v)) else None for v in values]
    )


def cron_fields(when: When) -> list[str]:
    """The same for cron: five fields for each line."""
    days = ",".join(str((d + 1) % 7) for d in when.days) if len(when.days) < len(DAYS) else "*"
    return [
        f"{minute} {'*' if None in hours else ','.join(map(str, hours))} * * {days}"
        for minute, hours in _by_minute(when).items()
    ]


def from_cron(lines: list[str]) -> When | None:
    """What `cron_fields` has made; None for what somebody else wrote."""
    rows: list[tuple[str, str, str] | None] = []
    for line in lines:
        fields = line.split()
        if len(fields) != 5 or fields[2:4] != ["*", "*"]:
            return None
        numbers = [] if fields[4] == "*" else fields[4].split(",")
        if not all(n in "0123456" and len(n) == 1 for n in numbers):
            return None
        rows.append((",".join(DAYS[(int(n) + 6) % 7] for n in numbers), fields[1], fields[0].zfill(2)))
    return _merged(rows)


def _merged(rows: list[tuple[str, str, str] | None]) -> When | None:
    """One value for rows of days, hours and a minute, where all are of the same days."""
    whole = [r for r in rows if r is not None]
    if not whole or len(whole) < len(rows) or len({days for days, _, _ in whole}) > 1:
        return None
    times = ",".join(f"{hour}:{minute}" for _, hours, minute in whole for hour in hours.split(","))
    try:
        return parse(f"{whole[0][0]} {times}")
    except UsageError:
        return None


def following(when: When, now: datetime) -> datetime:
    """The next time after `now`, by the clock on this machine's wall."""
    local = now.astimezone().replace(tzinfo=None)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in (midnight + timedelta(days=d) for d in range(8)):
        if day.weekday() not in when.days:
            continue
        hours = ((h, m) for hour, m in when.times for h in (range(24) if hour is None else (hour,)))
        for hour, minute in sorted(hours):
            if (found := day.replace(hour=hour, minute=minute)) > local:
                return found.astimezone()
    raise AssertionError("a week has each of its days")
