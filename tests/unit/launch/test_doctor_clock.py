"""Nodes that meet at a port, on this host: who came, and by how much their clocks differ."""

import socket
import threading
import time

import pytest
from dtk_launch.doctor import clock
from dtk_launch.doctor.clock import Contact, Hosting, contact, host, judge, judge_stamps


@pytest.fixture
def port():
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def meet(port, nodes, asked, patience=20.0, skew=0.0):
    """(what the first saw, node -> what it saw): the clock of the first is `skew` seconds ahead."""
    seen = {}
    hosting = []
    first = threading.Thread(target=lambda: hosting.append(host(port, nodes, patience, lambda: time.time() + skew)))
    first.start()
    others = [
        threading.Thread(target=lambda node=node: seen.update({node: contact("127.0.0.1", port, node, patience)}))
        for node in asked
    ]
    for thread in others:
        thread.start()
    for thread in (*others, first):
        thread.join()
    return hosting[0], seen


def test_all_come_and_the_clocks_agree(port):
    hosting, seen = meet(port, ("n2", "n3"), ("n3", "n2"))
    assert hosting == Hosting(port, "", ("n2", "n3"))
    assert all(found.error == "" and abs(found.ahead) < 0.5 for found in seen.values())
    assert {finding.check: finding.level for finding in judge("n1", hosting, seen)} == {"ports": "ok", "clock": "ok"}


def test_clocks_that_differ(port):
    hosting, seen = meet(port, ("n2",), ("n2",), skew=5.0)
    (finding,) = [finding for finding in judge("n1", hosting, seen) if finding.check == "clock"]
    assert finding.level == "warning"
    assert finding.what == "clocks differ: n2 5.0 s behind n1"
    (grave,) = [found for found in judge("n1", hosting, {"n2": Contact(ahead=-90)}) if found.check == "clock"]
    assert (grave.level, grave.what) == ("problem", "clocks differ: n2 90.0 s ahead of n1")


def test_one_that_does_not_come_ends_the_wait(port):
    hosting, _ = meet(port, ("n2", "n3"), ("n2",), patience=0.5)
    assert hosting.came == ("n2",)


def test_a_first_node_that_is_not_there_or_is_another_program(port):
    found = contact("127.0.0.1", port, "n2", 0.3)
    assert found.error == "Connection refused"
    (finding,) = judge("n1", Hosting(port), {"n2": found})
    assert finding.level == "problem"
    assert finding.what == f"n1:{port} is not reached by n2 (Connection refused)"
    with socket.create_server(("127.0.0.1", port)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert contact("127.0.0.1", port, "n2", 5).error == "another program answers there"
        thread.join()
        assert host(port, ("n2",), 1).error == "Address already in use"
    assert contact("no-such-host.invalid", port, "n2", 1).error


def test_a_port_that_cannot_be_had_is_said_once():
    taken = Hosting(20007, "Address already in use")
    (finding,) = judge("n1", taken, {"n2": Contact("another program answers there")})
    assert finding.what == "port 20007 of n1 cannot be had: Address already in use"


def test_noise_does_not_end_the_first_node(port):
    hosting = []
    first = threading.Thread(target=lambda: hosting.append(host(port, ("n2",), 20)))
    first.start()
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as stranger:
                stranger.sendall(b"\xff\xfe garbage\n")
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    assert contact("127.0.0.1", port, "n2", 10).error == ""
    first.join()
    assert hosting[0].came == ("n2",)


def test_many_that_do_not_reach_it_are_counted():
    (finding,) = judge("n1", Hosting(1), {f"n{number}": Contact("timed out") for number in range(2, 40)})
    assert "n2 (timed out); n3 (timed out); n4 (timed out) and 35 more" in finding.what


def test_the_stamps_of_files():
    assert [finding.level for finding in judge_stamps(0.2)] == ["ok"]
    (finding,) = judge_stamps(-7.0)
    assert finding.what == "the file system's clock is 7.0 s behind this host's"
    assert clock.CHECK == "clock"
