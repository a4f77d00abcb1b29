"""The key figures, a module each: what the library shows in one picture; `figures` has the list and draws them."""
