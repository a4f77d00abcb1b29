"""The entries of the catalogue, one module for each group of related laws."""
