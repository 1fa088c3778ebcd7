"""Launch files: whole, of the fields that their schedulers know, and run against stand-ins of what they call."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from sums import write_recipe

import temper
from temper.cli import main
from temper.launch.job import TEMPLATES

RECIPE = """
tasks: {sums: {train: sums.jsonl}}
stages:
  base: {stage: import_model, model: tiny-base}
  rl: {stage: grpo, model: "@base", tasks: [sums], max_steps: 2, lora: {r: 8}}
"""
SERVED = RECIPE.replace("max_steps: 2", "max_steps: 2, engine: {servers: [http://a:1], api_key_env: MY_KEY}")
NASTY = "description=\"it is $(touch broken) `touch broken` # {{ x }}: 'q'\n second line\""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", "secret-word")
    write_recipe(tmp_path, RECIPE)
    (tmp_path / "served.yaml").write_text(SERVED)


def launch(capsys: pytest.CaptureFixture[str], scheduler: str, recipe: str = "my.yaml", *more: str) -> str:
    words = ["launch", scheduler, recipe, "--shared", str(Path.cwd()), "--set", NASTY, *more]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "secret-word" not in text
    return text


def bash(text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script, with the stand-ins of this directory for the commands it calls."""
    path = f"{Path.cwd() / 'bin'}{os.pathsep}{os.environ['PATH']}"
    file = Path("script.sh")
    file.write_text(text)
    assert subprocess.run(["bash", "-n", file], capture_output=True, text=True).stderr == ""
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(["bash", file], env=environment, capture_output=True, text=True, timeout=120)


def stand_in(name: str, text: str) -> None:
    file = Path("bin") / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


def ranks_end_with(*codes: int) -> None:
    """`temper` notes who it is, then ends with the code of its rank, or with the last one."""
    known = " ".join(map(str, codes))
    stand_in(
        "temper",
        f'codes=({known}); echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $*" >> asked-$RANK\n'
        f"exit ${{codes[RANK < {len(codes)} ? RANK : {len(codes) - 1}]}}",
    )


def asked() -> list[str]:
    return [file.read_text().splitlines()[0] for file in sorted(Path().glob("asked-*"))]


SCRIPTS = {
    "skypilot": lambda text: [yaml.safe_load(text)["run"]],
    "kubernetes": lambda text: [
        container["args"][0]
        for part in yaml.safe_load_all(text)
        if "template" in part["spec"]
        for container in part["spec"]["template"]["spec"]["containers"]
    ],
    "slurm": lambda text: [text],
}


@pytest.mark.parametrize("recipe", ["my.yaml", "served.yaml"])
@pytest.mark.parametrize("scheduler", TEMPLATES)
def test_files_are_whole(scheduler: str, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = launch(capsys, scheduler, recipe, "--nodes", "2", "--server-nodes", "3", "--server-gpus", "2")
    assert "{{" not in text.replace("{{ x }}", "")
    assert "{%" not in text
    assert sum(line.lstrip().startswith("#") for line in text.splitlines()) >= 3
    assert ("vllm" in text) == ("processed_logprobs" in text) == (recipe == "served.yaml")
    if recipe == "served.yaml":
        assert all(word in text for word in ("VLLM_SERVER_DEV_MODE", "--max-lora-rank", "VLLM_API_KEY", "MY_KEY"))
        assert "rl.engine.servers=" in text
    if scheduler == "ray":
        compile(text, "ray.py", "exec")
        return
    for script in SCRIPTS[scheduler](text):
        found = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert (found.returncode, found.stderr) == (0, "")


def test_kubernetes_is_given_fields_that_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    parts = list(yaml.safe_load_all(launch(capsys, "kubernetes", "served.yaml", "--nodes", "2")))
    assert [(part["apiVersion"], part["kind"]) for part in parts] == [
        ("v1", "Service"), ("batch/v1", "Job"), ("apps/v1", "StatefulSet"),
    ]  # fmt: skip
    service, job, servers = (part["spec"] for part in parts)
    assert set(service) <= {"clusterIP", "publishNotReadyAddresses", "selector", "ports"}
    assert set(job) <= {"completionMode", "completions", "parallelism", "backoffLimit", "podFailurePolicy", "template"}
    assert set(servers) <= {"serviceName", "replicas", "podManagementPolicy", "selector", "template"}
    assert job["completions"] == job["parallelism"] == 2
    name = parts[0]["metadata"]["name"]
    for spec in (job, servers):
        pod = spec["template"]["spec"]
        known = {"subdomain", "restartPolicy", "terminationGracePeriodSeconds", "containers", "volumes"}
        assert set(pod) <= known
        assert spec["template"]["metadata"]["labels"]["app"] == service["selector"]["app"] == name
        [container] = pod["containers"]
        assert set(container) <= {"name", "image", "command", "args", "envFrom", "resources", "volumeMounts"}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert job["template"]["spec"]["subdomain"] == servers["serviceName"] == name
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # as podFailurePolicy wants it
    assert servers["selector"]["matchLabels"].items() <= servers["template"]["metadata"]["labels"].items()
    final = job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    assert 2 in final
    assert not {0, 4, 75} & set(final)


def test_skypilot_is_given_fields_that_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    task = yaml.safe_load(launch(capsys, "skypilot", "served.yaml", "--nodes", "2", "--server-nodes", "2"))
    assert set(task) == {"name", "num_nodes", "resources", "volumes", "workdir", "setup", "run"}
    assert task["num_nodes"] == 4
    assert set(task["resources"]) == {"accelerators", "use_spot", "job_recovery"}
    assert task["resources"]["job_recovery"] == {"recover_on_exit_codes": [75, 4]}


def test_one_machine_of_several_starts_its_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    script = yaml.safe_load(launch(capsys, "skypilot", "my.yaml", "--nodes", "2", "--gpus", "2"))["run"]
    ranks_end_with(0)
    machine = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_TASK_ID": "t"}
    assert bash(script, **machine).returncode == 0
    same = f"4 2 10.0.0.1 run {Path('my.yaml').resolve()} --out {Path.cwd() / 'runs'}"
    assert len(asked()) == 2
    assert all(line.startswith(f"{2 + i} {i} {same}") for i, line in enumerate(asked()))
    assert all("$(touch broken)" in line for line in asked())
    assert not Path("broken").exists()


@pytest.mark.parametrize(("codes", "expected"), [((75, 0), 75), ((2, 4), 2), ((0, 0), 0), ((137, 4), 4)])
def test_the_first_rank_says_what_came_of_it(
    codes: tuple[int, ...], expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    [script] = SCRIPTS["kubernetes"](launch(capsys, "kubernetes", "my.yaml", "--gpus", "2"))
    ranks_end_with(*codes)
    assert bash(script, JOB_COMPLETION_INDEX="0").returncode == expected


def test_a_stop_reaches_the_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    [script] = SCRIPTS["kubernetes"](launch(capsys, "kubernetes", "my.yaml", "--gpus", "2"))
    stand_in("temper", 'trap "exit 75" TERM; touch up-$RANK; while :; do sleep 0.02; done')
    Path("script.sh").write_text(script)
    path = f"{Path.cwd() / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(["bash", "script.sh"], env={**os.environ, "PATH": path, "JOB_COMPLETION_INDEX": "0"})
    until = time.monotonic() + 60
    while len(list(Path().glob("up-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 75


SRUN = """
for option; do
  case $option in --ntasks=*) tasks=${option#*=};; --*) ;; *) break;; esac
  shift
done
echo "$tasks $*" >> srun.log
for ((task = 0; task < tasks; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) SLURM_NTASKS=$tasks "$@" || code=$?
done
exit ${code:-0}
"""


@pytest.mark.parametrize(("code", "ends", "again"), [(0, 0, False), (75, 0, True), (4, 0, True), (2, 2, False)])
def test_slurm_queues_it_again_where_it_can_go_on(
    code: int, ends: int, again: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    text = launch(capsys, "slurm", "my.yaml", "--nodes", "2", "--gpus", "2")
    ranks_end_with(code, 4)
    stand_in("srun", SRUN)
    stand_in("scontrol", 'case $1 in show) printf "n1\\nn2\\n";; *) echo "$*" >> scontrol.log;; esac')
    job = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "77", "SLURM_CPUS_ON_NODE": "8"}
    done = bash(text, **job)
    assert done.returncode == ends, done.stderr
    assert [line.split(" run ")[0] for line in asked()] == [f"{i} {i % 2} 4 2 n1" for i in range(4)]
    assert Path("scontrol.log").exists() == again
    if again:
        assert Path("scontrol.log").read_text() == "requeue 77\n"
        Path("scontrol.log").unlink()
        assert bash(text, **job, SLURM_RESTART_COUNT="50").returncode == code
        assert not Path("scontrol.log").exists()


def test_slurm_starts_servers_first_and_tells_the_ranks_where(capsys: pytest.CaptureFixture[str]) -> None:
    text = launch(capsys, "slurm", "served.yaml", "--gpus", "2", "--server-gpus", "2")
    ranks_end_with(0)
    stand_in("srun", SRUN)
    stand_in("scontrol", 'printf "n1\\nn2\\n"')
    stand_in("vllm", 'echo "$CUDA_VISIBLE_DEVICES $VLLM_API_KEY $*" > served; sleep 0.1')
    stand_in("python", "while [ ! -e served ]; do sleep 0.01; done")
    job = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "77", "SLURM_CPUS_ON_NODE": "8"}
    done = bash(text, **job)
    assert done.returncode == 0, done.stderr
    model = Path("served").read_text().split()
    assert model[:4] == ["0,1", "secret-word", "serve", str(Path(temper.__file__).parent / "assets/tiny-base")]
    assert "--enable-lora --max-lora-rank 8" in " ".join(model)
    for i in range(2):
        assert Path(f"asked-{i}").read_text().rstrip().endswith("--set rl.engine.servers=[http://n2:8000]")
    assert Path("srun.log").read_text().splitlines()[0].startswith("1 bash -c serve")


class FakeRay(SimpleNamespace):
    """Ray's names as the file uses them: tasks are threads, a machine is a number."""

    def __init__(self) -> None:
        pool = ThreadPoolExecutor(16)

        def remote(**options: Any) -> Any:
            assert options["num_gpus"] == 2
            node = options["scheduling_strategy"].placement_group_bundle_index
            return lambda function: SimpleNamespace(remote=lambda *more: pool.submit(self.at, node, function, more))

        def get(found: Any) -> Any:
            return [one.result() for one in found] if isinstance(found, list) else found.result()

        def waiting(futures: list[Any], num_returns: int = 1, timeout: float | None = None) -> Any:
            done = wait(futures, timeout, FIRST_COMPLETED).done
            return [f for f in futures if f in done][:num_returns], [f for f in futures if f not in done]

        super().__init__(
            init=lambda: None, get=get, wait=waiting, remote=remote, cancel=lambda task: None,
            util=SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1"),
            exceptions=SimpleNamespace(RayError=OSError),
        )  # fmt: skip

    def at(self, node: int, function: Any, arguments: Any) -> Any:
        return function(*arguments)


@pytest.mark.parametrize(("codes", "ends"), [((75, 0), 0), ((2,), 2)])
def test_ray_places_the_ranks_and_goes_on(
    codes: tuple[int, ...], ends: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("run.py").write_text(launch(capsys, "ray", "my.yaml", "--nodes", "2", "--gpus", "2"))
    known = " ".join(map(str, codes))
    stand_in(
        "temper",
        f'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR" >> asked-$RANK; codes=({known})\n'
        "[ $RANK = 0 ] || exit 0; exit ${codes[$(wc -l < asked-0) - 1]}",
    )
    monkeypatch.setenv("PATH", f"{Path.cwd() / 'bin'}{os.pathsep}{os.environ['PATH']}")
    group = SimpleNamespace(ready=lambda: SimpleNamespace(result=lambda: None))
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    groups = SimpleNamespace(placement_group=lambda bundles, strategy: group, remove_placement_group=lambda group: None)
    monkeypatch.setitem(sys.modules, "ray.util.placement_group", groups)  # type: ignore[arg-type]

    def strategy(group: Any, placement_group_bundle_index: int) -> Any:
        return SimpleNamespace(placement_group_bundle_index=placement_group_bundle_index)

    strategies = SimpleNamespace(PlacementGroupSchedulingStrategy=strategy)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)  # type: ignore[arg-type]
    monkeypatch.setattr(time, "sleep", lambda seconds, nap=time.sleep: nap(0.01))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path("run.py", run_name="__main__")
    assert ended.value.code == ends
    assert len(Path("asked-0").read_text().splitlines()) == len(codes)
    if not ends:
        assert [line.split()[:2] for line in asked()] == [[str(i), str(i % 2)] for i in range(4)]


@pytest.mark.parametrize(
    ("recipe", "more", "why"),
    [
        ("my.yaml", ["--nodes", "0"], "--nodes 0"),
        ("served.yaml", ["--server-gpus", "3"], "not shared out evenly"),
        ("my.yaml", ["--time", "soon"], "no length of time"),
        ("my.yaml", ["--shared", "here"], "no absolute path"),
        ("my.yaml", ["--set", "rl.max_stepz=1"], "max_stepz"),
    ],
)
def test_what_cannot_be_launched_is_told(
    recipe: str, more: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", "slurm", recipe, *more]) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert said.out == ""


def test_servers_that_would_need_what_the_run_makes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    kept = (
        SERVED + '  look: {stage: sample, model: "@rl", tasks: [sums], engine: {servers: [http://a:1], weights: keep}}'
    )
    Path("kept.yaml").write_text(kept)
    assert main(["launch", "ray", "kept.yaml"]) == 2
    assert "keep the weights they start with" in capsys.readouterr().err
