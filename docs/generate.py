"""Writes what is generated in the documentation: `python docs/generate.py`. tests/test_docs.py checks that it was run.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

from typer.main import get_command

from consolidate import manual
from consolidate.cli.app import app
from consolidate.kinds import Catalogue, data_folder
from consolidate.schema import json_schema

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def parts() -> dict[str, Callable[[], str]]:
    """What makes each generated part."""
    catalogue = Catalogue([data_folder("templates")])
    return {
        "keys": manual.stack_page,
        "kinds": lambda: manual.kinds_page(catalogue),
        "verbs": lambda: manual.cli_page(get_command(app)),
        "modules": modules,
    }


def modules() -> str:
    """Each module of the package, with the first sentence of its docstring."""
    rows = []
    for file in sorted((ROOT / "consolidate").rglob("*.py")):
        about = ast.get_docstring(ast.parse(file.read_text()))
        if about:
            name = file.relative_to(ROOT / "consolidate").as_posix().removesuffix("__init__.py")
            rows.append((f"`{name or '__init__.py'}`", " ".join(about.split("\n\n")[0].split())))
    return manual.table(("module", "what"), rows)


def generated(text: str) -> str:
    """A page with its generated parts made anew."""
    makers = parts()
    return PART.sub(lambda match: f"{match[1]}\n{makers[match[2]]()}\n{match[3]}", text)


def files() -> dict[Path, str]:
    """Each file that has generated parts, as it should be."""
    pages = [ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
    made = {page: generated(page.read_text()) for page in pages if PART.search(page.read_text())}
    schema = json_schema(Catalogue([data_folder("templates")]))
    return made | {ROOT / "schema" / "stack.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"}


if __name__ == "__main__":
    for file, text in files().items():
        file.write_text(text)
