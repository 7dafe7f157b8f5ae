"""What a distillation has given: numbers, pictures and a page."""
