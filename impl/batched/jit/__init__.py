"""Images of trampolines: planned from what is attached, generated once for all functions, then relocated to each.

`plan` says what an image is to do, `generate` makes its template, `template` puts that where a function needs it.
Nothing here knows a function, a kernel or the prover; what knows an instruction is one module an architecture.
"""
