"""The choices as a page of Markdown, which is how ``docs/choices.md`` is made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ensemble_svc.spec.catalogue import choices
from ensemble_svc.spec.optimizers import OPTIMIZERS, Rule

HEAD = """\
# Choices

Every choice that a job file knows, with its options and what each is when left out. Made by `ensemble-svc choices
--markdown` from the choices themselves. A choice is written as its bare name, or as a mapping with its options:
`optimizer: sgd`, `optimizer: {name: sgd, lr: 0.1, momentum: 0.9}`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, entries in choices().items():
        parts += [f"## {kind}\n", *(_choice(entry) for entry in entries)]
        if kind == OPTIMIZERS.kind:
            parts.append(_comparison())
    return "\n".join(parts)


def _choice(entry: dict[str, Any]) -> str:
    lines = [f"### {entry['name']}", "", entry["doc"], ""]
    if entry["options"]:
        lines += _table(("option", "values", "when left out", ""), map(_option, entry["options"]))
    return "\n".join(lines)


def _option(option: dict[str, Any]) -> tuple[str, ...]:
    default = "must be given" if option["required"] else f"`{json.dumps(option['default'])}`"
    return f"`{option['name']}`", option["type"], default, " ".join(option["doc"].split())


def _comparison() -> str:
    """What each update rule keeps of the gradients."""
    head = ("optimizer", "first moment", "second moment", "leaky", "bias correction")
    rules = (rule for rule in OPTIMIZERS if issubclass(rule, Rule))
    rows = (
        (f"`{rule.model_fields['name'].default}`", *map(_mark, vars(rule.moments).values())) for rule in rules
    )
    return "\n".join(["### The optimizers beside each other", "", *_table(head, rows)])


def _mark(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "–"}[value]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""
