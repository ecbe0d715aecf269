"""The registry of tasks: the paper's four, and those added with ``TASKS.add(task)``."""

from __future__ import annotations

from .points.task import GP_L, GP_VL
from .registry import Registry
from .task import Task
from .virl.task import VIRL_L, VIRL_VL

TASKS: Registry[Task] = Registry("task", (GP_L, VIRL_L, GP_VL, VIRL_VL), key="key")


def labelled(label: str) -> Task:
    """The task with this `label`, such as "GP-L". Raises ValueError listing the known ones."""
    for task in TASKS.values():
        if task.label == label:
            return task
    known = ", ".join(task.label for task in TASKS.values())
    raise ValueError(f"There is no task called {label!r}; use one of {known}.")


def task_of(name: str, modality: str) -> Task:
    """The task of a table's columns `task` and `modality`. Raises ValueError listing the known ones."""
    for task in TASKS.values():
        if (task.name, task.modality) == (name, modality):
            return task
    known = ", ".join(f"({task.name!r}, {task.modality!r})" for task in TASKS.values())
    raise ValueError(f"Unknown task ({name!r}, {modality!r}); use one of {known}.")
