"""A simulated device: tensors that claim to be on a device of their own, while their values stay on the CPU.

A function runs on them as it would on a GPU. Whatever would wait for the device, or mix devices, is noticed at the line
that does it. Unlike fake tensors, these have values, so the run continues after the first finding.
"""
