"""The paper's training pools, built from their sources by rules that count what they drop (App. E.2, E.3, Table 12)."""
