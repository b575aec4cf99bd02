"""Models as files: writing them, and using them without the rest of the package."""
