"""`consolidate kinds`: what there is to choose from, as documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from consolidate.kinds import Catalogue

kinds = typer.Typer(
    help="Kinds: what servers there are, and their settings; by itself it lists them.", invoke_without_command=True
)


def register(app: typer.Typer) -> None:
    app.add_typer(kinds, name="kinds")


def _catalogue(templates: list[Path] | None) -> Catalogue:
    from consolidate.kinds import Catalogue, data_folder

    return Catalogue([*(templates or ()), data_folder("templates")])


@kinds.callback()
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_()


@kinds.command("list")
def list_(templates: options.Templates = None, format_: options.Format = "table") -> None:
    """List the kinds."""
    from consolidate import console

    rows = [{"kind": k.name, "what": k.head.summary} for k in _catalogue(templates)]
    console.show_rows(rows, format_, columns=("kind", "what"))


@kinds.command()
def show(
    kind: Annotated[str, typer.Argument(help="The kind.")],
    templates: options.Templates = None,
    format_: options.Format = "table",
) -> None:
    """Show a kind: settings, links, ports, data, secrets, and how it runs."""
    from consolidate import console
    from consolidate.errors import UsageError, did_you_mean
    from consolidate.manual import kind_page

    catalogue = _catalogue(templates)
    if kind not in catalogue:
        raise UsageError(
            f"there is no kind '{kind}'", hint=did_you_mean(kind, catalogue.names) or "`consolidate kinds`"
        )
    if format_ == "json":
        console.print_json(catalogue[kind].head.model_dump() | {"kind": kind})
    else:
        console.show_markdown(kind_page(catalogue[kind], catalogue))


@kinds.command()
def schema(templates: options.Templates = None) -> None:
    """Print the JSON Schema of a stack file, for editors."""
    from consolidate import console
    from consolidate.schema import json_schema

    console.print_json(json_schema(_catalogue(templates)))
