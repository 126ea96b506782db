"""Drives a server with the real tritonclient; run by its test in the clients' environment.

    python drive_triton.py HTTP GRPC ADMIN ADMIN_GRPC TOKEN IMAGE

Prints one JSON object of what the client got. Nothing of Eyas is imported here.
"""

import json
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as tg
import tritonclient.http as th
from tritonclient.utils import InferenceServerException

http_address, grpc_address, admin, admin_grpc, token, path = sys.argv[1:]
file = Path(path).read_bytes()
image = np.zeros((1, 48, 64, 3), np.uint8)
image[0, 4:24, 8:40] = 255
NAMES = ("boxes", "scores", "labels", "num_detections")
found = {}


def inputs(kind, module, binary=None):
    more = {} if binary is None else {"binary_data": binary}
    if kind == "bytes":
        tensor = module.InferInput("images", [2], "BYTES")
        tensor.set_data_from_numpy(np.array([file, file], dtype=np.object_), **more)
    else:
        tensor = module.InferInput("images", image.shape, "UINT8")
        tensor.set_data_from_numpy(image, **more)
    return [tensor]


def result(answer):
    return {name: answer.as_numpy(name).tolist() for name in NAMES}


def failure(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def drive(label, client, module):
    out = found[label] = {}
    out["live"], out["ready"] = client.is_server_live(), client.is_server_ready()
    out["model_ready"] = client.is_model_ready("shapes"), client.is_model_ready("shapes", "1")
    as_json = {} if module is th else {"as_json": True}
    out["server"] = client.get_server_metadata(**as_json)
    out["model"] = client.get_model_metadata("shapes", **as_json)
    out["uint8"] = result(client.infer("shapes", inputs("uint8", module), request_id="r1"))
    out["bytes"] = result(client.infer("shapes", inputs("bytes", module)))
    outputs = [module.InferRequestedOutput("labels")]
    out["chosen"] = client.infer("shapes", inputs("uint8", module), outputs=outputs).get_response(**as_json)
    params = {"confidence": 0.95, "classes": "bright"}
    out["strict"] = (
        client.infer("shapes", inputs("uint8", module), parameters=params).as_numpy("num_detections").tolist()
    )
    out["unknown"] = failure(lambda: client.infer("gone", inputs("uint8", module)))
    wrong = module.InferInput("pixels", image.shape, "UINT8")
    wrong.set_data_from_numpy(image)
    out["wrong_input"] = failure(lambda: client.infer("shapes", [wrong]))
    floats = module.InferInput("images", image.shape, "FP32")
    floats.set_data_from_numpy(image.astype(np.float32))
    out["wrong_type"] = failure(lambda: client.infer("shapes", [floats]))
    out["wrong_output"] = failure(
        lambda: client.infer("shapes", inputs("uint8", module), outputs=[module.InferRequestedOutput("masks")])
    )
    out["repository"] = failure(lambda: client.get_model_repository_index())


http_client, grpc_client = th.InferenceServerClient(http_address), tg.InferenceServerClient(grpc_address)
drive("http", http_client, th)
drive("grpc", grpc_client, tg)
found["http"]["json"] = result(
    http_client.infer(
        "shapes",
        inputs("uint8", th, binary=False),
        outputs=[th.InferRequestedOutput(name, binary_data=False) for name in NAMES],
    )
)
found["http"]["async"] = result(http_client.async_infer("shapes", inputs("uint8", th)).get_result())

answers = queue.Queue()
grpc_client.start_stream(lambda result, error: answers.put((result, error)))
for number in range(3):
    grpc_client.async_stream_infer("gone" if number == 1 else "shapes", inputs("uint8", tg), request_id=str(number))
stream = []
for _ in range(3):
    answer, error = answers.get(timeout=60)
    stream.append("error" if error else [answer.get_response().id, answer.as_numpy("num_detections").tolist()])
grpc_client.stop_stream()
found["stream"] = stream

headers = {"authorization": f"Bearer {token}"}
for label, client, more in (
    ("admin_http", th.InferenceServerClient(admin), {}),
    ("admin_grpc", tg.InferenceServerClient(admin_grpc), {"as_json": True}),
):
    out = found[label] = {}
    out["denied"] = failure(lambda client=client: client.get_model_repository_index())
    client.unload_model("shapes", headers=headers)
    out["unloaded"] = client.get_model_repository_index(headers=headers, **more)
    out["gone"] = failure(lambda: grpc_client.infer("shapes", inputs("uint8", tg)))
    client.load_model("shapes", headers=headers)
    out["loaded"] = client.get_model_repository_index(headers=headers, **more)

print(json.dumps(found))
