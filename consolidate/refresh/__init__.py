"""`update`: newer packages and pulls for the servers that run. A server moves only where its image really changed."""

from consolidate.refresh.look import Change, News, check
from consolidate.refresh.update import Update, check_up_to_date, updating

__all__ = ["Change", "News", "Update", "check", "check_up_to_date", "updating"]
