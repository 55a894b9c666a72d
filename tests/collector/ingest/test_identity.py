"""Which run a workload belongs to: the shipped list against a pod per row of its table, and what a list may say."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.errors import SettingsError
from flopmeter.collector.ingest.identity import attempt_of, choose, values
from flopmeter.collector.ingest.identity_rules import (
    before_lists,
    identities_of,
    identities_text,
    of_text,
    shipped,
    with_site,
)
from flopmeter.contract.identity import identities
from flopmeter.contract.limits import MAX_LABEL_CHARS
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Inventory, Workload, WorkloadKind

NODE = Inventory("gpu-001", "c1", "", "", "", ())
ELSEWHERE = Inventory("gpu-777", "c2", "", "", "", ())
FIXTURES = Path(__file__).parents[2] / "identities" / "rows.toml"
ROWS = {row["name"]: row for row in tomllib.loads(FIXTURES.read_text())["row"]}
#: The fixtures' word for what groups the pods -> the rules that are meant.
SYSTEMS = {
    "flopmeter": {"label"},
    "": {"pod"},
    "job": {"k8s-job", "k8s-job-legacy"},
    "jobset": {"jobset", "jobset-name"},
}
STATED = ("label:flopmeter.dev/run", "annotation:flopmeter.dev/run")


def workload(kind=WorkloadKind.SLURM, job="4711", *, restart=0, run="", user="", **seen):
    found = {name.replace("__", ".", 1): value for name, value in seen.items()}
    return Workload(kind, job=job, run=run, user=user, restart=restart, identities=identities(found.items()))


def process(**env):
    return replace(
        workload(WorkloadKind.PROCESS, "99-1"), identities=identities((f"env:{k}", v) for k, v in env.items())
    )


def of_row(row):
    seen = row["identities"]
    stated = next((seen[name] for name in STATED if name in seen), "")
    return Workload(
        WorkloadKind.POD, job=seen["k8s.pod_uid"], run=stated, identities=identities(seen.items())
    )


@pytest.mark.parametrize("name", ROWS)
def test_each_row_of_the_table_is_the_run_that_it_should_be(name):
    row = ROWS[name]
    w = of_row(row)
    run, rule = choose(w, NODE, shipped())
    expected = row["run"]
    assert rule in SYSTEMS.get(expected["system"], {expected["system"]})
    assert attempt_of(shipped(), rule, values(w)) == expected["attempt"]
    if rule == "label":
        assert run == expected["key"]
    else:
        assert run.endswith(("/" + expected["key"], "@" + expected["key"], ":" + expected["key"]))
        # A scheduler's names are one cluster's; the number that AWS Batch gives is the world's.
        assert (choose(w, ELSEWHERE, shipped())[0] == run) is (rule == "aws-batch")
    for word, same in (("joins", True), ("differs", False)):
        if word in row:
            assert (choose(of_row(ROWS[row[word]]), NODE, shipped())[0] == run) is same


def test_the_fixtures_cover_every_rule_of_the_table():
    chosen = {choose(of_row(row), NODE, shipped())[1] for row in ROWS.values()}
    of_pods = {r.name for r in shipped().rules if not any(n.startswith(("env:", "slurm.")) for n in r.needs)}
    assert of_pods - {"job", "slurm-id"} == chosen


@pytest.mark.parametrize(
    ("given_workload", "run", "rule"),
    [
        (IDLE, "", "none"),
        (UNATTRIBUTED, "", "none"),
        (workload(), "slurm:c1/4711", "slurm-id"),
        (workload(slurm__submit_unix_s="1795338795"), "slurm:c1/4711@1795338795", "slurm"),
        (
            workload(slurm__submit_unix_s="1795338795", slurm__array_job="2", slurm__array_task="3"),
            "slurm-array:c1/2@1795338795",
            "slurm-array",
        ),
        (workload(slurm__array_job="2"), "slurm-array:c1/2", "slurm-array-id"),
        (
            workload(slurm__het_job="5", slurm__array_job="0", slurm__submit_unix_s="7"),
            "slurm-het:c1/5@7",
            "slurm-het",
        ),
        (workload(slurm__het_job="5"), "slurm-het:c1/5", "slurm-het-id"),
        (workload(run="llama-70b", slurm__submit_unix_s="7"), "llama-70b", "label"),
        (process(), "process:c1/gpu-001/99-1", "job"),
        (process(WANDB_RUN_ID="3kq9z1ab", TORCHELASTIC_RUN_ID="r9"), "wandb:3kq9z1ab", "wandb"),
        (process(MLFLOW_RUN_ID="0c1d"), "mlflow:0c1d", "mlflow"),
        (process(TORCHELASTIC_RUN_ID="r9"), "torchrun:c1/r9", "torchrun"),
        (process(RAY_JOB_SUBMISSION_ID="raysubmit_1"), "ray:c1/raysubmit_1", "ray-submission"),
        (process(AWS_BATCH_JOB_ID="6e0d"), "aws-batch:6e0d", "aws-batch-env"),
    ],
)
def test_the_precedence(given_workload, run, rule):
    assert choose(given_workload, NODE, shipped()) == (run, rule)


def test_a_scheduler_goes_before_a_tracker_and_both_are_kept():
    w = replace(workload(), identities=identities([("env:WANDB_RUN_ID", "3kq9z1ab")]))
    assert choose(w, NODE, shipped()) == ("slurm:c1/4711", "slurm-id")


@pytest.mark.parametrize(
    "nothing", ["none", "None", "NONE", "null", "0", "nil", "undefined", "-1", "unknown", "false", "None "]
)
def test_what_says_nothing_names_no_run(nothing):
    """torchrun's --rdzv-id is `none` unless given (reference/deploy.md 1.4): all jobs of the world would be one run."""
    for w in (
        process(TORCHELASTIC_RUN_ID=nothing),
        process(WANDB_RUN_ID=nothing),
        replace(process(), run=nothing),
    ):
        assert choose(w, NODE, shipped()) == ("process:c1/gpu-001/99-1", "job")


@pytest.mark.parametrize("number", ["1", "100", "123", "456"])
def test_a_rendezvous_id_of_a_tutorial_names_no_run_but_a_tracker_may_count(number):
    assert choose(process(TORCHELASTIC_RUN_ID=number), NODE, shipped())[1] == "job"
    assert choose(process(WANDB_RUN_ID=number), NODE, shipped())[1] == "wandb"


def test_a_namespace_called_none_is_one():
    seen = [("k8s.namespace", "none"), ("label:ray.io/cluster", "0")]
    w = Workload(WorkloadKind.POD, job="j", identities=identities(seen))
    assert choose(w, NODE, shipped()) == ("kuberay:c1/none/0", "kuberay")


def test_one_stated_run_on_two_clusters_is_one_run():
    w = workload(run="llama-70b")
    assert choose(w, NODE, shipped()) == choose(w, ELSEWHERE, shipped())


def test_a_name_that_is_too_long_ends_in_a_hash_of_the_whole():
    long = [("k8s.namespace", "n" * 200), ("label:ray.io/cluster", "x" * 200)]
    other = [("k8s.namespace", "n" * 200), ("label:ray.io/cluster", "x" * 199 + "y")]
    one, two = (
        choose(Workload(WorkloadKind.POD, job="j", identities=identities(seen)), NODE, shipped())[0]
        for seen in (long, other)
    )
    assert len(one) == len(two) == MAX_LABEL_CHARS
    assert one[:200] == two[:200]
    assert one != two


def test_before_lists_were_noted_a_run_was_its_label_or_its_job():
    assert choose(workload(run="none", slurm__submit_unix_s="7"), NODE, before_lists()) == ("none", "label")
    assert choose(workload(slurm__submit_unix_s="7"), NODE, before_lists()) == ("slurm:c1/4711", "job")


@given(
    st.dictionaries(st.sampled_from(["env:A", "slurm.name", "label:x/y"]), st.text(min_size=1), max_size=3)
)
def test_identities_are_kept_as_one_text(seen):
    assert identities_of(identities_text(seen)) == seen
    assert identities_text(dict(reversed(seen.items()))) == identities_text(seen)
    assert identities_text(identities(seen.items())) == identities_text(seen)
    assert (identities_text(seen) == "") is (not seen)


# --- lists as files ---

RULE = '[[rule]]\nname = "team"\nneeds = ["label:team/run"]\nrun = "team:{label:team/run}"\n'
HEAD = 'schema = "flopmeter-identity-rules/1"\n'


def site(tmp_path, text):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return path


def test_a_sites_rules_stand_behind_the_stated_run_and_before_the_shipped_ones(tmp_path):
    rules = with_site(site(tmp_path, HEAD + RULE))
    assert [r.name for r in rules.rules][:2] == ["label", "team"]
    assert rules.rules[2:] == shipped().rules[1:]
    seen = [("label:team/run", "a"), ("label:ray.io/cluster", "b"), ("k8s.namespace", "n")]
    w = Workload(WorkloadKind.POD, job="j", identities=identities(seen))
    assert choose(w, NODE, rules) == ("team:a", "team")
    assert choose(replace(w, run="r"), NODE, rules) == ("r", "label")
    assert of_text(rules.text) == rules
    assert rules.digest != shipped().digest


def test_a_site_may_do_without_the_shipped_ones(tmp_path):
    rules = with_site(site(tmp_path, HEAD + "shipped = false\n" + RULE))
    assert [r.name for r in rules.rules] == ["label", "team", "job"]
    assert choose(workload(slurm__array_job="2"), NODE, rules) == ("slurm:c1/4711", "job")


def test_a_rule_may_match_reject_and_be_of_one_kind(tmp_path):
    text = (
        HEAD
        + '[[rule]]\nname = "team"\nkinds = ["slurm"]\nneeds = ["slurm.name", "user"]\nreject = ["Bash"]\n'
        'match = { "slurm.name" = "[a-z]+-[0-9]+" }\nrun = "{slurm.name} of {user} on {cluster}"\n'
        'attempt = ["slurm.array_task"]\n'
    )
    rules = with_site(site(tmp_path, text))
    named = workload(user="ada", slurm__name="llama-3", slurm__array_task="9")
    assert choose(named, NODE, rules) == ("llama-3 of ada on c1", "team")
    assert (
        attempt_of(rules, "team", values(named))
        == attempt_of(rules, "team (inherited)", values(named))
        == "9"
    )
    for other in ("llama-3x", "llama", "bash"):
        assert choose(workload(user="ada", slurm__name=other), NODE, rules)[1] == "slurm-id"
    assert choose(workload(slurm__name="llama-3"), NODE, rules)[1] == "slurm-id"  # no user
    assert choose(replace(named, kind=WorkloadKind.OTHER), NODE, rules)[1] == "job"
    assert of_text(rules.text) == rules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = \n", r"rules.toml: expected TOML, got Invalid value \(at line 1"),
        (RULE, "key schema: expected 'flopmeter-identity-rules/1', got 'nothing'"),
        (
            HEAD + "shiped = false\n",
            "key shiped: expected one of apart, reject, rule, schema, shipped, version",
        ),
        (HEAD + "shipped = 0\n", "key shipped: expected true or false, got 0"),
        (HEAD + "version = 1\n", "key version: expected text"),
        (HEAD + "rule = 3\n", "key rule: expected at most 200 tables"),
        (HEAD + "rule = [3]\n", r"rule 1: expected a table"),
        (HEAD + "reject = [0]\n", "key reject: expected a list of texts"),
        (HEAD + 'apart = ["no name"]\n', "key apart: expected an identity's name"),
        (HEAD + RULE + RULE, "rule 2, key name: expected a name that no other rule has, got 'team'"),
        (HEAD + RULE.replace("team", "label", 1), "rule 1, key name: expected a name that no other rule has"),
        (HEAD + RULE.replace('"team"', '"job"'), "rule 1, key name: expected a name that no other rule has"),
        (HEAD + RULE.replace('"team"', '"Te am"'), "rule 1, key name: expected a name in lower case"),
        (HEAD + RULE.replace('name = "team"\n', ""), "rule 1, key name: .* got 'nothing'"),
        (HEAD + RULE.replace('"team"', '"wandb"'), "rule wandb: expected a name of its own"),
        (HEAD + RULE + "x = 1\n", r"rule 1 \(team\), key x: expected one of"),
        (
            HEAD + RULE.replace('["label:team/run"]', "[]"),
            r"rule 1 \(team\), key needs: expected at least one",
        ),
        (HEAD + RULE.replace('["label', '["label:team/run", "label'), "key needs: expected each name once"),
        (HEAD + RULE.replace('["label:team/run"]', '["  "]'), "key needs: expected a list of texts"),
        (HEAD + RULE.replace('["label:team/run"]', '["TEAM"]'), "key needs: expected an identity's name"),
        (HEAD + RULE.replace('"team:{label:team/run}"', "3"), "key run: expected text such as"),
        (HEAD + RULE.replace("{label:team/run}", ""), "key run: expected at least one of `needs`"),
        (HEAD + RULE.replace("{label:team/run}", "{cluster}"), "key run: expected at least one of `needs`"),
        (HEAD + RULE.replace("{label:team/run}", "{label:other}"), "key run: expected in braces only"),
        (HEAD + RULE.replace("run}", "run"), "key run: expected in braces only"),
        (HEAD + RULE.replace("team:{", "team}{"), "key run: expected printable text"),
        (HEAD + RULE.replace("team:{", "te\\u0007am{"), "key run: expected printable text"),
        (HEAD + RULE + 'kinds = ["idle"]\n', "key kinds: expected of slurm, pod, process, other, got 'idle'"),
        (HEAD + RULE + "match = 3\n", "key match: expected a table"),
        (HEAD + RULE + 'match = { "label:x" = "(" }\n', r"key match: expected a regular expression \("),
        (HEAD + RULE + "note = 3\n", "key note: expected text"),
        (HEAD + "x" * 300_000, "expected at most 262,144 bytes"),
        (HEAD + "\x00", "expected TOML"),
        (HEAD + RULE * 201, "expected at most 200 tables"),
    ],
)
def test_a_list_that_is_none_is_refused_by_file_and_key(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message) as e:
        with_site(site(tmp_path, text))
    assert "rules.toml" in str(e.value)
    assert e.value.hint


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(SettingsError, match="cannot read: No such file"):
        with_site(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema":"flopmeter-identity-rules/2"}', "[" * 100_000]
)
def test_a_stores_text_that_is_no_list_is_refused(text):
    with pytest.raises(SettingsError, match="identity rules: "):
        of_text(text)


def test_the_shipped_list_is_kept_whole_in_its_text():
    assert of_text(shipped().text) == shipped()
    assert len(shipped().digest) == 64


def test_the_lists_example_in_the_docs_is_one(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "runs.md").read_text()
    (text,) = [part.split("```")[0] for part in page.split("```toml\n")[1:] if "identity-rules" in part]
    rules = with_site(site(tmp_path, text))
    w = workload(slurm__account="nlp", slurm__name="llama-v3")
    assert choose(w, NODE, rules) == ("nlp/llama-v3", "team")
    named = {name for line in page.splitlines() if line.startswith("| `") for name in line.split("`")[1::2]}
    assert {r.name for r in shipped().rules} <= named
