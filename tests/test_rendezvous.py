"""Processes meet, or the one that is missing, doubled or miscounting is named."""

import socket
import threading

import pytest

from tsmjax import rendezvous
from tsmjax.cluster import Cluster
from tsmjax.errors import HostError, InputError


def free_port():
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return line.getsockname()[1]


def meet(*places, seconds=20):
    """Let (process, count) pairs meet; return what each of them ended with."""
    port = free_port()
    ends = [None] * len(places)

    def run(at):
        process, count = places[at]
        try:
            rendezvous.meet(Cluster(count, process, f"127.0.0.1:{port}", start_timeout=seconds))
        except Exception as error:
            ends[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends, port


def test_all_meet_and_the_port_is_free_again():
    ends, port = meet((0, 4), (1, 4), (2, 4), (3, 4))
    assert ends == [None] * 4
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_process_0_names_who_is_missing():
    ends, _ = meet((0, 4), (2, 4), seconds=1)
    for error in ends:  # the one that came is told as well
        assert isinstance(error, HostError)
        assert "waited 1 s" in str(error)
        assert "for process 1, 3 of 4" in str(error)


def test_without_process_0_the_others_say_so():
    (error,), port = meet((1, 2), seconds=1)
    assert isinstance(error, HostError)
    assert f"could not reach process 0 at 127.0.0.1:{port} in 1 s" in str(error)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (((0, 3), (1, 3), (1, 3)), "Two processes have the number 1"),
        (((0, 2), (1, 3)), "was told that there are 3 processes, but process 0 .* was told 2"),
    ],
)
def test_contradictions_end_all_with_one_sentence(places, sentence):
    ends, _ = meet(*places, seconds=5)
    assert {type(error) for error in ends} == {InputError}
    assert len({str(error) for error in ends}) == 1
    with pytest.raises(InputError, match=sentence):
        raise ends[0]


def test_a_taken_port_is_refused():
    port = free_port()
    with (
        socket.create_server(("", port)),
        pytest.raises(InputError, match=f"cannot listen on port {port}"),
    ):
        rendezvous.meet(Cluster(2, 0, f"127.0.0.1:{port}", start_timeout=1))


def test_strangers_are_ignored():
    port = free_port()
    done = threading.Thread(
        target=rendezvous.meet, args=(Cluster(2, 0, f"127.0.0.1:{port}", start_timeout=20),)
    )
    done.start()
    for greeting in (b"GET / HTTP/1.1\n", b"[1]\n", b""):
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port)) as line:
                    line.sendall(greeting)
                break
            except ConnectionRefusedError:
                continue
    rendezvous.meet(Cluster(2, 1, f"127.0.0.1:{port}", start_timeout=20))
    done.join(20)
    assert not done.is_alive()
