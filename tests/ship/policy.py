"""What a pod must be like: Kubernetes' restricted profile, and what a small team forgets.

`faults(pod)` answers what is wrong, one text each; an empty list is a good pod. (The profile:
https://kubernetes.io/docs/concepts/security/pod-security-standards/)
"""

from collections.abc import Iterator
from typing import Any

from tests.ship.reading import PINNED

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
_VOLUMES |= {"persistentVolumeClaim"}
# The image's start writes there, which is said beside the setting.
_WRITES_ITS_ROOT = {"apache/kafka"}


def faults(pod: dict[str, Any], *, is_job: bool) -> list[str]:
    return [*_of_pod(pod), *(fault for one in _containers(pod) for fault in _of(one, is_job))]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod.get("enableServiceLinks") is not False:
        yield "gets variables of the namespace's services, PENSTOCK_PORT or KAFKA_PORT say"
    if pod.get("automountServiceAccountToken") is not False:
        yield "gets a token for the cluster's API"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"has {name}"
    for volume in pod.get("volumes", []):
        if not volume.keys() - {"name"} <= _VOLUMES:
            yield f"mounts {sorted(volume.keys() - {'name'})}"


def _of(one: dict[str, Any], is_job: bool) -> Iterator[str]:
    name, image = one["name"], one["image"]
    repository = image.partition("@")[0].rpartition(":")[0]
    context = one.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield f"{name} may get more rights"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} keeps capabilities"
    if not context.get("readOnlyRootFilesystem") and repository not in _WRITES_ITS_ROOT:
        yield f"{name} may write into its root"
    if not repository or image.endswith(":latest"):
        yield f"{name}: {image} is a moving target"
    if "penstock" not in image and not PINNED.fullmatch(image):
        yield f"{name}: {image} has no digest"
    for kind in ("requests", "limits"):
        if {"cpu", "memory"} != one.get("resources", {}).get(kind, {}).keys():
            yield f"{name} lacks {kind}"
    if not is_job and not {"livenessProbe", "readinessProbe"} <= one.keys():
        yield f"{name} has no probes"
