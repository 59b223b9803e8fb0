"""Parameter groups, and several optimisers that act as one."""
