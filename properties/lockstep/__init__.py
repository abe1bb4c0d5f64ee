"""One run: each step goes to the model and to every system, and what they answer and show is compared.

It draws nothing and knows no seed files; a difference becomes a Divergence.
"""
