"""Services of Google Cloud, as the host uses them. Nothing of Google's is imported before one is configured."""
