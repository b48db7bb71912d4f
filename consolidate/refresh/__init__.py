"""`update` and `lock`: newer images for the servers that run, and which image each of them is to be made of."""

from consolidate.refresh.locking import (
    Choice,
    Difference,
    Moving,
    behind,
    choices,
    differences,
    image_text,
    lock_of,
    missing,
)
from consolidate.refresh.look import Change, Look, News
from consolidate.refresh.telling import check
from consolidate.refresh.update import Update, check_up_to_date, updating

__all__ = [
    "Change",
    "Choice",
    "Difference",
    "Look",
    "Moving",
    "News",
    "Update",
    "behind",
    "check",
    "check_up_to_date",
    "choices",
    "differences",
    "image_text",
    "lock_of",
    "missing",
    "updating",
]
