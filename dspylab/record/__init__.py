"""Results on disk: where they lie, the journal that survives a crash, and the published rows."""
