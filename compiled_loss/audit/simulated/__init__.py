"""A simulated device: tensors that claim to live on a device of their own while their values stay on the CPU.

A function runs on them as it would on a GPU, and everything that would wait for the device or mix devices is seen at
the line that does it. Unlike fake tensors these have values, so the run goes on after the first finding.
"""
