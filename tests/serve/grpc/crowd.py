"""A crowd of calls that are opened over a few connections and never say a word, while others ask for detections.

In a process of its own: gRPC's client for asyncio leaves connections open when the loop of their calls has ended and
the process uses gRPC for something else, too. This prints how the calls ended, as JSON, once LEAST have, and closes
them: `python -m tests.serve.grpc.crowd ADDRESS stream|watch COUNT LEAST`
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

import grpc
from tests.serve.bundles import jpeg

from eyas.serve.grpc.protocol import health_pb2 as health
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.grpc.service import HEALTH, INFERENCE

CHANNELS = 10
OWN = (("grpc.use_local_subchannel_pool", 1),)  # a connection of its own for each channel


def request() -> pb.ModelInferRequest:
    """Return a request for one image."""
    message = pb.ModelInferRequest(model_name="colours")
    message.inputs.add(name="images", datatype="BYTES", shape=[1]).contents.bytes_contents.append(jpeg())
    return message


async def answered(address: str, times: int) -> None:
    """Ask for detections, and be answered each time."""
    async with grpc.aio.insecure_channel(address, OWN) as channel:
        infer = channel.unary_unary(
            f"/{INFERENCE}/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
        )
        for _ in range(times):
            answer = await infer(request(), timeout=60)
            assert next(output.name for output in answer.outputs) == "boxes"


async def opened(channels: list[grpc.aio.Channel], what: str, count: int) -> list[Any]:
    """Return so many open calls."""
    calls: list[Any] = []
    for number in range(count):
        channel = channels[number % CHANNELS]
        if what == "stream":
            calls.append(channel.stream_stream(f"/{INFERENCE}/ModelStreamInfer")())
        else:
            message = health.HealthCheckRequest().SerializeToString()
            calls.append(channel.unary_stream(f"/{HEALTH}/Watch")(message))
        if number % 200 == 0:
            await asyncio.sleep(0)
    return calls


async def crowd(address: str, what: str, count: int, least: int) -> Counter[str]:
    """Return how the calls ended, "open" for those that have not; others were answered as they came and at the end."""
    channels = [grpc.aio.insecure_channel(address, OWN) for _ in range(CHANNELS)]
    opening = asyncio.create_task(opened(channels, what, count))
    await answered(address, 3)  # while they come
    calls = await opening
    while sum(call.done() for call in calls) < least:
        await asyncio.sleep(0.05)
    ends = Counter([(await call.code()).name if call.done() else "open" for call in calls])
    await answered(address, 10)
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close()
    return ends


if __name__ == "__main__":
    address, what, count, least = sys.argv[1:]
    print(json.dumps(asyncio.run(asyncio.wait_for(crowd(address, what, int(count), int(least)), 120))))
