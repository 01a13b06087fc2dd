"""Frozen dataclasses to and from TOML, strictly.

Each part of vitreous owns its configuration as a frozen dataclass; this module turns such a
dataclass into a plain mapping and back. Nothing is coerced: an unknown key, a wrong type or a
missing value is an error that names the key and the nearest allowed one. It knows nothing about
what the settings mean; the dataclasses check that themselves in ``__post_init__``.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from vitreous.errors import ConfigError

T = TypeVar("T")


#: Names in a message; a set of pictures may have a thousand classes.
_LISTED = 50


def did_you_mean(name: str, allowed: typing.Iterable[str]) -> str:
    """Say which names are allowed, the nearest one first.

    Example:
        >>> did_you_mean("sed", ["seed", "epochs"])
        "did you mean 'seed'? allowed: epochs, seed"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{hint}allowed: {', '.join(names[:_LISTED])}{more}"


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass from a mapping as TOML or JSON gives it.

    Args:
        cls: a dataclass type; nested dataclasses are built from nested mappings.
        values: the settings; keys left out take the dataclass' defaults.
        where: the dotted path so far, used in messages.

    Raises:
        ConfigError: for an unknown key, a missing value or a value of another type.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in fields:
            raise ConfigError(f"unknown setting '{where}{key}': {did_you_mean(key, fields)}")
    built = {key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()}
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in built and not has_default:
            raise ConfigError(f"setting '{where}{name}' is missing")
    return cls(**built)


def check_types(cls: type, values: Mapping[str, Any], where: str = "") -> None:
    """Refuse what `from_mapping` would, in settings of which others may be missing.

    To be asked before they are laid over others: a single value where a section belongs would
    vanish below that section.

    Args:
        cls: a dataclass type.
        values: some of its settings.
        where: the dotted path so far, used in messages.

    Raises:
        ConfigError: for an unknown key or a value of another type.
    """
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(f"unknown setting '{where}{key}': {did_you_mean(key, hints)}")
        kinds = (hints[key], *typing.get_args(hints[key]))
        section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if section and isinstance(value, Mapping):
            check_types(typing.cast(type, section), value, f"{where}{key}.")
        else:
            _convert(hints[key], value, f"{where}{key}")


def to_mapping(config: Any) -> dict[str, Any]:
    """Turn a dataclass into nested plain values; ``None`` is left out, as TOML has no null.

    A setting whose default is not ``None`` but whose value is would come back as its default, so
    the dataclasses of this project use ``None`` only as a default.
    """
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            plain[field.name] = to_mapping(value)
        elif isinstance(value, tuple):
            plain[field.name] = list(value)
        elif value is not None:
            plain[field.name] = value
    return plain


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a syntax error names the file and the line.

    Bytes of a path that are no UTF-8 become lone surrogates, as the system's own paths have them.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig", "surrogateescape"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except OSError as error:
        inside = f": name {path / 'config.toml'}" if path.is_dir() else ""
        raise ConfigError(f"can't read {path}, {error.strerror}{inside}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def dump_toml(config: Any) -> str:
    """Write a dataclass as TOML text that `load_toml` and `from_mapping` turn back into it."""
    return tomli_w.dumps(to_mapping(config))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested `changes` over `base`; neither is altered."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse_assignments(assignments: typing.Iterable[str]) -> dict[str, Any]:
    """Turn ``["train.seed=1", "data.table='x.csv'"]`` into a nested mapping.

    The part behind ``=`` is a TOML value; text without quotes is taken as a string, so that
    ``model.pool=mean`` works from a shell.

    Raises:
        ConfigError: where there is no ``=``.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{assignment}' is not a setting: write section.name=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        section: dict[str, Any] = {}
        *sections, name = key.strip().split(".")
        innermost = section
        for part in sections:
            innermost = innermost.setdefault(part, {})
        innermost[name] = value
        nested = merge(nested, section)
    return nested


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against its annotation and build tuples and nested dataclasses."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _convert_union(hint, value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"setting '{where}' is a section, not {value!r}")
        return from_mapping(typing.cast(type, hint), value, f"{where}.")
    if typing.get_origin(hint) is typing.Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            raise ConfigError(
                f"setting '{where}' is {value!r}: {did_you_mean(str(value), allowed)}"
            )
        return value
    if typing.get_origin(hint) is tuple:
        return _convert_tuple(hint, value, where)
    return _convert_plain(hint, value, where)


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    choices = typing.get_args(hint)
    problems = []
    for choice in choices:
        if choice is type(None):
            if value is None:
                return None
            continue
        try:
            return _convert(choice, value, where)
        except ConfigError as error:
            problems.append(error)
    raise problems[0]


def _convert_tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    parts = typing.get_args(hint)
    if not isinstance(value, list | tuple):
        raise ConfigError(f"setting '{where}' is {value!r}, not a list")
    if len(parts) == 2 and parts[1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"setting '{where}' has {len(value)} values, not {len(parts)}")
    return tuple(_convert(part, item, where) for part, item in zip(parts, value, strict=True))


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    # bool is a subclass of int, and an int is a fine float: both need saying.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"setting '{where}' is {value!r}, not {_TYPE_WORDS.get(hint, hint)}")


_TYPE_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
