"""TF Serving's REST API for one export, and the page at /.

Paths and formats as its documentation has them: /v1/models/NAME[/versions/N][:predict|/metadata].
"""

import asyncio
import base64
import binascii
import json
from importlib import resources

import numpy as np
import tensorflow as tf
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tfmodels.serving.server.batching import Overloaded
from tfmodels.serving.server.served import BadRequest

MAX_BODY_BYTES = 16 * 1024 * 1024
READ_SECONDS = 10.0  # a body that takes longer is given up


class _Refused(Exception):
    """A request that is answered with a status and a message."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def make_app(served):
    """The ASGI application of a `Served`."""
    page = (resources.files("tfmodels.serving.server") / "page.html").read_text(encoding="utf-8")

    async def home(request):
        return HTMLResponse(page)

    async def card(request):
        return JSONResponse(served.card | {"name": served.name, "version": served.version})

    async def status(request):
        _check_model(request, served)
        state = {"version": str(served.version), "state": "AVAILABLE"}
        state["status"] = {"error_code": "OK", "error_message": ""}
        return JSONResponse({"model_version_status": [state]})

    async def metadata(request):
        _check_model(request, served)
        return JSONResponse(_metadata(served))

    async def predict(request):
        _check_model(request, served)
        signature, values, by_row = parse(await _body(request), served)
        outputs = await asyncio.wrap_future(served.submit(signature, values))
        return Response(answer(outputs, by_row), media_type="application/json")

    def guarded(handler):
        async def call(request):
            try:
                return await handler(request)
            except _Refused as error:
                return JSONResponse({"error": str(error)}, error.status)
            except Overloaded as error:
                return JSONResponse({"error": str(error)}, 503)
            except (BadRequest, tf.errors.InvalidArgumentError) as error:
                return JSONResponse({"error": getattr(error, "message", str(error))}, 400)
            except tf.errors.ResourceExhaustedError as error:
                return JSONResponse({"error": error.message}, 503)

        return call

    model = "/v1/models/{name}"
    version = model + "/versions/{version}"
    routes = [Route("/", home), Route("/card", card)]
    for path in (model, version):
        routes += [
            Route(path + ":predict", guarded(predict), methods=["POST"]),
            Route(path + "/metadata", guarded(metadata)),
            Route(path, guarded(status)),
        ]
    return Starlette(routes=routes)


def _check_model(request, served):
    name, version = request.path_params["name"], request.path_params.get("version", str(served.version))
    if name != served.name or version != str(served.version):
        raise _Refused(404, f"Servable not found for request: Specific({name}, {version})")


async def _body(request):
    """The whole body, no larger and no slower than allowed."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _Refused(413, f"A request may have {MAX_BODY_BYTES} bytes. Received: {declared}.")
    parts, size = [], 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise _Refused(413, f"A request may have {MAX_BODY_BYTES} bytes. Received: more.")
                parts.append(part)
    except ClientDisconnect:
        raise _Refused(400, "The request was cut off.") from None
    except TimeoutError:
        raise _Refused(408, f"A request must arrive in {READ_SECONDS:.0f} seconds.") from None
    return b"".join(parts)


def parse(body, served):
    """A predict request: (signature name, dict of values, whether it is by row)."""
    try:
        content = _decoded(json.loads(body))
    except BadRequest:
        raise
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"JSON Parse error: {error}") from None
    if not isinstance(content, dict) or ("instances" in content) == ("inputs" in content):
        raise BadRequest('A request must be an object with either "instances" or "inputs".')
    signature = content.get("signature_name") or "serving_default"
    if not isinstance(signature, str):
        raise BadRequest(f"signature_name must be a string. Received: {signature!r}.")
    names = list(served.specs(signature))
    by_row = "instances" in content
    given = content["instances" if by_row else "inputs"]
    if by_row:
        values = _columns(given, names)
    elif isinstance(given, dict):
        values = given
    elif len(names) == 1:
        values = {names[0]: given}
    else:
        raise BadRequest(f'"inputs" must be an object of {names}. Received: {type(given).__name__}.')
    return signature, values, by_row


def _columns(instances, names):
    if not isinstance(instances, list) or not instances:
        raise BadRequest('"instances" must be a list of at least one row.')
    if not isinstance(instances[0], dict):
        if len(names) != 1:
            raise BadRequest(f"Each instance must be an object of {names}.")
        return {names[0]: instances}
    if any(not isinstance(row, dict) or set(row) != set(instances[0]) for row in instances):
        raise BadRequest("All instances must have the same names.")
    return {name: [row[name] for row in instances] for name in instances[0]}


def _decoded(value):
    """JSON with {"b64": ...} as bytes."""
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if isinstance(value, dict):
        if set(value) == {"b64"}:
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise BadRequest(f"b64 must hold base64: {error}") from None
        return {name: _decoded(each) for name, each in value.items()}
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"A string must be Unicode: {error.reason}.") from None
    return value


def answer(outputs, by_row):
    """The JSON of a predict answer: bytes."""
    columns = {name: _plain(value) for name, value in outputs.items()}
    only = next(iter(columns.values())) if len(columns) == 1 else None
    if not by_row:
        content = {"outputs": columns if only is None else only}
    elif only is not None:
        content = {"predictions": only}
    else:
        if len({len(np.atleast_1d(value)) for value in outputs.values()}) > 1:
            raise BadRequest('The outputs have no common batch. Use "inputs" instead of "instances".')
        rows = zip(*columns.values(), strict=True)
        content = {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}
    return json.dumps(content, ensure_ascii=False).encode()


def _plain(value):
    if value.dtype.kind not in "OS":
        return value.tolist()
    return np.vectorize(lambda text: text.decode("utf-8", "replace"), otypes=[object])(value).tolist()


def _metadata(served):
    def described(tensors, types):
        return {
            name: {
                "dtype": types.get(spec["dtype"], "DT_" + spec["dtype"].upper()),
                "tensor_shape": {
                    "dim": [{"size": str(-1 if n is None else n), "name": ""} for n in spec["shape"]],
                    "unknown_rank": False,
                },
                "name": name,
            }
            for name, spec in tensors.items()
        }

    types = {"float32": "DT_FLOAT", "bool": "DT_BOOL"}
    signatures = {
        name: {
            "inputs": described(signature["inputs"], types),
            "outputs": described(signature["outputs"], types),
            "method_name": "tensorflow/serving/predict",
        }
        for name, signature in served.card["signatures"].items()
    }
    spec = {"name": served.name, "signature_name": "", "version": str(served.version)}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}
