"""One trajectory in this process, from atoms to a result: what `mts_driver.simulate` does."""
