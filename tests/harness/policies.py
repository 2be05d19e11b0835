"""
NetworkPolicies as rules of nftables. Pure: enforcer.py reads the objects and loads the rules.

One chain per Pod and direction that a policy selects: what a rule allows returns, the rest is
dropped. Rules look at packets after kube-proxy gave them a Pod's address instead of a Service's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Object = Mapping[str, Any]

TABLE: Final = "encoder_policies"
HEAD: Final = f"""
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
"""
ANY: Final = ""
DIRECTIONS: Final = {
    # The key of the other side in a policy, how a packet names it, and how it names the Pod.
    "egress": ("to", "daddr", "saddr"),
    "ingress": ("from", "saddr", "daddr"),
}


def render(pods: Sequence[Object], namespaces: Sequence[Object], policies: Sequence[Object]) -> str:
    """A script for `nft -f`, which replaces what was loaded before as a whole."""
    alive = [pod for pod in pods if _has_address(pod)]
    labels = {one["metadata"]["name"]: _labels(one) for one in namespaces}
    chains, jumps = [], []
    for direction, (_, _, mine) in DIRECTIONS.items():
        for pod in alive:
            rules = _rules_of(pod, direction, alive, labels, policies)
            if rules is None:
                continue
            address = pod["status"]["podIP"]
            name = f"{direction}_{address.replace('.', '_')}"
            lines = "\n".join(f"    {rule} return" for rule in sorted(set(rules)))
            chains.append(f"  chain {name} {{\n{lines}\n    counter drop\n  }}\n")
            jumps.append(f"    ip {mine} {address} jump {name}\n")
    base = "  chain check {\n    type filter hook prerouting priority filter; policy accept;\n"
    established = "    ct state established,related accept\n"
    return HEAD + "".join(chains) + base + established + "".join(jumps) + "  }\n}\n"


def _rules_of(
    pod: Object,
    direction: str,
    pods: Sequence[Object],
    namespaces: Mapping[str, Mapping[str, str]],
    policies: Sequence[Object],
) -> list[str] | None:
    """What this Pod may, as matches; None when no policy speaks about it."""
    speaking = [policy for policy in policies if _selects(policy, pod, direction)]
    if not speaking:
        return None
    other, theirs, _ = DIRECTIONS[direction]
    rules = []
    for policy in speaking:
        for rule in policy["spec"].get(direction) or []:
            ports = rule.get("ports") or []
            if not rule.get(other):
                # Whoever it is; a name of a port is then a port of any Pod that has one.
                named = [pod] if direction == "ingress" else pods
                rules += _ports(ports, named)
                continue
            for peer in rule[other]:
                for address, who in _peers(peer, policy, pods, namespaces, theirs):
                    named = [pod] if direction == "ingress" else who
                    rules += [f"{address} {port}".strip() for port in _ports(ports, named)]
    return rules


def _selects(policy: Object, pod: Object, direction: str) -> bool:
    spec = policy["spec"]
    default = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return (
        policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and direction.capitalize() in spec.get("policyTypes", default)
        and matches(spec.get("podSelector") or {}, _labels(pod))
    )


def _peers(
    peer: Object,
    policy: Object,
    pods: Sequence[Object],
    namespaces: Mapping[str, Mapping[str, str]],
    theirs: str,
) -> Iterator[tuple[str, Sequence[Object]]]:
    """Each address or network of a peer as a match, with the Pods behind it."""
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        family = "ip6" if ":" in block["cidr"] else "ip"
        match = f"{family} {theirs} {block['cidr']}"
        if block.get("except"):
            match += f" {family} {theirs} != {{ {', '.join(block['except'])} }}"
        yield match, []
        return
    for pod in pods:
        namespace = pod["metadata"]["namespace"]
        if "namespaceSelector" in peer:
            wanted = matches(peer["namespaceSelector"], namespaces.get(namespace, {}))
        else:
            wanted = namespace == policy["metadata"]["namespace"]
        if wanted and matches(peer.get("podSelector") or {}, _labels(pod)):
            yield f"ip {theirs} {pod['status']['podIP']}", [pod]


def _ports(ports: Sequence[Object], named: Sequence[Object]) -> list[str]:
    if not ports:
        return [ANY]
    found = []
    for port in ports:
        protocol = port.get("protocol", "TCP").lower()
        number = port.get("port")
        if number is None:
            found.append(f"meta l4proto {protocol}")
        elif isinstance(number, str):
            found += [f"{protocol} dport {one}" for one in _numbers(number, named)]
        else:
            end = f"-{port['endPort']}" if "endPort" in port else ""
            found.append(f"{protocol} dport {number}{end}")
    return found


def _numbers(name: str, pods: Sequence[Object]) -> set[int]:
    return {
        port["containerPort"]
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("name") == name
    }


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects; the empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or [])


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"no such operator: {expression['operator']}")


def _labels(object_: Object) -> Mapping[str, str]:
    return object_["metadata"].get("labels") or {}


def _has_address(pod: Object) -> bool:
    return (
        bool(pod["status"].get("podIP"))
        and not pod["spec"].get("hostNetwork")
        and pod["status"]["phase"] in ("Pending", "Running")
    )
