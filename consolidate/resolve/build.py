"""A draft and its recipe, evaluated and checked, to a `Server`."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from consolidate import values
from consolidate.errors import Problem
from consolidate.kinds import word_problems
from consolidate.manifest import Recipe
from consolidate.render import FAILURES, evaluate, said
from consolidate.resolve.context import EXPRESSION, evaluate_word
from consolidate.resolve.replicas import check_replicas
from consolidate.resolve.secrets import add_secret_function, secret_specs
from consolidate.resolve.work import Draft, Work
from consolidate.resolved import Check, Making, Publish, Server
from consolidate.stack import parse_publish


def build_server(work: Work, draft: Draft) -> Server | None:
    before = len(work.problems)
    recipe = _recipe(work, draft)
    published = _published(work, draft, recipe) if recipe else ()
    if recipe:
        check_replicas(work, draft, recipe, published)
    if recipe is None or len(work.problems) > before:
        return None
    assert draft.limits is not None
    entry = draft.entry
    secrets, mounted = secret_specs(work, draft, recipe)
    add_secret_function(work, draft, secrets)
    health, ready = _checks(work, draft, recipe)
    return Server(
        name=draft.name,
        kind=draft.kind.name,
        making=Making(draft.kind, recipe, draft.context),
        domains=tuple(entry.domains),
        environment=recipe.environment | entry.environment,
        image=entry.image or recipe.image,
        build=None if entry.image else recipe.build,
        limits=draft.limits,
        explicit_memory=entry.resources.memory is not None,
        explicit_cpus=entry.resources.cpus is not None,
        ports=recipe.ports,
        publish=published,
        egress=recipe.egress if entry.egress is None else entry.egress,
        health=health,
        ready=ready,
        links=tuple(draft.links.values()),
        provides=tuple(draft.kind.head.provides),
        revokes=tuple(tuple(p.revoke.command) for p in draft.kind.head.provides.values() if p.revoke),
        switch=tuple(recipe.switch or ()),
        secrets=secrets,
        mounted=mounted,
        replicas=entry.replicas,
    )


def check_requirements(work: Work, draft: Draft) -> None:
    """What must hold between settings; expressions of the manifest may rest on it, so it comes before they are evaluated."""
    for index, requirement in enumerate(draft.kind.head.requires):
        try:
            holds = evaluate("{{ " + requirement.expression + " }}", draft.context)
        except FAILURES as error:
            place = draft.kind.place("requires", index, "expression")
            work.problems.append(Problem(said(error), place, f"requires[{index}].expression", EXPRESSION))
            continue
        if not holds:
            hint = f"`consolidate kinds show {draft.kind.name}` has what it takes"
            work.problems.append(work.places.problem(requirement.message, "servers", draft.name, hint=hint, key=True))


def _recipe(work: Work, draft: Draft) -> Recipe | None:
    words = {w: evaluate_word(work, draft, w) for w in draft.kind.recipe}
    try:
        plain = {w: v if w in draft.kind.constants else _plain(v) for w, v in words.items() if v is not None}
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        work.problems += word_problems(error, Recipe, words, draft.kind.document)
        return None
    _check_image(work, draft, recipe)
    return recipe


def _check_image(work: Work, draft: Draft, recipe: Recipe) -> None:
    def report(what: str, hint: str) -> None:
        key = next((k for k, v in draft.settings.items() if recipe.build and v == recipe.build), None)
        path = ("servers", draft.name) if key is None else ("servers", draft.name, key)
        work.problems.append(work.places.problem(what, *path, hint=hint))

    if not (recipe.image or recipe.build or draft.entry.image or draft.kind.dockerfile):
        report("it has neither an image nor a folder to build", "write image: redis:7, or build: ./app")
    if recipe.build and draft.entry.image:
        report("it has an image, and a folder to build one", "keep one of them")
    elif recipe.build and not (work.root / recipe.build / "Dockerfile").is_file():
        report(f"there is no Dockerfile in '{recipe.build}'", "write one, or give an image")
    if recipe.image and not draft.entry.image:
        try:
            values.image(recipe.image)
        except values.Wrong as error:
            work.problems.append(Problem(str(error), draft.kind.place("image"), "image", error.hint))


def _published(work: Work, draft: Draft, recipe: Recipe) -> tuple[Publish, ...]:
    found = []
    for index, text in enumerate(recipe.publish):
        try:
            found += [parse_publish(text)] if text else []
        except ValueError as error:
            place = draft.kind.place("publish", index)
            hint = "the manifest, or a setting that it is made of, gives no PORT:TARGET"
            work.problems.append(Problem(str(error), place, f"publish[{index}]", getattr(error, "hint", "") or hint))
    return (*found, *map(parse_publish, draft.entry.publish))


def _checks(work: Work, draft: Draft, recipe: Recipe) -> tuple[Check | None, Check | None]:
    """The engine's health check and our readiness probe; each stands in for the other where one is missing."""
    given = draft.entry.health
    if given is not None:
        check = Check(compose_test(given.test), given.interval, given.timeout, given.retries)
        return check, check
    health = ready = None
    if recipe.health:
        h = recipe.health
        interval, timeout = values.duration(h.interval), values.duration(h.timeout)
        health = Check(compose_test(h.command), interval, timeout, h.retries)
    if recipe.ready:
        timeout = values.duration(recipe.ready.timeout)
        ready = Check(compose_test(recipe.ready.command), health.interval if health else 30.0, timeout, 3)
    if health is None and ready is not None:
        health = Check(ready.command, 30.0, 5.0, 3)
    return health, ready or health


def compose_test(test: list[str]) -> tuple[str, ...]:
    """A health check's command; CMD and CMD-SHELL mean what they mean in Compose."""
    if test[:1] == ["CMD"]:
        return tuple(test[1:])
    if test[:1] == ["CMD-SHELL"]:
        return ("/bin/sh", "-c", " ".join(test[1:]))
    return tuple(test)


def _plain(value: Any) -> Any:
    """A copy with plain text in place of `Safe`, as the models want it."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {_plain(k): v if k == "each" else _plain(v) for k, v in value.items()}  # templates see its items
    return value
