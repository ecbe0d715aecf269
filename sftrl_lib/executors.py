"""Where the runs of a grid are performed: processes of this machine, a Slurm cluster (submitit), or a Ray cluster.

An executor starts a job, says which of those that it has started have ended, and stops one. What comes after what is
`grid.work`'s business, so no engine's own dependencies are used. On a cluster all machines share SFTRL_HOME, and a run
that a machine loses goes on where it was when the same command is given again.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol

from . import paths, provenance
from .configs import check_number, check_whole
from .jobs import Job
from .timings import note_time, timings

Perform = Callable[[Job], None]
_POLL = 1.0  # seconds between two looks at what submitit has written
LOOKED = 1.0  # seconds below which a run that has been made before was found finished: its time stays


@dataclass(frozen=True)
class Resources:
    """What a run gets."""

    threads: int = 1
    gpus: int = 0
    hours: float = 4.0  # after which a cluster may end it
    partition: str = ""  # of Slurm; its default if empty

    def __post_init__(self) -> None:
        check_whole(self, "threads")
        check_whole(self, "gpus", least=0)
        check_number(self, "hours", high=1000.0, above=True)


class Executor(Protocol):
    """Performs jobs beside this process. A handle is whatever `start` returns."""

    def start(self, job: Job) -> Any:
        """Begin a job."""

    def ended(self, handles: Sequence[Any], timeout: float | None) -> list[tuple[Any, bool]]:
        """Those that have ended and whether they succeeded, after waiting for one or for `timeout` seconds."""

    def stop(self, handle: Any) -> None:
        """End a job where it is."""


class MissingEngine(ValueError):
    """The package of an executor is not installed; the message says how to install it."""


def noted(perform: Perform, job: Job, profile: str, threads: int) -> None:
    """Perform a job on so many threads, and note its time, memory and machine. Raises what it raises."""
    import torch

    torch.set_num_threads(threads)
    paths.build(profile).mkdir(parents=True, exist_ok=True)
    began, succeeded = time.time(), False
    try:
        perform(job)
        succeeded = True
    finally:
        record = {
            "run": f"grid-{job.name.partition('-')[2]}",
            "ok": succeeded,
            "started": round(began, 1),
            "seconds": round(time.time() - began, 1),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "threads": threads,
            **provenance.origin(),
        }
        quick = succeeded and record["seconds"] < LOOKED
        if not (quick and any(other["ok"] for other in timings(profile) if other["run"] == record["run"])):
            note_time(record, profile)


class Forks:
    """Forks of this process, so that what it has imported need not be imported again.

    The output of a job goes to ``build/<profile>/logs``.
    """

    def __init__(self, perform: Perform, profile: str, resources: Resources) -> None:
        self.perform, self.profile, self.threads = perform, profile, resources.threads
        self._context = multiprocessing.get_context("fork")

    def start(self, job: Job) -> Any:
        process = self._context.Process(target=self._work, args=(job,))
        process.start()
        return process

    def ended(self, handles: Sequence[Any], timeout: float | None) -> list[tuple[Any, bool]]:
        by_sentinel = {process.sentinel: process for process in handles}
        found = [by_sentinel[sentinel] for sentinel in wait(list(by_sentinel), timeout)]
        for process in found:
            process.join()
        return [(process, process.exitcode == 0) for process in found]

    def stop(self, handle: Any) -> None:
        handle.terminate()
        handle.join()

    def _work(self, job: Job) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = paths.build(self.profile) / "logs" / f"{job.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 0
        try:
            noted(self.perform, job, self.profile, self.threads)
        except Exception:
            os.write(2, traceback.format_exc().encode())
            code = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # the parent's open files and exit handlers are its own


class Submitit:
    """Slurm through submitit, or with ``cluster="local"`` processes that submitit starts here.

    Logs are submitit's, in ``build/<profile>/logs/submitit``. Raises MissingEngine.
    """

    def __init__(self, perform: Perform, profile: str, resources: Resources, cluster: str = "") -> None:
        try:
            import submitit
        except ImportError:
            raise MissingEngine("The executor submitit is not installed: pip install submitit") from None
        self.perform, self.profile, self.threads = perform, profile, resources.threads
        folder = paths.build(profile) / "logs" / "submitit"
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster or None)
        self._executor.update_parameters(
            name=f"sftrl-{profile}",
            timeout_min=max(1, round(60 * resources.hours)),
            cpus_per_task=resources.threads,
            gpus_per_node=resources.gpus,
            **({"slurm_partition": resources.partition} if resources.partition else {}),
        )

    def start(self, job: Job) -> Any:
        return self._executor.submit(noted, self.perform, job, self.profile, self.threads)

    def ended(self, handles: Sequence[Any], timeout: float | None) -> list[tuple[Any, bool]]:
        until = None if timeout is None else time.time() + timeout
        while not (found := [handle for handle in handles if handle.done()]) and (until is None or time.time() < until):
            time.sleep(_POLL)
        return [(handle, handle.exception() is None) for handle in found]

    def stop(self, handle: Any) -> None:
        handle.cancel()


class Ray:
    """A Ray cluster, or with an empty `address` one that is started here. Raises MissingEngine."""

    def __init__(self, perform: Perform, profile: str, resources: Resources, address: str = "") -> None:
        try:
            import ray
        except ImportError:
            raise MissingEngine("The executor ray is not installed: pip install ray") from None
        self.perform, self.profile, self.threads, self._ray = perform, profile, resources.threads, ray
        if not ray.is_initialized():
            # Workers find the package and SFTRL_HOME where this process does.
            kept = ("SFTRL_HOME", "SFTRL_DEVICE", "SFTRL_EXTENSIONS", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
            variables = {name: os.environ[name] for name in kept if name in os.environ}
            variables |= {"SFTRL_HOME": str(paths.HOME), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            ray.init(address=address or None, runtime_env={"env_vars": variables}, include_dashboard=False)
        options = {"num_cpus": resources.threads, "num_gpus": resources.gpus, "max_retries": 0, "max_calls": 1}
        self._noted = ray.remote(**options)(noted)

    def start(self, job: Job) -> Any:
        return self._noted.remote(self.perform, job, self.profile, self.threads)

    def ended(self, handles: Sequence[Any], timeout: float | None) -> list[tuple[Any, bool]]:
        found, _ = self._ray.wait(list(handles), num_returns=1, timeout=timeout)
        return [(handle, self._succeeded(handle)) for handle in found]

    def _succeeded(self, handle: Any) -> bool:
        try:
            self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            print(str(error).strip(), file=sys.stderr)
            return False
        return True

    def stop(self, handle: Any) -> None:
        self._ray.cancel(handle, force=True)
