#include "config.h"

#include <getopt.h>
#include <stdio.h>

#include "daemon/daemon.h"

static const char usage[] =
	"usage: h2ofleetd [OPTIONS]\n"
	"Keeps local H2O clouds alive. Without --config it reads " PKGSYSCONFDIR "/h2ofleet.conf\n"
	"and conf.d/*.conf there (root) or ~/.config/h2ofleet/ (others); with no file at all\n"
	"it runs one cloud of one node.\n"
	"\n"
	"  -c, --config FILE    read only this file\n"
	"      --check-config   check the configuration and exit\n"
	"      --check-state    check whether it could take over what runs, and exit\n"
	"      --print-config   print it with all defaults and exit\n"
	"      --end-left-behind\n"
	"                       end the nodes that a dead daemon has left, and exit\n"
	"      --until-eof      stop all clouds and exit at the end of standard input, a pipe or\n"
	"                       socket: for programs that start a daemon of their own\n"
	"      --debug          log more\n"
	"  -h, --help           this text\n"
	"  -V, --version        version\n"
	"\n"
	"Signals: SIGTERM, SIGINT stop all clouds in order and exit; a second one kills at once.\n"
	"SIGHUP reads the configuration again, as `h2ofleet reload` does. SIGUSR1 replaces the\n"
	"daemon by a new version, as `h2ofleet reexec` does. SIGUSR2 ends the daemon alone: the\n"
	"clouds run on, and the next daemon takes them over.\n";

const char *options_usage(void)
{
	return usage;
}

int options_parse(int argc, char **argv, struct options *opts)
{
	enum {
		OPT_CHECK = 256,
		OPT_PRINT,
		OPT_END,
		OPT_UNTIL_EOF,
		OPT_DEBUG,
		OPT_ROTATE,
		OPT_BOOT,
		OPT_EXPLAIN,
		OPT_CHECK_STATE
	};
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check-config", no_argument, NULL, OPT_CHECK},
		{"print-config", no_argument, NULL, OPT_PRINT},
		{"end-left-behind", no_argument, NULL, OPT_END},
		{"until-eof", no_argument, NULL, OPT_UNTIL_EOF},
		{"debug", no_argument, NULL, OPT_DEBUG},
		{"check-state", optional_argument, NULL, OPT_CHECK_STATE},
		{"rotate-logs", no_argument, NULL,
			OPT_ROTATE}, /* these three for ourselves alone */
		{"build-boot-cache", no_argument, NULL, OPT_BOOT},
		{"explain-boot-cache", no_argument, NULL, OPT_EXPLAIN},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	int o;

	while ((o = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			opts->file = optarg;
			break;
		case OPT_CHECK:
			opts->mode = MODE_CHECK;
			break;
		case OPT_PRINT:
			opts->mode = MODE_PRINT;
			break;
		case OPT_END:
			opts->mode = MODE_END;
			break;
		case OPT_UNTIL_EOF:
			opts->until_eof = true;
			break;
		case OPT_DEBUG:
			opts->debug = true;
			break;
		case OPT_CHECK_STATE:
			opts->mode = MODE_CHECK_STATE;
			opts->state_dir = optarg;
			break;
		case OPT_ROTATE:
			opts->mode = MODE_ROTATE;
			break;
		case OPT_BOOT:
			opts->mode = MODE_BOOT;
			break;
		case OPT_EXPLAIN:
			opts->mode = MODE_EXPLAIN;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("h2ofleetd " PACKAGE_VERSION);
			return 0;
		default:
			fputs("try `h2ofleetd --help`\n", stderr);
			return 2;
		}
	}
	if (opts->mode == MODE_ROTATE || opts->mode == MODE_BOOT || opts->mode == MODE_EXPLAIN) {
		opts->args = argv + optind;
		return -1;
	}
	if (optind < argc) {
		fprintf(stderr, "h2ofleetd: '%s' is not understood; try `h2ofleetd --help`\n",
			argv[optind]);
		return 2;
	}
	return -1;
}
