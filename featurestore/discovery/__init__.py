"""What lies in a folder, and which of it is an artifact: read from footers and names."""
