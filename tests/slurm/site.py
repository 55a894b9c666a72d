"""The whole line: Slurm's nodes with deploy/slurm's prolog and epilog, an agent on each, a collector."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from processes import wait_for
from rig import CollectorProcess
from slurm.books import check_conservation, rows, runs
from slurm.cluster import Cluster
from slurm.metered import Jobs, Life, Node, uuid_of

DEPLOYED = Path(__file__).parents[2] / "deploy/slurm"
#: GPUs of each of Slurm's nodes.
GPUS = {"a": 4, "b": 2}


def mapping(folder: Path, node: str) -> Path:
    """Where the prolog says whose each GPU of the node is."""
    return folder / "mapping" / node


def conf(folder: Path) -> Path:
    """What the prolog and the epilog are told by their file."""
    return folder / "slurm-prolog.conf"


def cluster_with_prolog(folder: Path, gpus: Mapping[str, int], *, cgroups: bool = True) -> Cluster:
    """A Cluster, not entered, whose slurmd run our prolog and epilog as docs/slurm.md says."""
    programs = {}
    for name in ("prolog", "epilog"):
        programs[name] = folder / f"{name}.sh"
        programs[name].write_text(f"#!/bin/sh\nexec {DEPLOYED}/{name}.sh {conf(folder)}\n")
        programs[name].chmod(0o755)
    slurm = Cluster(folder, gpus, prolog=programs["prolog"], epilog=programs["epilog"], cgroups=cgroups)
    write_conf(slurm, gpus)
    return slurm


def write_conf(slurm: Cluster, gpus: Mapping[str, int], directory: str = "") -> None:
    """Several slurmd on one host: a directory each, below `directory` if given, and which GPUs each has.

    Node a is told their UUIDs in gres.conf's order; the others find them where the driver shows a node's GPUs.
    """
    said = [f"MAPPING_DIR={directory or mapping(slurm.folder, '$SLURMD_NODENAME')}"]
    first = 0
    for short, count in gpus.items():
        name = slurm.nodes[short]
        if short == "a":
            told = f'GPUS="{" ".join(uuid_of(name, gpu) for gpu in range(count))}"'
        else:
            driver = slurm.folder / "driver" / name
            told = f"DRIVER={driver}"
            for gpu in range(count):
                shown = driver / f"gpus/0000:{0x10 + gpu:02x}:00.0/information"
                shown.parent.mkdir(parents=True, exist_ok=True)
                shown.write_text(_INFORMATION.format(uuid=uuid_of(name, gpu), minor=first + gpu))
        said.append(f'[ "$SLURMD_NODENAME" != {name} ] || {told}')
        first += count
    conf(slurm.folder).write_text("\n".join(said) + "\n")


#: Of /proc/driver/nvidia/gpus/*/information, what the prolog looks at (tests/deploy/test_slurm_scripts.py has it whole).
_INFORMATION = "GPU UUID: \t {uuid}\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"


class Site:
    """Slurm's nodes with their agents, and a collector."""

    def __init__(self, slurm: Cluster, folder: Path, shorts: str, *, told: bool) -> None:
        """`told`: the agents look at what the prolog wrote, and may ask squeue; else they have the cgroups alone."""
        self.slurm = slurm
        folder.mkdir(exist_ok=True)
        self._jobs = TemporaryDirectory(prefix="slurm-jobs-")  # any user's can reach it
        self.jobs = Jobs(Path(self._jobs.name))
        self.collector = CollectorProcess(folder / "books.sqlite")
        self.nodes: dict[str, Node] = {}
        for short in shorts:
            name = slurm.nodes[short]
            options = ["--slurm-job-mapping-dir", str(mapping(slurm.folder, name))]
            options += ["--slurm-squeue", str(shutil.which("squeue")), "--slurm-squeue-period", "10s"]
            self.nodes[name] = Node(
                folder / short,
                name,
                slurm.gpus[short],
                slurm.name,
                self.collector.address,
                options if told else (),
                {"SLURM_CONF": slurm.environ["SLURM_CONF"]},
            )

    def node(self, short: str = "a") -> Node:
        return self.nodes[self.slurm.nodes[short]]

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._jobs)
            undo.enter_context(self.collector)
            undo.callback(self.slurm.clear)
            for node in self.nodes.values():
                undo.callback(node.kill)
                node.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *of: object) -> None:
        self._undo.__exit__(*of)  # type: ignore[arg-type]

    def work(self, spells: Mapping[Life, tuple[int, int]]) -> dict[Life, int]:
        """Jobs open their GPUs, and the first of each works for (seconds, percent): its SM-cycles, all metered."""
        for life in spells:
            self.nodes[life.node].hold(life)
        for life in spells:
            self.nodes[life.node].wait_held(life.gpus[0], "slurm", str(life.job))
        done = {life: self.nodes[life.node].work(life.gpus[0], *spell) for life, spell in spells.items()}
        for node in {life.node: self.nodes[life.node] for life in spells}.values():
            node.wait_read(node.ended_ns)
        return done

    def wait_one_run(self, lives: Sequence[Life]) -> None:
        """Until the books say that these jobs are one run: squeue is asked once in a period, and its answer is shipped."""
        jobs = {str(life.job) for life in lives}
        store = self.collector.store
        wait_for(
            f"jobs {sorted(jobs)} are one run",
            lambda: jobs <= {row.job for row in rows(store)} and len(runs(store)) == 1,
            60,
        )

    def finish(self, lives: Sequence[Life]) -> None:
        """Jobs close their GPUs, and end."""
        for life in lives:
            self.nodes[life.node].let_go(life.pid)
            life.end()

    def close_the_books(self) -> Path:
        """All nodes idle, agents and collector at their end: conservation holds. The store."""
        ran = {}
        for node in self.nodes.values():
            for gpu in range(node.gpus):
                node.wait_held(gpu, "idle")
            elapsed = node.stop()
            ran.update({node.uuid(gpu): elapsed for gpu in range(node.gpus)})
        self.collector.stop()
        check_conservation(self.collector.store, ran)
        return self.collector.store
