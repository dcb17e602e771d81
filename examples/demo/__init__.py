"""The parts of the training example: data, model, compiled step, evaluation and pictures."""

import os

# Read when torch is loaded. Threads that wait by spinning starve a step of many short loops as soon as something
# else runs: beside one busy process on two cores it made 5 images/s so, and 55 with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
