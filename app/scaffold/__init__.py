"""New strategies: a package, or a definition alone, that works and has its test."""
