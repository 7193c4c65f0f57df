/* Text for and from people: sizes, times, likely meant names, harmless output. */
#pragma once

#include "base/util.h"

/* "512m", "4g", "1t", "300k", plain bytes "1048576" -> bytes. Upper case too.
 * Returns 0, -EINVAL (not a size), -ERANGE (over UINT64_MAX). */
int text_parse_size(const char *s, uint64_t *bytes) _must_check_;

/* "250ms", "10s", "5m", "1h", "2d" -> milliseconds; the unit is required, save for "0".
 * Returns 0, -EINVAL, -ERANGE. */
int text_parse_duration(const char *s, uint64_t *ms) _must_check_;

/* A whole decimal number with an optional sign. Returns 0, -EINVAL, -ERANGE. */
int text_parse_int(const char *s, int64_t *value) _must_check_;

/* The shortest exact form that parses back: "4g", "90s", "1500ms". Owned by the caller. */
char *text_format_size(uint64_t bytes);
char *text_format_duration(uint64_t ms);

/* For display: "1.5 GB" (powers of 1024), "3m 12s". Owned by the caller. */
char *text_human_size(uint64_t bytes);
char *text_human_duration(uint64_t ms);

/* Of `n` names the only one that begins with `s`, else the one most like it, or NULL when none is
 * near enough to be worth suggesting. */
const char *text_nearest(const char *s, const char *const *names, size_t n);

/* Where the last `lines` lines of `n` bytes begin; an unfinished last one counts. With `cut` the
 * bytes may begin in the middle of a line, which is left out unless it is all there is. */
size_t text_last_lines(const char *s, size_t n, size_t lines, bool cut);

/* A copy in which bytes that a terminal might obey (C0 but tab, DEL, C1 and broken UTF-8) stand as
 * \xNN; newline becomes "\n" in two characters. Owned by the caller. */
char *text_visible(const char *s, size_t n);

/* A copy with U+FFFD for each byte that is no UTF-8. Owned by the caller. */
char *text_utf8(const char *s);
