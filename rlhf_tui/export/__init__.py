"""Taking the tuned model elsewhere: the adapter, or one merged checkpoint, with a card that says what it is."""
