"""Kubernetes manifests of a run."""
