"""Which process of how many: flags, variables, Slurm, Open MPI, Kubernetes, and what is refused."""

import pytest

from tsmjax import cluster
from tsmjax.cluster import Cluster
from tsmjax.errors import InputError

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-009,012],login",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
}
MPI_4 = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "PMIX_NAMESPACE": "1531576321",
}
MPI_5 = {
    **{name: value for name, value in MPI_4.items() if "orte" not in name},
    "PMIX_NAMESPACE": "prterun-node-07-1234@1",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}
FQDN = "train-workers-0-3.train.default.svc.cluster.local"


def test_without_anything_there_is_one_process():
    assert cluster.resolve({}, {}) == Cluster(source="no launcher")


def test_flags_come_before_variables():
    env = {"TSMJAX_NUM_PROCESSES": "4", "TSMJAX_PROCESS_ID": "3", "TSMJAX_COORDINATOR": "b:1"}
    found = cluster.resolve({"process_id": "2", "coordinator": None}, env)
    assert (found.num_processes, found.process_id, found.coordinator) == (4, 2, "b:1")
    assert found.source == "flags or variables"


def test_all_three_given_need_no_launcher():
    given = {"num_processes": "2", "process_id": "0", "coordinator": "a"}
    assert cluster.resolve(given, SLURM) == Cluster(2, 0, "a:8476", "flags or variables")


def test_other_settings():
    env = {"TSMJAX_HEARTBEAT": "10", "TSMJAX_WATCHDOG": "0.5", "TSMJAX_LOCAL_DEVICES": "0,3"}
    found = cluster.resolve({"start_timeout": "20"}, env)
    assert (found.heartbeat, found.watchdog, found.start_timeout) == (10, 0.5, 20)
    assert found.local_devices == (0, 3)


def test_slurm():
    found = cluster.resolve({}, SLURM)
    port = cluster.port_of("4711.0")
    assert found == Cluster(4, 2, f"gpu007:{port}", "Slurm")
    assert 61440 <= port < 65536
    assert port != cluster.port_of("4711.1")  # two steps of a job run side by side


def test_slurm_with_one_task_is_one_process():
    assert cluster.resolve({}, {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == (
        Cluster(source="Slurm")
    )


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-015],host2", "node001"),
        ("node[007,009-015]", "node007"),
        ("rack[1-2]-node[10-20]-ib,x", "rack1-node10-ib"),
    ],
)
def test_slurm_node_lists(nodes, first):
    assert cluster.first_node(nodes) == first


def test_open_mpi_comes_before_slurm():
    found = cluster.resolve({}, {**SLURM, **MPI_4})
    port = cluster.port_of("1531576320.0")
    assert found == Cluster(2, 1, f"10.96.0.1:{port}", "Open MPI")


def test_open_mpi_5_names_the_machine_of_mpirun():
    port = cluster.port_of("prterun-node-07-1234@1")
    assert cluster.resolve({}, MPI_5).coordinator == f"node-07:{port}"


def test_open_mpi_on_one_node_stays_on_it():
    found = cluster.resolve({}, {**MPI_4, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
    assert found.coordinator.startswith("127.0.0.1:")


def test_open_mpi_that_tells_no_address_needs_a_coordinator():
    env = {**MPI_5, "PMIX_NAMESPACE": "8"}
    with pytest.raises(InputError, match=r"\(Open MPI\), but nothing tells --coordinator"):
        cluster.resolve({}, env)
    assert cluster.resolve({"coordinator": "a:1"}, env).coordinator == "a:1"


def test_an_indexed_job_of_kubernetes():
    found = cluster.resolve({}, {**POD, "TSMJAX_NUM_PROCESSES": "8"}, FQDN)
    assert (found.num_processes, found.process_id) == (8, 3)
    assert found.coordinator == "train-workers-0-0.train.default.svc.cluster.local:8476"
    assert found.source == "Kubernetes"


def test_a_pod_must_be_told_how_many_there_are():
    with pytest.raises(InputError, match=r"nothing tells --num_processes \(TSMJAX_NUM_PROCESSES\)"):
        cluster.resolve({}, POD, FQDN)


def test_a_pod_without_a_headless_service_needs_a_coordinator():
    with pytest.raises(InputError, match="nothing tells --coordinator"):
        cluster.resolve({"num_processes": "8"}, POD, "train-workers-0-3")


@pytest.mark.parametrize(
    ("given", "env", "sentence"),
    [
        ({"num_processes": "2"}, {}, "--num_processes is 2.*nothing tells --coordinator"),
        ({"coordinator": "a:1"}, {}, "nothing tells --num_processes"),
        ({"num_processes": "8"}, SLURM, "--num_processes .* says 8, but Slurm says 4"),
        ({"process_id": "0"}, MPI_4, "--process_id .* says 0, but Open MPI says 1"),
        (
            {"num_processes": "2", "process_id": "2", "coordinator": "a:1"},
            {},
            "is 2, but there are 2 processes, numbered from 0",
        ),
        ({"num_processes": "two"}, SLURM | {"SLURM_STEP_NUM_TASKS": "two"}, "'two', but must be"),
        ({"watchdog": "soon"}, {}, "--watchdog .* is 'soon', but must be a number"),
    ],
)
def test_contradictions_are_refused_with_a_sentence(given, env, sentence):
    with pytest.raises(InputError, match=sentence):
        cluster.resolve(given, env)


def test_every_flag_is_a_setting():
    fields = set(Cluster.__dataclass_fields__) - {"source"}
    assert fields == set(cluster.SETTINGS)


def test_one_process_takes_all_gpus():
    assert cluster.share_of_gpus(["a", "b"], [["a", "b"]], 0) == ()


def test_processes_of_a_node_share_its_gpus():
    node = [["a", "b", "c", "d"]] * 2
    assert cluster.share_of_gpus(node[0], node, 0) == (0, 1)
    assert cluster.share_of_gpus(node[1], node, 1) == (2, 3)
    each = [list("abcdefgh")] * 8
    assert [cluster.share_of_gpus(each[0], each, rank) for rank in range(8)] == [
        (rank,) for rank in range(8)
    ]


def test_gpus_that_the_launcher_divided_stay_so():
    node = [["a", "b"], ["c", "d"]]
    assert cluster.share_of_gpus(node[1], node, 1) == ()


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ([["a", "b"]] * 3, "3 processes run on one node with 2 GPUs"),
        ([["a", "b"], ["b", "c"]], "overlap"),
    ],
)
def test_gpus_that_do_not_add_up_are_refused(node, sentence):
    with pytest.raises(InputError, match=sentence):
        cluster.share_of_gpus(node[0], node, 0)


@pytest.mark.parametrize(
    ("variable", "visible"),
    [(None, ["a", "b"]), ("1", ["b"]), ("1, 0", ["b", "a"]), ("GPU-x", ["GPU-x"]), ("", [])],
)
def test_visible_gpus(variable, visible):
    env = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert cluster.visible_gpus(["a", "b"], env) == visible
