"""The student: the model, its file, and the potential."""
