"""Whom the kubelet gave GPUs to, and what the API server says of these pods where it may be asked."""
