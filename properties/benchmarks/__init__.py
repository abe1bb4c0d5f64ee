"""The performance figures by subject: each module has measures(), whose functions each return one Figure."""
