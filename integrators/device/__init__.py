"""Steps on the device where the models are."""
