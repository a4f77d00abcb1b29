"""gradstarve."""
