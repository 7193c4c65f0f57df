/* What H2O prints, in its format and order (recorded from 3.46.0.12). */
#include "fake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <time.h>

#include "base/clock.h"

static void write_all(int fd, const char *s, size_t len)
{
	while (len > 0) {
		ssize_t r = write(fd, s, len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return;
		s += r;
		len -= (size_t)r;
	}
}

void console_puts(const struct node *n, const char *text)
{
	(void)n;
	write_all(STDOUT_FILENO, text, strlen(text));
}

static enum level threshold(const struct node *n)
{
	static const char *const names[] = {"TRACE", "DEBUG", "INFO", "WARN", "ERRR", "FATAL"};

	for (size_t i = 0; i < ARRAY_SIZE(names) && n->h2o.log_level; i++)
		if (streq(names[i], n->h2o.log_level))
			return (enum level)i;
	return LVL_INFO;
}

static void timestamp(char *buf, size_t size, const char *fmt)
{
	uint64_t now = clock_wall_ms();
	time_t s = (time_t)(now / 1000);
	struct tm tm;
	size_t len;

	localtime_r(&s, &tm);
	/* The formats are literals of this file. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	len = strftime(buf, size, fmt, &tm);
#pragma GCC diagnostic pop
	snprintf(buf + len, size - len, ".%03u", (unsigned)(now % 1000));
}

/* "MM-dd HH:mm:ss.SSS <ip:port, 22><pid, 6> <thread, 10> <LEVEL, 5> water.default: msg" */
void console_vlog(
	const struct node *n, enum level level, const char *thread, const char *fmt, va_list ap)
{
	static const char *const names[] = {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"};
	struct strbuf line = STRBUF_NULL;
	char when[32], where[32];
	_cleanup_free_ char *msg = xvasprintf(fmt, ap);

	if (level < threshold(n))
		return;
	timestamp(when, sizeof(when), "%m-%d %H:%M:%S");
	snprintf(where, sizeof(where), "%s:%d", inet_ntoa(n->ip), n->port);
	strbuf_printf(&line, "%s %-22s%-6d %10.10s %5s water.default: %s\n", when, where, getpid(),
		thread, names[level], msg);
	write_all(STDOUT_FILENO, line.s, line.len);
	if (level >= LVL_ERROR)
		write_all(STDERR_FILENO, line.s, line.len);
	if (n->log_fd >= 0)
		write_all(n->log_fd, line.s, line.len);
	strbuf_free(&line);
}

void console_log(const struct node *n, enum level level, const char *thread, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	console_vlog(n, level, thread, fmt, ap);
	va_end(ap);
}

#define INFO(...) console_log(n, LVL_INFO, "main", __VA_ARGS__)

/* Before H2O's own logging there is log4j's default, on the console. */
static void early(const struct node *n, const char *text)
{
	char when[32];
	_cleanup_free_ char *line = NULL;

	timestamp(when, sizeof(when), "%H:%M:%S");
	line = xasprintf("%s [main] INFO  %s\n", when, text);
	console_puts(n, line);
}

void console_loaded_library(const struct node *n)
{
	_cleanup_free_ char *text = NULL;

	if (!n->native_lib)
		return;
	text = xasprintf("hex.tree.xgboost.util.NativeLibrary - Loaded library from "
			 "lib/linux_64/libxgboost4j_gpu.so (%s)",
		n->native_lib);
	early(n, text);
}

void console_jetty(const struct node *n)
{
	_cleanup_free_ char *text = NULL;

	text = xasprintf("org.eclipse.jetty.server.AbstractConnector - Started "
			 "ServerConnector@403f0a22{HTTP/1.1, (http/1.1)}{%s:%d}",
		inet_ntoa(n->web_ip), n->port);
	early(n, "org.eclipse.jetty.server.Server - jetty-9.4.57.v20241219; built: "
		 "2025-01-08T21:24:30.412Z; git: df524e6b29271c2e09ba9aea83c18dc9db464a31; jvm "
		 "17.0.15+6-Debian-1deb12u1");
	early(n, text);
}

static char *joined(const struct strv *l)
{
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "[");
	for (size_t i = 0; i < l->n; i++)
		strbuf_printf(&b, "%s%s", i ? ", " : "", l->v[i]);
	strbuf_puts(&b, "]");
	return strbuf_take(&b);
}

void console_started(const struct node *n)
{
	_cleanup_free_ char *args = joined(&n->h2o.args), *jvm = joined(&n->jvm.args);
	char host[65] = "localhost";

	gethostname(host, sizeof(host) - 1);
	INFO("----- H2O started  -----");
	INFO("Build git branch: %s", FAKE_H2O_BRANCH);
	INFO("Build git hash: %s", FAKE_H2O_HASH);
	INFO("Build git describe: %s", FAKE_H2O_DESCRIBE);
	INFO("Build project version: %s", FAKE_H2O_VERSION);
	INFO("Build age: %s", FAKE_H2O_BUILD_AGE);
	INFO("Built by: 'root'");
	INFO("Built on: '%s'", FAKE_H2O_BUILT_ON);
	INFO("Found H2O Core extensions: [XGBoost, KrbStandalone, Infogram]");
	INFO("Processed H2O arguments: %s", args);
	INFO("Java availableProcessors: %ld", sysconf(_SC_NPROCESSORS_ONLN));
	INFO("Java heap maxMemory: %.1f MB", (double)(n->jvm.xmx ? n->jvm.xmx : 1 << 30) / 1048576);
	INFO("Java version: Java %s (from fakejava)", n->jvm.version);
	INFO("JVM launch parameters: %s", jvm);
	INFO("JVM process id: %d@%s", getpid(), host);
	INFO("X-h2o-cluster-id: %llu", (unsigned long long)n->start_wall);
	INFO("Possible IP Address: lo (lo), 127.0.0.1");
	if (!n->h2o.web_ip)
		console_log(n, LVL_WARN, "main",
			"SECURITY_WARNING: web_ip is not specified. H2O Rest API is listening on "
			"all available interfaces.");
}

void console_bound(const struct node *n)
{
	const struct h2o_options *o = &n->h2o;
	const char *ip = inet_ntoa(n->ip);

	INFO("H2O node running in unencrypted mode.");
	INFO("Internal communication uses port: %d", n->internal_port);
	if (!o->disable_web)
		INFO("Listening for HTTP and REST traffic on http://%s:%d%s/", ip, n->port,
			o->context_path);
	if (o->flatfile && access(o->flatfile, R_OK) == 0)
		INFO("H2O cloud name: '%s' on /%s:%d, static configuration based on -flatfile %s",
			o->name, ip, n->port, o->flatfile);
	else
		INFO("H2O cloud name: '%s' on /%s:%d, discovery address /225.26.81.89:58163",
			o->name, ip, n->port);
	INFO("If you have trouble connecting, try SSH tunneling from your local machine (e.g., via "
	     "port 55555):");
	INFO("  1. Open a terminal and run 'ssh -L 55555:localhost:%d root@%s'", n->port, ip);
	INFO("  2. Point your browser to http://localhost:55555");
	INFO("Log dir: '%s'", o->log_dir);
}

void console_ready(const struct node *n)
{
	const struct h2o_options *o = &n->h2o;
	const char *ip = inet_ntoa(o->web_ip ? n->web_ip : n->ip);

	INFO("Registered 3 core extensions in: 30ms");
	INFO("XGBoost supported backends: [WITH_GPU, WITH_OMP]");
	INFO("Registered: 295 REST APIs in: 12ms");
	INFO("Registered: 336 schemas in 7ms");
	INFO("H2O started in %llums", (unsigned long long)(n->ready_at - n->start));
	INFO("%s", "");
	if (!o->disable_web)
		INFO("%s http://%s:%d%s",
			o->disable_flow ? "Connect to H2O from your R/Python client:"
					: "Open H2O Flow in your web browser:",
			ip, n->port, o->context_path);
	INFO("%s", "");
}

void console_thread_dump(const struct node *n)
{
	struct strbuf b = STRBUF_NULL;
	char when[32];

	timestamp(when, sizeof(when), "%Y-%m-%d %H:%M:%S");
	when[19] = 0;
	strbuf_printf(&b,
		"%s\nFull thread dump OpenJDK 64-Bit Server VM (%s+6-Debian-1deb12u1 mixed mode, "
		"sharing):\n\n",
		when, n->jvm.version);
	strbuf_puts(&b, "\"main\" #1 prio=5 os_prio=0 cpu=1200.10ms tid=0x00007f8bec0150e0 "
			"nid=0x1d3e in Object.wait()\n   java.lang.Thread.State: WAITING\n"
			"\tat java.lang.Object.wait(java.base@17.0.15/Native Method)\n\n"
			"\"VM Thread\" os_prio=0 cpu=12.69ms tid=0x00007f8bec138b90 nid=0x1d44 "
			"runnable\n\nJNI global refs: 16, weak refs: 0\n\nHeap\n"
			" garbage-first heap   total 65536K, used 51008K\n\n");
	write_all(STDOUT_FILENO, b.s, b.len);
	strbuf_free(&b);
}
