/*
 * A program on the original libo2dlm, for the tests: reads commands, one a line, answers each with one line.
 *   o2dlm DIR DOMAIN
 *   lock NAME ex|pr [try] | unlock NAME | drop NAME | set NAME TEXT | get NAME | quit
 */
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <et/com_err.h>
#include <o2dlm/o2dlm.h>

int main(int argc, char **argv)
{
	struct o2dlm_ctxt *ctxt = NULL;
	char line[256], verb[16], name[64], arg[80], more[16];
	errcode_t e;

	if (argc != 3)
		return 64;
	initialize_o2dl_error_table();
	e = o2dlm_initialize(argv[1], argv[2], &ctxt);
	printf("initialize %s\n", e ? error_message(e) : "ok");
	fflush(stdout);
	if (e)
		return 1;
	while (fgets(line, sizeof line, stdin)) {
		verb[0] = name[0] = arg[0] = more[0] = 0;
		sscanf(line, "%15s %63s %79s %15s", verb, name, arg, more);
		e = 0;
		if (!strcmp(verb, "lock")) {
			e = o2dlm_lock(ctxt, name, strcmp(more, "try") ? 0 : O2DLM_TRYLOCK,
				       strcmp(arg, "ex") ? O2DLM_LEVEL_PRMODE : O2DLM_LEVEL_EXMODE);
		} else if (!strcmp(verb, "unlock")) {
			e = o2dlm_unlock(ctxt, name);
		} else if (!strcmp(verb, "drop")) {
			e = o2dlm_drop_lock(ctxt, name);
		} else if (!strcmp(verb, "set")) {
			unsigned int n = 0;
			e = o2dlm_write_lvb(ctxt, name, arg, strlen(arg), &n);
		} else if (!strcmp(verb, "get")) {
			char lvb[65];
			unsigned int n = 0;
			memset(lvb, 0, sizeof lvb);
			e = o2dlm_read_lvb(ctxt, name, lvb, 64, &n);
			if (!e) {
				printf("value %s\n", lvb);
				fflush(stdout);
				continue;
			}
		} else if (!strcmp(verb, "quit")) {
			break;
		}
		printf("%s %s\n", verb, e ? error_message(e) : "ok");
		fflush(stdout);
	}
	e = o2dlm_destroy(ctxt);
	printf("destroy %s\n", e ? error_message(e) : "ok");
	return 0;
}
