"""A model in a real Triton (nvidia-pytriton), for `conformance.py`: PYTHON conformance_triton.py PORT.

It takes what Eyas takes as tensors, images UINT8 [N, H, W, 3], and gives num_detections INT64 [N].
"""

from __future__ import annotations

import sys
from typing import Any


def main(port: int) -> None:
    """Serve until killed: HTTP at the port, gRPC at the next one."""
    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    @batch
    def infer(images: Any) -> dict[str, Any]:
        return {"num_detections": np.ones((len(images), 1), np.int64)}

    config = TritonConfig(
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
        log_verbose=0,
    )
    with Triton(config=config) as server:
        server.bind(
            model_name="m",
            infer_func=infer,
            inputs=[Tensor(name="images", dtype=np.uint8, shape=(-1, -1, 3))],
            outputs=[Tensor(name="num_detections", dtype=np.int64, shape=(1,))],
            config=ModelConfig(max_batch_size=8, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=False,
        )
        server.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
