"""What the documentation adds to Sphinx: pages made from the library itself, and the check that nothing is left out."""
