/* GET /v1/openapi.json: the protocol described, as it stands in openapi.json beside this file. */
#include "api/routes.h"

static const unsigned char document[] = {
#include "api/openapi.inc"
	'\0',
};

void handle_openapi(struct request *rq)
{
	rq->status = MHD_HTTP_OK;
	rq->fixed = (const char *)document;
}
