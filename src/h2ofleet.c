/* h2ofleet: the client of h2ofleetd, and the guardian of `h2ofleet run`. */
#include "cli/cli.h"
#include "cli/guardian.h"

int main(int argc, char **argv)
{
	if (argc > 0 && streq(argv[0], GUARDIAN_NAME))
		return guardian_main(argc, argv);
	return cli_main(argc, argv);
}
