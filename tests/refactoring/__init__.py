"""Tools that show whether a change of the code has changed what it does; see CONTRIBUTING.md."""
