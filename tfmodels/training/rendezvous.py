"""Workers meet before TensorFlow connects them, since it waits for a missing one without a word."""

import contextlib
import json
import os
import socket
import threading
import time


def read_cluster(needed=False):
    """The workers that TF_CONFIG lists, and which of them this process is.

    Args:
        needed: whether to raise an error where there is no TF_CONFIG.

    Returns:
        A tuple of a list of "host:port", empty without a TF_CONFIG, and an int.

    Raises:
        ValueError: a TF_CONFIG that names no workers, or this process as none of them.
    """
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        if needed:
            raise ValueError(f"Several workers need TF_CONFIG in the environment, such as {example}.")
        return [], 0
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        index = int(task["index"])
        fine = task["type"] == "worker" and 0 <= index < len(workers) == len(set(workers))
        fine = fine and all(address.rpartition(":")[2].isdecimal() for address in workers)
    except (ValueError, KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise ValueError(
            "TF_CONFIG must list each worker once as host:port, and say which of them this process is, "
            f"such as {example}. Received: {text}"
        )
    return workers, index


def meet_workers(workers, index, timeout_seconds):
    """Waits until all workers have come, each with the same list.

    Args:
        workers: list of "host:port".
        index: int, this process's place in the list.
        timeout_seconds: float.

    Raises:
        OSError: this worker's port is taken.
        TimeoutError: workers are missing.
        ValueError: another worker has another list.
    """
    own = json.dumps(workers)
    missing = {i for i in range(len(workers)) if i != index}
    visitors = set()
    stop = threading.Event()
    port = int(workers[index].rpartition(":")[2])
    with _listen(port) as server:
        thread = threading.Thread(target=_receive, args=(server, own, index, visitors, stop), daemon=True)
        thread.start()
        try:
            end = time.monotonic() + timeout_seconds
            # Until all were reached and all have come: who leaves closes its port.
            while missing or len(visitors) < len(workers) - 1:
                for i in sorted(missing):
                    answer = _visit(workers[i], own, index)
                    if answer is None:
                        continue
                    if answer != [own, i]:
                        raise ValueError(
                            "All workers must have the same list of workers. Received: "
                            f"{', '.join(workers)} as worker {index}, but {workers[i]} is worker {answer[1]} "
                            f"of {', '.join(json.loads(answer[0]))}."
                        )
                    missing.discard(i)
                if time.monotonic() > end:
                    late = missing or set(range(len(workers))) - visitors - {index}
                    raise TimeoutError(
                        f"Worker {index} of {len(workers)} waited {timeout_seconds:g} s. Missing: "
                        f"{', '.join(workers[i] for i in sorted(late))}. Start the same program on each "
                        "worker, and look whether its port can be reached."
                    )
                time.sleep(0.05)
        finally:
            stop.set()
            thread.join()


def _listen(port):
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", port))
    except OSError as error:
        server.close()
        raise OSError(f"This worker's port {port} cannot be opened: {error.strerror}.") from error
    server.listen()
    server.settimeout(0.05)
    return server


def _receive(server, own, index, visitors, stop):
    """Answers visitors until `stop`: a line from each, and a line to each."""
    while not stop.is_set():
        with contextlib.suppress(OSError, ValueError):
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as lines:
                connection.settimeout(2)
                theirs, visitor = json.loads(lines.readline())
                lines.write(json.dumps([own, index]) + "\n")
                lines.flush()
                if theirs == own:
                    visitors.add(visitor)


def _visit(address, own, index):
    """What another worker says of itself, or None when it is not there."""
    host, _, port = address.rpartition(":")
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((host, int(port)), timeout=2) as connection,
        connection.makefile("rw") as lines,
    ):
        lines.write(json.dumps([own, index]) + "\n")
        lines.flush()
        return json.loads(lines.readline())
    return None
