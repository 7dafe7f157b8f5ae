"""Other people's codes: what they bring, and what they can use of this one."""
