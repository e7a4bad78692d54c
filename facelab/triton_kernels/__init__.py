"""Kernels of ours for GPUs. What wraps them imports them when they first run, as Triton need not be installed."""
