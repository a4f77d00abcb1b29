"""Phase diagrams of training, one module for each plane."""
