"""A Kubernetes 1.34 on this machine: real servers, real nodes, and no trace of them afterwards."""

from __future__ import annotations
