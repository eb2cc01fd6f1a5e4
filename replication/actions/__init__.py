"""What steps do. Only workers import these modules: here, and only here, torch and transformers are loaded.

Each action takes a `Job` and writes its result under `job.output`; the dict it returns goes into the manifest.
"""
