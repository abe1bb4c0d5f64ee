"""What the report shows though no run has to find it anew: the talk's pictures, planted bugs, defects, predicted costs.

`gallery.json` is the record of it; `python -m properties.gallery` runs everything again and writes it anew.
Nothing here judges an implementation.
"""
