"""Is a cluster there, and does it let us in: asked directly, so that the answer is quick and exact.

Ray's own clients wait 20 s and more and then say only that they could not connect.
"""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import ray
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from ensemble_svc.cluster.auth import REMEDY, Token
from ensemble_svc.errors import ClusterError

TIMEOUT_S = 5.0


def check_port(host: str, port: int, *, address: str) -> None:
    """Open and close one TCP connection.

    Raises:
        ClusterError: nothing answers.
    """
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except OSError as fault:
        why = fault.strerror or str(fault) or type(fault).__name__
        raise ClusterError(
            f"no cluster answers at {address}: {why.lower()}. Is it running, is the port right (by "
            "default 6379 for train, 8265 for submit), does a firewall or a missing tunnel stand between?"
        ) from fault


def check_head(address: str, token: Token | None) -> Token | None:
    """Ask the head at ``host:port`` whether it is alive and takes the token.

    Returns:
        The token if the cluster asks for one, None if it is open to everybody.

    Raises:
        ClusterError: not a Ray head, another version of Ray, or the token is missing or wrong.
    """
    host, _, port = address.rpartition(":")
    check_port(host.strip("[]"), int(port), address=address)
    refused = _ask(address, None)
    if refused and (token is None or _ask(address, token)):
        raise ClusterError(token_fault(address, token))
    return token if refused else None


def check_jobs(address: str, token: Token | None, *, insecure: bool = False) -> Token | None:
    """The same for the jobs' address, ``http://host:port``.

    Raises:
        ClusterError: also when the cluster lets everybody in, unless ``insecure``.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"'{address}' is not the address of a cluster's job service; it is written http://host:8265."
        )
    check_port(parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme], address=address)
    match _get(f"{address.rstrip('/')}/api/jobs/", {}):
        case 200 if not insecure:
            raise ClusterError(
                f"the cluster at {address} runs what anybody sends it: it was started without "
                "authentication. Start it with RAY_AUTH_MODE=token (see cluster.yaml), or accept it with "
                "--insecure."
            )
        case 200:
            return None
        case 401 | 403:
            if token is None or _get(f"{address.rstrip('/')}/api/jobs/", token.header) in (401, 403):
                raise ClusterError(token_fault(address, token))
            return token
        case status:
            raise ClusterError(f"{address} answers, but not as a Ray job service (HTTP status {status}).")


def token_fault(address: str, token: Token | None) -> str:
    """The sentence for a missing or wrong token."""
    if token is None:
        return f"the cluster at {address} asks for a token and none was found. {REMEDY}"
    return f"the cluster at {address} refused the token from {token.source}, it is another's. {REMEDY}"


def _ask(address: str, token: Token | None) -> bool:
    """Whether the head refuses this token."""
    metadata = tuple((name.lower(), value) for name, value in token.header.items()) if token else ()
    with grpc.insecure_channel(address) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            request = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
            reply = stub.CheckAlive(request, timeout=TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as fault:
            if fault.code() == grpc.StatusCode.UNAUTHENTICATED:
                return True
            raise ClusterError(
                f"{address} answers, but not as the head of a Ray cluster; its port is 6379 by default."
            ) from fault
    if reply.ray_version and reply.ray_version != ray.__version__:
        raise ClusterError(
            f"the cluster at {address} runs Ray {reply.ray_version}, here it is {ray.__version__}; "
            "they must be equal."
        )
    return False


def _get(url: str, headers: dict[str, str]) -> int:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as fault:
        return fault.code
    except OSError as fault:
        raise ClusterError(f"{url} does not answer: {fault}.") from fault
