"""Which version is the champion: gate, decision, alias, lock."""
