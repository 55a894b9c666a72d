"""deploy/slurm/summaries.sh, run as a timer runs it, among programs that answer as Slurm's do (22.05.8, tried)."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/slurm/summaries.sh"
SHELLS = [s for s in ("dash", "bash", "busybox") if shutil.which(s)]
LINE = "flopmeter/1 job={} flop=1.23e21 lower=1.10e21 upper=1.40e21 class=A1:96.0%,gap:4.0% gpu_h=512.00 run=a~b+c/d"
ENDED = "2026-11-22T19:08:37"


@dataclass
class Site:
    """Slurm's programs and flopmeter, as scripts; what was written is in `written`."""

    root: Path
    shell: str

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def answers(self, name: str, *lines: str, status: int = 0) -> None:
        (self.root / f"{name}.out").write_text("".join(f"{line}\n" for line in lines))
        self.program(name, f'echo "$*" >>{self.root}/{name}.asked\ncat {self.root}/{name}.out; exit {status}')

    def run(self, settings: str = "") -> "subprocess.CompletedProcess[str]":
        for name in ("sacctmgr", "scontrol"):
            if not (self.root / "bin" / name).exists():
                self.program(
                    name,
                    f'for a; do printf "%s|" "$a"; done >>{self.root}/{name}.did\necho >>{self.root}/{name}.did',
                )
        conf = self.root / "summaries.conf"
        conf.write_text(f"PATH={self.root}/bin:$PATH\n{settings}\n")
        shell = [self.shell, "sh"] if self.shell == "busybox" else [self.shell]
        return subprocess.run(
            [*shell, str(SCRIPT), str(conf)],
            env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def did(self, name: str) -> list[list[str]]:
        file = self.root / f"{name}.did"
        return [line.split("|")[:-1] for line in file.read_text().splitlines()] if file.exists() else []

    def written(self) -> dict[str, str]:
        """Job, as Slurm calls it -> what its comment was set to, by sacctmgr."""
        found = {}
        for words in self.did("sacctmgr"):
            assert words[:5] == ["-i", "-Q", "modify", "job", "where"], words
            found[words[5].removeprefix("jobid=")] = words[7]
        return found


@pytest.fixture(params=SHELLS)
def site(tmp_path, request):
    return Site(tmp_path, request.param)


def line(job, state="complete", text=None):
    return f"{job}\t{state}\t{LINE.format(job) if text is None else text}"


def test_each_job_gets_its_own_line_by_its_own_name(site):
    """By number an array's first task or a het job's leader would stand for all of them."""
    site.answers("flopmeter", line(1), line(2), line(3), line(4), line(5))
    site.answers(
        "sacct",
        f"1|1|COMPLETED|{ENDED}|",
        f"4|4+0|FAILED|{ENDED}|",
        f"5|4+1|CANCELLED by 0|{ENDED}|",
        f"3|2_0|TIMEOUT|{ENDED}|",
        f"2|2_1|COMPLETED|{ENDED}|",
    )
    done = site.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    said = {name: f"AdminComment={LINE.format(n)}" for name, n in (("1", 1), ("2_1", 2), ("2_0", 3), ("4+0", 4), ("4+1", 5))}  # fmt: skip
    assert site.written() == said


def test_again_it_writes_only_what_has_changed(site):
    """sacctmgr writes small letters, whatever it is given."""
    site.answers("flopmeter", line(1), line(2), line(3))
    site.answers(
        "sacct",
        f"1|1|COMPLETED|{ENDED}|{LINE.format(1)}",
        f"2|2|COMPLETED|{ENDED}|flopmeter/1 job=2 flop=1",
        f"3|3|COMPLETED|{ENDED}|{LINE.format(3).lower()}",
    )
    assert site.run().returncode == 0
    assert set(site.written()) == {"2"}


def test_what_somebody_else_wrote_stays(site):
    site.answers("flopmeter", line(1), line(2))
    site.answers("sacct", f"1|1|COMPLETED|{ENDED}|JS1:H4sIAAAA|x", f"2|2|COMPLETED|{ENDED}|")
    done = site.run()
    assert done.returncode == 0
    assert set(site.written()) == {"2"}
    assert "1 jobs have another comment" in done.stderr
    assert site.run("FIELD=SystemComment").returncode == 0
    assert "jobidraw,jobid,state,end,systemcomment" in (site.root / "sacct.asked").read_text()


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "REQUEUED"])
def test_a_job_that_has_not_ended_is_slurmctlds(site, state):
    site.answers("flopmeter", line(1))
    site.answers("sacct", f"1|1|{state}|{ENDED}|")
    assert site.run().returncode == 0
    assert site.written() == {}


def test_what_is_still_open_waits_and_what_is_late_does_not(site):
    site.answers("flopmeter", line(1, "open"), line(2, "late"))
    site.answers("sacct", f"1|1|COMPLETED|{ENDED}|", f"2|2|COMPLETED|{ENDED}|")
    assert site.run().returncode == 0
    assert set(site.written()) == {"2"}


@pytest.mark.parametrize(
    "text",
    [
        "flopmeter/1 run='; rm -rf /'", "flopmeter/1 run=`id`", "flopmeter/1 $(id)", "flopmeter/1 a\\n", "other",
        'flopmeter/1 "', "flopmeter/1 a;b", "flopmeter/1 \u202e",
    ],
)  # fmt: skip
def test_nothing_passes_that_is_not_a_line_of_ours(site, text):
    site.answers("flopmeter", line(1, text=text), line("1; id"), line("2"))
    site.answers("sacct", f"1|1|COMPLETED|{ENDED}|", f"2|$(id)|COMPLETED|{ENDED}|", f"2|2|COMPLETED|{ENDED}|")
    assert site.run().returncode == 0
    assert set(site.written()) == {"2"}


def test_one_that_fails_hinders_no_other(site):
    site.answers("flopmeter", line(1), line(2))
    site.answers("sacct", f"1|1|COMPLETED|{ENDED}|", f"2|2|COMPLETED|{ENDED}|")
    site.program(
        "sacctmgr",
        f'case "$*" in *jobid=1\\ *) echo "no privilege"; exit 1;; esac; echo "$6" >>{site.root}/ok',
    )
    done = site.run()
    assert done.returncode == 1
    assert "job 1: sacctmgr: no privilege" in done.stderr
    assert (site.root / "ok").read_text() == "jobid=2\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("FIELD=JobName", "expected AdminComment, SystemComment or Comment"),
        ("SUMMARIES='echo broken >&2; exit 3'", "broken"),
        ("SUMMARIES='sleep 60' PATIENCE=1", "cannot have the lines"),
        ("PATIENCE=1; ENDED=yes; SUMMARIES=true", "sacct gave no answer"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(site, settings, said):
    site.answers("flopmeter", line(1))
    site.program("sacct", "exec sleep 60")
    done = site.run(settings)
    assert done.returncode != 0
    assert said in done.stderr
    assert site.did("sacctmgr") == []


def test_jobs_that_run_by_scontrol(site):
    site.answers(
        "flopmeter", line(1, "open"), line(2, "open"), line(5, "open"), line(3, "open"), line(4, "open")
    )
    site.answers(
        "squeue",
        "1|1|N/A|N/A|N/A|(null)", "5|2|0|N/A|N/A|(null)", f"2|2|1|N/A|N/A|{LINE.format(2)}", "3|3|N/A|3|0|",
        "4|4|N/A|3|1|someone's",
    )  # fmt: skip
    done = site.run("ENDED=no RUNNING=yes")
    assert done.returncode == 0
    did = {words[1]: words[2] for words in site.did("scontrol")}
    assert did == {
        f"JobId={name}": f"AdminComment={LINE.format(n)}" for name, n in (("1", 1), ("2_0", 5), ("3+0", 3))
    }


def test_the_cluster_and_the_time_are_asked_for(site):
    site.answers("flopmeter")
    site.answers("sacct")
    assert site.run("CLUSTER=c1 RECENT=12h").returncode == 0
    assert (site.root / "flopmeter.asked").read_text() == "runs summary --recent 12h --cluster c1\n"
