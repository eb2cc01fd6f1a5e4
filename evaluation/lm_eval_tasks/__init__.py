"""This suite's benchmarks as lm-evaluation-harness tasks: `lm_eval --include_path evaluation/lm_eval_tasks`."""
