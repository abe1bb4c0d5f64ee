"""Images of which a proof once said something wrong, or that ended it; test_attack has what it says now."""
