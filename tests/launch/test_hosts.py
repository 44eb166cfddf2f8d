"""Open MPI, and two hosts: network namespaces of this machine, each with a name and an address."""

import os
import shutil
import subprocess
import sys

import pytest

HOSTS = ("tsmjax-a", "tsmjax-b")


def test_open_mpi_trains_on_two_processes(root, environment, run):
    if not shutil.which("mpirun"):
        pytest.skip("mpirun is not installed (Debian: openmpi-bin)")
    done = subprocess.run(
        [root / "launch" / "mpirun.sh", *run.arguments],
        cwd=root,
        env={**environment, "PER_HOST": "2", "PYTHON": sys.executable, "NPROC": "32"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Open MPI" in done.stderr
    run.check(processes=2)


@pytest.fixture
def hosts(tmp_path):
    """Join two namespaces by a cable; yield name of the namespace → address."""
    if not all(map(shutil.which, ("ip", "unshare"))):
        pytest.skip("ip or unshare is not installed (Debian: iproute2, util-linux)")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    addresses = {f"{name}-{os.getpid()}": f"10.213.7.{n + 1}" for n, name in enumerate(HOSTS)}
    first, second = addresses
    try:
        for name in addresses:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"no right to make network namespaces: {made.stderr.strip()}")
        cable = ["ip", "link", "add", "eth0", "netns", first]
        subprocess.run([*cable, "type", "veth", "peer", "eth0", "netns", second], check=True)
        for name, address in addresses.items():
            inside = ["ip", "-n", name]
            subprocess.run([*inside, "addr", "add", f"{address}/24", "dev", "eth0"], check=True)
            for link in ("lo", "eth0"):
                subprocess.run([*inside, "link", "set", link, "up"], check=True)
        yield addresses
    finally:
        for name in addresses:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_hosts_train_one_run(root, environment, run, hosts, tmp_path):
    """Each knows its own name and the other's, and reaches it by the cable alone."""
    table = tmp_path / "hosts"
    table.write_text(
        "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in hosts.items())
    )
    script = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
    logs = [tmp_path / f"{name}.log" for name in hosts]
    processes = []
    for number, (name, log) in enumerate(zip(hosts, logs, strict=True)):
        place = {
            "TSMJAX_COORDINATOR": next(iter(hosts)),
            "TSMJAX_NUM_PROCESSES": "2",
            "TSMJAX_PROCESS_ID": str(number),
        }
        command = [
            *("ip", "netns", "exec", name, "unshare", "--uts", "--mount"),
            *("bash", "-c", script, "bash", str(table), name),
            *(sys.executable, "-m", "tsmjax.main", *run.arguments),
        ]
        with log.open("w") as file:
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=root,
                    env={**environment, **place, "NPROC": "32"},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [process.wait(400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
    run.check(processes=2)
    started = (run.folder / "logs" / "training.log").read_text()
    assert all(name in started for name in hosts)
