"""Any model that was exported with metatomic (PET-MAD, MACE and others)."""
