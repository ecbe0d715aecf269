"""A reproduction of *SFT Memorizes, RL Generalizes* (Chu et al., ICML 2025, arXiv 2501.17161).

Importing the package registers the two environments with Gymnasium and loads neither torch nor transformers. Then it
imports the modules that the environment variable SFTRL_EXTENSIONS names (``my_tasks,my_methods``), so that the tasks,
methods and profiles they add are known to every process of `make reproduce`; see EXTENDING.md.
"""

import importlib
import os

from gymnasium.envs.registration import register

__version__ = "0.1.0"

register(id="sftrl/GeneralPoints-v0", entry_point="sftrl_lib.points.environment:GeneralPoints")
register(id="sftrl/Navigation-v0", entry_point="sftrl_lib.virl.environment:Navigation")

for _name in os.environ.get("SFTRL_EXTENSIONS", "").replace(",", " ").split():
    importlib.import_module(_name)
