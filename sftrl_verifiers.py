"""What verifiers imports for the taskset id `sftrl-verifiers`; the code is `sftrl_lib.interfaces.verifiers`."""

from sftrl_lib.interfaces.verifiers import Questions, QuestionsEnv

__all__ = ["Questions", "QuestionsEnv"]
