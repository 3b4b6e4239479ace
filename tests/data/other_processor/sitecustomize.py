"""Python imports this at its start: ONNX Runtime then rounds as on another processor.

One thread and no fused kernels change the order of the sums, and which of them are done
in integers, as a processor with other instructions does. Sessions with options of their
own keep these.
"""

import onnxruntime


class Session(onnxruntime.InferenceSession):
    def __init__(self, model, sess_options=None, *arguments, **options):
        if sess_options is None:
            sess_options = onnxruntime.SessionOptions()
            sess_options.intra_op_num_threads = 1
            sess_options.graph_optimization_level = (
                onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            )
        super().__init__(model, sess_options, *arguments, **options)


onnxruntime.InferenceSession = Session
