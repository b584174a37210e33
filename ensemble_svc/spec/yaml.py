"""YAML 1.2 text to plain values and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.nodes import Node
from ruamel.yaml.representer import SafeRepresenter

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.compose import Lines, compose

_WORD = re.compile(r"[A-Za-z_/$][A-Za-z0-9_./$+-]*(:[A-Za-z0-9_]+)?")


def read(text: str | bytes | Path) -> tuple[Any, Lines]:
    """The values of a YAML text or file, and the line of each.

    Args:
        text: the YAML itself, or the path of a regular file that holds it.

    Raises:
        SpecError: with every fault of the YAML (not of its meaning).
    """
    document = compose(text)
    if document.faults:
        raise SpecError(document.faults)
    return document.data, document.lines


def write(data: Mapping[str, Any]) -> str:
    """YAML that ``read`` turns into equal values (law): sections in lines, what is small in one line."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Emitter = _Emitter
    yaml.default_flow_style = None
    yaml.allow_unicode = True
    yaml.width = 100
    yaml.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda *_: True
    yaml.representer.add_representer(_Section, _represent_section)
    yaml.representer.add_representer(str, _represent_text)
    stream = StringIO()
    yaml.dump(_Section({k: _Section(v) if isinstance(v, Mapping) else v for k, v in data.items()}), stream)
    return stream.getvalue()


class _Emitter(Emitter):
    """Quoted text stays on one line: ruamel breaks it beside an escape, where the break is read as a space more."""

    def write_double_quoted(self, text: Any, split: bool = True) -> None:
        super().write_double_quoted(text, split=False)


class _Section(dict[str, Any]):
    """A mapping whose keys stand below each other."""


def _represent_section(representer: SafeRepresenter, section: _Section) -> Node:
    return representer.represent_mapping("tag:yaml.org,2002:map", section, flow_style=False)


def _represent_text(representer: SafeRepresenter, text: str) -> Node:
    """Words as they are, all else in double quotes: ruamel's plain style does not read back ``?>``."""
    style = None if _WORD.fullmatch(text) else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def frozen(data: Any) -> Any:
    """The same values with every list a tuple, as ``read`` gives them."""
    if isinstance(data, Mapping):
        return {key: frozen(value) for key, value in data.items()}
    return tuple(frozen(item) for item in data) if isinstance(data, list | tuple) else data
