"""Launch files without their schedulers: what they would run, and what an exit code leads to."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from launch.kubernetes import __main__ as kubernetes
from tsmjax import cluster
from tsmjax.watch import RESTART


def scripts(root):
    return sorted(p for p in (root / "launch").rglob("*") if p.suffix in (".sh", ".sbatch"))


def test_shellcheck_finds_nothing(root):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    command = ["shellcheck", "--external-sources", "--source-path", root, *scripts(root)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert len(scripts(root)) == 3


# ------------------------------------------------------------------ GPU environment


def gpu_environment(root, **settings):
    done = subprocess.run(
        ["bash", "-c", "source launch/gpu.sh && env -0"],
        cwd=root,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(pair.split("=", 1) for pair in done.stdout.strip("\0").split("\0"))


def test_this_xla_knows_every_flag(root):
    found = gpu_environment(root)
    code = "import jax; jax.devices(); print(jax.config.jax_optimization_level)"
    environment = {**os.environ, **found, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr  # XLA refuses a flag that it does not know
    assert done.stdout.strip() == "O1"


def test_what_is_set_already_stays(root):
    assert gpu_environment(root, XLA_FLAGS="--mine")["XLA_FLAGS"] == "--mine"


# ------------------------------------------------------------------ Slurm


def submit(root, tmp_path, code):
    """Run the batch file with a stand-in for srun that ends with `code`."""
    calls = tmp_path / "calls"
    for name, ending in (("srun", code), ("scontrol", 0)):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\nexit {ending}\n')
        stub.chmod(0o755)
    done = subprocess.run(
        ["bash", root / "launch" / "slurm" / "train.sbatch", "--config=a b.py"],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(root),
            "SLURM_JOB_ID": "17",
        },
        capture_output=True,
        text=True,
    )
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_slurm_requeues_after_75_alone(root, tmp_path, code):
    got, (first, *rest) = submit(root, tmp_path, code)
    assert first.startswith("srun ") and first.endswith("-m tsmjax.main --config=a b.py")
    assert got == code
    assert rest == (["scontrol requeue 17"] if code == RESTART else [])


def test_slurm_sends_the_signal_early_and_allows_requeue(root):
    text = (root / "launch" / "slurm" / "train.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    assert options["signal"] == "TERM@300"
    assert {"requeue", "nodes", "ntasks-per-node", "gpus-per-node"} <= options.keys()
    assert options["open-mode"] == "append"


# ------------------------------------------------------------------ Open MPI


def mpirun(root, folder, **settings):
    environment = {"PATH": os.environ["PATH"], "DRY_RUN": "1", **settings}
    done = subprocess.run(
        ["bash", root / "launch" / "mpirun.sh", "--config=x.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.split(), done.stderr


def test_mpirun_passes_the_environment_on(root, tmp_path):
    code, words, _ = mpirun(root, tmp_path, NCCL_DEBUG="WARN", TSMJAX_CACHE="/c", OTHER="1")
    assert code == 0 and words[0] == "mpirun"
    assert words[-4:] == ["python", "-m", "tsmjax.main", "--config=x.py"]
    passed = {words[at + 1] for at, word in enumerate(words) if word == "-x"}
    assert {"PATH", "NCCL_DEBUG", "TSMJAX_CACHE"} <= passed and "OTHER" not in passed
    assert "ppr:1:node" in words and "--hostfile" not in words


def test_mpirun_finds_the_hostfile(root, tmp_path):
    (tmp_path / "hostfile").write_text("a\nb\n")
    (tmp_path / "mine").write_text("c\n")

    def hostfile(**settings):
        words = mpirun(root, tmp_path, **settings)[1]
        return words[words.index("--hostfile") + 1] if "--hostfile" in words else None

    assert hostfile() == "hostfile"
    assert hostfile(HOSTFILE="mine") == "mine"
    # A scheduler that mpirun knows has the hosts already.
    for name in ("SLURM_JOB_ID", "PBS_NODEFILE", "OMPI_MCA_orte_default_hostfile"):
        assert hostfile(**{name: "1"}) is None
    code, _, message = mpirun(root, tmp_path, HOSTFILE="nowhere")
    assert code == 2 and "nowhere is empty or missing" in message


@pytest.mark.parametrize(("codes", "starts"), [([75, 75, 0], 3), ([75, 3], 2), ([2], 1)])
def test_mpirun_starts_again_after_75(root, tmp_path, codes, starts):
    stub = tmp_path / "mpirun"
    count = tmp_path / "count"
    stub.write_text(
        f"#!/bin/bash\necho x >> {count}\ncodes=({' '.join(map(str, codes))})\n"
        f"exit ${{codes[$(wc -l < {count}) - 1]}}\n"
    )
    stub.chmod(0o755)
    code, _, _ = mpirun(root, tmp_path, DRY_RUN="", MPIRUN=str(stub))
    assert code == codes[-1]
    assert len(count.read_text().splitlines()) == starts


# ------------------------------------------------------------------ Kubernetes


def manifest(capsys, *options):
    arguments = ["--name", "base", "--image", "r/t:1", "--hosts", "4", "--claim", "data", *options]
    kubernetes.main([*arguments, "--", "--config=a.py:/shared/x", "--config.optim.length=20 steps"])
    return list(yaml.safe_load_all(capsys.readouterr().out))


@pytest.mark.parametrize("plain", [False, True])
def test_pods_of_the_manifest(root, capsys, plain):
    *services, outer = manifest(capsys, *(["--plain"] if plain else []))
    if plain:
        (service,) = services
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["selector"] == {"job-name": outer["metadata"]["name"]}
        service_name, job, hostname = service["metadata"]["name"], outer["spec"], "base"
    else:
        assert not services
        network, (hosts,) = outer["spec"]["network"], outer["spec"]["replicatedJobs"]
        assert network["enableDNSHostnames"] and hosts["replicas"] == 1
        service_name, job = network["subdomain"], hosts["template"]["spec"]
        hostname = f"base-{hosts['name']}-0"
        (rule,) = outer["spec"]["failurePolicy"]["rules"]
        assert rule == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == 4
    actions = {
        tuple(rule["onExitCodes"]["values"]): rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert actions == {(RESTART,): "Ignore", (2,): "FailJob"}
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # pod failure policies need it
    assert pod["subdomain"] == service_name
    (container,) = pod["containers"]
    assert container["command"][-2:] == [
        "--config=a.py:/shared/x",
        "--config.optim.length=20 steps",
    ]
    mounted = {volume["name"] for volume in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}

    # What a pod is told is enough to find its place.
    environment = {one["name"]: one["value"] for one in container["env"]}
    for number in range(4):
        told = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": str(number)}
        domain = f"{service_name}.default.svc.cluster.local"
        place = cluster.resolve({}, {**environment, **told}, f"{hostname}-{number}.{domain}")
        assert (place.num_processes, place.process_id) == (4, number)
        port = container["ports"][0]["containerPort"]
        assert place.coordinator == f"{hostname}-0.{domain}:{port}"
    # And the GPU variables are those of the other launchers.
    del environment["TSMJAX_NUM_PROCESSES"]
    assert environment.items() <= gpu_environment(root).items()


def test_a_bad_name_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        manifest(capsys, "--name", "My Run")
    assert refused.value.code == 2
    assert "no DNS label" in capsys.readouterr().err
