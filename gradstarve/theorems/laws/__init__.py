"""The entries of the catalogue, a module for each law or two that belong together."""
