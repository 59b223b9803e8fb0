"""Where images come from; each module loads one kind of dataset."""
