"""The one package that an installed massattach has: its command. In the wheel the project's four folders stand in it.

Of themselves spec, model, impl and properties are names that anybody's module may have; so they are no neighbours of
other people's packages, and only what runs the command finds them (docs/install.md).
"""
