/* The daemon: reads its configuration, supervises the fleet, serves the control socket. */
#include "daemon/daemon.h"

int main(int argc, char **argv)
{
	return daemon_main(argc, argv);
}
