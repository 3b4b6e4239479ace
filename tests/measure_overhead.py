"""How much longer ResNet-50 takes through the embedded server than in this process.

    python tests/measure_overhead.py

One image over gRPC against ONNX Runtime here, with the same threads, in alternating
blocks. Prints both medians and their ratio. Needs what notebooks 01 and 05 make.
"""

import statistics
import time

import numpy as np
import onnxruntime as ort
import tritonclient.grpc as grpcclient

from helpers import paths, triton_server

BLOCKS, RUNS = 20, 10
PAUSE = 0.2  # seconds, in which the threads of the other side stop spinning


def main():
    image = np.load(paths.artifact("reference.npz"))["input"][:1]
    session = ort.InferenceSession(paths.artifact("resnet50.onnx"))
    with triton_server.start(models=["resnet50"]) as server:
        client = grpcclient.InferenceServerClient(server.grpc)
        tensor = grpcclient.InferInput("input", image.shape, "FP32")
        tensor.set_data_from_numpy(image)
        candidates = {
            "ONNX Runtime in this process": lambda: session.run(None, {"input": image}),
            "Triton over gRPC": lambda: client.infer("resnet50", [tensor]),
        }
        times = {name: [] for name in candidates}
        for _ in range(BLOCKS):
            for name, run in candidates.items():
                time.sleep(PAUSE)
                run()  # warm-up of this block
                for _ in range(RUNS):
                    begin = time.perf_counter()
                    run()
                    times[name].append(1e3 * (time.perf_counter() - begin))
        client.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:<30} p50 {median:6.2f} ms")
    here, there = medians.values()
    print(f"{'ratio':<34} {there / here:6.2f}")


if __name__ == "__main__":
    main()
