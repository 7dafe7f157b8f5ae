"""From labelled structures to the weights of a student."""
