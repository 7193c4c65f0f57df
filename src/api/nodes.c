/* GET /v1/clouds/NAME/nodes and /nodes/I. */
#include "api/routes.h"

#include "api/view.h"
#include "base/text.h"

bool request_node(struct request *rq, unsigned *node)
{
	const struct cloud *c = fleet_find(rq->api->fleet, rq->cloud_name);
	int64_t i;

	if (text_parse_int(rq->node_index, &i) == 0 && i >= 0 && (uint64_t)i < c->n_nodes) {
		*node = (unsigned)i;
		return true;
	}
	problem(rq, MHD_HTTP_NOT_FOUND, "no-such-node", "No such node",
		"cloud '%s' has no node '%s'; it has nodes 0 to %zu", rq->cloud_name,
		rq->node_index, c->n_nodes - 1);
	return false;
}

void handle_nodes(struct request *rq)
{
	const struct cloud *c = fleet_find(rq->api->fleet, rq->cloud_name);
	json_t *j = json_object(), *nodes = json_array();

	cloud_for_each_node (n, c)
		json_array_append_new(nodes, view_live_node(rq->api->fleet, c, n));
	json_object_set_new(j, "nodes", nodes);
	answer(rq, MHD_HTTP_OK, j);
}

void handle_node(struct request *rq)
{
	const struct cloud *c = fleet_find(rq->api->fleet, rq->cloud_name);
	unsigned node;

	if (request_node(rq, &node))
		answer(rq, MHD_HTTP_OK, view_live_node(rq->api->fleet, c, &c->nodes[node]));
}
