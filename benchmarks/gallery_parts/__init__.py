"""What `benchmarks/gallery.py` is made of: toy data of every page, results from kept figures, tables of both."""
