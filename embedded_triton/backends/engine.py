"""Run a TensorRT plan on NumPy arrays: taught in notebook 04, used by the backend.

Nothing here imports TensorRT: it comes as an argument, and may be 8.6, 10, 11 or
TensorRT-RTX.
"""

import ctypes
from pathlib import Path

import numpy as np


def make_logger(trt):
    """A TensorRT logger that keeps what is said; ``errors()`` returns the errors."""

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.records = []

        def log(self, severity, message):
            self.records.append((severity, message))

        def errors(self):
            worst = trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR
            return [text for severity, text in self.records if severity in worst]

    return Logger()


# trt.nptype breaks in some versions with today's numpy
_DTYPES = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}


def _numpy_dtype(name, dtype):
    """NumPy's dtype for TensorRT's.

    Raises:
        RuntimeError: NumPy has none, for BF16 or FP8 for instance.
    """
    if dtype.name not in _DTYPES:
        raise RuntimeError(
            f"the tensor {name} is {dtype.name}; expected one of {', '.join(_DTYPES)}: "
            "build the engine with inputs and outputs of such a type"
        )
    return _DTYPES[dtype.name]


def _cuda(result):
    """Value of a call of the CUDA runtime.

    Raises:
        RuntimeError: it failed.
    """
    error, *value = result
    if error.value:
        raise RuntimeError(f"CUDA: {error.name}")
    return value[0] if value else None


class Engine:
    """A plan on the GPU, ready to run on numpy arrays.

    Attributes:
        inputs, outputs: names of the tensors.
        shapes: a dict of tensor and shape, -1 for a free dimension.
        dtypes: a dict of tensor and numpy dtype.
        profile: a dict of input and (smallest, best, largest) shape.
    """

    def __init__(self, plan, trt, device=0):
        """Load a plan.

        Args:
            plan: path of a plan file, or its bytes.
            trt: the module ``tensorrt``; the plan has to be of the same version, and
                for this GPU.
            device: which GPU.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: there is no GPU, or TensorRT refuses the plan; the message
                has its reason.
        """
        try:
            from cuda.bindings import runtime
        except ImportError:  # before 12.6
            from cuda import cudart as runtime

        self._runtime = runtime
        self._trt, self._memory, self._staging = trt, {}, {}
        if not isinstance(plan, bytes):
            plan = Path(plan).read_bytes()
        # Without a driver trt.Runtime ends the process in 8.6: ask CUDA first
        error, count = runtime.cudaGetDeviceCount()
        if error.value or not count:
            raise RuntimeError(
                "a plan needs an NVIDIA GPU and its driver to run, and there is none"
            )
        _cuda(runtime.cudaSetDevice(device))
        self._logger = make_logger(trt)
        self._trt_runtime = trt.Runtime(self._logger)
        self._engine = self._trt_runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            reason = "; ".join(self._logger.errors()) or "no reason given"
            raise RuntimeError(
                f"{trt.__name__} {trt.__version__} cannot load this plan: {reason}. A "
                "plan runs with the TensorRT version and on the kind of GPU that it "
                "was built with: build it again here (notebook 03)"
            )
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = [engine.get_tensor_mode(x) == trt.TensorIOMode.INPUT for x in names]
        self.inputs = [name for name, yes in zip(names, is_input) if yes]
        self.outputs = [name for name, yes in zip(names, is_input) if not yes]
        self.shapes = {x: tuple(engine.get_tensor_shape(x)) for x in names}
        self.dtypes = {x: _numpy_dtype(x, engine.get_tensor_dtype(x)) for x in names}
        self.profile = {
            x: tuple(map(tuple, engine.get_tensor_profile_shape(x, 0)))
            for x in self.inputs
        }
        self._context = engine.create_execution_context()
        self._stream = _cuda(runtime.cudaStreamCreate())

    def information(self):
        """The engine inspector's JSON; full of detail where it was built so."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)

    @property
    def device_memory(self):
        """Bytes of GPU memory that a run needs besides weights, inputs and outputs."""
        for name in "device_memory_size_v2", "device_memory_size":  # 8.6 has the last
            if hasattr(self._engine, name):
                return getattr(self._engine, name)
        return None

    def _shapes(self, feeds):
        """Shapes of the inputs, their parts put together; raises ValueError."""
        if set(feeds) != set(self.inputs):
            raise ValueError(
                f"expected the inputs {self.inputs}, found {sorted(feeds)}"
            )
        shapes = {}
        for name, parts in feeds.items():
            shape = parts[0].shape
            if len(parts) > 1:
                shape = sum(len(part) for part in parts), *shape[1:]
            smallest, _, largest = self.profile[name]
            fits = len(shape) == len(smallest) and all(
                low <= x <= high for low, x, high in zip(smallest, shape, largest)
            )
            alike = all(part.shape[1:] == shape[1:] for part in parts)
            dtypes = {part.dtype for part in parts}
            if not fits or not alike or dtypes != {self.dtypes[name]}:
                found = ", ".join(map(str, dtypes))
                raise ValueError(
                    f"{name} is {found} of shape {shape}; the engine takes "
                    f"{self.dtypes[name]} from {smallest} to {largest}, the limits of "
                    "its optimisation profile"
                )
            shapes[name] = tuple(shape)
        return shapes

    def _room(self, known, name, size, allocate, free):
        """Memory for a tensor; kept for the next run."""
        pointer, capacity = known.get(name, (None, 0))
        if capacity < size:
            if pointer is not None:
                _cuda(free(pointer))
            pointer = _cuda(allocate(size))
            known[name] = pointer, size
        return int(pointer)

    def _pointer(self, name, size):
        cuda = self._runtime
        return self._room(self._memory, name, size, cuda.cudaMalloc, cuda.cudaFree)

    def _staged(self, name, size):
        """Page-locked memory, from which the GPU copies by itself."""
        cuda = self._runtime
        allocate, free = cuda.cudaMallocHost, cuda.cudaFreeHost
        return self._room(self._staging, name, size, allocate, free)

    def _copy_in(self, name, parts):
        cuda, stream, offset = self._runtime, self._stream, 0
        size = sum(part.nbytes for part in parts)
        pointer = self._pointer(name, size)
        for part in parts:
            on_gpu = getattr(part, "__cuda_array_interface__", None)
            if on_gpu:
                kind, source = "cudaMemcpyDeviceToDevice", on_gpu["data"][0]
            else:
                kind, source = "cudaMemcpyHostToDevice", self._staged(name, size)
                source += offset
                part = np.ascontiguousarray(part)
                ctypes.memmove(source, part.ctypes.data, part.nbytes)
            kind = getattr(cuda.cudaMemcpyKind, kind)
            target = pointer + offset
            _cuda(cuda.cudaMemcpyAsync(target, source, part.nbytes, kind, stream))
            offset += part.nbytes
        return pointer

    def copy_inputs(self, feeds):
        """Copy inputs to the GPU and make room for the outputs, filled with 0xFF.

        Args:
            feeds: a dict of input and array, within the profile, of the right dtype; or
                of input and a list of arrays, which are joined along the first axis. An
                array in the GPU's memory, C-contiguous, is one that says so by
                ``__cuda_array_interface__``, as CuPy's do.

        Raises:
            ValueError: an input is missing, unknown, of another dtype, or outside the
                profile.
            RuntimeError: CUDA failed, for want of memory for instance.
        """
        feeds = {k: v if isinstance(v, list) else [v] for k, v in feeds.items()}
        for name, shape in self._shapes(feeds).items():
            pointer = self._copy_in(name, feeds[name])
            self._context.set_input_shape(name, shape)
            self._context.set_tensor_address(name, pointer)
        for name in self.outputs:
            size = self._bytes(name)
            pointer = self._pointer(name, size)
            # NaN as a float: an output that the engine did not write is seen
            _cuda(self._runtime.cudaMemsetAsync(pointer, 0xFF, size, self._stream))
            self._context.set_tensor_address(name, pointer)

    def _bytes(self, name):
        shape = tuple(self._context.get_tensor_shape(name))
        return int(np.prod(shape)) * self.dtypes[name].itemsize

    def launch(self):
        """Run once on what ``copy_inputs`` put there, without waiting.

        Raises:
            RuntimeError: TensorRT refused; the message has its reason.
        """
        if not self._context.execute_async_v3(int(self._stream)):
            reason = "; ".join(self._logger.errors()) or "no reason given"
            raise RuntimeError(f"TensorRT did not run the engine: {reason}")

    def fetch(self):
        """Copy the outputs back, and wait: a dict of output and array."""
        cuda, stream, results = self._runtime, self._stream, {}
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name in self.outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            value = results[name] = np.empty(shape, self.dtypes[name])
            source, target = self._memory[name][0], value.ctypes.data
            _cuda(cuda.cudaMemcpyAsync(target, source, value.nbytes, kind, stream))
        _cuda(cuda.cudaStreamSynchronize(stream))
        return results

    def run(self, feeds):
        """Copy in, run, copy out.

        Args:
            feeds: a dict of input and array, see ``copy_inputs``.

        Returns:
            A dict of output and array.

        Raises:
            ValueError, RuntimeError: see ``copy_inputs`` and ``launch``.
        """
        self.copy_inputs(feeds)
        self.launch()
        return self.fetch()

    def time(self, feeds, runs=100, warm_up=20):
        """Times of single runs on the GPU, without copies, by CUDA events.

        Args:
            feeds: as in ``run``.
            runs, warm_up: how many runs are measured, and how many precede them.

        Returns:
            (runs,) float array, milliseconds.
        """
        cuda = self._runtime
        self.copy_inputs(feeds)
        for _ in range(warm_up):
            self.launch()
        begin, end = (_cuda(cuda.cudaEventCreate()) for _ in range(2))
        times = []
        for _ in range(runs):
            _cuda(cuda.cudaEventRecord(begin, self._stream))
            self.launch()
            _cuda(cuda.cudaEventRecord(end, self._stream))
            _cuda(cuda.cudaEventSynchronize(end))
            times.append(_cuda(cuda.cudaEventElapsedTime(begin, end)))
        for event in begin, end:
            _cuda(cuda.cudaEventDestroy(event))
        return np.array(times)

    def time_layers(self, feeds, runs=50):
        """Times of the engine's layers, by TensorRT's profiler.

        Args:
            feeds: as in ``run``.
            runs: how many runs are measured, after five that are not.

        Returns:
            A dict of layer and median time in milliseconds, in order of execution.
        """
        trt, times = self._trt, {}

        class Profiler(trt.IProfiler):
            def __init__(self):
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name, ms):
                times.setdefault(layer_name, []).append(ms)

        self.copy_inputs(feeds)
        self._profiler = self._context.profiler = Profiler()  # kept: TensorRT may not
        for _ in range(runs + 5):
            self.launch()
            _cuda(self._runtime.cudaStreamSynchronize(self._stream))
        return {name: float(np.median(ms[5:])) for name, ms in times.items()}

    def close(self):
        """Give the GPU's memory back."""
        for pointer, _ in self._memory.values():
            _cuda(self._runtime.cudaFree(pointer))
        for pointer, _ in self._staging.values():
            _cuda(self._runtime.cudaFreeHost(pointer))
        self._memory.clear()
        self._staging.clear()
        if self._stream is not None:
            _cuda(self._runtime.cudaStreamDestroy(self._stream))
            self._stream = None
        self._context = self._engine = self._trt_runtime = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
