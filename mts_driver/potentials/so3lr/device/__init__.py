"""SO3LR where everything stays on one device."""
