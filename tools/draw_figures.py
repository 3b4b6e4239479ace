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


FIGURES = (path, bottleneck, parity, build, layers, config, request, binary)


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
