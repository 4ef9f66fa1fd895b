"""One screen for each stage, the labelling screen, and the dialogs in front of them."""
