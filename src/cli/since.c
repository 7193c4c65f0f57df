#include "cli/since.h"

#include <string.h>
#include <time.h>

#include "base/text.h"

bool since_read(const char *s, uint64_t now_ms, uint64_t *since_ms)
{
	static const struct {
		const char *format;
		bool has_day, utc;
	} formats[] = {
		{"%Y-%m-%dT%H:%M:%SZ", true, true},
		{"%Y-%m-%dT%H:%M:%S", true, false},
		{"%Y-%m-%d %H:%M:%S", true, false},
		{"%Y-%m-%dT%H:%M", true, false},
		{"%Y-%m-%d %H:%M", true, false},
		{"%Y-%m-%d", true, false},
		{"%H:%M:%S", false, false},
		{"%H:%M", false, false},
	};
	time_t now = (time_t)(now_ms / 1000);
	uint64_t ago;

	if (text_parse_duration(s, &ago) == 0) {
		*since_ms = now_ms - MIN(ago, now_ms);
		return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct tm tm = {.tm_isdst = -1}, today;
		const char *end;
		time_t t;

		localtime_r(&now, &today);
		if (!formats[i].has_day) {
			tm = today;
			tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
			tm.tm_isdst = -1;
		}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		end = strptime(s, formats[i].format, &tm);
#pragma GCC diagnostic pop
		if (!end || *end)
			continue;
		t = formats[i].utc ? timegm(&tm) : mktime(&tm);
		if (!formats[i].has_day && t > now) {
			tm.tm_mday--; /* yesterday's */
			tm.tm_isdst = -1;
			t = mktime(&tm);
		}
		*since_ms = (uint64_t)MAX(t, (time_t)0) * 1000;
		return true;
	}
	return false;
}
