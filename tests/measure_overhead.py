"""How much longer ResNet-50 takes through the embedded server than in this process.

    python tests/measure_overhead.py

One image against ONNX Runtime here, with the same threads, in alternating blocks:
over gRPC, over gRPC with the image in shared memory, and over HTTP. Prints the medians
and their ratios. Needs what notebooks 01 and 05 make.
"""

import statistics
import time

import numpy as np
import onnxruntime as ort
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import shared_memory

from helpers import paths, triton_server

BLOCKS, RUNS = 20, 10
PAUSE = 0.2  # seconds, in which the threads of the other side stop spinning


def infer(package, client, image, region=None):
    """A function that classifies ``image``, from a shared region where one is named."""
    tensor = package.InferInput("input", image.shape, "FP32")
    if region:
        tensor.set_shared_memory(region, image.nbytes)
    else:
        tensor.set_data_from_numpy(image)
    return lambda: client.infer("resnet50", [tensor])


def main():
    image = np.load(paths.artifact("reference.npz"))["input"][:1]
    session = ort.InferenceSession(paths.artifact("resnet50.onnx"))
    with (
        triton_server.start(models=["resnet50"]) as server,
        grpcclient.InferenceServerClient(server.grpc) as grpc,
        httpclient.InferenceServerClient(server.http) as http,
    ):
        key = f"/overhead-{server.http.rpartition(':')[2]}"
        region = shared_memory.create_shared_memory_region("image", key, image.nbytes)
        shared_memory.set_shared_memory_region(region, [image])
        grpc.register_system_shared_memory("image", key, image.nbytes)
        candidates = {
            "ONNX Runtime in this process": lambda: session.run(None, {"input": image}),
            "Triton over gRPC": infer(grpcclient, grpc, image),
            "Triton over gRPC, shared memory": infer(grpcclient, grpc, image, "image"),
            "Triton over HTTP": infer(httpclient, http, image),
        }
        times = {name: [] for name in candidates}
        try:
            for _ in range(BLOCKS):
                for name, run in candidates.items():
                    time.sleep(PAUSE)
                    run()  # warm-up of this block
                    for _ in range(RUNS):
                        begin = time.perf_counter()
                        run()
                        times[name].append(1e3 * (time.perf_counter() - begin))
        finally:
            grpc.unregister_system_shared_memory()
            shared_memory.destroy_shared_memory_region(region)
    medians = {name: statistics.median(values) for name, values in times.items()}
    alone = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:<32} p50 {median:6.2f} ms   ratio {median / alone:.2f}")


if __name__ == "__main__":
    main()
