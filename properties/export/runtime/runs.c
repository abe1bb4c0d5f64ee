PART void read_runs(void)
{
	if (map->runs > RUNS)
		cannot_run("More programs ran in one call than there is room for.");
	for (uint64_t i = 0; i < map->runs; i++)
		add_mark(map->run[i].time, (struct mark){ .kind = PROGRAM, .words = &map->run[i] });
}

/* Lets programs call their functions in what is called now. */
PART void set_nested(void)
{
	map->runs = 0;
	for (size_t i = 0; i < COUNT(programs); i++)
		if (programs[i].calls >= 0) {
			unsigned long address = functions[programs[i].calls].address;

			map->nested[programs[i].nested].address = address > NOWHERE ? address : 0;
			map->nested[programs[i].nested].under_way = 0;
		}
}

PART void add_answer(struct text *text, uint64_t answer, uint64_t value, int bytes)
{
	if (answer)
		append(text, "%s", spell_error(answer));
	else
		append(text, "%" PRIu64, narrow_to(value, bytes));
}

/* KIND:PROG, and in full: arguments, returned value, cookie, the function by its address, the session. */
PART void add_run(struct spelled *spelled, const struct run *run, const struct function *function)
{
	const struct program *program = &programs[instances[run->instance].program];
	struct text *text = &spelled->full;
	int slots = function->slots < SLOTS ? function->slots : SLOTS;

	add_word(spelled, "%s:%s", program->kind, program->name);
	append(text, "(");
	for (int i = 0; i <= slots; i++) {
		append(text, i ? "," : "");
		add_answer(text, run->arguments[i].answer, run->arguments[i].value,
			   i < slots ? function->widths[i] : 8);
	}
	append(text, ";count=%" PRIu64 ";ret=", run->count);
	add_answer(text, run->ret, run->ret_value, function->returns);
	append(text, ";cookie=%" PRIu64, run->cookie);
	if (program->func_ip)
		append(text, ";ip=%s", spell_function(run->ip));
	if (!strcmp(program->kind, "fsession")) {
		append(text, ";second=%d;session=", (int)run->second);
		if (run->session && run->session <= COUNT(instances))
			append(text, "%s", programs[instances[run->session - 1].program].name);
	}
	append(text, ")");
}
