"""The few widgets of our own: charts, the two status lines, the footer, panels and candidates."""
