/* The table of commands. */
#include "cli/cli.h"

#include "cli/complete.h"
#include "cli/doctor.h"

static int run_doctor(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	const char *config = NULL;
	const struct cli_option options[] = {{"config", 'c', NULL, &config}};

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n)
		return cli_usage(cli, "doctor takes no words");
	return cmd_doctor(config, cli->socket, cli->json, cli->out);
}

#define WAIT_OPTIONS                                                                               \
	"options:\n"                                                                               \
	"  --all        every cloud\n"                                                             \
	"  --wait       end only when it is done; shows how far it is\n"                           \
	"  --timeout T  wait no longer than this: 500ms, 90s, 5m\n"

#define RESUME_OPTION "  --resume     also resume an interrupted grid search\n"

const struct cli_command cli_commands[] = {
	{"status", "[CLOUD]... [--watch[=T]]", "Shows the clouds, or some with their nodes",
		"GEN/RST is the generation, and how many of them the daemon has begun by itself\n"
		"since the start; MEMORY is used of all heaps, CPU that of all nodes: 100% is a\n"
		"core.\n\n"
		"options:\n"
		"  -w, --watch[=T]  draw it again every second, or T; q or Ctrl-C ends it\n\n"
		"The exit code tells the state: 0 ready or degraded, 3 stopped, 5 on its way,\n"
		"6 failed, 4 no daemon or no such cloud; of several clouds the worst.\n\n"
		"example: h2ofleet status dev\n",
		cmd_status},
	{"start", "CLOUD...|--all [--wait] [--timeout T] [--resume]", "Starts clouds",
		WAIT_OPTIONS RESUME_OPTION "\nexample: h2ofleet start dev --wait --timeout 2m\n",
		cmd_start},
	{"stop", "CLOUD...|--all [--wait] [--timeout T] [--disarm]", "Stops clouds",
		WAIT_OPTIONS
		"  --disarm     no connection is to start it again (start_on = connect), only\n"
		"               `h2ofleet start`\n"
		"\nexample: h2ofleet stop --all --wait\n",
		cmd_stop},
	{"restart", "CLOUD...|--all [--wait] [--timeout T] [--resume]",
		"Stops clouds and starts them again",
		WAIT_OPTIONS RESUME_OPTION "\nexample: h2ofleet restart dev --wait\n", cmd_restart},
	{"touch", "CLOUD...|--all",
		"Postpones the stop of clouds for want of use (max_idle_duration)",
		"They count as used now; the whole time begins again.\n\n"
		"options:\n"
		"  --all        every cloud\n\n"
		"example: h2ofleet touch dev\n",
		cmd_touch},
	{"wait", "CLOUD [--for ready|stopped] [--timeout T]",
		"Waits until a cloud is ready, or stopped",
		"With --for ready (the default) it ends at once, with exit code 6, when the\n"
		"cloud has failed, and with 3 when it is stopped and nobody has started it.\n\n"
		"options:\n"
		"  --for ready|stopped  what it waits for\n"
		"  --timeout T          wait no longer than this: 500ms, 90s, 5m\n\n"
		"example: h2ofleet wait dev --for ready --timeout 2m && python train.py\n",
		cmd_wait},
	{"events", "[CLOUD] [-f] [-n N] [--since WHAT]", "Shows what has happened to the clouds",
		"options:\n"
		"  -f, --follow      go on with what happens, until Ctrl-C; a daemon that ends\n"
		"                    meanwhile is waited for, and nothing is left out\n"
		"  -n, --lines N     only the last N (default: all there is, with -f 10)\n"
		"      --since WHAT  only what is newer than 10m (ago), 22:39, \"2026-11-22 "
		"22:39\"\n"
		"                    or came after the event EPOCH:SEQ, or SEQ\n\n"
		"With --json a line of JSON for each; \"epoch\" and \"seq\" of the last one\n"
		"say where to go on; a line of \"type\" lost, or epoch, that some are missing.\n\n"
		"example: h2ofleet events dev -f\n",
		cmd_events},
	{"incidents", "[CLOUD] [ID|last] [-n N]",
		"Lists why clouds were lost, or shows the evidence of one",
		"An incident is kept each time a cloud is lost: how its node ended, what the OOM\n"
		"killer did, the last lines of its log, the head of the JVM's crash report, a\n"
		"thread dump and /proc of one that hung. ID: as listed, or the beginning of it\n"
		"that no other has; last: the newest.\n\n"
		"options:\n"
		"  -n, --lines N  list only the newest N\n"
		"      --delete   remove the incident ID; for root and the daemon's user\n\n"
		"example: h2ofleet incidents dev last\n",
		cmd_incidents},
	{"logs", "CLOUD[/N] [-f] [-n N] [--since T] [--level L] [--grep RE]",
		"Shows the last lines that nodes wrote, merged by their time",
		"options:\n"
		"  -f, --follow       go on with what they write, until Ctrl-C; a daemon that\n"
		"                     ends meanwhile is waited for, and nothing is left out\n"
		"  -n, --lines N      how many lines of each node (default 100, with -f 10, of\n"
		"                     those chosen by what follows here all)\n"
		"      --since T      10m (ago), 22:39, \"2026-11-22 22:39\": only what is newer\n"
		"      --level FATAL|ERROR|WARN|INFO|DEBUG|TRACE\n"
		"                     only what is that grave, or graver\n"
		"      --grep RE      only what matches this extended regular expression; the\n"
		"                     name of a level is taken for --level\n\n"
		"A line without a time, as those of a stack trace, belongs to the one before it.\n"
		"Looked at are the last 100000 lines of each node.\n\n"
		"example: h2ofleet logs dev -f --level WARN\n",
		cmd_logs},
	{"connect", "CLOUD [--python|--r|--url|--env|--h2oconfig|--sparkling]",
		"Tells how to connect to a cloud",
		"options:\n"
		"  --python     a snippet of Python; also as a dict, for h2o.connect(config=)\n"
		"  --r          a snippet of R\n"
		"  --url        just the URL\n"
		"  --env        lines for a shell: eval \"$(h2ofleet connect dev --env)\";\n"
		"               H2O does not read H2O_URL by itself: in Python write\n"
		"               h2o.connect(url=os.environ[\"H2O_URL\"])\n"
		"  --h2oconfig  a .h2oconfig file, which h2o.init() of Python reads, and\n"
		"               h2o.connect() does not\n"
		"  --sparkling  properties of Spark: Sparkling Water with this cloud as its\n"
		"               external backend, and what that needs\n\n"
		"example: h2ofleet connect dev --h2oconfig > .h2oconfig\n",
		cmd_connect},
	{"run", "[-n N] [-m SIZE] [OPTIONS] -- CMD...",
		"Runs a command with a cloud of its own, which ends with it",
		"Needs no daemon and no configuration: a private one is started, the command once\n"
		"the cloud is ready, with H2O_URL, H2O_IP, H2O_PORT and H2OFLEET_SOCKET (for\n"
		"other commands of h2ofleet; the cloud is called run) in its environment.\n"
		"Whatever ends the command, or us, or the daemon: nothing is left.\n\n"
		"options:\n"
		"  -n, --nodes N        number of nodes (default 1)\n"
		"  -m, --memory SIZE    heap of each: 512m, 2g, 50% (key max_mem_size)\n"
		"      --set KEY=VALUE  any key of a [cloud] section; may be given again\n"
		"      --java FILE      the java program, instead of the one that is found\n"
		"      --jar FILE       h2o.jar, likewise\n"
		"      --timeout T      for start and command together: 90s, 5m; then the command\n"
		"                       gets SIGTERM, and 10 s later SIGKILL\n"
		"      --keep-on-failure\n"
		"                       keep logs and state when the command or the cloud fails,\n"
		"                       and say where\n"
		"  -q, --quiet          say nothing but what is wrong\n\n"
		"The exit code is the command's; 128+N when signal N ended it, 127 when there is\n"
		"no such command, 126 when it cannot be executed, 125 when we failed (the cloud's\n"
		"reason and last lines are shown), 124 when the time was over. How long a start\n"
		"may take: --set ready_timeout=60s.\n\n"
		"example: h2ofleet run -n 3 -m 1g -- pytest tests/\n",
		cmd_run},
	{"create", "NAME [-n NODES] [-m MEMORY] [KEY=VALUE]... [--start] [--wait] [--timeout T]",
		"Makes a cloud at run time, beside the configured ones",
		"It stays until it is deleted, over restarts of the daemon and of the machine.\n"
		"Keys are those of a [cloud NAME] section: see h2ofleet keys.\n\n"
		"options:\n"
		"  -n, --nodes N      number of nodes (nodes=N)\n"
		"  -m, --memory SIZE  heap of each node, such as 2g (max_mem_size=SIZE)\n"
		"      --set KEY=VALUE  the same as KEY=VALUE\n"
		"      --start        start it as well\n"
		"      --wait         start it, and end only when it is ready\n"
		"      --timeout T    wait no longer than this: 500ms, 90s, 5m\n\n"
		"example: h2ofleet create exp -n 3 -m 2g max_idle_duration=1h --wait\n",
		cmd_create},
	{"delete", "CLOUD... [--wait] [--timeout T]",
		"Stops and removes clouds that were made at run time",
		"Their logs go with them, their incidents stay.\n\n"
		"options:\n"
		"  --wait       end only when they are gone\n"
		"  --timeout T  wait no longer than this: 500ms, 90s, 5m\n\n"
		"example: h2ofleet delete exp --wait\n",
		cmd_delete},
	{"set", "CLOUD KEY=VALUE...", "Changes keys of a cloud that was made at run time",
		"KEY= takes a key back to its default. What the cloud was launched with\n"
		"changes when it is restarted.\n\n"
		"example: h2ofleet set exp max_mem_size=4g hang_timeout=\n",
		cmd_set},
	{"config", "[CLOUD] [--all]",
		"Shows the configuration that is in force, and where it is from",
		"As the daemon has it, with the file and the line of each key; what was\n"
		"changed in the files since shows `h2ofleet reload --dry-run`. Secrets are ***.\n\n"
		"options:\n"
		"  -a, --all  also what nobody has set\n\n"
		"example: h2ofleet config dev\n",
		cmd_config},
	{"keys", "[KEY]...", "Explains the keys of a cloud",
		"example: h2ofleet keys max_mem_size nthreads\n", cmd_keys},
	{"info", "CLOUD [--nodes]",
		"Shows what H2O says of a cloud: version, cores, memory, health",
		"What h2o.cluster().show_status() of Python shows. Does not lock the cloud.\n\n"
		"options:\n"
		"  --nodes   each node, too: heap, cores, load, files, keys\n"
		"  --detail  the same\n\n"
		"example: h2ofleet info dev --nodes\n",
		cmd_info},
	{"jobs", "CLOUD [-f] [-n N] [cancel JOB...|--all]",
		"Shows the jobs of a cloud, or cancels some",
		"The daemon asks H2O, and only where a cloud is locked: another has no jobs, and\n"
		"would be locked by the question.\n\n"
		"options:\n"
		"  -f, --follow   until none runs, or Ctrl-C; redrawn on a terminal\n"
		"  -n, --lines N  at most so many that have ended (default 10)\n"
		"  --all          cancel all that run\n\n"
		"example: h2ofleet jobs dev -f\n",
		cmd_jobs},
	{"clean", "CLOUD [--sessions|--frames|--models|--all] [--yes]",
		"Shows and removes what clients have left in a cloud's memory",
		"Without options it only shows. H2O does not tell whether a session's client\n"
		"still lives, so nothing is removed while a job runs or when somebody has\n"
		"computed within the last 10 minutes (--idle), and not without your yes. A\n"
		"client that only waits, such as an open notebook, loses what is removed.\n\n"
		"options:\n"
		"  --sessions     temporary frames of all sessions\n"
		"  --session SID  of this one, such as _sid_9d45\n"
		"  --frames       all frames\n"
		"  --models       all models\n"
		"  --all          everything that the cloud holds, jobs included\n"
		"  --idle T       how long nobody may have computed (default 10m; 0: no matter)\n"
		"  -y, --yes      without asking\n\n"
		"example: h2ofleet clean dev --sessions\n",
		cmd_clean},
	{"api", "CLOUD METHOD PATH [-d K=V]... [--json-body F] [-o F]",
		"Sends a request to H2O's REST API",
		"JSON comes indented on a terminal, else as it is.\n\n"
		"options:\n"
		"  -d, --data K=V      of the query (GET, DELETE, uploads), else of a form\n"
		"      --json-body F   the body, JSON, from a file or standard input (-)\n"
		"      --file F        upload this file (POST /3/PostFile)\n"
		"  -o, --output F      the answer into a file or, under its own name, a folder;\n"
		"                      -: to standard output, byte for byte\n"
		"  -b, --cookie N=V    send a cookie; those that H2O sets are sent back anyway\n"
		"      --auth-file F   USER:PASSWORD, from a file or standard input (-); also in\n"
		"                      $H2OFLEET_H2O_AUTH\n"
		"      --cacert F      of https: trust the certificates in this file (PEM)\n"
		"      --insecure      of https: trust whoever answers\n"
		"      --timeout T     for all of it (default: none)\n"
		"      --trace F       append requests and answers to a file; logins and cookies\n"
		"                      in headers are masked, what is sent with -d is not\n"
		"  -q, --quiet         no warning before what locks the cloud\n\n"
		"example: h2ofleet api dev GET /3/Cloud -d skip_ticks=true\n",
		cmd_api},
	{"timezone", "CLOUD [get|list|set ZONE]",
		"Shows or sets the time zone in which a cloud reads data",
		"`set` and `list` lock the cloud; there is a warning where it is not locked "
		"yet.\n\n"
		"options:\n"
		"  -q, --quiet  no warning\n\n"
		"example: h2ofleet timezone dev set Europe/Berlin\n",
		cmd_timezone},
	{"network-test", "CLOUD", "Measures the network between a cloud's nodes",
		"Locks the cloud; there is a warning where it is not locked yet.\n\n"
		"options:\n"
		"  -q, --quiet  no warning\n\n"
		"example: h2ofleet network-test dev\n",
		cmd_network_test},
	{"reload", "[--dry-run] [--restart]",
		"Lets the daemon read its configuration again; shows what changes",
		"All of it is put in force or, with an error in it, nothing (exit code 1).\n"
		"What a running cloud was launched with changes when it is restarted.\n\n"
		"options:\n"
		"  -n, --dry-run  only show what would change\n"
		"  --restart      restart at once the clouds that need it\n\n"
		"example: h2ofleet reload --dry-run\n",
		cmd_reload},
	{"reexec", "", "Lets the daemon replace itself by its new version; clouds run on",
		"For after an upgrade of the package. The new program is tried first: if it\n"
		"cannot go on from here, the old one does (exit code 1).\n\n"
		"example: h2ofleet reexec\n",
		cmd_reexec},
	{"shutdown", "[--at-once] [--no-wait]", "Stops all clouds, then the daemon",
		"As `systemctl stop h2ofleetd`, for a daemon that systemd does not run.\n\n"
		"options:\n"
		"  --at-once  kill the clouds\n"
		"  --no-wait  do not wait for the end\n\n"
		"example: h2ofleet shutdown\n",
		cmd_shutdown},
	{"doctor", "[--config FILE]", "Looks for what could keep clouds from running here",
		"options:\n"
		"  -c, --config FILE  the daemon's configuration (default: the usual places)\n\n"
		"example: h2ofleet doctor\n",
		run_doctor},
	{"prepare", "[CLOUD]... [--jar FILE] [--java FILE] [--native-only] [--again]",
		"Makes what lets nodes start in half of their time",
		"Unpacks the native libraries of h2o.jar once, and makes an archive of the\n"
		"classes that a start loads, for each Java with h2o.jar that the configured\n"
		"clouds (or CLOUD) have. The archive is used only after it was checked: a node\n"
		"with it has the same endpoints as one without, opens a session and trains a\n"
		"model. The daemon does the same by itself after a first start; this is for\n"
		"images and packages, and needs no daemon. It takes up to a minute, and about\n"
		"220 MB below cache_dir. What root makes in /var/cache/h2ofleet serves every\n"
		"user.\n\n"
		"options:\n"
		"  -c, --config FILE  the daemon's configuration (default: the usual places)\n"
		"      --jar FILE     this h2o.jar\n"
		"      --java FILE    this java program\n"
		"  -m, --memory SIZE  heap of the nodes it is for, with --jar or --java: one of\n"
		"                     32 GB and more takes another archive\n"
		"      --native-only  only the libraries\n"
		"      --again        also what is there already, or was refused\n"
		"      --timeout T    how long a node may take to start (default 5m)\n"
		"  -l, --list         show what is there\n"
		"      --clear        remove all of it\n\n"
		"The exit code is 0 when all is prepared, 6 when an archive was refused (nodes\n"
		"then start without), 5 while another process is at it.\n\n"
		"example: h2ofleet prepare --jar /opt/h2o/h2o.jar\n",
		cmd_prepare},
	{"completion", "bash|zsh|fish", "Prints a shell's completion of h2ofleet",
		"make install puts them where the shells look; to try it in this shell:\n\n"
		"example: source <(h2ofleet completion bash)\n",
		cmd_completion},
	{"help", "[COMMAND]", "Shows how a command is used, or which there are",
		"example: h2ofleet help status\n", cmd_help},
	{"version", "", "Shows the versions of h2ofleet and of the running daemon",
		"example: h2ofleet version --json\n", cmd_version},
	{"__complete", "-- [WORD]...", "What shells ask when a key was pressed",
		"example: h2ofleet __complete -- status d\n", cmd_complete},
};
const size_t cli_n_commands = ARRAY_SIZE(cli_commands);
