"""Model families: one module each, found by its name."""
