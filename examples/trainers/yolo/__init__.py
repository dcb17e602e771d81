"""What the programs for trainers of YOLO models share."""
