"""What the paper claims, and how it is reproduced: numbers, models, steps, store, runner, tables."""
