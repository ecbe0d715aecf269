"""A reproduction of *SFT Memorizes, RL Generalizes* (Chu et al., ICML 2025, arXiv 2501.17161).

Importing the package registers the two environments with Gymnasium and loads neither torch nor transformers.
"""

from gymnasium.envs.registration import register

__version__ = "0.1.0"

register(id="sftrl/GeneralPoints-v0", entry_point="sftrl_lib.points.environment:GeneralPoints")
register(id="sftrl/Navigation-v0", entry_point="sftrl_lib.virl.environment:Navigation")
