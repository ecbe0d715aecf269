"""Registries that users can extend: tasks, methods and profiles.

An unknown name raises ValueError with the known names. `sftrl_lib.__init__` imports the modules in the environment
variable SFTRL_EXTENSIONS, so that every process of a pipeline has what they add.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(dict[str, T], Generic[T]):
    """A dict of items by name, in the order in which they were added."""

    def __init__(self, noun: str, items: Iterable[T] = (), key: str = "name") -> None:
        super().__init__()
        self.noun, self.key = noun, key
        for item in items:
            self.add(item)

    def add(self, item: T) -> T:
        """Add `item` under its own name and return it. Raises ValueError if another one has that name."""
        name = getattr(item, self.key)
        if name in self and super().__getitem__(name) != item:
            raise ValueError(f"There is already a {self.noun} {name!r}; choose another name.")
        self[name] = item
        return item

    def __missing__(self, name: str) -> T:
        raise ValueError(f"Unknown {self.noun} {name!r}; use one of {', '.join(self)}.")
