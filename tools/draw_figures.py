"""Draw the diagrams of the lessons into ``notebooks/figures``, all in one style.

    python -m tools.draw_figures

It also photographs Netron with ResNet-50's graph, for pages where Netron does not run.
A diagram is 600 units wide and its smallest text 17 units high, so that the text is
still 10 pixels high where a phone shows the diagram 355 pixels wide. Each has a light
ground of its own, which is legible in a dark page too.
"""

import shutil
from html import escape

from helpers import paths

WIDTH = 600
TEXT = 17  # height of the smallest text
LINE = 24  # from one line of a box to the next
SANS = 'Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif'
MONO = '"DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace'
# Fill and edge, of the palette of Okabe and Ito, which the colour-blind can tell apart.
COLOURS = {
    "plain": ("#ffffff", "#5b6570"),
    "file": ("#fff3d6", "#b57b00"),
    "work": ("#e3f0f9", "#0072b2"),
    "check": ("#dcf1e8", "#00704f"),
    "gone": ("#fbe6dc", "#b84a00"),
}
STYLE = f"""
    text {{ font: {TEXT}px {SANS}; fill: #1b1f24; text-anchor: middle }}
    .left {{ text-anchor: start }}
    .bold {{ font-weight: bold }}
    .code {{ font-family: {MONO} }}
    .badge {{ font-weight: bold; fill: #ffffff }}
    .arrow {{ fill: none; stroke: #1b1f24; stroke-width: 2 }}"""
FOLDER = paths.NOTEBOOKS / "figures"


class Figure:
    """An SVG that grows by boxes, texts and arrows, the later above the earlier."""

    def __init__(self, height, title, description):
        """``description`` says in words all that the diagram shows."""
        self.height, self.title, self.description = height, title, description
        self.parts = []

    def arrow(self, *points):
        """A line through points (x, y), with a head at the last."""
        route = " L ".join(f"{x} {y}" for x, y in points)
        self.parts.append(
            f'<path class="arrow" marker-end="url(#head)" d="M {route}"/>'
        )

    def lines(self, x, y, *lines):
        """Lines of text, one below the other."""
        for number, words in enumerate(lines):
            self.text(x, y + LINE * number, words)

    def text(self, x, y, words):
        """One line; ``*`` in front makes it bold, ``#`` code, ``<`` begins it at x."""
        classes = []
        for mark, name in ("<", "left"), ("*", "bold"), ("#", "code"):
            if words.startswith(mark):
                words = words[1:]
                classes.append(name)
        kind = f' class="{" ".join(classes)}"' if classes else ""
        self.parts.append(f'<text{kind} x="{x:g}" y="{y:g}">{escape(words)}</text>')

    def box(self, x, y, width, height, *lines, kind="plain"):
        """A box with lines of text in its middle."""
        fill, edge = COLOURS[kind]
        self.parts.append(
            f'<g><rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" '
            f'fill="{fill}" stroke="{edge}" stroke-width="1.5"/>'
        )
        top = (height - LINE * (len(lines) - 1)) / 2 + TEXT / 3
        for number, words in enumerate(lines):
            start = x + (14 if words.startswith("<") else width / 2)
            self.text(start, y + top + LINE * number, words)
        self.parts.append("</g>")

    def time(self, y):
        """An axis from left to right."""
        self.arrow((70, y), (580, y))
        self.text(20, y + 6, "<time")

    def chain(self, x, width, boxes):
        """Boxes (y, height, kind, lines ...) with an arrow from each to the next."""
        middle, end = x + width // 2, None
        for y, height, kind, *lines in boxes:
            if end:
                self.arrow((middle, end), (middle, y))
            self.box(x, y, width, height, *lines, kind=kind)
            end = y + height

    def badge(self, x, y, words, kind="work"):
        """Words on a dark ground, around (x, y)."""
        width = 14 + 11 * len(words)
        self.parts.append(
            f'<g><rect x="{x - width / 2:g}" y="{y - 14}" width="{width}" height="28" '
            f'rx="14" fill="{COLOURS[kind][1]}"/>'
            f'<text class="badge" x="{x}" y="{y + 6}">{words}</text></g>'
        )

    def svg(self):
        """The whole file."""
        body = "\n  ".join(self.parts)
        return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" \
width="{WIDTH}" height="{self.height}" role="img" aria-labelledby="title description">
  <title id="title">{escape(self.title)}</title>
  <desc id="description">{escape(self.description)}</desc>
  <style>{STYLE}
  </style>
  <defs>
    <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" \
markerHeight="7" orient="auto">
      <path d="M0 0 L10 5 L0 10 z" fill="#1b1f24"/>
    </marker>
  </defs>
  <rect x="1" y="1" width="{WIDTH - 2}" height="{self.height - 2}" rx="12" \
fill="#fbfaf7" stroke="#d5d3cc" stroke-width="1.5"/>
  {body}
</svg>
"""


def path():
    """README and 00: from PyTorch to a client."""
    figure = Figure(
        486,
        "The path from PyTorch to a client",
        "Lesson 01 exports the PyTorch network to an ONNX file, and lesson 03 builds a "
        "TensorRT engine from that file. Lesson 05 puts both into a model repository. "
        "Lesson 06 starts a Triton server on the repository: the one that pip installs "
        "on a laptop, or NVIDIA's container on a GPU machine. A client asks the server "
        "in lesson 07. After each conversion the same pictures go through both sides: "
        "lesson 02 compares the file with PyTorch, 04 the engine, 07 the server's "
        "answers.",
    )
    figure.arrow((160, 96), (220, 96))
    figure.arrow((380, 96), (440, 96))
    figure.arrow((340, 132), (340, 172), (470, 172), (470, 214))
    figure.arrow((540, 132), (540, 214))
    figure.arrow((420, 300), (364, 300))
    figure.arrow((188, 300), (132, 300))
    figure.box(20, 60, 140, 72, "*PyTorch", "network")
    figure.box(220, 60, 160, 72, "*ONNX", "file", kind="file")
    figure.box(440, 60, 140, 72, "*TensorRT", "engine", kind="file")
    repository = "*Model", "*repository", "#config.pbtxt", "#model.onnx", "#model.plan"
    figure.box(420, 216, 160, 168, *repository, kind="file")
    figure.box(188, 216, 176, 168, kind="work")
    figure.text(276, 242, "*Triton server")
    figure.box(198, 254, 156, 54, "pip installs it", "on a laptop")
    figure.text(276, 326, "or")
    figure.box(198, 334, 156, 42, "container, GPU")
    figure.box(20, 216, 112, 168, "*Client", "HTTP", "gRPC")
    for x, y, number in ((190, 96, "01"), (410, 96, "03"), (405, 172, "05")):
        figure.badge(x, y, number)
    for x, y, number in ((540, 172, "05"), (396, 300, "06"), (164, 300, "07")):
        figure.badge(x, y, number)
    for x, y, number in ((300, 44, "02"), (510, 44, "04"), (76, 202, "07")):
        figure.badge(x, y, f"check {number}", "check")
    figure.badge(37, 30, "01")
    figure.text(62, 36, "<lesson")
    proved = "*Every arrow is checked:", "the same pictures go through both sides"
    figure.box(20, 404, 560, 64, *proved, kind="check")
    return figure


def bottleneck():
    """01: what the exporter makes of a block of ResNet-50."""
    figure = Figure(
        632,
        "A bottleneck block of ResNet-50, in PyTorch and in the ONNX file",
        "In PyTorch the block is a chain of ten operations: three convolutions, each "
        "followed by a batch normalisation; a ReLU after the first two of these; then "
        "the addition of the skip connection, which carries the block's input around "
        "the chain; and a last ReLU. In the ONNX file seven are left: each batch "
        "normalisation has gone into the weights and a bias of its convolution.",
    )
    figure.text(155, 34, "*in PyTorch")
    figure.text(435, 34, "*in the ONNX file")
    step, high, top = 52, 38, 76
    kinds = {"Conv": "work", "BatchNorm": "gone"}
    left = ["Conv 1×1", "BatchNorm", "ReLU", "Conv 3×3", "BatchNorm", "ReLU"]
    left += ["Conv 1×1", "BatchNorm", "Add", "ReLU"]
    right = {0: "Conv 1×1 + bias", 2: "Relu", 3: "Conv 3×3 + bias", 5: "Relu"}
    right |= {6: "Conv 1×1 + bias", 8: "Add", 9: "Relu"}
    for x, rows in (60, dict(enumerate(left))), (340, right):
        boxes = []
        for number, name in rows.items():
            more = step if "bias" in name else 0  # with its batch normalisation
            kind = kinds.get(name.split()[0], "plain")
            boxes.append((top + step * number, high + more, kind, name))
        figure.chain(x, 190, boxes)
    add = top + step * left.index("Add") + high / 2
    figure.arrow((155, 46), (155, top))
    figure.arrow((155, 57), (36, 57), (36, add), (60, add))
    figure.arrow((435, 46), (435, top))
    figure.arrow((435, 57), (564, 57), (564, add), (530, add))
    figure.text(300, 614, "the outer line is the skip connection")
    return figure


def parity():
    """02: what goes where in a parity check."""
    figure = Figure(
        396,
        "A parity check of an ONNX file",
        "Eight pictures, an array of shape 8, 3, 224, 224, go into PyTorch, which runs "
        "the network, and into ONNX Runtime, which runs the exported file. Each gives "
        "8 times 1,000 logits. Both sets of logits go into one comparison, which gives "
        "five measures. They are one row of the parity table.",
    )
    figure.arrow((230, 78), (160, 118))
    figure.arrow((370, 78), (440, 118))
    figure.arrow((160, 182), (160, 222))
    figure.arrow((440, 182), (440, 222))
    figure.arrow((160, 262), (230, 302))
    figure.arrow((440, 262), (370, 302))
    figure.box(140, 18, 320, 60, "*the same eight pictures", "#(8, 3, 224, 224)")
    figure.box(40, 118, 240, 64, "*PyTorch", "runs the network", kind="work")
    figure.box(320, 118, 240, 64, "*ONNX Runtime", "runs the file", kind="work")
    figure.box(60, 222, 200, 40, "#(8, 1000) logits")
    figure.box(340, 222, 200, 40, "#(8, 1000) logits")
    row = "*how far apart are they?", "five measures: one row of the parity table"
    figure.box(60, 302, 480, 72, *row, kind="check")
    return figure


def build():
    """03: what TensorRT does between an ONNX file and a plan."""
    figure = Figure(
        560,
        "From an ONNX file to a plan",
        "The parser reads the ONNX file into a network of layers. The builder takes "
        "the network, a profile with the smallest, the best and the largest shape, and "
        "a config with the limits of memory and the GPUs to build for. It fuses "
        "layers, chooses a kernel for each fused layer, and plans the memory. The "
        "result is a plan, the file of an engine, for the GPUs that it was built for.",
    )
    figure.arrow((110, 92), (110, 132))
    figure.arrow((110, 196), (110, 236))
    figure.arrow((300, 196), (300, 236))
    figure.arrow((490, 196), (490, 236))
    figure.arrow((300, 400), (300, 440))
    figure.box(20, 20, 180, 72, "*ONNX file", "operators", kind="file")
    figure.box(20, 132, 180, 64, "*network", "from the parser")
    figure.box(215, 132, 170, 64, "*profile", "three shapes")
    figure.box(400, 132, 180, 64, "*config", "memory, GPUs")
    figure.box(20, 236, 560, 164, kind="work")
    figure.text(300, 264, "*The builder")
    for number, words in enumerate(
        (
            "fuses layers that can run as one",
            "chooses a kernel for each, the program that runs it",
            "plans where the tensors lie in memory",
        )
    ):
        figure.box(34, 278 + 39 * number, 532, 34, words)
    plan = "*plan", "the engine, saved for the GPUs it was built for"
    figure.box(80, 440, 440, 72, *plan, kind="file")
    figure.text(
        300, 540, "strongly typed: every layer keeps the type it had in the file"
    )
    return figure


def layers():
    """04: an engine's layers against the graph's."""
    figure = Figure(
        476,
        "A block of the classifier, in the graph and in the engine",
        "Six nodes of the graph become three layers of the engine. Convolution and "
        "clip become one layer. Padding, depthwise convolution and clip become one "
        "layer. The last convolution stays alone. In the whole FP16 engine 413 layers "
        "of the network became 55.",
    )
    figure.text(150, 40, "*nodes of the graph")
    figure.text(450, 40, "*layers of the engine")
    nodes = ["Conv 1×1", "Clip", "Pad", "Conv, depthwise", "Clip", "Conv 1×1"]
    kinds = ["work" if name.startswith("Conv") else "plain" for name in nodes]
    rows = enumerate(zip(kinds, nodes))
    figure.chain(50, 200, [(58 + 60 * i, 40, *row) for i, row in rows])
    groups = ((0, 2, "Conv + Clip"), (2, 3, "Pad + Conv + Clip"), (5, 1, "Conv"))
    boxes = [(58 + 60 * i, 60 * n - 20, "work", name) for i, n, name in groups]
    figure.chain(350, 200, boxes)
    for y, height, *_ in boxes:
        figure.arrow((258, y + height / 2), (342, y + height / 2))
    figure.text(300, 452, "in the whole FP16 engine: 413 layers became 55")
    return figure


def config():
    """05: the finished config, line by line."""
    rows = {
        'name: "classifier_onnx"': "the name of the folder",
        'backend: "onnxruntime"': "what runs the file",
        "max_batch_size: 32": "at most 32 images in one run",
        "input [ ... dims: [ 3, 224, 224 ] ]": "one image: the batch is not in dims",
        "output [ ... label_filename: ... ]": "clients can ask for labels",
        "instance_group [ { count: 1 ... } ]": "one copy of the model, on GPU or CPU",
        "dynamic_batching { }": "waiting requests go into one run",
        "version_policy { latest ... }": "the two newest versions are served",
        "model_warmup [ ... ]": "one run before the model is ready",
    }
    description = "; ".join(f"{line}: {words}" for line, words in rows.items())
    figure = Figure(
        24 + 74 * len(rows), "The classifier's config, line by line", f"{description}."
    )
    for number, (line, words) in enumerate(rows.items()):
        y = 16 + 74 * number
        figure.box(16, y, 568, 66, f"<#{line}", f"<{words}", kind="file")
    return figure


def request():
    """06: the way of a request through the server."""
    figure = Figure(
        640,
        "The way of a request through the server",
        "A client's request arrives at the HTTP or the gRPC port. The server compares "
        "its tensors with the model's config and refuses it if they do not fit. Then "
        "it waits in the model's queue. The dynamic batcher joins waiting requests "
        "into one batch. A free instance of the model takes the batch, and its "
        "backend runs the file. Each client gets its own part of the answer.",
    )
    figure.box(20, 110, 560, 510, kind="work")
    figure.text(440, 136, "*Triton server")
    figure.box(190, 16, 220, 44, "*clients")
    rows = (
        ("*port", "HTTP 8000 or gRPC 8001"),
        (
            "*comparison with the config",
            "names, types, shapes: refuse what does not fit",
        ),
        ("*queue", "requests wait while every instance is busy"),
        ("*dynamic batcher", "joins waiting requests into one batch"),
        ("*instance", "one copy of the model: runs one batch at a time"),
        ("*backend", "the part that runs the file: onnxruntime, tensorrt"),
    )
    figure.arrow((240, 60), (240, 148))
    boxes = [(148 + 78 * i, 60, "plain", *words) for i, words in enumerate(rows)]
    figure.chain(36, 506, boxes)
    figure.arrow((542, 568), (562, 568), (562, 90), (380, 90), (380, 60))
    figure.text(488, 80, "each its answer")
    return figure


def binary():
    """07: a binary request, taken apart."""
    figure = Figure(
        412,
        "A binary request over HTTP",
        "First come the lines of HTTP: POST, the address v2/models/classifier_onnx/"
        "infer, and two lengths: the JSON has 151 bytes, and JSON and tensor together "
        "602,263. Then comes the JSON: the name input, the shape 1, 3, 224, 224, the "
        "datatype FP32 and the size of the binary data, 602,112 bytes. The rest is the "
        "tensor: 150,528 numbers of 4 bytes each.",
    )
    lines = (
        "<*HTTP",
        "<#POST /v2/models/classifier_onnx/infer",
        "<#Inference-Header-Content-Length: 151",
        "<#Content-Length: 602263",
    )
    figure.box(20, 20, 560, 122, *lines)
    lines = (
        "<*JSON, 151 bytes",
        '<#"name": "input"',
        '<#"shape": [1, 3, 224, 224]',
        '<#"datatype": "FP32"',
        '<#"binary_data_size": 602112',
    )
    figure.box(20, 156, 560, 146, *lines, kind="file")
    lines = (
        "<*the tensor, 602,112 bytes",
        "<150,528 numbers of 4 bytes, as they are in memory",
    )
    figure.box(20, 316, 560, 76, *lines, kind="work")
    return figure


def qdq():
    """09: where INT8 numbers travel in a block of ResNet-50."""
    figure = Figure(
        518,
        "A bottleneck block of ResNet-50 with Q/DQ pairs",
        "The block's input goes through a pair of QuantizeLinear and "
        "DequantizeLinear, then through a 1 by 1 convolution and a ReLU, through a "
        "second pair, a 3 by 3 convolution and a ReLU, and through a third pair into "
        "the last 1 by 1 convolution. Its output goes straight into the addition: no "
        "pair stands between the two. The skip connection leads from the first pair "
        "to the same addition. A last ReLU follows. Between QuantizeLinear and "
        "DequantizeLinear the numbers are INT8.",
    )
    left, right, wide, high, step = 64, 376, 184, 38, 60
    rows = [66 + step * number for number in range(7)]
    inner, ends = left + wide, (left + wide // 2, right + wide // 2)
    figure.text(ends[1], 36, "*input")
    figure.arrow((ends[1], 44), (ends[1], rows[0]))
    for y, column in zip(rows, (0, 1, 0, 1, 0, 0)):
        figure.arrow((ends[column], y + high), (ends[column], y + step))
    figure.arrow((left, 85), (36, 85), (36, 445), (left, 445))
    for y in rows[0], rows[2], rows[4]:
        figure.arrow((right, y + 19), (inner, y + 19))
        figure.box(right, y, wide, high, "QuantizeLinear", kind="file")
        figure.box(left, y, wide, high, "DequantizeLinear", kind="file")
        figure.badge(316, y + 19, "INT8")
    for y, name in (rows[1], "Conv 1×1"), (rows[3], "Conv 3×3"), (rows[6], "Add"):
        figure.arrow((inner, y + 19), (right, y + 19))
        figure.box(left, y, wide, high, name, kind="plain" if name == "Add" else "work")
        figure.box(right, y, wide, high, "Relu")
    figure.box(left, rows[5], wide, high, "Conv 1×1", kind="work")
    figure.lines(ends[1], 382, "no pair between", "Conv and Add")
    figure.text(300, 500, "the outer line is the skip connection")
    return figure


def loops():
    """10: a closed loop, an open loop, and the ceiling."""
    figure = Figure(
        414,
        "A closed loop, an open loop and the ceiling",
        "In a closed loop a client sends a request to the server, and the next one "
        "when the answer is there: always as many requests are under way. In an open "
        "loop users send requests at some rate, whatever the server does: when more "
        "come than it can answer, its queue grows. Under both is the ceiling, the "
        "throughput of a model that does nothing: client, server and wire can carry "
        "no more.",
    )
    figure.text(150, 36, "*closed loop")
    figure.text(450, 36, "*open loop")
    figure.arrow((100, 94), (100, 212))
    figure.arrow((200, 212), (200, 94))
    for x in 400, 450, 500:
        figure.arrow((x, 94), (x, 134))
    figure.arrow((450, 178), (450, 212))
    figure.arrow((560, 232), (578, 232), (578, 74), (560, 74))
    figure.box(40, 54, 220, 40, "client")
    figure.box(340, 54, 220, 40, "users, at some rate")
    figure.badge(100, 153, "request")
    figure.badge(200, 153, "answer", "check")
    figure.box(340, 134, 220, 44, kind="file")
    figure.text(384, 162, "queue")
    for x in range(426, 540, 32):
        figure.box(x, 144, 24, 24)
    figure.box(40, 212, 220, 40, "*server", kind="work")
    figure.box(340, 212, 220, 40, "*server", kind="work")
    figure.lines(150, 280, "the next request waits:", "always as many under way")
    figure.lines(450, 280, "requests keep coming:", "the queue can grow")
    ceiling = (
        "*the ceiling: a model that does nothing",
        "client, server and wire can carry no more",
    )
    figure.box(20, 324, 560, 72, *ceiling, kind="check")
    return figure


def batcher():
    """11: how waiting requests become a batch."""
    figure = Figure(
        302,
        "Requests become a batch while another one runs",
        "Time goes to the right. Request 1 arrives at an idle model, which runs it at"
        " once, with a batch of 1. Requests 2, 3 and 4 arrive one after the other "
        "during this run and wait in the queue. When it ends, request 1 has its "
        "answer, and the three become the next run, with a batch of 3.",
    )
    figure.text(20, 34, "<requests, as they arrive")
    for number, x in enumerate((64, 144, 204, 264)):
        y = 50 + 46 * number
        figure.badge(x - 20, y + 19, f"{number + 1}")
        if number:
            figure.box(x, y, 336 - x, 38, "waits", kind="file")
    figure.box(64, 50, 272, 38, "run, batch of 1", kind="work")
    figure.box(336, 96, 150, 130, "*one run,", "batch of 3", kind="work")
    figure.arrow((336, 69), (370, 69))
    figure.text(376, 75, "<answer")
    for y in 115, 161, 207:
        figure.arrow((486, y), (508, y))
    figure.text(514, 167, "<answers")
    figure.time(246)
    figure.text(300, 284, "who waits during one run becomes the next batch")
    return figure


def ensemble():
    """13: an ensemble beside a script."""
    figure = Figure(
        474,
        "An ensemble beside business logic scripting",
        "An ensemble is a config. An image goes into preprocess; its tensor goes on "
        "to the classifier, whose logits are the answer. The server passes the "
        "tensors, and every request takes both steps. Business logic scripting, BLS, "
        "is a Python model. Its code asks preprocess and gets the tensor and the size"
        " back. Is the picture large enough? If yes, the code asks the classifier. If"
        " no, it answers without it. The answer is classes.",
    )
    figure.text(108, 34, "*ensemble: config")
    figure.text(352, 34, "*BLS: Python code")
    figure.box(20, 104, 176, 240, kind="file")
    figure.box(216, 104, 224, 240, kind="file")
    left = ["image", "preprocess", "tensor", "classifier", "logits"]
    right = ["image", "ask", "*large enough?", "ask", "classes"]
    tops, heights = (50, 120, 196, 284, 360), (38, 44, 44, 44, 38)
    kinds = ["plain", "work", "plain", "work", "plain"]
    figure.chain(30, 156, list(zip(tops, heights, kinds, left)))
    kinds = ["plain", "plain", "check", "plain", "plain"]
    figure.chain(274, 156, list(zip(tops, heights, kinds, right)))
    figure.arrow((274, 218), (244, 218), (244, 379), (274, 379))
    figure.badge(244, 258, "no", "gone")
    figure.badge(352, 258, "yes", "check")
    for y, model in (120, "preprocess"), (284, "classifier"):
        figure.arrow((430, y + 13), (466, y + 13))
        figure.arrow((466, y + 31), (430, y + 31))
        figure.box(466, y, 114, 44, model, kind="work")
    figure.lines(108, 430, "the server", "passes the tensors")
    figure.lines(400, 430, "the code calls models,", "and may leave one out")
    return figure


def rollout():
    """15: a roll-out, as it happens, and the way back."""
    figure = Figure(
        312,
        "A roll-out and the way back",
        "Time goes to the right. Version 1 answers, while version 2 is put together "
        "beside the repository. Mark 1: one rename moves version 2 in, and a load "
        "request follows. Version 2 loads, and version 1 still answers. Mark 2: "
        "version 2 is ready, and requests that name no version go to it; version 1 "
        "stays ready. Mark 3 is the way back: a version policy names version 1, which"
        " answers at once, since it was never stopped; version 2 is unloaded.",
    )
    for x in 232, 322, 450:
        figure.arrow((x, 46), (x, 68))
    figure.text(20, 94, "<version 2")
    figure.box(112, 68, 120, 40, "put together")
    figure.box(232, 68, 90, 40, "loads", kind="file")
    figure.box(322, 68, 128, 40, "answers", kind="work")
    figure.box(450, 68, 130, 40, "unloaded", kind="gone")
    figure.text(20, 142, "<version 1")
    figure.box(112, 116, 210, 40, "answers", kind="work")
    figure.box(322, 116, 128, 40, "stays ready")
    figure.box(450, 116, 130, 40, "answers", kind="work")
    figure.time(178)
    for number, (x, words) in enumerate(
        (
            (232, "one rename moves 2 in, a load request follows"),
            (322, "ready: requests that name no version go to 2"),
            (450, "the way back: the policy names version 1"),
        )
    ):
        figure.badge(x, 32, f"{number + 1}")
        figure.badge(33, 218 + 32 * number, f"{number + 1}")
        figure.text(56, 224 + 32 * number, f"<{words}")
    return figure


def drain():
    """16: what a server does between SIGTERM and its end."""
    figure = Figure(
        302,
        "From SIGTERM to the end of a server",
        "Time goes to the right. The server is ready until SIGTERM comes; from then "
        "on it says that it is exiting and takes nothing new. A request that it had "
        "taken before goes on and is answered. A new one is refused. When the last "
        "answer is out the server exits. It waits for that no longer than "
        "--exit-timeout-secs, counted from SIGTERM.",
    )
    figure.arrow((236, 46), (236, 68))
    figure.badge(236, 32, "SIGTERM", "gone")
    figure.text(20, 94, "<server")
    figure.box(112, 68, 124, 40, "ready", kind="check")
    figure.box(236, 68, 210, 40, "no longer ready", kind="file")
    figure.box(446, 68, 134, 40, "gone", kind="gone")
    figure.text(20, 142, "<running")
    figure.box(160, 116, 286, 40, "finished and answered", kind="work")
    figure.text(20, 190, "<new")
    figure.box(320, 164, 126, 40, "refused", kind="gone")
    figure.text(20, 238, "<at most")
    figure.box(236, 212, 304, 40, "#--exit-timeout-secs")
    figure.time(274)
    return figure


def replicas():
    """17: a balancer in front of three replicas, one of them lost."""
    figure = Figure(
        456,
        "A balancer, three replicas, and one that was killed",
        "Clients send requests over HTTP or gRPC to one door, with TLS and a token. "
        "Behind it HAProxy hands each request to one of three replicas, and asks each"
        " replica over and over whether it is ready. Replica r0 is killed. A request "
        "that was under way there, mark 1, is lost, and is sent again to replica r1, "
        "mark 2: over HTTP by the balancer, over gRPC by the client. Replicas r1 and "
        "r2 are ready.",
    )
    figure.arrow((300, 56), (300, 116))
    for x in 20, 215, 410:
        figure.arrow((x + 45, 186), (x + 45, 276))
        figure.arrow((x + 120, 186), (x + 120, 276))
        figure.badge(x + 120, 228, "ready?", "check")
    figure.badge(65, 228, "1", "gone")
    figure.badge(260, 228, "2")
    figure.box(190, 16, 220, 40, "*clients")
    figure.badge(300, 84, "TLS, token")
    balancer = "*load balancer", "picks a replica for each request"
    figure.box(20, 116, 560, 70, *balancer, kind="file")
    figure.box(20, 276, 170, 64, "*replica r0", "killed", kind="gone")
    figure.box(215, 276, 170, 64, "*replica r1", "ready", kind="work")
    figure.box(410, 276, 170, 64, "*replica r2", "ready", kind="work")
    figure.badge(33, 372, "1", "gone")
    figure.text(56, 378, "<lost with its replica")
    figure.badge(33, 404, "2")
    again = "<sent again to another replica:"
    figure.lines(56, 410, again, "<over HTTP by HAProxy, over gRPC by the client")
    return figure


def cluster():
    """18: the objects of deploy/kubernetes, and who looks at what."""
    figure = Figure(
        442,
        "The objects in Kubernetes, and who looks at what",
        "Clients find the pods by a Service, their address: one for HTTP, and for "
        "gRPC the addresses of all pods. A Deployment keeps the pods alive: each runs"
        " one Triton on one GPU. Probes ask each pod whether it is ready and whether "
        "it is live. Prometheus reads the pods' counters. The metrics adapter makes "
        "of them the milliseconds in the queue. The autoscaler reads this number and "
        "sets the number of replicas of the Deployment, 2 to 8. The disruption budget"
        " lets one pod at a time go when nodes are emptied.",
    )
    figure.arrow((105, 84), (105, 120))
    figure.arrow((190, 152), (215, 152))
    figure.arrow((190, 258), (215, 258))
    figure.arrow((300, 84), (300, 120))
    figure.arrow((385, 258), (410, 258))
    figure.arrow((495, 226), (495, 184))
    figure.arrow((495, 120), (495, 84))
    figure.arrow((410, 52), (385, 52))
    figure.arrow((300, 330), (300, 298))
    figure.box(20, 20, 170, 64, "*clients", "HTTP, gRPC")
    figure.box(20, 120, 170, 64, "*Service", "their address", kind="file")
    figure.box(20, 226, 170, 64, "*probes", "ready? live?", kind="check")
    figure.box(215, 20, 170, 64, "*Deployment", "keeps pods alive", kind="file")
    figure.box(215, 120, 170, 178, kind="work")
    figure.text(300, 147, "*pods")
    for y in 160, 204, 248:
        figure.box(229, y, 142, 38, "Triton, GPU")
    figure.box(410, 20, 170, 64, "*autoscaler", "2 to 8 replicas", kind="file")
    figure.box(410, 120, 170, 64, "*adapter", "ms in the queue", kind="file")
    figure.box(410, 226, 170, 64, "*Prometheus", "reads counters")
    budget = "*disruption budget", "one pod at a time when nodes are emptied"
    figure.box(20, 330, 560, 64, *budget, kind="file")
    figure.text(300, 422, "yellow: a file in deploy/kubernetes")
    return figure


FIGURES = (
    path,
    bottleneck,
    parity,
    build,
    layers,
    config,
    request,
    binary,
    qdq,
    loops,
    batcher,
    ensemble,
    rollout,
    drain,
    replicas,
    cluster,
)


def draw(folder=FOLDER):
    """Write every diagram as ``NAME.svg``."""
    folder.mkdir(exist_ok=True)
    for make in FIGURES:
        (folder / f"{make.__name__}.svg").write_text(make().svg())


def use_common_brackets(route):
    """Write shapes in brackets that more fonts have than the Chinese ones."""
    response = route.fetch()
    body = response.text().replace("\\u3008", "\\u27e8").replace("\\u3009", "\\u27e9")
    route.fulfill(response=response, body=body)


def photograph_graph(path=FOLDER / "netron.png"):
    """The first nodes of ``artifacts/resnet50.onnx``, as Netron shows them."""
    import netron
    from playwright.sync_api import sync_playwright

    model = str(paths.artifact("resnet50.onnx"))
    host, port = netron.start(model, ("127.0.0.1", 0), browse=False)
    address = f"http://{host}:{port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        context = browser.new_context(viewport={"width": 600, "height": 560})
        # As if its question about usage reports had been answered; nothing is sent.
        context.add_cookies([{"name": "consent", "value": "1", "url": address}])
        page = context.new_page()
        page.route(lambda url: not url.startswith(address), lambda x: x.abort())
        page.route(f"{address}/view.js", use_common_brackets)
        page.goto(address)
        page.get_by_text("MaxPool").wait_for()
        page.screenshot(path=path, clip={"x": 0, "y": 80, "width": 600, "height": 480})
        browser.close()
    netron.stop((host, port))


if __name__ == "__main__":
    draw()
    photograph_graph()
