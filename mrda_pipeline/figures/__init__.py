"""The paper's Fig. 7 to 10, from the networks of a test's option file."""
