"""Stand-ins for packages that are not in the lock, with the signatures that the adapters use.

They are put in place only where the package itself is not installed, so that the adapters are tested in either case.
`python -m pip install verifiers==0.4.0 skyrl-gym==0.4.0` and the same tests run on the real ones.
"""

import dataclasses
import importlib
import importlib.util
import sys
from types import ModuleType


def skyrl_gym():
    """The part of skyrl-gym 0.4 that the adapter uses: the base class, its output, the registry."""
    known = {}

    class BaseTextEnv:
        def __init__(self):
            self.turns, self.max_turns = 0, 1

    def register(id, entry_point):
        known[id] = entry_point

    def make(id, **kwargs):
        module, _, name = known[id].partition(":")
        return getattr(importlib.import_module(module), name)(**kwargs)

    base = {"BaseTextEnv": BaseTextEnv, "BaseTextEnvStepOutput": dict}
    _module("skyrl_gym", registry=known, register=register, make=make)
    _module("skyrl_gym.envs")
    _module("skyrl_gym.envs.base_text_env", **base)


def verifiers():
    """The part of verifiers 0.4 that the adapter uses; data and configurations are pydantic models there."""

    class Record:
        def __init_subclass__(cls):
            dataclasses.dataclass(kw_only=True)(cls)

    class TaskData(Record):
        name: str | None = None
        prompt: list | None = None

    class TasksetConfig(Record):
        id: str = ""
        task: object = None

    class EnvConfig(Record):
        taskset: object = None

    class Task:
        __class_getitem__ = classmethod(lambda cls, item: cls)

        def __init__(self, data, config=None):
            self.data, self.config = data, config

    class Taskset:
        __class_getitem__ = classmethod(lambda cls, item: cls)

        def __init__(self, config):
            self.config = config

        def __iter__(self):
            return iter(self.load())

    class Env:
        __class_getitem__ = classmethod(lambda cls, item: cls)

        def __init__(self, config):
            self.config = config

    names = {"TaskData": TaskData, "TasksetConfig": TasksetConfig, "EnvConfig": EnvConfig, "Task": Task}
    names |= {"Taskset": Taskset, "Env": Env, "AgentConfig": object, "Agents": object}
    _module("verifiers")
    _module("verifiers.v1", **names, State=object, TaskConfig=object)


def _module(name, **names):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(names)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, sys.modules[name])


def provide(package):
    """Put the stand-in of a package in place, unless the package is installed."""
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        globals()[package]()
