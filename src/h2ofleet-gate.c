/* The gate: the door of each cloud, a process of its own. */
#include "gate/gate.h"

int main(int argc, char **argv)
{
	return gate_main(argc, argv);
}
