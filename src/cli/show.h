/* Clouds for people: words, tables, wrapped text. Everything that came over the wire goes through
 * text_visible() here. Pure: from JSON to a stream. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "base/strv.h"
#include "base/util.h"

/* A member as harmless text; NULL when it is null or absent. Owned by the caller. */
char *show_text(const json_t *obj, const char *key);
/* A number; `otherwise` when it is null or absent. */
int64_t show_int(const json_t *obj, const char *key, int64_t otherwise);
/* Of all objects of an array; null and absent ones count as 0. */
int64_t show_sum(const json_t *array, const char *key);
/* The same as a duration for people; "-" for null. Owned by the caller. */
char *show_duration(const json_t *obj, const char *key);
/* An ISO 8601 time in UTC as local time, "2026-11-22 22:40:15.123"; NULL: it is none. Owned by the
 * caller. */
char *show_time(const json_t *obj, const char *key);
/* "1.2/4.0G": used of a heap that has `left` bytes left; "-": unknown. Owned by the caller. */
char *show_heap(int64_t max, int64_t left);
/* "2/3": nodes up of all. Owned by the caller. */
char *show_nodes_up(const json_t *cloud);

/* At rest, and a connection to its gate's URL starts it. */
bool show_is_armed(const json_t *cloud);

/* Of the state of a cloud or a node: how its colour begins; "": none. */
const char *show_state_color(const char *state);

/* Columns that a text takes on a terminal. */
size_t show_columns(const char *s);

/* A table; cells[row * n_columns + column], the first row is the heading. With `color` the cells of
 * column `state_column` are coloured by their state. */
struct show_table {
	size_t n_columns;
	size_t n_rows;
	char **cells;
	size_t state_column;
	bool color;
};

/* One row; `widths` of show_widths(). Leaves blanks at the end out. */
void show_row(FILE *f, const struct show_table *t, const size_t *widths, size_t row);
void show_widths(const struct show_table *t, size_t *widths);
/* Cells row by row, the heading first. At most 16 columns. */
void show_grid(FILE *f, const struct strv *cells, size_t n_columns, size_t indent);

/* `text` in lines of at most `width` columns, each indented. Breaks at blanks only: a word, or a
 * URL, that is too long for a line sticks out. */
void show_wrapped(FILE *f, size_t width, size_t indent, const char *text);

/* All clouds, one line each; why one is not ready on a line of its own. */
void show_clouds(FILE *f, const json_t *clouds, size_t width, bool color);
/* One cloud's nodes, and how they ended last; with their last lines while that matters. */
void show_nodes(FILE *f, const json_t *cloud, size_t width, bool color);

/* "dev is ready at http://...", "dev is forming: reason". Owned by the caller. */
char *show_sentence(const json_t *cloud);
