"""`tfmodels serve` in a process of its own: REST, gRPC, bad requests, batching, the page."""

import concurrent.futures
import importlib
import json
import math
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

import tfmodels
from tests.serving.browser import Browser
from tfmodels.serving import operator
from tfmodels.serving.check import read_card
from tfmodels.serving.server.batching import Batcher
from tfmodels.serving.server.run import run
from tfmodels.serving.server.served import Served

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("tensorflow_serving")

WORDS = "In the beginning God created the heaven and the earth."
START = "import sys; from tfmodels.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def export(words, decoder, greedy_export):
    """(model, tokenizer, folder)."""
    return decoder, words, greedy_export


@pytest.fixture(scope="module")
def server(export):
    """(REST address, gRPC address) of a server that is stopped, and seen to stop, at the end."""
    folder = pathlib.Path(export[2]).parent
    process = subprocess.Popen(
        [sys.executable, "-c", START, "serve", folder, "--rest_port=0", "--grpc_port=0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = [process.stdout.readline() for _ in range(4)]
    rest = re.search(r"http://\S+?(?=/\n)", lines[0]).group()
    yield rest, lines[2].split()[-1]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (0, 130)


def post(server, content, suffix=":predict"):
    """(status, JSON) of a request."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    try:
        with urllib.request.urlopen(f"{server[0]}/v1/models/words{suffix}", body, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_rest(server, export):
    model, tokenizer, _ = export
    texts = ["In the", "", "God", "heaven " * 60]
    expected = tfmodels.generate(model, texts[:3], tokenizer, max_new_tokens=5).text
    status, found = post(server, {"instances": texts})
    assert status == 200 and found["predictions"][:3] == expected
    assert post(server, {"inputs": {"text": texts[:3]}}) == (200, {"outputs": expected})
    assert post(server, {"inputs": texts[:3]}, "/versions/1:predict")[1] == {"outputs": expected}
    assert post(server, {"instances": [{"text": {"b64": "SW4gdGhl"}}]})[1]["predictions"] == expected[:1]
    numbers = {"max_new_tokens": 5, "min_new_tokens": 0, "repetition_penalty": 1.0}
    numbers |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    rows = [{"text": text} | numbers | {"max_new_tokens": 5 - i} for i, text in enumerate(texts)]
    rows = post(server, {"instances": rows, "signature_name": "generate"})[1]["predictions"]
    assert [row["lengths"] for row in rows] == [[5], [4], [3], [1]]
    assert [row["truncated"] for row in rows] == [False] * 3 + [True]
    assert rows[0]["text"] == expected[:1]
    assert rows[0]["score"][0] == pytest.approx(sum(rows[0]["log_probabilities"][0]), rel=1e-5)
    with urllib.request.urlopen(f"{server[0]}/v1/models/words") as answer:
        assert json.load(answer)["model_version_status"][0]["state"] == "AVAILABLE"
    with urllib.request.urlopen(f"{server[0]}/v1/models/words/metadata") as answer:
        signatures = json.load(answer)["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["text"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize(
    "content, status, message",
    [
        (b"{bad", 400, "JSON Parse error"),
        (b"[" * 100_000, 400, "JSON Parse error"),
        (b'{"inputs": ' + b"[" * 800 + b"]" * 800 + b"}", 400, ""),
        ([], 400, 'either "instances" or "inputs"'),
        ({"instances": []}, 400, "at least one row"),
        ({"inputs": {"text": "scalar"}}, 400, "text must have the shape"),
        ({"inputs": {"text": [3]}}, 400, "a string is needed. Received: 3"),
        ({"inputs": {"text": ["a"], "more": [1]}}, 400, "Received: ['more', 'text']"),
        ({"inputs": {"text": [{"b64": "!"}]}}, 400, "b64 must hold base64"),
        (b'{"inputs": {"text": ["\\ud800"]}}', 400, "must be Unicode"),
        ({"inputs": ["a"], "signature_name": "no"}, 400, '"no" not found'),
        (
            {"inputs": {"token_ids": [[999]], "padding_mask": [[1]]}, "signature_name": "logits"},
            400,
            "token_ids must be at least 0 and below",
        ),
        (b"a" * (17 * 1024 * 1024), 413, "A request may have 16777216 bytes"),
    ],
)
def test_bad_requests(server, content, status, message):
    try:
        found = post(server, content)
    except (urllib.error.URLError, ConnectionError):
        assert status == 413  # it closes the connection before it has read what is too much
        return
    assert found[0] == status and message in found[1]["error"]


def test_wrong_paths_and_cut_off_requests(server):
    assert post(server, {"inputs": ["a"]}, "/versions/7:predict")[0] == 404
    host, port = server[0].removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    head = b"POST /v1/models/words:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x00\xff\r\n\r\n")
        assert connection.recv(99).startswith(b"HTTP/1.1 400 ")
    assert post(server, {"inputs": ["a"]})[0] == 200  # it lives


@pytest.mark.slow
def test_slow_requests_are_given_up(server):
    """Of a head and of a body that do not come to an end: 408 after 10 s, both at once."""
    address = server[0].removeprefix("http://").split(":")
    parts = [b"POST /v1", b"POST /v1/models/words:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"]
    connections = [socket.create_connection(address, timeout=30) for _ in parts]
    for connection, part in zip(connections, parts, strict=True):
        connection.sendall(part)
    for connection in connections:
        assert connection.recv(99).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_batches_have_few_sizes():
    """Kernels are kept for each: memory would grow."""
    import tensorflow as tf

    sizes = []

    def double(x):
        sizes.append(len(x))
        return {"y": x * 2}

    batcher = Batcher({"double": double})
    for rows in (1, 3, 5):
        answer = batcher.submit("double", {"x": tf.range(rows)}).result(30)
        assert answer["y"].tolist() == [2 * i for i in range(rows)]
    batcher.close()
    assert sizes == [1, 4, 8]


def test_clients_at_once_get_their_own_answers(server):
    """Joined in batches; a bad request among them spoils no other."""
    texts = [WORDS[i : i + 9] for i in range(24)]

    def ask(text):
        if text is None:
            wrong = {"token_ids": [[-1]], "padding_mask": [[1]]}
            return post(server, {"inputs": wrong, "signature_name": "logits"})
        return post(server, {"instances": [text]})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, [*texts, None, *texts]))
    assert found[24][0] == 400
    alone = post(server, {"instances": texts})[1]["predictions"]
    assert [answer["predictions"][0] for _, answer in found[:24]] == alone
    assert [answer["predictions"][0] for _, answer in found[25:]] == alone


def test_grpc(server, export):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    model, tokenizer, _ = export
    with grpc.insecure_channel(server[1]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask(name="words", signature="serving_default", **inputs):
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            return {k: tf.make_ndarray(v) for k, v in stub.Predict(request, timeout=60).outputs.items()}

        answers = ask(text=["In the", "God"])["text"]
        expected = tfmodels.generate(model, ["In the", "God"], tokenizer, max_new_tokens=5).text
        assert [answer.decode() for answer in answers] == expected
        for wrong, code in (
            ({"name": "other", "text": ["a"]}, "NOT_FOUND"),
            ({"signature": "other", "text": ["a"]}, "FAILED_PRECONDITION"),
            ({"words": ["a"]}, "INVALID_ARGUMENT"),
            ({"signature": "detokenize", "token_ids": [[1]], "lengths": [2]}, "INVALID_ARGUMENT"),
        ):
            with pytest.raises(grpc.RpcError) as error:
                ask(**wrong)
            assert error.value.code().name == code


def test_a_port_that_is_taken(server, export):
    taken = server[0].rpartition(":")[2]
    command = [sys.executable, "-c", START, "serve", export[2], f"--rest_port={taken}", "--grpc_port=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and f"cannot listen on 127.0.0.1:{taken}" in done.stderr.splitlines()[-1]


def test_a_version_folder_of_any_name(export, tmp_path):
    shutil.copytree(export[2], tmp_path / "best")
    for name, expected in (("words", "words"), (None, "best")):
        served = Served(tmp_path / "best", name)
        assert (served.name, served.version) == (expected, 1)
        served.close()
    for name in ("a b", "a/b", "é"):
        with pytest.raises(ValueError, match=f"since it stands in URLs. Received: '{name}'"):
            Served(tmp_path / "best", name)


@pytest.mark.parametrize(
    "option, value, rule",
    [
        ("rest_port", 65536, "from 0 to 65535"),
        ("rest_port", -1, "from 0 to 65535"),
        ("grpc_port", 99999, "from 0 to 65535"),
        ("max_batch_size", 0, "at least 1"),
    ],
)
def test_numbers_are_checked_before_anything_is_loaded(option, value, rule):
    with pytest.raises(ValueError, match=f"{option} must be {rule}. Received: {value}"):
        run("/nowhere", **{option: value})


@pytest.mark.parametrize("option", ["rest_port", "grpc_port"])
def test_a_taken_port_is_told_before_anything_is_loaded(option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}.*Choose another"):
            run("/nowhere", **{"rest_port": 0, "grpc_port": 0, option: port})


def test_operators_clients(server, export, tmp_path, monkeypatch):
    """request.sh and client.py, as `tfmodels export --serving` writes them, against a running server."""
    folder = export[2]
    row = {"batch": 1, "median_milliseconds": 1.0, "slowest_milliseconds": 1.0, "texts_per_second": 1.0}
    found = {"folder": folder, "card": read_card(folder), "batches": [row]}
    monkeypatch.setattr(operator, "check", lambda path, seconds: found)  # another test measures
    files = pathlib.Path(operator.write_serving_files(tmp_path, "words"))
    text = "It was a dark and stormy night."
    (expected,) = post(server, {"instances": [text]})[1]["predictions"]

    def run(*command):
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    if shutil.which("curl"):
        done = run("sh", files / "request.sh", server[0].removeprefix("http://"))
        assert (json.loads(done.stdout), done.stderr) == ({"outputs": [expected]}, "")
        assert run("sh", files / "request.sh", "127.0.0.1:1").returncode != 0
    done = run(sys.executable, files / "client.py", server[1])
    assert done.stdout == f"text [1] {[expected]}\n", done.stderr
    monkeypatch.syspath_prepend(files)
    client = importlib.import_module("client")
    numbers = found["card"]["signatures"]["generate"]["inputs"]
    inputs = {name: [spec["default"]] for name, spec in numbers.items() if "default" in spec}
    answer = client.predict(server[1], "words", {"text": [text]} | inputs, "generate")
    assert answer["text"] == ([1, 1], [expected.encode()])
    assert answer["truncated"] == ([1], [True])  # the model reads 24 tokens
    assert sum(answer["log_probabilities"][1]) == pytest.approx(answer["score"][1][0], rel=1e-4)
    nested = {"token_ids": [[1, 2], [3, 4]], "padding_mask": [[1, 1], [1, 1]]}
    shape, logits = client.predict(server[1], "words", nested, "logits")["logits"]
    assert shape == [2, 2, export[1].vocabulary_size] and len(logits) == math.prod(shape)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_page(server, tmp_path):
    browser = Browser(shutil.which("chromium"), tmp_path / "profile")
    try:
        browser.open(server[0] + "/")
        browser.wait("document.body?.dataset.ready")
        assert browser.run("document.querySelector('#signature').value") == "generate"
        browser.run("document.querySelector('#input-text').focus()")
        browser.type("In the beginning")
        browser.run("document.querySelector('#send').click()")
        tokens = browser.wait("document.querySelectorAll('#answer .token').length")
        assert tokens == 5
        expected = post(server, {"instances": ["In the beginning"]})[1]["predictions"][0]
        assert browser.run("document.querySelector('#answer .text').textContent") == expected
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 5000
        browser.run("document.querySelector('#input-max_new_tokens').value = 0")
        browser.run("document.querySelector('#send').click()")
        error = browser.wait("document.querySelector('#answer .error')?.textContent")
        assert "max_new_tokens must be from 1 to 24" in error
    finally:
        browser.close()
