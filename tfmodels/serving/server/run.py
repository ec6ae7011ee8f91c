"""Starts and stops the development server."""

import contextlib
import socket

from tfmodels.serving.server.served import Served


def run(path, name=None, host="127.0.0.1", rest_port=8501, grpc_port=8500, max_batch_size=32, started=None):
    """Serves an export until it is interrupted. For development only: one process, one thread of work.

    Args:
        path: str, an export, or the folder of its versions: then the newest.
        name: str, the model's name in requests; None: the folder's.
        host: str, the address to listen on.
        rest_port, grpc_port: int; 0: a free one.
        max_batch_size: int, texts that run at once.
        started: function of (served, REST port, gRPC port), called when both listen.

    Raises:
        ImportError: the extra `serve` is not installed.
        FileNotFoundError: there is no export.
        OSError: a port cannot be listened on.
        ValueError: a port, the batch size or the name is none.
    """
    for option, port in (("rest_port", rest_port), ("grpc_port", grpc_port)):
        if not 0 <= port < 65536:
            raise ValueError(f"{option} must be from 0 to 65535. Received: {port}. 0 takes a free one.")
    if max_batch_size < 1:
        raise ValueError(f"max_batch_size must be at least 1. Received: {max_batch_size}.")
    try:
        import uvicorn

        from tfmodels.serving.server.grpc_api import make_server
        from tfmodels.serving.server.http import PatientProtocol
        from tfmodels.serving.server.rest import make_app
    except ImportError as error:
        raise ImportError(
            f"tfmodels serve needs {error.name}. Run pip install '.[serve]' in the checkout of tfmodels."
        ) from error
    address = f"[{host}]" if ":" in host else host
    # Told before the model is loaded, which takes its time.
    _check_free(host, rest_port, f"cannot listen on {address}:{rest_port} for REST")
    _check_free(host, grpc_port, f"cannot listen on {address}:{grpc_port}")
    served = Served(path, name, max_batch_size)
    grpc_server, grpc_port = make_server(served, f"{address}:{grpc_port}")
    config = uvicorn.Config(
        make_app(served),
        host=host,
        port=rest_port,
        http=PatientProtocol,
        log_level="warning",
        lifespan="off",
        limit_concurrency=1000,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    listening = config.bind_socket()  # before it says that it listens
    grpc_server.start()
    try:
        if started:
            started(served, listening.getsockname()[1], grpc_port)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()
        grpc_server.stop(grace=5).wait()
        served.close()


def _check_free(host, port, message):
    """Raises OSError where the port cannot be listened on; it is free again afterwards."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn has it
        try:
            listening.bind((host, port))
        except OSError as error:
            raise OSError(f"{message}: {error.strerror}. Choose another, or 0 for a free one.") from error
