"""Phase diagrams of training, a module for each plane."""
