"""Models: a declared network in two styles, torchvision's models, and a user's own."""
