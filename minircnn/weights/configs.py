"""Settings, as dataclasses, out of what JSON holds of them; what has another type than it should have is refused."""

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


def config_of(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration, a dataclass, from what JSON holds of it: its lists become the tuples that they were.

    Raises:
        KeyError: there is no such setting.
        TypeError: a setting has another type than the dataclass states; or a number is not finite.

    >>> from minircnn.transforms import Transform
    >>> config_of(Transform, {"mean": [0.5, 0.5, 0.5], "divisor": 32}).mean
    (0.5, 0.5, 0.5)
    """
    hints, found = typing.get_type_hints(kind), {}
    for name, value in dict(values).items():
        found[name] = _as_tuple(value)
        if not _fits(found[name], hints[name]):
            raise TypeError(f"{name} is {value!r:.60}")
    return kind(**found)


def _as_tuple(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Whether a value has a type: a number, a text, a truth value, None, a tuple of such, or one of several."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    if hint is int:  # sizes and counts
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**20
    return isinstance(value, hint)
