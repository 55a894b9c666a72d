"""Our prolog and epilog, run as slurmd runs them: an environment and nothing else, and whatever a node may be like."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from metering import device, facts

from flopmeter.agent.workloads.slurm_facts import JobFacts
from flopmeter.agent.workloads.slurm_holders import gpu_names
from flopmeter.agent.workloads.slurm_mapping import Look, MappingDirectory

SCRIPTS = Path(__file__).parents[2] / "deploy/slurm"
CAPTURES = Path(__file__).parents[1] / "slurm/captures"
SHELLS = [s for s in ("dash", "bash", "busybox") if shutil.which(s)]

#: PCI address, minor, UUID: counted alike on the bus and by minor.
GPUS = [(f"0000:{bus}:00.0", n, f"GPU-{n}{n}{n}{n}{n}{n}{n}{n}-1111-4111-8111-aaaaaaaaaaaa") for n, bus in enumerate(("18", "2a", "3a", "5d"))]  # fmt: skip
U = [uuid for _, _, uuid in GPUS]
MIG = ["MIG-0a0a0a0a-1111-4111-8111-bbbbbbbbbbbb", "MIG-1b1b1b1b-1111-4111-8111-cccccccccccc"]


@dataclass
class Node:
    """A node's driver, slurm.conf, our settings and the mapping directory, below one folder."""

    root: Path
    shell: str = "dash"

    @property
    def mapping(self) -> Path:
        return self.root / "run/job-mapping"

    def settings(self, text: str = "") -> None:
        (self.root / "prolog.conf").write_text(
            f"PATH={self.root}/bin:$PATH\nDRIVER={self.root}/driver\nMAPPING_DIR={self.mapping}\n{text}\n"
        )

    def driver(self, *gpus: tuple[str, int, str], excluded: str = "No") -> None:
        """/proc/driver/nvidia as the driver 535 writes it."""
        for address, minor, uuid in gpus:
            path = self.root / "driver/gpus" / address / "information"
            path.parent.mkdir(parents=True)
            path.write_text(
                f"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 17\nGPU UUID: \t {uuid}\n"
                f"Video BIOS: \t 96.00.74.00.01\nBus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\n"
                f"Bus Location: \t {address}\nDevice Minor: \t {minor}\nGPU Firmware: \t 535.104.05\nGPU Excluded:\t {excluded}\n"
            )

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, which: str, **environ: object) -> str:
        """What it said. It always ends in 0, and well within the second that a prolog may take."""
        shell = [self.shell, "sh"] if self.shell == "busybox" else [self.shell]
        done = subprocess.run(
            [*shell, str(SCRIPTS / f"{which}.sh"), str(self.root / "prolog.conf")],
            env={k: str(v) for k, v in environ.items()},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0
        assert done.stdout == ""
        return done.stderr

    def prolog(self, job: int = 4711, gpus: str = "0", **more: object) -> str:
        return self.run("prolog", **(environ(job, gpus) | more))

    def epilog(self, job: int = 4711, **more: object) -> str:
        return self.run("epilog", **(environ(job, "") | more))

    def look(self) -> Look:
        """As the agent sees it."""
        node = facts(
            *(device(entity=u, pci_address=f"0000{a}") for a, _, u in GPUS),
            *(device(entity=u, mig=True, parent=U[0], gpu_instance=n) for n, u in enumerate(MIG)),
        )
        return MappingDirectory(str(self.mapping)).look(gpu_names(node))

    def files(self) -> dict[str, str]:
        return {
            str(p.relative_to(self.mapping)): p.read_text()
            for p in sorted(self.mapping.rglob("*"))
            if p.is_file() and p.name != ".lock"
        }


def environ(job: int, gpus: str) -> dict[str, object]:
    """The environment of a real prolog of 22.05, as that job's."""
    first = (CAPTURES / "prolog.env").read_text().split("\n\n")[0]
    given: dict[str, object] = dict(line.split("=", 1) for line in first.splitlines() if "=" in line)
    given |= {"SLURM_JOB_ID": job, "SLURM_JOBID": job, "SLURM_JOB_GPUS": gpus, "CUDA_VISIBLE_DEVICES": gpus}
    return {k: v for k, v in given.items() if v != ""}


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    made = Node(tmp_path, request.param)
    made.settings()
    made.program("logger", f'shift 4; echo "$@" >>{tmp_path}/syslog')
    made.driver(*GPUS)
    return made


@pytest.fixture
def one(tmp_path: Path) -> Node:
    """In the shell that /bin/sh is on Debian."""
    made = Node(tmp_path)
    made.settings()
    made.program("logger", f'shift 4; echo "$@" >>{tmp_path}/syslog')
    made.driver(*GPUS)
    return made


def test_a_job_and_its_end(node: Node) -> None:
    assert node.prolog(4711, "1,3") == ""
    held = node.look()
    assert held.holders == {U[1]: ("4711",), U[3]: ("4711",)}
    assert held.troubles == ()
    assert held.facts == {"4711": JobFacts("4711", 0, user="root", partition="ci", cluster="ci")}
    assert node.files().keys() == {U[1], U[3], "1", "3", ".flopmeter/4711"}
    assert node.files()[U[1]] == node.files()["1"] == "4711\n"  # what dcgm-exporter reads
    assert node.epilog(4711) == ""
    assert node.files() == {}
    assert node.look() == Look({}, {})


def test_two_jobs_do_not_touch_each_other(node: Node) -> None:
    node.prolog(1, "0")
    node.prolog(11, "2")
    node.epilog(1)
    assert node.look().holders == {U[2]: ("11",)}
    assert set(node.look().facts) == {"11"}


def test_a_requeue_counts(one: Node) -> None:
    one.prolog(7, "0")
    one.epilog(7, SLURM_JOB_RESTART_COUNT=1)  # it sees the next life's count already
    assert one.files() == {}
    one.prolog(7, "2", SLURM_JOB_RESTART_COUNT=1)
    assert one.look().holders == {U[2]: ("7",)}
    assert one.look().facts["7"].restart == 1


def test_a_real_het_component(one: Node) -> None:
    one.prolog(6, "0", SLURM_HET_JOB_ID=5, SLURM_JOB_ACCOUNT="nlp", SLURM_JOB_SLUID="s5K1KKYAYG5D00")
    assert one.look().facts["6"] == JobFacts(
        "6", 0, user="root", account="nlp", partition="ci", cluster="ci", het_job="5", sluid="s5K1KKYAYG5D00"
    )


def test_what_a_later_slurm_or_a_wrapper_knows_is_written(one: Node) -> None:
    one.prolog(
        SLURM_JOB_NAME="llama = 3", SLURM_ARRAY_JOB_ID=40, SLURM_ARRAY_TASK_ID=0, SLURM_HET_JOB_OFFSET=1
    )
    known = one.look().facts["4711"]
    assert (known.name, known.array_job, known.array_task, known.het_offset) == ("llama = 3", "40", "0", "1")


def test_a_name_cannot_forge_another_fact(one: Node) -> None:
    one.prolog(
        SLURM_JOB_NAME="x\nuser=bob\nrestart=9", SLURM_JOB_ACCOUNT="y\r", SLURM_JOB_PARTITION="é" * 9_000
    )
    known = one.look().facts["4711"]
    assert (known.name, known.user, known.restart, known.account) == ("", "root", 0, "")
    assert 0 < len(known.partition) <= 256


@pytest.mark.parametrize(
    "text", ["$(touch {0})", "`touch {0}`", "; touch {0}", "' ; touch {0} '", "-n", "*", "a b"]
)
def test_no_value_is_run(one: Node, text: str) -> None:
    mark = one.root / "mark"
    value = text.format(mark)
    names = ("USER", "ACCOUNT", "PARTITION", "NAME", "GPUS", "SLUID", "RESTART_COUNT", "COMMENT", "WORK_DIR")
    one.prolog(CUDA_VISIBLE_DEVICES=value, **{f"SLURM_JOB_{name}": value for name in names})
    one.prolog(SLURM_JOB_ID=value)
    one.epilog(SLURM_JOB_ID=value)
    assert not mark.exists()
    assert one.look().holders == {}


def test_a_job_without_gpus_leaves_nothing(one: Node) -> None:
    assert one.prolog(1, "") == ""
    assert not one.mapping.exists()
    assert one.epilog(1) == ""


@pytest.mark.parametrize("which", ["prolog", "epilog"])
@pytest.mark.parametrize("job", ["", "x", "1/../2", "1 2", "-1"])
def test_no_job_no_file(one: Node, which: str, job: str) -> None:
    one.prolog(5, "0")
    before = one.files()
    assert "expected a number" in one.run(which, **(environ(5, "1") | {"SLURM_JOB_ID": job}))
    assert one.files() == before


def test_an_empty_environment(node: Node) -> None:
    assert "expected a number" in node.run("prolog")
    assert "expected a number" in node.run("epilog")
    assert (node.root / "syslog").read_text().count("job ?: SLURM_JOB_ID: expected a number, got ''") == 2


# ---- which GPU a number means --------------------------------------------------------------------


def test_minors_in_another_order_than_the_bus(one: Node) -> None:
    shutil.rmtree(one.root / "driver")
    crossed = [(address, 3 - minor, uuid) for address, minor, uuid in GPUS]
    one.driver(*crossed)
    said = one.prolog(1, "0")
    assert "counted otherwise than on the bus: set GPU_ORDER or GPUS in" in said
    assert one.look().holders == {}
    assert set(one.look().facts) == {"1"}  # what is known of the job is known all the same
    one.settings("GPU_ORDER=pci")
    one.prolog(1, "0")
    assert one.look().holders == {U[0]: ("1",)}
    one.epilog(1)
    one.settings("GPU_ORDER=minor")
    one.prolog(1, "0")
    assert one.look().holders == {U[3]: ("1",)}
    assert one.files()["3"] == "1\n"  # the index stays NVML's


def test_the_admins_own_order(one: Node) -> None:
    one.settings(f'case $SLURMD_NODENAME in node-a) GPUS="{U[2]} {U[0]}" ;; esac')
    one.prolog(1, "0")
    assert one.files().keys() == {U[2], "2", ".flopmeter/1"}
    shutil.rmtree(one.root / "driver")  # and where there is no driver to ask: by UUID only
    one.prolog(2, "1")
    assert one.look().holders == {U[2]: ("1",), U[0]: ("2",)}
    assert "2" in one.files()
    assert "0" not in one.files()


def test_excluded_gpus_are_not_counted(one: Node) -> None:
    shutil.rmtree(one.root / "driver")
    one.driver(GPUS[0], excluded="Yes")
    one.driver(*GPUS[1:])
    one.prolog(1, "0")
    assert one.files().keys() == {U[1], "0", ".flopmeter/1"}


def test_uuids_that_slurmd_itself_names(one: Node) -> None:
    """MIG by AutoDetect=nvml: the number counts instances, and CUDA_VISIBLE_DEVICES has their UUIDs."""
    (one.root / "driver/capabilities/gpu0/mig/gi1").mkdir(parents=True)
    one.prolog(1, "0,1", CUDA_VISIBLE_DEVICES=",".join(MIG))
    assert one.look().holders == {MIG[0]: ("1",), MIG[1]: ("1",)}
    assert one.files().keys() == {*MIG, ".flopmeter/1"}
    one.epilog(1)
    assert one.files() == {}


@pytest.mark.parametrize("visible", ["0,1", f"{MIG[0]},1", "MIG-GPU-0a0a/1/0", "GPU-", "all"])
def test_instances_that_nobody_names_are_not_guessed(one: Node, visible: str) -> None:
    (one.root / "driver/capabilities/gpu0/mig/gi1").mkdir(parents=True)
    said = one.prolog(1, "0,1", CUDA_VISIBLE_DEVICES=visible)
    assert "cut by MIG, and slurmd names no UUIDs" in said
    assert one.look().holders == {}


def test_the_drivers_unknown_uuids_are_asked_for(one: Node) -> None:
    shutil.rmtree(one.root / "driver")
    one.driver(*((a, m, "GPU-????????-????-????-????-????????????") for a, m, _ in GPUS))
    rows = "\n".join(f"0000{a.upper()}, {u}" for a, _, u in reversed(GPUS))
    one.program("nvidia-smi", f"cat <<'END'\n{rows}\nEND")
    one.prolog(1, "2")
    assert one.look().holders == {U[2]: ("1",)}
    one.program("nvidia-smi", "exec sleep 600")  # `run` waits for a minute
    assert "its UUID is not known" in one.prolog(2, "1")
    one.program("nvidia-smi", "exit 9")
    assert "its UUID is not known" in one.prolog(2, "1")
    assert one.look().holders == {U[2]: ("1",)}


@pytest.mark.parametrize("gpus", ["9", "0,9", "0-3", "a", "GPU-1"])
def test_numbers_that_mean_nothing(one: Node, gpus: str) -> None:
    assert re.search("its UUID is not known|expected numbers", one.prolog(1, gpus, CUDA_VISIBLE_DEVICES=""))
    assert one.look().holders == ({U[0]: ("1",)} if gpus == "0,9" else {})


def test_no_driver(one: Node) -> None:
    shutil.rmtree(one.root / "driver")
    assert "its UUID is not known" in one.prolog(1, "0")
    assert one.look().holders == {}


# ---- several jobs on one GPU ----------------------------------------------------------------------


def test_a_gpu_that_is_not_shared_has_one_job(one: Node) -> None:
    """A job whose epilog never ran does not stay."""
    one.prolog(1, "0")
    one.prolog(2, "0")
    assert one.look().holders == {U[0]: ("2",)}
    one.epilog(1)  # late
    assert one.look().holders == {U[0]: ("2",)}


@pytest.mark.parametrize(
    "line",
    ["GresTypes=gpu,shard", "grestypes = gpu,MPS", "PreemptMode=SUSPEND,GANG", "  PreemptMode=GANG,REQUEUE"],
)
def test_a_shared_gpu_has_several(one: Node, line: str) -> None:
    conf = one.root / "slurm.conf"
    conf.write_text(f"ClusterName=ci\n{line}\n")
    for job in (1, 2, 11, 1):
        one.prolog(job, "0", SLURM_CONF=conf)
    assert one.look().holders == {U[0]: ("2", "11", "1")}
    one.epilog(1)
    assert one.look().holders == {U[0]: ("2", "11")}
    assert one.files()["0"] == "2\n11\n"
    one.epilog(11)
    one.epilog(2)
    assert one.files() == {}


def test_what_slurm_conf_does_not_say_the_site_may(one: Node) -> None:
    conf = one.root / "slurm.conf"
    conf.write_text("#GresTypes=shard\nGresTypes=gpu\nPreemptMode=REQUEUE\n")
    for job in (1, 2):
        one.prolog(job, "0", SLURM_CONF=conf)
    assert one.look().holders == {U[0]: ("2",)}
    one.settings("SHARED=yes")
    one.prolog(3, "0", SLURM_CONF=conf)
    assert one.look().holders == {U[0]: ("2", "3")}
    conf.write_text("GresTypes=shard\n")
    one.settings("SHARED=no")
    one.prolog(4, "0", SLURM_CONF=conf)
    assert one.look().holders == {U[0]: ("4",)}


def test_prologs_and_epilogs_at_once(one: Node) -> None:
    """Each changes the one file under the lock: nobody's line is lost."""
    one.settings("SHARED=yes\nLOCK_WAIT=60")  # however slow this machine is
    for job in range(100, 106):
        one.prolog(job, "0")
    done = [threading.Thread(target=one.epilog, args=(job,)) for job in range(100, 106)]
    done += [threading.Thread(target=one.prolog, args=(job, "0")) for job in range(200, 206)]
    for thread in done:
        thread.start()
    for thread in done:
        thread.join()
    (jobs,) = one.look().holders.values()
    assert sorted(jobs) == [str(job) for job in range(200, 206)]


def test_no_index_files_if_so_set(one: Node) -> None:
    one.settings("INDEX_FILES=no")
    one.prolog(1, "0,1")
    assert one.files().keys() == {U[0], U[1], ".flopmeter/1"}


# ---- nodes that are not well ------------------------------------------------------------------------


def test_a_full_disk(node: Node) -> None:
    node.prolog(1, "0")
    before = node.files()
    node.settings("ulimit -f 0")
    said = node.prolog(2, "0,1")
    assert "cannot write" in said
    assert node.files() == before  # and no temporary file is left
    node.settings()
    node.epilog(1)
    assert node.files() == {}


def test_a_full_disk_at_the_epilog(node: Node) -> None:
    node.settings("SHARED=yes")
    node.prolog(1, "0")
    node.prolog(2, "0")
    node.settings("SHARED=yes\nulimit -f 0")
    assert "cannot change" in node.epilog(1)
    assert node.look().holders == {U[0]: ("1", "2")}
    node.settings("ulimit -f 0")
    assert node.epilog(2) == "" or "cannot change" in node.epilog(2)


@pytest.mark.parametrize("where", ["/dev/null/mapping", "/proc/mapping", "/sys/mapping"])
def test_a_directory_that_cannot_be_made(node: Node, where: str) -> None:
    node.settings(f"MAPPING_DIR={where}")
    assert f"cannot write to {where}" in node.prolog(1, "0")
    node.epilog(1)
    assert not Path(where).exists()


def test_a_file_where_the_directory_should_be(node: Node) -> None:
    node.mapping.parent.mkdir()
    node.mapping.write_text("")
    assert "cannot write" in node.prolog(1, "0")
    assert node.epilog(1) == ""
    assert node.mapping.read_text() == ""


def test_folders_and_links_where_files_should_be(node: Node) -> None:
    node.prolog(1, "1")
    secret = node.root / "secret"
    secret.write_text("7\n")
    (node.mapping / U[0]).mkdir()
    (node.mapping / "0").symlink_to(secret)
    assert "cannot write" in node.prolog(7, "0")
    assert secret.read_text() == "7\n"  # the link was replaced, not followed
    assert (node.mapping / "0").read_text() == "7\n"
    (node.mapping / "3").symlink_to(secret)
    node.epilog(7)
    assert secret.read_text() == "7\n"


@pytest.mark.parametrize(
    "text", ["exit 3", "false", "set -e; false", "cd /nowhere", "kill -TERM $$", "unset SLURM_JOB_ID"]
)
def test_settings_that_are_wrong_drain_no_node(node: Node, text: str) -> None:
    node.settings(text)
    node.prolog(1, "0")
    node.epilog(1)


@pytest.mark.parametrize("text", ["if", "'", "GPUS=("])
def test_settings_that_are_no_shell_are_said_and_nothing_is_guessed(one: Node, text: str) -> None:
    one.prolog(1, "0")
    before = one.files()
    one.settings(text)
    for said in (one.prolog(2, "1"), one.epilog(1)):
        assert "is no shell: nothing is done" in said
    assert one.files() == before


def test_neither_logger_nor_flock(one: Node) -> None:
    tools = one.root / "bin"
    for name in ("awk", "cat", "grep", "mkdir", "mv", "rm", "sed", "sh", "sort", "timeout", "tr"):
        (tools / name).symlink_to(shutil.which(name) or name)
    (tools / "logger").unlink()
    one.settings(f"PATH={tools}")
    assert one.prolog(1, "0") == ""
    assert one.look().holders == {U[0]: ("1",)}
    one.settings(f"PATH={tools}\nMAPPING_DIR=/dev/null/x")
    assert "cannot write" in one.prolog(1, "0")


# ---- as it is shipped --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prolog.sh", "epilog.sh"])
def test_shipped_scripts(name: str) -> None:
    path = SCRIPTS / name
    assert os.access(path, os.X_OK)
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[-2:] == ['(main "$@")', "exit 0"]
    assert "PATH=/usr/sbin:/usr/bin:/sbin:/bin" in lines


@pytest.mark.parametrize("name", ["prolog.sh", "epilog.sh", "slurm-prolog.conf"])
def test_shellcheck(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "--exclude=SC2034", str(SCRIPTS / name)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_example_settings_name_every_setting_and_change_nothing() -> None:
    text = (SCRIPTS / "slurm-prolog.conf").read_text()
    assert all(line.startswith("#") or not line for line in text.splitlines())
    settings = re.findall(r"^([A-Z_]+)=", (SCRIPTS / "prolog.sh").read_text(), re.MULTILINE)
    for name in set(settings) - {"PATH", "LC_ALL", "DRIVER", "LOCK_WAIT"}:
        assert f"{name}=" in text


def test_captured_environments_have_what_the_prolog_reads() -> None:
    """The names in prolog.sh are those of a real Slurm."""
    captured: Mapping[str, object] = environ(1, "0")
    for name in (
        "SLURM_JOB_RESTART_COUNT",
        "SLURM_JOB_USER",
        "SLURM_JOB_PARTITION",
        "SLURM_CLUSTER_NAME",
        "SLURM_CONF",
        "SLURMD_NODENAME",
    ):
        assert name in captured
    assert "SLURM_HET_JOB_ID=5" in (CAPTURES / "prolog.env").read_text()
