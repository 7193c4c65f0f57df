#include "conf/conf.h"

#include "conf/keys.h"

void conf_add_place(
	struct conf *c, const char *cloud, const struct key *k, const char *file, unsigned line)
{
	c->places = xreallocarray(c->places, c->n_places + 1, sizeof(*c->places));
	c->places[c->n_places++] = (struct conf_place){
		.cloud = xstrdup_null(cloud), .key = k->name, .file = xstrdup(file), .line = line};
}

const struct conf_place *conf_find_place(const struct conf *c, const char *cloud, const char *key)
{
	for (size_t i = 0; i < c->n_places; i++)
		if (c->places[i].key == key && streq_null(c->places[i].cloud, cloud))
			return &c->places[i];
	return NULL;
}

void conf_take_places(struct conf *to, struct conf *from)
{
	conf_free_places(to);
	to->places = TAKE_PTR(from->places);
	to->n_places = from->n_places;
	from->n_places = 0;
}

void conf_free_places(struct conf *c)
{
	for (size_t i = 0; i < c->n_places; i++) {
		free(c->places[i].cloud);
		free(c->places[i].file);
	}
	free(TAKE_PTR(c->places));
	c->n_places = 0;
}
