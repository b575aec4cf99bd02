"""What one does with a run: train, evaluate, predict, export, distill."""
