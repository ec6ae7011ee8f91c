"""Workers named on the command line, as TensorFlow takes them."""

import contextlib
import json
import os
import socket


def set_workers(workers, index, strategy):
    """Sets TF_CONFIG for this process; call it before TensorFlow makes its devices.

    Args:
        workers: list of str, "host:port".
        index: int, which of them this process is; None: the one with this host's name or address.
        strategy: the name of the strategy, which must be one of several workers.

    Raises:
        ValueError: a list that is none, or none or several of it are this host.
    """
    if strategy not in ("auto", "multi_worker"):
        raise ValueError(f"workers needs strategy auto or multi_worker. Received: {strategy!r}.")
    for worker in workers:
        host, _, port = worker.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536 or workers.count(worker) > 1:
            raise ValueError(f"workers must list each worker once as host:port. Received: {worker!r}.")
    if index is None:
        index = _own_index(workers)
    elif not 0 <= index < len(workers):
        raise ValueError(
            f"worker_index must be at least 0 and below the number of workers. "
            f"Received: {index} for {len(workers)} workers."
        )
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})


def _own_index(workers):
    name = socket.gethostname()
    names = {name, name.split(".")[0], socket.getfqdn()}
    with contextlib.suppress(OSError):  # a host without an address of its own name
        names |= set(socket.gethostbyname_ex(name)[2])
    own = [i for i, worker in enumerate(workers) if worker.rpartition(":")[0] in names]
    if len(own) != 1:
        raise ValueError(
            f"One of workers must be this host, {name}. Received: {', '.join(workers)}. Give worker_index."
        )
    return own[0]
