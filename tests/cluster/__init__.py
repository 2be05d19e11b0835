"""Tests that need a Kubernetes: an API server alone, or nodes that run Pods."""

from __future__ import annotations
