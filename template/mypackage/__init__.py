"""What convtrain does not have: this project's dataset, layer, loss and callback."""
