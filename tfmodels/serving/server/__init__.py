"""The development server: TF Serving's predict API for one export, in Python."""
