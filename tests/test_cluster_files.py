"""The Slurm script and the Kubernetes job: well-formed, with options that exist and room for what the steps need."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

EXAMPLES = ROOT / "examples/cluster"


def test_the_slurm_script_is_a_script_and_says_how_it_is_used():
    script = EXAMPLES / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: sbatch" in done.stderr
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", str(script)]).returncode == 0


def test_the_kubernetes_job_names_options_that_exist_and_holds_what_a_training_needs():
    import tyro
    import yaml

    from replication.cli import Options
    from replication.needs import needs_of
    from replication.simulate import targets_of
    from replication.steps import closure

    spec = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text(encoding="utf-8"))["spec"]
    words = spec["entrypoint"].split()
    assert words[:3] == ["python", "-m", "replication.table1"]
    options = tyro.cli(Options, args=words[3:])
    assert options.executor == "ray" and str(options.store).startswith("/store")
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        container = group["template"]["spec"]["containers"][0]
        assert {"name": "store", "mountPath": "/store"} in container["volumeMounts"]
    limits = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    needs = [needs_of(step) for step in closure(targets_of("table1", options.model[0]))]
    assert int(limits["nvidia.com/gpu"]) >= max(need.gpus for need in needs)
    assert int(limits["cpu"]) >= max(need.cores for need in needs)
    # Ray counts 70 % of a node's memory as its own (the rest is the object store's)
    assert 0.7 * int(limits["memory"].removesuffix("Gi")) >= max(need.memory_gib for need in needs)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"ray=={cluster['rayVersion']}\n" in constraints


SRUN = """#!/usr/bin/env bash
# Stands for Slurm: leaves out the options and runs the command here.
while [[ ${1:-} == -* ]]; do if [[ $1 == -w ]]; then shift 2; else shift; fi; done
if [[ $1 == hostname ]]; then echo "fe80::1 127.0.0.1"; exit; fi
exec "$@"
"""


@pytest.mark.scale
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
def test_the_slurm_script_makes_a_cluster_and_runs_a_table_on_it(tmp_path):
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/usr/bin/env bash\nprintf 'n1\\nn2\\n'\n")):
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "1",
             "SLURM_SUBMIT_DIR": str(ROOT), "WMSS_PYTHON": sys.executable, "PYTHONPATH": str(ROOT),
             "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}"}
    table = ["-m", "replication.table1", "--methods", "sft", "--benchmarks", "gsm8k", "--limit-train", "32",
             "--limit-eval", "4", "--set", "pretrain.updates=2", "--set", "eval.max_new_tokens=8",
             "--store", str(tmp_path / "store"), "--results", str(tmp_path / "results")]
    done = subprocess.run(["bash", str(EXAMPLES / "slurm.sbatch"), *table], env=os.environ | slurm, text=True,
                          capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 nodes have joined" in done.stdout
    assert (tmp_path / "results/tiny/table1.json").is_file()
