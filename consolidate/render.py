"""Templates to text. Sandboxed, undefined names are errors, and only safe text comes out.

A string of the stack's is just text until a filter has made it safe; a template that puts it out bare fails. Literal
text of the template itself is safe, and so is what is joined from safe text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError, UndefinedError, nodes
from jinja2.environment import TemplateExpression
from jinja2.exceptions import SecurityError
from jinja2.loaders import FileSystemLoader
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from consolidate import filters
from consolidate.errors import Place, Problem, StackInvalid
from consolidate.filters import Safe, SecretRef
from consolidate.secret import OPEN

LITERAL, CONCAT = "_literal", "_concat"
UNSAFE = "\0"  # stands in no text of a stack's
FAILURES = (TemplateError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
SAFETY = "docs/manifest.md lists the filters, one for each syntax"
SYNTAX = "docs/manifest.md describes templates; the language is Jinja"
HINTS: dict[type[Exception], str] = {
    TemplateNotFound: "write it, or correct its name where it is included or the manifest names it",
    UndefinedError: "docs/manifest.md lists what a template sees",
    SecurityError: "templates run in a sandbox: values only, no attributes of Python",
    UnicodeDecodeError: "save it as UTF-8; a template ends in .j2, other files are copied as they are",
}


class _Literals(NodeTransformer):
    """Mark the template's own text as safe, where it is a constant of an expression."""

    def visit_Const(self, node: nodes.Const, *_: Any) -> nodes.Node:
        return self._call(LITERAL, [node], node) if isinstance(node.value, str) else node

    def visit_Concat(self, node: nodes.Concat, *_: Any) -> nodes.Node:
        self.generic_visit(node)
        return self._call(CONCAT, node.nodes, node)

    @staticmethod
    def _call(name: str, args: list[Any], at: nodes.Node) -> nodes.Node:
        return nodes.Call(nodes.Name(name, "load"), args, [], None, None).set_lineno(at.lineno)


def _all_safe(values: Iterable[Any]) -> bool:
    return all(
        isinstance(v, Safe | int | float)
        and not isinstance(v, bool)
        and not (isinstance(v, SecretRef) and v.needs_filter)
        for v in values
    )


def _concat(*values: Any) -> str:
    text = "".join(map(str, values))
    return Safe(text) if _all_safe(values) else text


def _join(values: Iterable[Any], separator: str = Safe()) -> str:
    items = list(values)
    text = str(separator).join(map(str, items))
    return Safe(text) if _all_safe([*items, separator]) else text


def _finalize(value: Any) -> Any:
    if isinstance(value, SecretRef):
        if value.needs_filter:
            raise ValueError("a secret needs a filter for this file's syntax, e.g. {{ secret('x') | shell }}")
        return value
    if isinstance(value, StrictUndefined):
        return str(value)  # raises UndefinedError with the name
    if _all_safe([value]):
        return value
    shown = type(value).__name__ if not isinstance(value, str) else "text"
    raise ValueError(f"{shown} reaches the file without a filter for its syntax, e.g. {{{{ … | shell }}}}")


def _keeps_safe(method: Callable[[str], str]) -> Callable[[Any], str]:
    def apply(value: Any) -> str:
        if OPEN in str(value):
            raise ValueError("a secret can't be changed in a template")
        return Safe(method(value)) if isinstance(value, Safe) else method(str(value))

    return apply


class _Environment(ImmutableSandboxedEnvironment):
    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Literals().visit(super()._parse(source, name, filename))  # type: ignore[no-any-return]

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """Jinja chains them, and takes the chain apart at each rendering; ours don't change once they are set."""
        return {**self.globals, **(d or {})}

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja gives the result the type of the format; but what is filled into safe text may not be safe."""
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else lambda *args, **more: str(wrapped(*args, **more))


def _add_filters(env: ImmutableSandboxedEnvironment) -> None:
    for name, escape in filters.TEXT_FILTERS.items():
        env.filters[name] = filters.as_filter(name, escape)
    for name in filters.SECRET_FILTERS:
        env.filters[name] = filters.secret_only(name)
    env.filters |= {
        "json": filters.to_json,
        "join": _join,
        "lower": _keeps_safe(str.lower),
        "upper": _keeps_safe(str.upper),
        "trim": _keeps_safe(str.strip),
    }


@lru_cache(maxsize=64)
def environment(folder: Path) -> ImmutableSandboxedEnvironment:
    """The environment for the templates below `folder`."""
    env = _Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        finalize=_finalize,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    _add_filters(env)
    env.globals |= {LITERAL: Safe, CONCAT: _concat}
    return env


def _mark_unsafe(value: Any) -> Any:
    return f"{UNSAFE}{value}" if isinstance(value, str) and not isinstance(value, Safe) else value


@lru_cache(maxsize=1)
def _expressions() -> ImmutableSandboxedEnvironment:
    env = _Environment(undefined=StrictUndefined, finalize=_mark_unsafe)
    env.filters |= {"json": filters.to_json, "join": _join}
    env.globals |= {LITERAL: Safe, CONCAT: _concat}
    return env


@lru_cache(maxsize=1024)
def _compile(text: str) -> Callable[..., Any]:
    """Jinja's compile_expression, with the manifest's own text marked as safe."""
    env = _expressions()
    parser = Parser(env, text, state="variable")
    parsed = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateSyntaxError("chunk after expression", parser.stream.current.lineno)
    expression = _Literals().visit(parsed.set_environment(env))
    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)]
    template = env.from_string(nodes.Template(body, lineno=1))
    return TemplateExpression(template, undefined_to_none=False)


@lru_cache(maxsize=1024)
def _template(text: str) -> Any:
    return _expressions().from_string(text)


def is_expression(text: str) -> bool:
    return "{{" in text


def evaluate(value: Any, context: Mapping[str, Any]) -> Any:
    """`value` of a manifest with its expressions evaluated: `{{ … }}` alone becomes that value, else text.

    Text is `Safe` where nothing but the manifest's own and safe text went into it.

    Raises jinja2.TemplateError.
    """
    if isinstance(value, dict):
        return {evaluate(k, context): evaluate(v, context) for k, v in value.items()}
    if isinstance(value, list):
        return [evaluate(v, context) for v in value]
    if not isinstance(value, str) or not is_expression(value):
        return value
    text = value.strip()
    if text.startswith("{{") and text.endswith("}}") and text.count("{{") == 1:
        result = _compile(text[2:-2].strip())(**context)
        if isinstance(result, StrictUndefined):
            str(result)
        return result
    made = _template(value).render(**context)
    return made.replace(UNSAFE, "") if UNSAFE in made else Safe(made)


def render(folder: Path, name: str, context: Mapping[str, Any]) -> str:
    """The template `name` below `folder`, rendered.

    Raises StackInvalid with the template's file and line.
    """
    try:
        return environment(folder).get_template(name).render(context)
    except TemplateSyntaxError as error:
        place = Place(error.filename or str(folder / name), error.lineno, 1)
        raise StackInvalid([Problem(f"template: {error.message}", place, hint=SYNTAX)]) from None
    except FAILURES as error:
        hint = HINTS.get(type(error), SAFETY)
        raise StackInvalid([Problem(f"template: {said(error)}", _place(error, folder, name), hint=hint)]) from None


def said(error: Exception) -> str:
    """What a failure of a template or an expression says."""
    if isinstance(error, TemplateNotFound):
        return f"there is no template '{error.name}'"
    if isinstance(error, UnicodeDecodeError):
        return "it isn't UTF-8 text"
    return getattr(error, "message", None) or str(error)


def _place(error: BaseException, folder: Path, name: str) -> Place:
    """The file and line in which `error` arose: Jinja rewrites tracebacks to the lines of the template."""
    place, step = Place(str(folder / name), 1, 1), error.__traceback__
    while step:
        file = step.tb_frame.f_code.co_filename
        if Path(file).is_relative_to(folder):
            place = Place(file, step.tb_lineno, 1)
        step = step.tb_next
    return place
