/* What locks a cloud, asked of fresh nodes of the released 3.46.0.12: nearly everything, since H2O
 * numbers the class of each answer in the cloud's common table, and that locks. */
#include "cli/h2o.h"

static const struct {
	const char *methods; /* "GET" serves HEAD, too */
	const char *path;    /* a '*' at its end: all below it */
} harmless[] = {
	{"GET", "/"},
	{"GET", "/3/Cloud"},
	{"GET", "/3/Cloud.json"},
	{"GET", "/3/About"},
	{"GET", "/3/Typeahead/files"},
	{"GET", "/flow/*"},
	{"GET POST PUT DELETE", "/3/NodePersistentStorage/*"},
};

static bool is_one_of(const char *method, const char *methods)
{
	size_t len = strlen(method);

	for (const char *p = methods; *p; p += strcspn(p, " "), p += *p == ' ')
		if (strcspn(p, " ") == len && strncmp(p, method, len) == 0)
			return true;
	return false;
}

bool h2o_locks(const char *method, const char *path)
{
	size_t len = strcspn(path, "?#");

	if (streq(method, "HEAD")) /* all others are 404 */
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++) {
		const char *pattern = harmless[i].path;
		size_t n = strlen(pattern);
		bool below = pattern[n - 1] == '*';

		if (!is_one_of(method, harmless[i].methods))
			continue;
		if (below ? len >= n - 1 && strncmp(path, pattern, n - 1) == 0
			  : len == n && strncmp(path, pattern, n) == 0)
			return false;
	}
	return true;
}
