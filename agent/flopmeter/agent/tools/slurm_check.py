"""What `flopmeter agent doctor` says of Slurm's evidence: can the job-mapping directory be read, does squeue answer."""

from collections.abc import Callable

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.workloads.slurm_ask import AskError, run_bounded
from flopmeter.agent.workloads.slurm_holders import gpu_names
from flopmeter.agent.workloads.slurm_mapping import MappingDirectory
from flopmeter.agent.workloads.slurm_queue import parse_queue

from .advice import Advice

_PAGE = "see docs/slurm.md"


def of_slurm(
    facts: NodeFacts, *, directory: str, squeue: str, run: Callable[[list[str]], bytes] = run_bounded
) -> list[Advice]:
    """Of what is set ("" = not). An advice without a change says that it works."""
    found = _of_directory(facts, directory) if directory else []
    if squeue:
        found.append(_of_squeue(squeue, run))
    return found


def _of_directory(facts: NodeFacts, directory: str) -> list[Advice]:
    names = gpu_names(facts)
    try:
        look = MappingDirectory(directory).look(names)
    except FileNotFoundError:
        return [
            Advice(
                f"job mapping: {directory} is not there: no prolog has written to it since the node started",
                f"install the prolog and run a job with a GPU; {_PAGE}",
            )
        ]
    except OSError as e:
        return [
            Advice(
                f"job mapping: {directory}: {e.strerror or e}",
                f"let the agent's user read it, and only root write to it; {_PAGE}",
            )
        ]
    jobs = {job for holders in look.holders.values() for job in holders}
    works = Advice(
        f"job mapping: {len(look.holders)} of {len(names.uuids)} GPUs given to {len(jobs)} Slurm jobs"
    )
    return [works, *(Advice(f"job mapping: {directory}/{each}", _PAGE) for each in look.troubles)]


def _of_squeue(program: str, run: Callable[[list[str]], bytes]) -> Advice:
    try:
        parse_queue(run([program, "--json", "--jobs=1"]), ())
    except AskError as e:
        if "Invalid job id" not in str(e):  # which the controller itself says of a job that is not there
            return Advice(f"{program}: {e}", f"let the agent's user reach munge and slurmctld; {_PAGE}")
    except ValueError as e:
        return Advice(f"{program} --json: {e}", f"a squeue of Slurm 21.08 or later, built with JSON; {_PAGE}")
    return Advice(f"{program} answers")
