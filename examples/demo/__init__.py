"""The parts of the training example: data, model, compiled step, evaluation and pictures."""
