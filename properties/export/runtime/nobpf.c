/* The seed has no programs. */
PART const char *spell_program(unsigned long address)
{
	(void)address;
	return NULL;
}
