"""Generation backends: from a checkpoint and problems to records."""
