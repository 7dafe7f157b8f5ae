"""Messages of the library name parameters, ``outer_fs=6``; commands have ``--outer-fs 6``."""

import re
from collections.abc import Sequence
from typing import Any

_TAGS = re.compile(r"(<[^<>]*>|`[^`]*`)")
"""XML and commands are left as they are."""
_VALUE = r"=('[^']*'|[^\s;:,)]*[^\s;:,.)])"


def as_options(message: str, parameters: Sequence[Any]) -> str:
    """Return a message with the options of a command in place of the names of parameters.

    ``outer_fs=6`` becomes ``--outer-fs 6``, and ``minimise=False`` becomes ``--no-minimise``. A
    name without a value is replaced where it has an underscore: others are English words.

    Parameters
    ----------
    parameters : sequence of click.Parameter
        Of the command.
    """
    options = {name: parameter for parameter in parameters for name in _names(parameter)}
    parts = _TAGS.split(message)
    parts[::2] = [_translated(part, options) for part in parts[::2]]
    return "".join(parts)


def _names(parameter: Any) -> set[str]:
    """Names that a library may have for an option: that of its function, or of the option."""
    if parameter.param_type_name != "option":
        return set()
    spelled = [name.removeprefix("--").replace("-", "_") for name in parameter.opts]
    return {parameter.name, *(name for name in spelled if len(name) > 1)}


def _translated(text: str, options: dict[str, Any]) -> str:
    for name, parameter in options.items():
        option = max(parameter.opts, key=len)
        start = rf"(?<![\w.=?&-]){re.escape(name)}"

        def with_value(found: re.Match[str], option: str = option, of: Any = parameter) -> str:
            value = found.group(1)
            if of.is_flag and value in ("True", "False"):
                return option if value == "True" else (of.secondary_opts or [option])[0]
            plain = re.fullmatch(r"'([\w./:?@%+-]+)'", value)
            return f"{option} {plain.group(1) if plain else value}"

        text = re.sub(start + _VALUE, with_value, text)
        if "_" in name:
            text = re.sub(rf"{start}(?![\w=-])", option, text)
    return text
