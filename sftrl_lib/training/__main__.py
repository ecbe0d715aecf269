"""Train one run on several GPUs or machines, as ``accelerate launch`` starts it:

    accelerate launch --config_file cluster/fsdp.yaml -m sftrl_lib.training --profile paper --task gp-l --method rl

Every process runs this. What it writes is what the notebook of the run would write, below the same folder, so that
``make reproduce`` finds it finished and goes on with the tests. An interrupted run is resumed by the same command, with
the same number of processes if the weights are in shards.
"""

from __future__ import annotations

import argparse
import sys

from ..profiles import get_profile
from ..runs import Run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.training", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--task", required=True, help="as in gp-l")
    parser.add_argument("--method", required=True, help="init, sft, rl, ...; the run that it starts from comes first")
    parser.add_argument("--experiment", default="main", help="default: main")
    parser.add_argument("--setting", default="", help='of the experiment, as in "lr=1e-6"')
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        run = Run(get_profile(given.profile), given.task, given.method, given.experiment, given.setting, given.seed)
        from .fork import train  # loads torch
        from .processes import launched

        processes = launched(run.profile.device)
        ends = train(run, processes)
    except (ValueError, OSError, FloatingPointError) as problem:
        print(problem, file=sys.stderr)
        return 2
    if processes.main:
        print(f"{run.name}: {len(ends)} models in {run.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
