"""The manifests: rendered by kubectl, held against Kubernetes' schemas and our own policy."""

import base64
import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import kubernetes_validate
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from penstock.api import shapes
from penstock.settings import secret_files
from penstock.settings.sections import Autoscale
from penstock.settings.worker import Worker
from penstock.telemetry.metrics import Metrics
from tests.ship.policy import faults
from tests.ship.reading import DOCKERFILE, MANIFESTS, Doc, pod_specs, render, settings_of

OVERLAYS = ("minikube", "k3s", "production")
# Kinds of operators, whose schemas kubernetes-validate doesn't have.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
CLOSING_S = 5

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl on PATH: the manifests are not rendered"
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Doc]]:
    place = tmp_path_factory.mktemp("manifests")
    made = {name: render(Path("overlays") / name, place) for name in OVERLAYS}
    return lambda name: copy.deepcopy(made[name])


Rendered = Callable[[str], list[Doc]]


def one(docs: list[Doc], kind: str, name: str = "penstock") -> Doc:
    found = [d for d in docs if d["kind"] == kind and d["metadata"]["name"].startswith(name)]
    assert found, f"no {kind} {name}"
    return found[0]


@pytest.mark.parametrize(
    ("overlay", "version"), [*((name, "1.37") for name in OVERLAYS), ("production", "1.32")]
)
def test_every_object_has_the_shape_that_kubernetes_wants(
    rendered: Rendered, overlay: str, version: str
) -> None:
    docs = rendered(overlay)
    assert len(docs) >= 15
    for doc in docs:
        assert doc["kind"] == "Namespace" or doc["metadata"]["namespace"] == "penstock"
        if doc["kind"] not in FOREIGN:
            kubernetes_validate.validate(doc, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_keeps_the_policy(rendered: Rendered, overlay: str) -> None:
    pods = dict(pod_specs(rendered(overlay)))
    assert {"Deployment/penstock", "Job/penstock-migrate"} <= pods.keys()
    for name, pod in pods.items():
        assert faults(pod, is_job=name.startswith("Job/")) == [], name


SPOILT: dict[str, Callable[[Doc], Any]] = {
    "may run as root": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "no seccomp": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "PENSTOCK_PORT": lambda pod: pod.pop("enableServiceLinks"),
    "token for the cluster": lambda pod: pod.pop("automountServiceAccountToken"),
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "hostPath": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "more rights": lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    "capabilities": lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"),
    "into its root": lambda pod: pod["containers"][0]["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "moving target": lambda pod: pod["containers"][0].update(image="penstock:latest"),
    "no digest": lambda pod: pod["containers"][0].update(image="redis:8"),
    "lacks limits": lambda pod: pod["containers"][0]["resources"].pop("limits"),
    "no probes": lambda pod: pod["containers"][0].pop("livenessProbe"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_the_policy_sees_what_is_wrong(rendered: Rendered, fault: str) -> None:
    pod = dict(pod_specs(rendered("minikube")))["Deployment/penstock"]
    SPOILT[fault](pod)
    assert [text for text in faults(pod, is_job=False) if fault in text], fault


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_our_variables_and_files_are_settings(
    rendered: Rendered, overlay: str, tmp_path: Path
) -> None:
    docs = rendered(overlay)
    deployment = one(docs, "Deployment")
    environ = {v["name"]: v["value"] for v in _container(deployment)["env"]}
    (name,) = _sources(deployment, "configMap")
    files = one(docs, "ConfigMap", name)["data"]
    secrets = {
        "postgres.dsn": "postgres://a:b@c/d",
        "redis.url": "redis://:r@s/0",
        "auth.jwt_secret": "x" * 40,
    }
    if overlay != "production":
        (name,) = _sources(deployment, "secret")
        data = one(docs, "Secret", name)["data"]
        secrets = {key: base64.b64decode(text).decode() for key, text in data.items()}
    settings = settings_of(tmp_path, environ, secrets, files)
    assert (settings.env, settings.broker) == ("production", "kafka")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_and_secrets_are_mounted_where_they_are_looked_for(
    rendered: Rendered, overlay: str
) -> None:
    docs = rendered(overlay)
    for workload in (one(docs, "Deployment"), one(docs, "Job")):
        mounts = {m["name"]: m["mountPath"] for m in _container(workload)["volumeMounts"]}
        assert mounts["secrets"] == str(secret_files.DIRECTORY)
        assert f"PENSTOCK_CONFIG_DIR={mounts['settings']} " in DOCKERFILE.read_text()


def _container(workload: Doc) -> Doc:
    first: Doc = workload["spec"]["template"]["spec"]["containers"][0]
    return first


def _sources(workload: Doc, kind: str) -> list[str]:
    key = {"configMap": "name", "secret": "secretName"}[kind]
    volumes = workload["spec"]["template"]["spec"]["volumes"]
    return [volume[kind][key] for volume in volumes if kind in volume]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_end_its_work(rendered: Rendered, overlay: str) -> None:
    spec = one(rendered(overlay), "Deployment")["spec"]
    pod = spec["template"]["spec"]
    pause_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = Worker().drain_grace_s
    assert pod["terminationGracePeriodSeconds"] >= pause_s + drain_s + 2 * CLOSING_S
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_goes_in_or_out_unless_it_is_named(rendered: Rendered, overlay: str) -> None:
    docs = rendered(overlay)
    deny = one(docs, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    labels = one(docs, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    public = one(docs, "NetworkPolicy", "public-addresses")["spec"]["egress"]
    blocks = [to["ipBlock"] for rule in public for to in rule["to"]]
    assert all(len(block["except"]) >= 3 for block in blocks)


def test_production_can_lose_a_node_and_grow(rendered: Rendered) -> None:
    docs = rendered("production")
    assert one(docs, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    deployment = one(docs, "Deployment")["spec"]
    assert "replicas" not in deployment, "a deployment would undo what the autoscaler did"
    assert len(deployment["template"]["spec"]["topologySpreadConstraints"]) == 2
    scaled = one(docs, "ScaledObject")["spec"]
    assert scaled["minReplicaCount"] >= 2
    assert scaled["maxReplicaCount"] <= Autoscale().replicas_max
    asked = scaled["triggers"][0]["metadata"]
    assert asked["url"].endswith("/v1/autoscale")
    assert (asked["valueLocation"], asked["targetValue"]) == ("desired_replicas", "1")
    assert asked["valueLocation"] in get_type_hints(shapes.Autoscale)


def test_in_production_servers_cannot_change_the_schema(rendered: Rendered) -> None:
    docs = rendered("production")
    job = one(docs, "Job")
    assert _container(job)["args"] == ["migrate", "--grant-to", "penstock"]
    assert _sources(job, "secret") == ["penstock-owner"]
    assert _sources(one(docs, "Deployment"), "secret") == ["penstock"]


def test_who_deploys_may_apply_all_of_it_and_read_no_secret(rendered: Rendered) -> None:
    docs = list(yaml.safe_load_all((MANIFESTS / "deployer.yaml").read_text()))
    rules = one(docs, "Role", "deployer")["rules"]
    may = {name for rule in rules if "patch" in rule["verbs"] for name in rule["resources"]}
    for doc in rendered("production"):
        kind = re.sub("y$", "ie", doc["kind"].lower())
        assert may & {f"{kind}s", f"{kind}es"}, f"deployer may not apply a {doc['kind']}"
    everything = {name for rule in rules for name in rule["resources"]}
    assert not {"secrets", "roles", "rolebindings", "*"} & everything


def test_alerts_ask_for_metrics_that_there_are(rendered: Rendered) -> None:
    known = {name for metric in Metrics().registry.collect() for name in _names(metric)}
    groups = one(rendered("production"), "PrometheusRule")["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    made = {rule["record"] for rule in rules if "record" in rule}
    assert len(rules) >= 20
    for rule in rules:
        asked = set(re.findall(r"[\w:]*penstock_[\w:]+", rule["expr"]))
        assert asked <= known | made, f"{rule['expr']}: {asked - known - made}"


def _names(metric: Metric) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {metric.name + suffix for suffix in suffixes.get(metric.type, ("",))}
