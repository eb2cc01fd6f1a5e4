"""Programs that run inside the isolation, beside generated code: standard library only, nothing here is secret."""
