"""The files in deploy/ fit their schemas, each other, and what the server answers."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kubernetes.client
import numpy as np
import onnxruntime as ort
import psutil
import pytest
import tritonclient.grpc as grpcclient
import yaml

import embedded_triton
from conftest import NULL_CONFIG, started
from embedded_triton import commands, versions
from embedded_triton.supervisor import start_supervised
from helpers import load_client, metrics, paths
from helpers.null_model import write_null_model
from tools import read_kserve_models

DEPLOY = paths.ROOT / "deploy"
COMPOSE = [DEPLOY / "compose.yaml", DEPLOY / "compose.gpu.yaml"]
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KSERVE = sorted((DEPLOY / "kserve").glob("*.yaml"))
SCHEMA = json.loads(
    Path(__file__).parents[1].joinpath("data/kserve_models.json").read_text()
)
LABELS = {"app.kubernetes.io/name": "classifier"}


def manifests(files):
    """The manifests of these files by (kind, name)."""
    found = [x for file in files for x in yaml.safe_load_all(file.read_text())]
    named = {(x["kind"], x["metadata"]["name"]): x for x in found}
    assert len(named) == len(found)
    return named


@pytest.fixture(scope="module")
def cluster():
    return manifests(KUBERNETES)


@pytest.fixture(scope="module")
def deployment(cluster):
    return cluster["Deployment", "classifier"]["spec"]


@pytest.fixture(scope="module")
def container(deployment):
    (container,) = deployment["template"]["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def runtime():
    return manifests(KSERVE)["ServingRuntime", "triton-26.09"]["spec"]


@pytest.fixture(scope="module")
def predictor():
    return manifests(KSERVE)["InferenceService", "classifier"]["spec"]["predictor"]


def option(arguments, name):
    """The value of ``--name=value`` in a list of arguments."""
    (value,) = (x.partition("=")[2] for x in arguments if x.startswith(f"--{name}="))
    return value


# ----------------------------------------------------------------------- schemas


def check_compose(*files):
    command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]
    result = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True
    )
    return result.returncode, result.stdout


def check_kubernetes(text):
    """Hold the manifests of a YAML text against the models of Kubernetes' package.

    The models take ``max_unavailable`` for ``maxUnavailable``, which a cluster does
    not: so what they read is compared with the file.
    """
    for manifest in yaml.safe_load_all(text):
        version = manifest["apiVersion"].rpartition("/")[2].capitalize()
        model = getattr(kubernetes.client, version + manifest["kind"])
        read = model.model_validate(manifest).model_dump(
            by_alias=True, exclude_none=True
        )
        assert read == manifest, f"{read} was read, not {manifest}"


def test_compose_fits_its_specification(tmp_path):
    assert check_compose(*COMPOSE)[0] == 0
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE[0].read_text().replace("healthcheck:", "healthchecks:"))
    status, text = check_compose(wrong)
    assert status == 1 and "'healthchecks' was unexpected" in text


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda x: x.stem)
def test_manifests_fit_kubernetes(file):
    check_kubernetes(file.read_text())


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("readinessProbe:", "readynessProbe:", "readynessProbe"),
        ("maxSurge: 1", "maxsurge: 1", "maxsurge"),
        ("failureThreshold: 60", "failureThreshold: many", "valid integer"),
        ("  selector:\n", "  select:\n", "selector"),
        ("periodSeconds: 2", "period_seconds: 2", "was read, not"),  # Python's name
    ],
)
def test_a_wrong_manifest_does_not(right, wrong, message):
    text = (DEPLOY / "kubernetes/deployment.yaml").read_text()
    assert right in text
    with pytest.raises((ValueError, AssertionError), match=message):
        check_kubernetes(text.replace(right, wrong, 1))


PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
QUANTITIES = "ResourceQuantity", "V1beta1MetricQuantity"


def check_kserve(value, kind, where):
    """Hold a value against a type of KServe, by the models of its Python package.

    Raises:
        ValueError: the value does not fit; the message says where and why.
    """
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        check_type(value, list, where)
        for i, item in enumerate(value):
            check_kserve(item, match[1], f"{where}[{i}]")
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        check_type(value, dict, where)
        for key, item in value.items():
            check_kserve(item, match[1], f"{where}.{key}")
    elif kind in SCHEMA["models"]:
        check_type(value, dict, where)
        model = SCHEMA["models"][kind]
        if unknown := set(value) - set(model["fields"]):
            raise ValueError(f"{where}: {kind} has no field {', '.join(unknown)}")
        if missing := set(model["required"]) - set(value):
            raise ValueError(f"{where}: {', '.join(missing)} is missing")
        for key, item in value.items():
            check_kserve(item, model["fields"][key], f"{where}.{key}")
    elif kind in PLAIN:
        check_type(value, PLAIN[kind], where)
    elif kind in QUANTITIES:
        check_type(value, (str, int), where)
    else:  # a type of Kubernetes
        model = getattr(kubernetes.client, kind).model_validate(value)
        read = model.model_dump(by_alias=True, exclude_none=True)
        if read != value:
            raise ValueError(f"{where}: {read} was read, not {value}")


def check_type(value, expected, where):
    if not isinstance(value, expected) or (
        isinstance(value, bool) and expected is not object and expected is not bool
    ):
        raise ValueError(f"{where}: found {value!r}, expected {expected}")


def check_kserve_manifest(text):
    manifest = yaml.safe_load(text)
    group, version = manifest["apiVersion"].split("/")
    assert group == "serving.kserve.io"
    check_kserve(manifest, version.capitalize() + manifest["kind"], manifest["kind"])


@pytest.mark.parametrize("file", KSERVE, ids=lambda x: x.stem)
def test_manifests_fit_kserve(file):
    check_kserve_manifest(file.read_text())


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("storageUri:", "storageURI:", "no field storageURI"),
        ("minReplicas: 2", "minReplicas: two", "found 'two', expected"),
        ("modelFormat:", "modelFormats:", "no field modelFormats"),
    ],
)
def test_a_wrong_inference_service_does_not(right, wrong, message):
    text = (DEPLOY / "kserve/service.yaml").read_text()
    assert right in text
    with pytest.raises(ValueError, match=message):
        check_kserve_manifest(text.replace(right, wrong, 1))


def test_a_wrong_probe_of_a_runtime_does_not():  # a type of Kubernetes in KServe's
    text = (DEPLOY / "kserve/runtime.yaml").read_text()
    with pytest.raises(ValueError, match="failures"):
        check_kserve_manifest(text.replace("failureThreshold: 2", "failures: 2", 1))


def test_the_schema_is_read_out_of_a_model_of_kserves_package():
    source = """
class V1Thing(object):
    openapi_types = {"first_name": "str", "sizes": "list[int]"}
    attribute_map = {"first_name": "firstName", "sizes": "sizes"}

    def check(self, first_name):
        raise ValueError("Invalid value for `first_name`, must not be `None`")
"""
    fields = {"firstName": "str", "sizes": "list[int]"}
    expected = {"fields": fields, "required": ["firstName"]}
    assert read_kserve_models.read(source) == ("V1Thing", expected)


def write_kserve_model(wheel, name, file, **fields):
    attributes = {x: x for x in fields}
    source = f"class {name}:\n    openapi_types = {fields}\n"
    source += f"    attribute_map = {attributes}\n"
    wheel.writestr(f"kserve/models/{file}.py", source)


def test_the_models_that_a_service_can_hold_are_read(monkeypatch, tmp_path):
    (tmp_path / "tests/data").mkdir(parents=True)
    monkeypatch.setattr(read_kserve_models, "__file__", str(tmp_path / "tools/x.py"))
    with zipfile.ZipFile(tmp_path / "kserve.whl", "w") as wheel:
        root = "V1beta1InferenceService"
        write_kserve_model(wheel, root, "v1beta1_service", spec="list[V1beta1Spec]")
        write_kserve_model(wheel, "V1beta1Spec", "v1beta1_spec", age="int")
        write_kserve_model(wheel, "V1beta1Other", "v1beta1_other", age="int")
    read_kserve_models.main(tmp_path / "kserve.whl")
    found = json.loads((tmp_path / "tests/data/kserve_models.json").read_text())
    assert [*found["models"]] == [root, "V1beta1Spec"]


# ----------------------------------------------------------------- cross-checks


def test_every_file_names_the_image_of_the_project():
    names = [
        x
        for file in [*COMPOSE, *KUBERNETES, *KSERVE]
        for x in re.findall(r"image: (\S+tritonserver\S+)", file.read_text())
    ]
    assert names == [versions.CONTAINER.where] * 3


def test_tritonserver_knows_every_argument(container, runtime):
    compose = yaml.safe_load(COMPOSE[0].read_text())["services"]["triton"]
    for command in (
        compose["command"],
        container["args"],
        runtime["containers"][0]["args"],
    ):
        assert command[0] == "tritonserver"
        commands.check_arguments(command[1:])


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def test_compose_publishes_on_the_loopback_address_only():
    services = yaml.safe_load(COMPOSE[0].read_text())["services"]
    ports = [x for service in services.values() for x in service["ports"]]
    assert len(ports) == 4
    assert all(x.startswith("127.0.0.1:") for x in ports)
    assert "network_mode" not in COMPOSE[0].read_text()


def test_compose_waits_longer_than_triton():
    triton = yaml.safe_load(COMPOSE[0].read_text())["services"]["triton"]
    timeout = int(option(triton["command"], "exit-timeout-secs"))
    assert timeout < seconds(triton["stop_grace_period"])


def test_compose_serves_the_repository_which_nobody_in_it_can_change():
    triton = yaml.safe_load(COMPOSE[0].read_text())["services"]["triton"]
    assert option(triton["command"], "load-model") == "classifier_onnx"
    mounted, inside, mode = triton["volumes"][0].split(":")
    assert (DEPLOY / mounted).resolve() == paths.MODEL_REPOSITORY
    assert option(triton["command"], "model-repository") == inside
    assert mode == "ro"
    assert triton["security_opt"] == ["no-new-privileges:true"]
    assert triton["shm_size"] == "1gb"


def test_compose_starts_again_what_ended_and_waits_for_a_ready_server():
    services = yaml.safe_load(COMPOSE[0].read_text())["services"]
    assert {x["restart"] for x in services.values()} == {"unless-stopped"}
    waits = services["prometheus"]["depends_on"]["triton"]
    assert waits == {"condition": "service_healthy"}
    check = services["triton"]["healthcheck"]
    assert seconds(check["start_period"]) >= 60  # loading is no failure
    assert seconds(check["timeout"]) < seconds(check["interval"])


def test_compose_only_adds_to_what_is_there():
    first, second = (yaml.safe_load(x.read_text())["services"] for x in COMPOSE)
    assert set(second) <= set(first)
    reserved = second["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_prometheus_reads_the_server_of_compose(server):
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    services = yaml.safe_load(COMPOSE[0].read_text())["services"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert port == "8002"  # Triton's metrics; 8000 would be its HTTP endpoint
    assert f"127.0.0.1:{port}:{port}" in services[host]["ports"]
    answers(server, job["metrics_path"], "metrics")
    # The adapter's rates are over one minute: a few readings have to be in it.
    assert seconds(config["global"]["scrape_interval"]) <= 15
    mounted = services["prometheus"]["volumes"][0].split(":")[0]
    assert (DEPLOY / mounted).exists()


def answers(server, path, port="http"):
    with urllib.request.urlopen(f"http://{getattr(server, port)}{path}") as answer:
        assert answer.status == 200


def test_labels_match(cluster, deployment):
    assert deployment["selector"]["matchLabels"] == LABELS
    template = deployment["template"]
    assert template["metadata"]["labels"].items() >= LABELS.items()
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == LABELS
    for name in "classifier", "classifier-grpc":
        assert cluster["Service", name]["spec"]["selector"] == LABELS
    budget = cluster["PodDisruptionBudget", "classifier"]["spec"]
    assert budget["selector"]["matchLabels"] == LABELS


def test_ports_match(cluster, container, deployment, server):
    ports = {x["name"]: x["containerPort"] for x in container["ports"]}
    assert ports == {"http": 8000, "grpc": 8001, "metrics": 8002}  # Triton's own
    for name, (port,) in {
        name: cluster["Service", name]["spec"]["ports"]
        for name in ("classifier", "classifier-grpc")
    }.items():
        assert ports[port["targetPort"]] == port["port"], name
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    answers(server, annotations["prometheus.io/path"], "metrics")


@pytest.mark.server
def test_no_request_is_lost_when_connections_end(tmp_path, connect):
    """With a client that repeats: without, some of 600 kB are, in the long run."""
    config = NULL_CONFIG.replace("dims: [ 4 ]", "dims: [ 150528 ]")
    write_null_model(tmp_path, "nothing", config)
    tensor = grpcclient.InferInput("x", [1, 150528], "FP32")
    tensor.set_data_from_numpy(np.zeros(tensor.shape(), np.float32))
    with started(tmp_path, arguments=["--grpc-max-connection-age=300"]) as server:
        port = int(server.grpc.split(":")[1])
        ends, end = set(), time.monotonic() + 2

        def ask_until_the_end(_):
            while time.monotonic() < end:
                client.infer("nothing", [tensor])
                ends.update(
                    x.laddr.port
                    for x in psutil.Process().net_connections("tcp")
                    if x.raddr and x.raddr.port == port
                )

        with connect(server.grpc) as client, ThreadPoolExecutor(4) as pool:
            list(pool.map(ask_until_the_end, range(4)))
    assert len(ends) > 1  # connections did end


READY, LIVE = "/v2/health/ready", "/v2/health/live"


@pytest.mark.parametrize("where", ["kubernetes", "kserve"])
def test_requests_go_to_who_is_ready_and_who_is_not_live_is_restarted(
    where, container, runtime, predictor
):
    """Live in place of ready sends requests to a pod without models; the other way
    round, a pod that loads a model or is taken out is killed."""
    pod, port = container, "http"
    if where == "kserve":
        (pod,), port = runtime["containers"], 8080
        assert not [x for x in predictor["model"] if x.endswith("Probe")]  # merged
    probes = {x: pod[f"{x}Probe"] for x in ("startup", "readiness", "liveness")}
    asked = {name: probe["httpGet"] for name, probe in probes.items()}
    assert asked == {
        "startup": {"path": READY, "port": port},
        "readiness": {"path": READY, "port": port},
        "liveness": {"path": LIVE, "port": port},
    }
    patience = {
        name: probe["periodSeconds"] * probe["failureThreshold"]
        for name, probe in probes.items()
    }
    assert patience["readiness"] <= 10 < 20 <= patience["liveness"]
    assert patience["startup"] >= 120  # download, load and warm-up


def test_compose_calls_a_server_healthy_that_is_ready():
    triton = yaml.safe_load(COMPOSE[0].read_text())["services"]["triton"]
    *command, url = triton["healthcheck"]["test"]
    assert command == ["CMD", "curl", "--fail", "--silent"]  # --fail: 400 is an error
    assert url == f"http://127.0.0.1:8000{READY}"


def test_the_server_answers_the_paths_of_the_probes(server):
    answers(server, READY)
    answers(server, LIVE)
    with pytest.raises(urllib.error.HTTPError):
        answers(server, "/v2/health/readyness")


def test_a_pod_has_the_time_to_finish(container, deployment):
    grace = deployment["template"]["spec"]["terminationGracePeriodSeconds"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 5  # requests go on coming until every node has learnt of it
    assert pause + int(option(container["args"], "exit-timeout-secs")) < grace


def test_a_new_pod_comes_before_an_old_one_goes(deployment):
    strategy = deployment["strategy"]
    assert strategy["type"] == "RollingUpdate"
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def gibibytes(text):
    return int(re.fullmatch(r"(\d+)Gi", text)[1])


def test_a_replica_has_one_gpu_and_its_memory(
    container, deployment, runtime, predictor
):
    limits = container["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert predictor["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    spec = deployment["template"]["spec"]
    for pod, volumes in (
        (container, spec["volumes"]),
        (runtime["containers"][0], runtime["volumes"]),
    ):
        limit = gibibytes(pod["resources"]["limits"]["memory"])
        assert gibibytes(pod["resources"]["requests"]["memory"]) <= limit
        (mount,), (volume,) = pod["volumeMounts"], volumes
        assert mount == {"name": volume["name"], "mountPath": "/dev/shm"}
        assert volume["emptyDir"]["medium"] == "Memory"
        assert gibibytes(volume["emptyDir"]["sizeLimit"]) < limit


def test_no_pod_may_more_than_it_needs(container, deployment, runtime):
    spec = deployment["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (other,) = runtime["containers"]
    for user in spec["securityContext"], other["securityContext"]:
        assert user["runAsNonRoot"] is True and user["runAsUser"] == 1000
    for pod in container, other:
        assert pod["securityContext"]["allowPrivilegeEscalation"] is False
        assert pod["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_nobody_loads_a_model_from_outside(container, runtime):
    for pod in container, *runtime["containers"]:
        assert not [x for x in pod["args"] if "model-control-mode" in x]  # none


def test_grpc_clients_find_all_pods_and_nobody_outside_does(cluster, container):
    http, grpc = (
        cluster["Service", x]["spec"] for x in ("classifier", "classifier-grpc")
    )
    assert http["type"] == "ClusterIP" and "clusterIP" not in http
    assert grpc["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in grpc
    age = int(option(container["args"], "grpc-max-connection-age"))
    assert 60_000 <= age <= 3_600_000  # ms: a minute to an hour


def test_the_secret_is_named_and_not_stored(container):
    assert container["envFrom"] == [{"secretRef": {"name": "model-store"}}]
    text = (DEPLOY / "kubernetes/deployment.yaml").read_text()
    assert "create secret generic model-store" in text
    assert "Secret" not in {kind for kind, _ in manifests(KUBERNETES)}


def test_the_autoscaler_finds_what_it_scales_and_reads(cluster):
    spec = cluster["HorizontalPodAutoscaler", "classifier"]["spec"]
    target = spec["scaleTargetRef"]
    assert (target["kind"], target["name"]) in cluster
    assert target["apiVersion"] == cluster["Deployment", "classifier"]["apiVersion"]
    assert "replicas" not in cluster["Deployment", "classifier"]["spec"]
    budget = cluster["PodDisruptionBudget", "classifier"]["spec"]
    assert spec["maxReplicas"] > spec["minReplicas"] > budget["maxUnavailable"]
    assert budget["maxUnavailable"] > 0  # with 0 no node could be emptied
    (metric,) = spec["metrics"]
    assert metric["pods"]["metric"]["name"] == rule(cluster)["name"]["as"]
    target = metric["pods"]["target"]
    assert target["type"] == "AverageValue"
    assert 1 <= float(target["averageValue"]) <= 100  # ms: no suffix, which scales
    up, down = (spec["behavior"][x] for x in ("scaleUp", "scaleDown"))
    wait = "stabilizationWindowSeconds"
    assert up[wait] < 60 <= down[wait]  # soon up, late down


def test_kserve_finds_its_runtime(runtime, predictor):
    model, (container,) = predictor["model"], runtime["containers"]
    assert model["runtime"] == "triton-26.09"
    assert model["modelFormat"] in runtime["supportedModelFormats"]
    assert model["protocolVersion"] in runtime["protocolVersions"]
    assert container["name"] == "kserve-container"
    port = int(option(container["args"], "http-port"))
    assert port == 8080  # what the probes ask
    assert [x["containerPort"] for x in container["ports"]] == [port]
    assert option(container["args"], "model-repository") == "/mnt/models"
    assert runtime["annotations"]["prometheus.kserve.io/port"] == "8002"
    assert not [x for x in container["args"] if "metrics-port" in x]  # Triton's own


def test_kserve_scales_by_what_its_mode_can_count(runtime, predictor):
    """Requests under way are counted by Knative's proxy alone, and Knative gives a pod
    the time of a request to end."""
    service = manifests(KSERVE)["InferenceService", "classifier"]
    mode = service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    assert (mode, predictor["scaleMetric"]) == ("Knative", "concurrency")
    assert predictor["maxReplicas"] > predictor["minReplicas"] >= 2
    assert "containerConcurrency" not in predictor  # no limit: Triton has its queue
    (container,) = runtime["containers"]
    assert int(option(container["args"], "exit-timeout-secs")) < predictor["timeout"]


def test_both_clusters_serve_the_same_release(container, predictor):
    kubernetes = option(container["args"], "model-repository")
    assert kubernetes == predictor["model"]["storageUri"]


# ------------------------------------------------------------- object storage


class Storage(http.server.BaseHTTPRequestHandler):
    """As much of S3 as Triton asks for: one bucket with one release of the models."""

    protocol_version = "HTTP/1.1"

    def files(self):
        for file in paths.MODEL_REPOSITORY.rglob("*"):
            if file.is_file():
                name = file.relative_to(paths.MODEL_REPOSITORY)
                yield f"{self.server.release}/{name}".partition("/")[2], file

    def do_GET(self):
        signed = self.headers["Authorization"]  # ... Credential=KEY/DAY/REGION/s3/...
        key, _, region, *_ = re.search(r"Credential=([^,]+)", signed)[1].split("/")
        self.server.credentials.add((key, region))
        url = urllib.parse.urlsplit(self.path)
        _, bucket, *key = urllib.parse.unquote(url.path).split("/", 2)
        assert bucket == self.server.release.partition("/")[0]
        if key:
            content = dict(self.files()).get(key[0])
            status, content = (200, content.read_bytes()) if content else (404, b"")
        else:
            status, content = 200, self.listing(urllib.parse.parse_qs(url.query))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Sun, 01 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def listing(self, query):
        prefix = query.get("prefix", [""])[0]
        keys = [key for key, _ in self.files() if key.startswith(prefix)]
        rows = "".join(f"<Contents><Key>{x}</Key></Contents>" for x in keys)
        return f"<ListBucketResult>{rows}</ListBucketResult>".encode()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def storage(container):
    release = option(container["args"], "model-repository").removeprefix("s3://")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage) as found:
        found.release, found.credentials = release, set()
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.mark.server
def test_triton_reads_the_models_from_object_storage(
    artifacts, container, storage, tmp_path
):
    text = (DEPLOY / "kubernetes/deployment.yaml").read_text()
    secret = re.findall(r"--from-literal=(\w+)=", text)
    variables = {x["name"]: x["value"] for x in container["env"]}
    variables |= dict.fromkeys(secret, "from-the-secret")
    address = f"s3://http://127.0.0.1:{storage.server_port}/"
    ports, name = embedded_triton.free_ports(), f"triton-s3-{storage.server_port}-"
    command = commands.embedded_command(address + storage.release, ports, name)
    # The real image serves all models; the embedded server has no TensorRT for two.
    command += ["--model-control-mode=explicit", "--load-model=classifier_onnx"]
    log = tmp_path / "log"
    environment = {**os.environ, **variables}
    process = start_supervised(name, command, log, environment)
    try:
        deadline = time.monotonic() + 60
        while not embedded_triton.server._is_ready(f"127.0.0.1:{ports[0]}"):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        with grpcclient.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
            reference = np.load(artifacts / "reference.npz")["input"][:1]
            tensor = grpcclient.InferInput("input", reference.shape, "FP32")
            tensor.set_data_from_numpy(reference)
            found = client.infer("classifier_onnx", [tensor]).as_numpy("logits")
    finally:
        process.communicate(b"stop")
    session = ort.InferenceSession(artifacts / "classifier.onnx")
    assert np.array_equal(found, session.run(None, {"input": reference})[0])
    region = variables["AWS_DEFAULT_REGION"]
    assert storage.credentials == {("from-the-secret", region)}


# ------------------------------------------------------------- the queue, measured


def rule(cluster):
    """The one rule of the metrics adapter."""
    text = cluster["ConfigMap", "adapter-config"]["data"]["config.yaml"]
    (found,) = yaml.safe_load(text)["rules"]
    return found


def query(rule):
    """What the adapter asks Prometheus about the pods of a namespace."""
    text = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
    text = text.replace("<<.LabelMatchers>>", 'namespace="default",pod=~"r0|r1"')
    assert "<<" not in text
    return text


@pytest.mark.parametrize(
    ("queue", "requests", "expected"),
    [(40_000, 4, 10), (1_000, 100, 0.01), (0, 0, 0)],  # µs/s, requests/s, ms
)
def test_the_rule_is_milliseconds_a_request(cluster, queue, requests, expected):
    values = {
        "nv_inference_queue_duration_us": queue,
        "nv_inference_request_success": requests,
    }
    text = re.sub(
        r"sum by \(pod\) \(rate\((\w+)\{[^}]*\}\[1m\]\)\)",
        lambda found: str(values[found[1]]),
        query(rule(cluster)),
    )
    assert eval(text, {"clamp_min": max}) == pytest.approx(expected)


def test_the_rule_names_metrics_that_the_server_has(cluster, server):
    published = metrics.read_metrics(server)
    for name in re.findall(r"nv_\w+", query(rule(cluster))):
        assert name in published
    assert rule(cluster)["seriesQuery"].startswith("nv_inference_queue_duration_us{")


def program(name):
    """A program of Debian's package prometheus; .ci/run unpacks it there."""
    unpacked = paths.ARTIFACTS / "prometheus/usr/bin" / name
    found = unpacked if unpacked.exists() else shutil.which(name)
    return found or pytest.skip(f"{name} is not installed: apt install prometheus")


def test_prometheus_accepts_its_configuration():
    command = [program("promtool"), "check", "config", DEPLOY / "prometheus.yml"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.fixture
def prometheus(server, tmp_path):
    """A Prometheus that reads the server as the pod r0; yields its address."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "500ms"
    (job,) = config["scrape_configs"]
    pod = {"namespace": "default", "pod": "r0"}
    job["static_configs"] = [{"targets": [server.metrics], "labels": pod}]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{embedded_triton.free_ports(1)[0]}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={file}",
                f"--web.listen-address={address}",
                f"--storage.tsdb.path={tmp_path}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield address
    finally:
        process.terminate()
        process.wait()


def ask(address, text):
    """Values of a query by pod."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
    with urllib.request.urlopen(url) as answer:
        result = json.load(answer)["data"]["result"]
    return {x["metric"].get("pod"): float(x["value"][1]) for x in result}


@pytest.mark.slow
def test_prometheus_computes_what_the_autoscaler_reads(cluster, server, prometheus):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if ask(prometheus, "count_over_time(up[1m])").get("r0", 0) > 2:
                break
        except OSError:
            pass
        time.sleep(0.2)
    text = query(rule(cluster))
    assert ask(prometheus, text) == {"r0": 0}  # nobody asked yet: not 0 / 0
    counters = ["nv_inference_queue_duration_us", "nv_inference_request_success"]
    before = metrics.read_metrics(server)
    load_client.send_requests(server, "classifier_onnx", concurrency=8, seconds=2)
    time.sleep(0.5)  # the metrics follow the answers, and Prometheus reads them later
    after = metrics.read_metrics(server)
    waited, requests = (after[x] - before[x] for x in counters)
    expected = pytest.approx(waited / requests / 1000, rel=0.3)
    deadline = time.monotonic() + 20
    while (found := ask(prometheus, text)["r0"]) != expected:
        assert time.monotonic() < deadline, (found, expected)
        time.sleep(0.2)
