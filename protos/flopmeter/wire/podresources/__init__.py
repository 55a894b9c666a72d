"""Stubs of the kubelet's pod-resources API, by `make proto`."""
