PART void add_graph(struct spelled *spelled, const struct mark *mark)
{
	add_word(spelled, mark->kind == GRAPH_ENTRY ? "graph>%s" : "<graph:%s", mark->user);
	append(&spelled->full, "(%s,%u)", spell_function(mark->address), mark->number);
}

/* Folds the marks in the order of time; a body's or a program's own calls stand in brackets. */
PART void fold(struct spelled *spelled, int outermost)
{
	int stack[64] = { outermost }, depth = 0;

	qsort(marks, marks_used, sizeof(*marks), by_time);
	for (const struct mark *mark = marks; mark < marks + marks_used; mark++) {
		bool is_patched;
		int callee;

		switch (mark->kind) {
		case BODY:
		case PATCHED_BODY:
			add_body(spelled, mark);
			break;
		case OPS:
			add_word(spelled, "ops:%s", nth(ops_names, COUNT(ops_names), mark->number));
			break;
		case DIRECT:
			add_word(spelled, "direct:%s", nth(tramp_names, COUNT(tramp_names), mark->number));
			break;
		case GRAPH_ENTRY:
		case GRAPH_RETURN:
			add_graph(spelled, mark);
			break;
		case PROGRAM:
			add_program(spelled, mark->words, &functions[stack[depth]]);
			break;
		case BEGIN:
			callee = find_function(mark->address, &is_patched);
			if (callee < 0 || depth + 1 == COUNT(stack))
				cannot_run("A call leads where the seed has no function.");
			add_word(spelled, "%s[", functions[callee].name);
			stack[++depth] = callee;
			break;
		case VALUE:
			add_value(spelled, &functions[stack[depth]], *(const uint64_t *)mark->words);
			if (depth) {
				add_word(spelled, "]");
				depth--;
			}
			break;
		}
	}
}

PART void begin_call(void)
{
	marks_used = 0;
	command(COMMAND_CLEAR, "", NULL, 0);
	prepare_recorders();
}

/* What ran since the call began. `brief` is what the seed expects, or NULL. */
PART void end_call(int function, const char *brief, const char *full)
{
	struct spelled spelled = { 0 };
	const char *warning;
	size_t size;
	char *log = need(CONTROL, &size);

	read_log(log, size);
	read_recorders();
	fold(&spelled, function);
	warning = look_for_warning();
	compare("the kernel's log", "", warning);
	if (brief)
		compare("the call", brief, content(&spelled.brief));
	if (full)
		compare("what the call's events saw", full, content(&spelled.full));
	free(spelled.brief.bytes);
	free(spelled.full.bytes);
	free(log);
}

/* Calls a function with these registers and words on the stack. */
PART void call(int function, const uint64_t *words, uint32_t count, const char *brief, const char *full)
{
	if (functions[function].address <= NOWHERE) {
		compare("the call", brief ? brief : full, "absent");
		return;
	}
	begin_call();
	if (command(COMMAND_CALL, "", words, count))
		cannot_run("The module does not make the call.");
	end_call(function, brief, full);
}
