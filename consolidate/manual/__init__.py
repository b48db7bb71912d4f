"""Documentation made from what the program reads: manifests, models, the command line. Pure text (Markdown)."""

from consolidate.manual.command_line import cli_page
from consolidate.manual.kinds import kind_page, kinds_page
from consolidate.manual.stack import stack_page
from consolidate.manual.text import table

__all__ = ["cli_page", "kind_page", "kinds_page", "stack_page", "table"]
