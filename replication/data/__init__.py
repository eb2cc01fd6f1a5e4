"""Training pools: generated problems, real files, the corpora of the paper."""
