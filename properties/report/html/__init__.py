"""The HTML report: records in, one page out, which loads nothing from anywhere.

Layout is computed here, in values that the templates print; what a record holds is text, and is escaped.
"""
