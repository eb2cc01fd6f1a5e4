"""From a checkpoint to graded answers: benchmarks, generation backends, graders, statistics."""
